package shim

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/logfile"
	"github.com/halevm/hale/internal/machine"
	"github.com/halevm/hale/internal/sandbox"
	"github.com/halevm/hale/internal/shim/protocol"
	"github.com/halevm/hale/internal/store"
)

// Names below a machine's directory. The record lies beside that directory, where only the daemon writes.
const (
	recordName = "shim.json"
	socketName = "run/shim.sock"
	exitName   = "run/exit.json"
	stderrName = "run/shim.stderr"
	upperName  = "rw.ext4"
	logDirName = "log"
	runDirName = "run"
)

const maxExitFile = 64 << 10

// A record is what the daemon wrote down about a shim before the shim did anything: enough to find it again, to be
// sure that it is the same process, and to be let in.
type record struct {
	PID       int            `json:"pid"`
	StartTime uint64         `json:"start_time"` // clock ticks after boot, field 22 of /proc/PID/stat
	BootID    string         `json:"boot_id"`
	Secret    string         `json:"secret"`
	Build     string         `json:"build"`
	UID       uint32         `json:"uid,omitempty"` // 0: the daemon's own
	Ports     []machine.Port `json:"ports,omitempty"`
}

// runDir is the daemon's view of one machine's directory. What a shim wrote there is read without following links.
type runDir struct {
	path string // of vm/, absolute
}

func (d *runDir) recordPath() string { return filepath.Join(filepath.Dir(d.path), recordName) }

func (d *runDir) writeRecord(r record) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := store.WriteFile(d.recordPath(), b, 0o600); err != nil {
		return fmt.Errorf("record the shim: %w", err)
	}
	return nil
}

func (d *runDir) readRecord() (record, error) {
	var r record
	b, err := os.ReadFile(d.recordPath())
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("%s: %w: %w", d.recordPath(), err, errNoRecord)
	}
	return r, nil
}

// errNoRecord is a record that makes no sense.
var errNoRecord = errors.New("it is no record of a shim")

// find takes hold of the shim of instance id. An error of kind api.NotFound: it is gone; the *Ended that it wraps says how.
func (d *runDir) find(id string) (record, process, error) {
	r, err := d.readRecord()
	if errors.Is(err, fs.ErrNotExist) {
		if e, ok := d.left(); ok { // the daemon that was told of it died before it could say so
			return r, process{}, &Ended{Exit: e}
		}
		return r, process{}, fmt.Errorf("no shim is on record: %w", api.NotFound)
	}
	if errors.Is(err, errNoRecord) { // and will make none later
		return d.search(id)
	}
	if err != nil {
		return r, process{}, err
	}
	ended := func() error {
		d.clean()
		return &Ended{Exit: d.exit(r)}
	}
	boot, err := bootID()
	if err != nil {
		return r, process{}, err
	}
	if boot != r.BootID {
		return r, process{}, ended()
	}
	proc, err := openProcess(r.PID, r.StartTime)
	if gone(err) {
		return r, process{}, ended()
	}
	if err != nil {
		return r, process{}, fmt.Errorf("look for the shim: %w", err)
	}
	shim, err := isShim(r.PID, id)
	switch {
	case err != nil:
		err = fmt.Errorf("look at the shim: %w", err)
	case !shim:
		err = ended()
	}
	if err != nil {
		proc.close()
		return r, process{}, err
	}
	return r, proc, nil
}

// search is find without a record: by the command line, which names the instance. Who is found so has no secret that is known, so it lets
// nobody in, and can only be killed.
func (d *runDir) search(id string) (record, process, error) {
	all, err := os.ReadDir("/proc")
	if err != nil {
		return record{}, process{}, err
	}
	for _, e := range all {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if shim, err := isShim(pid, id); err != nil {
			return record{}, process{}, fmt.Errorf("look for the shim: %w", err)
		} else if !shim {
			continue
		}
		proc, err := openProcess(pid, 0)
		if gone(err) {
			continue
		}
		if err != nil {
			return record{}, process{}, fmt.Errorf("look for the shim: %w", err)
		}
		if shim, err := isShim(pid, id); shim && err == nil { // and it is the process that is held now
			return record{PID: pid}, proc, nil
		}
		proc.close()
	}
	d.clean()
	e, ok := d.left()
	if !ok {
		const lost = "what was recorded of the process beside the machine cannot be read, and none runs"
		e = machine.Exit{Reason: machine.ShimDied, Message: lost, Time: time.Now()}
	}
	return record{}, process{}, &Ended{Exit: e}
}

