package qemu

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/halevm/hale/internal/hypervisor"
	"github.com/halevm/hale/internal/sandbox"
	"github.com/halevm/hale/internal/slack"
)

// startTimeout is how long QEMU may take to answer on its monitor.
const startTimeout = 10 * time.Second

// drainTimeout bounds the wait for what a QEMU that is gone said last.
const drainTimeout = time.Second

// A Driver starts QEMUs.
type Driver struct {
	path string
	box  sandbox.Confinement
	log  *slog.Logger
	tsc  reading // as the driver was made
}

// New returns a driver that runs the binary at path, confined by the layers that box has; the rules are the driver's own.
func New(path string, box sandbox.Confinement, log *slog.Logger) *Driver {
	d := &Driver{path: path, box: box, log: log}
	d.tsc, _ = readTSC()
	return d
}

// Start starts a machine and returns when QEMU answers on its monitor. An error has QEMU's own words, and leaves no process.
//
// QEMU dies with the process that called Start: the kernel kills it (PR_SET_PDEATHSIG). What the kernel watches is the
// thread that made the child, so that thread belongs to this machine until QEMU is gone.
func (d *Driver) Start(ctx context.Context, c hypervisor.Config, f hypervisor.Files) (hypervisor.VM, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, fmt.Errorf("qemu: monitor: %w", err)
	}
	defer theirs.Close()
	vm := &VM{events: make(chan hypervisor.Event, 16), done: make(chan struct{})}
	if c.Accel == hypervisor.TCG {
		c.Cmdline = strings.TrimSpace(c.Cmdline + " " + d.tsc.tscCmdline())
	}
	cmd := exec.Command(d.path)
	numbers := inherit(cmd, f, theirs)
	cmd.Args = append(cmd.Args, argv(c, numbers)...)
	box := d.box
	box.Rules, box.Reopen, box.MaxFile = Rules(d.path), []int{numbers.kernel, numbers.initrd}, sizeOf(f.Upper)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/"}
	cmd.Stderr = &vm.stderr
	cmd.WaitDelay = drainTimeout
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	vm.cmd = cmd
	vm.qmp = newQMP(ours, vm.event)
	release, err := box.Prepare(cmd)
	if err != nil {
		vm.qmp.close()
		return nil, fmt.Errorf("start %s: %w", d.path, err)
	}
	if err := vm.launch(); err != nil {
		release()
		vm.qmp.close()
		return nil, fmt.Errorf("start %s: %w", d.path, err)
	}
	theirs.Close()
	if err := d.begin(release); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", d.path, err), vm.Kill())
	}

	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("no answer on the monitor within %v", startTimeout))
	defer cancel()
	if err := vm.qmp.ready(ctx); err != nil {
		if killErr := vm.Kill(); killErr != nil {
			return nil, errors.Join(err, killErr)
		}
		if words := vm.stderr.String(); words != "" {
			return nil, fmt.Errorf("qemu did not start: %s", words)
		}
		return nil, fmt.Errorf("qemu did not start: %w", err)
	}
	d.log.Debug("qemu runs", "pid", vm.PID())
	return vm, nil
}

// sizeOf is the size of a disk, which never changes.
func sizeOf(disk *os.File) int64 {
	if st, err := disk.Stat(); err == nil && st.Mode().IsRegular() {
		return st.Size()
	}
	return 0
}

// begin lets the process become QEMU, when this one has given up the capability that made its namespaces.
func (d *Driver) begin(release func() error) error {
	if d.box.Namespaces {
		if err := sandbox.DropCapabilities(); err != nil {
			release() // it is killed
			return err
		}
	}
	return release()
}

// inherit has cmd inherit the files and says which number each will have.
func inherit(cmd *exec.Cmd, f hypervisor.Files, monitor *os.File) fds {
	add := func(f *os.File) int {
		if f == nil {
			return 0
		}
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
		return 2 + len(cmd.ExtraFiles)
	}
	return fds{
		net: add(f.Net), control: add(f.Control), bulk: add(f.Bulk), output: add(f.Output), console: add(f.Console),
		qmp: add(monitor), lower: add(f.Lower), upper: add(f.Upper), kernel: add(f.Kernel), initrd: add(f.Initrd),
	}
}

// A VM is one QEMU.
type VM struct {
	cmd    *exec.Cmd
	qmp    *qmp
	stderr words
	events chan hypervisor.Event
	killed atomic.Bool
	last   shutdown // written by the monitor's reader, read when that has ended

	done chan struct{} // closed when exit is set
	exit hypervisor.Exit
}

// shutdown is what QEMU says of its own end (ShutdownCause in qapi/run-state.json).
type shutdown struct {
	Guest  bool   `json:"guest"`
	Reason string `json:"reason"` // "guest-shutdown", "guest-reset", "host-signal", …
}

// launch starts the process from a thread that lives as long as it does.
func (vm *VM) launch() error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()                           // and never unlocked: the thread ends with this goroutine
		err := slack.Start(slack.Ordinary, vm.cmd.Start) // a guest's timers are not to be late because the shim's may be
		started <- err
		if err != nil {
			return
		}
		vm.finish(vm.cmd.Wait())
	}()
	return <-started
}

// finish reads how the process ended, with what it said last.
func (vm *VM) finish(err error) {
	select {
	case <-vm.qmp.done: // its end of the socket is gone, so the reader comes to the end of file
	case <-time.After(drainTimeout):
	}
	vm.qmp.close()
	vm.exit = vm.exitOf(err)
	close(vm.events)
	close(vm.done)
}

func (vm *VM) exitOf(err error) hypervisor.Exit {
	state := vm.cmd.ProcessState
	if state == nil {
		return hypervisor.Exit{Code: -1, Error: fmt.Sprintf("wait for qemu: %v", err)}
	}
	e := hypervisor.Exit{Guest: vm.last.Guest, Code: state.ExitCode()}
	words := vm.stderr.String()
	status := state.Sys().(syscall.WaitStatus)
	switch {
	case status.Signaled() && vm.killed.Load():
	case status.Signaled():
		e.Signal, e.Error = unix.SignalName(status.Signal()), words
	case vm.last.Reason == "host-signal":
		// It ends in order and with code 0 at SIGTERM, SIGINT and SIGHUP, and says who sent it.
		e.Signal, e.Error = signalIn(words), words
	case e.Code > 0:
		e.Error = fmt.Sprintf("exit code %d", e.Code)
		if words != "" {
			e.Error += ": " + words
		}
	}
	return e
}

// signalIn finds the signal in "terminating on signal 15 from pid 7 (kill)".
func signalIn(words string) string {
	const before = "terminating on signal "
	n := unix.SIGTERM // what it is for whoever does not say otherwise
	if i := strings.LastIndex(words, before); i >= 0 {
		fmt.Sscan(words[i+len(before):], &n)
	}
	return unix.SignalName(n)
}

// event turns QEMU's events into ours. The others are of no interest.
func (vm *VM) event(name string, data json.RawMessage, at time.Time) {
	e := hypervisor.Event{Time: at}
	switch name {
	case "SHUTDOWN":
		var s shutdown
		if json.Unmarshal(data, &s) != nil {
			s = shutdown{} // not known to be the guest's doing
		}
		vm.last = s
		e.Kind, e.Guest = hypervisor.ShutDown, s.Guest
		if s.Reason == "guest-reset" {
			e.Kind = hypervisor.Reset
		}
	case "GUEST_PANICKED":
		e.Kind, e.Guest = hypervisor.Panicked, true
	case "VSERPORT_CHANGE":
		var port struct {
			ID   string `json:"id"`
			Open bool   `json:"open"`
		}
		if json.Unmarshal(data, &port) != nil || port.ID != portID("control") {
			return
		}
		e.Kind, e.Guest = hypervisor.ControlClosed, true
		if port.Open {
			e.Kind = hypervisor.ControlOpened
		}
	case "BLOCK_IO_ERROR":
		// Every write under way may fail at once: they must not take the room of what comes once.
		var failed struct {
			Action  string `json:"action"`
			NoSpace bool   `json:"nospace"`
		}
		if json.Unmarshal(data, &failed) != nil || failed.Action != "stop" || !failed.NoSpace || len(vm.events) >= cap(vm.events)/2 {
			return
		}
		e.Kind = hypervisor.NoSpace
	default:
		return
	}
	select {
	case vm.events <- e:
	default: // a machine ends once: what comes after so many says nothing new
	}
}

// PID is the process's id.
func (vm *VM) PID() int { return vm.cmd.Process.Pid }

// Events delivers what the machine did.
func (vm *VM) Events() <-chan hypervisor.Event { return vm.events }

// Done is closed when the process is gone and everything that it said has been read.
func (vm *VM) Done() <-chan struct{} { return vm.done }

// Wait waits for Done and says how it ended.
func (vm *VM) Wait() hypervisor.Exit {
	<-vm.done
	return vm.exit
}

// Kill ends the process at once and returns when it is gone.
func (vm *VM) Kill() error {
	vm.killed.Store(true)
	if err := vm.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill qemu: %w", err)
	}
	<-vm.done
	return nil
}

// Pause stops the guest.
func (vm *VM) Pause() error { return vm.command("stop") }

// Resume lets it go on.
func (vm *VM) Resume() error { return vm.command("cont") }

func (vm *VM) command(name string) error {
	ctx, cancel := context.WithTimeoutCause(context.Background(), startTimeout, errors.New("qemu does not answer"))
	defer cancel()
	return vm.qmp.execute(ctx, name, nil, nil)
}

// words keeps the last of what QEMU says on its standard error.
type words struct {
	mu  sync.Mutex
	buf []byte
}

const maxWords = 4 << 10

func (w *words) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf = append(w.buf, p...)
	if over := len(w.buf) - maxWords; over > 0 {
		w.buf = append(w.buf[:0], w.buf[over:]...)
	}
	return len(p), nil
}

func (w *words) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.ToValidUTF8(string(bytes.TrimSpace(w.buf)), "?")
}

func socketPair() (net.Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "monitor"), os.NewFile(uintptr(fds[1]), "monitor")
	defer ours.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return conn, theirs, nil
}