// kill ends a shim, which takes its machine with it.
func (d *runDir) kill(ctx context.Context, r record, proc process) error {
	if err := proc.kill(); err != nil {
		return fmt.Errorf("kill shim %d: %w", r.PID, err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, deathTimeout, errors.New("it cannot be killed"))
	defer cancel()
	if err := proc.wait(ctx); err != nil {
		return fmt.Errorf("wait for the end of shim %d: %w", r.PID, err)
	}
	d.clean()
	return nil
}

// clean removes what makes sense only while the shim lives.
func (d *runDir) clean() {
	d.removeSocket()
	os.Remove(d.recordPath())
}

func (d *runDir) removeSocket() {
	vm, err := openDir(unix.AT_FDCWD, d.path)
	if err != nil {
		return
	}
	defer unix.Close(vm)
	run, err := openDir(vm, runDirName)
	if err != nil {
		return
	}
	defer unix.Close(run)
	unix.Unlinkat(run, filepath.Base(socketName), 0)
}

// openDir takes hold of a directory without following a link in its last element.
func openDir(at int, name string) (int, error) {
	fd, err := unix.Openat(at, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return fd, nil
}

// dial connects to the shim's socket and says hello. The path may be longer than a socket's address can be, and no
// link is followed: the address goes through a descriptor of the directory. The answer must come from the recorded process.
func (d *runDir) dial(ctx context.Context, r record, h protocol.Hello) (*net.UnixConn, protocol.Welcome, error) {
	conn, err := d.connect(ctx)
	if err != nil {
		return nil, protocol.Welcome{}, fmt.Errorf("connect to the shim: %w", err)
	}
	h.MinVersion, h.MaxVersion, h.Secret = protocol.MinVersion, protocol.MaxVersion, r.Secret
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	w, err := greet(conn, r, h)
	if !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		conn.Close()
		return nil, protocol.Welcome{}, err
	}
	return conn, w, nil
}

func (d *runDir) connect(ctx context.Context) (*net.UnixConn, error) {
	vm, err := openDir(unix.AT_FDCWD, d.path)
	if err != nil {
		return nil, err
	}
	defer unix.Close(vm)
	dir, err := openDir(vm, runDirName)
	if err != nil {
		return nil, err
	}
	defer unix.Close(dir)
	name := fmt.Sprintf("/proc/self/fd/%d/%s", dir, filepath.Base(socketName))
	if st, err := os.Lstat(name); err != nil {
		return nil, err
	} else if st.Mode().Type() != fs.ModeSocket {
		return nil, fmt.Errorf("%s is not a socket", socketName)
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", name)
	if err != nil {
		return nil, err
	}
	return conn.(*net.UnixConn), nil
}

// errVersion is a shim that was made by another hale, and speaks no version of the protocol that this one does.
var errVersion = fmt.Errorf("no version of the protocol in common: %w", api.Unsupported)

func greet(conn *net.UnixConn, r record, h protocol.Hello) (protocol.Welcome, error) {
	var w protocol.Welcome
	cred, err := peer(conn)
	if err != nil {
		return w, fmt.Errorf("look at the shim's socket: %w", err)
	}
	if uid := (sandbox.Identity{UID: r.UID}).HostUID(); int(cred.Pid) != r.PID || cred.Uid != uid {
		return w, fmt.Errorf("process %d of uid %d answers on the socket of shim %d of uid %d", cred.Pid, cred.Uid, r.PID, uid)
	}
	patience := handshakeTimeout
	if h.Role == protocol.RoleExec { // the answer comes when the guest's agent has given its own, or the shim has given it up
		patience += requestTimeout
	}
	conn.SetDeadline(time.Now().Add(patience))
	if err := protocol.WriteJSON(conn, protocol.KindHello, h); err != nil {
		return w, fmt.Errorf("greet the shim: %w", err)
	}
	if err := protocol.Expect(conn, protocol.KindWelcome, &w); err != nil {
		return w, fmt.Errorf("greet the shim: %w", err)
	}
	if w.Error != nil && errors.Is(w.Error, api.Unsupported) && h.Role == protocol.RoleControl { // which every version has
		return w, fmt.Errorf("%w: %w", w.Error, errVersion)
	}
	if w.Error != nil {
		return w, w.Error
	}
	if w.Version < h.MinVersion || w.Version > h.MaxVersion {
		return w, fmt.Errorf("the shim answers in version %d of the protocol, and was offered %d to %d: %w", w.Version, h.MinVersion, h.MaxVersion, errVersion)
	}
	return w, conn.SetDeadline(time.Time{})
}

// peer tells whose process is at the other end of conn.
func peer(conn *net.UnixConn) (*unix.Ucred, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	return cred, errors.Join(err, credErr)
}

// exit is how the machine ended according to what its shim left behind; without that, the shim died.
func (d *runDir) exit(r record) machine.Exit {
	if e, ok := d.left(); ok {
		return e
	}
	e := machine.Exit{
		Reason:  machine.ShimDied,
		Message: fmt.Sprintf("the process beside the machine (hale shim, pid %d) died, and the machine with it", r.PID),
		Time:    time.Now(),
	}
	if b, err := d.readFile(stderrName, maxExitFile); err == nil {
		if line, _, _ := strings.Cut(string(bytes.TrimSpace(b)), "\n"); line != "" {
			e.Message += ": " + line
		}
	}
	return e
}

// left is a shim's own word of how its machine ended, which stays until the next one is started.
func (d *runDir) left() (machine.Exit, bool) {
	var e machine.Exit
	b, err := d.readFile(exitName, maxExitFile)
	return e, err == nil && json.Unmarshal(b, &e) == nil && e.Reason != ""
}

// readFile reads a regular file of at most limit bytes that a shim wrote; it follows no link and waits for nothing.
func (d *runDir) readFile(name string, limit int64) ([]byte, error) {
	root, err := os.OpenRoot(d.path)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := logfile.OpenRegular(root, name, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit))
}

// awaitVMM waits until the hypervisor is gone, which ends by the kernel's hand when its shim does.
func (d *runDir) awaitVMM(pid int) {
	if pid == 0 {
		return
	}
	p, err := openProcess(pid, 0)
	if err != nil {
		return
	}
	defer p.close()
	// The pid may be another process's by now: only one that still is a child of the dead shim's session would be ours,
	// and the kernel kills that one by itself. So this waits, and never kills.
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	p.wait(ctx)
}

func newSecret() string { return rand.Text() }

// checkDir refuses a machine directory that is not the daemon's to write in.
func checkDir(path string) error {
	if !filepath.IsAbs(path) {
		return fmt.Errorf("the machine's directory %q is not absolute: %w", path, api.Internal)
	}
	return nil
}
