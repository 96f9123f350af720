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
)

// startTimeout is how long QEMU may take to answer on its monitor.
const startTimeout = 10 * time.Second

// A Driver starts QEMUs.
type Driver struct {
	path string
	log  *slog.Logger
}

// New returns a driver that runs the binary at path.
func New(path string, log *slog.Logger) *Driver { return &Driver{path: path, log: log} }

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
	cmd := exec.Command(d.path)
	numbers := inherit(cmd, f, theirs)
	cmd.Args = append(cmd.Args, argv(c, numbers)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/"}
	cmd.Stderr = &vm.stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	vm.cmd = cmd
	if err := vm.launch(); err != nil {
		ours.Close()
		return nil, fmt.Errorf("start %s: %w", d.path, err)
	}
	theirs.Close()
	vm.qmp = newQMP(ours, vm.event)
	go vm.follow()

	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("no answer on the monitor within %v", startTimeout))
	defer cancel()
	if err := vm.qmp.ready(ctx); err != nil {
		vm.Kill()
		if words := vm.stderr.String(); words != "" {
			return nil, fmt.Errorf("qemu did not start: %s", words)
		}
		return nil, fmt.Errorf("qemu did not start: %w", err)
	}
	d.log.Debug("qemu runs", "pid", vm.PID())
	return vm, nil
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
		qmp: add(monitor), lower: add(f.Lower), upper: add(f.Upper),
	}
}

// A VM is one QEMU.
type VM struct {
	cmd    *exec.Cmd
	qmp    *qmp
	stderr words
	events chan hypervisor.Event
	killed atomic.Bool

	done chan struct{} // closed when exit is set
	exit hypervisor.Exit
}

// launch starts the process from a thread that lives as long as it does.
func (vm *VM) launch() error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with this goroutine
		err := vm.cmd.Start()
		started <- err
		if err != nil {
			return
		}
		vm.exit = vm.exitOf(vm.cmd.Wait())
		close(vm.done)
	}()
	return <-started
}

// exitOf reads how the process ended.
func (vm *VM) exitOf(err error) hypervisor.Exit {
	var e hypervisor.Exit
	state := vm.cmd.ProcessState
	if state == nil {
		return hypervisor.Exit{Code: -1, Error: err.Error()}
	}
	e.Code = state.ExitCode()
	if status := state.Sys().(syscall.WaitStatus); status.Signaled() && !vm.killed.Load() {
		e.Signal = unix.SignalName(status.Signal())
	}
	if e.Code > 0 {
		e.Error = fmt.Sprintf("exit code %d", e.Code)
		if words := vm.stderr.String(); words != "" {
			e.Error += ": " + words
		}
	}
	return e
}

// follow ends the monitor with the process.
func (vm *VM) follow() {
	<-vm.done
	// What QEMU said last is in the socket still: the reader ends at its end of file.
	select {
	case <-vm.qmp.done:
	case <-time.After(time.Second):
	}
	vm.qmp.close()
	close(vm.events)
}

// event turns QEMU's events into ours. The others are of no interest.
func (vm *VM) event(name string, data json.RawMessage, at time.Time) {
	e := hypervisor.Event{Time: at}
	switch name {
	case "SHUTDOWN":
		var d struct {
			Guest  bool   `json:"guest"`
			Reason string `json:"reason"`
		}
		json.Unmarshal(data, &d) // what is missing is not the guest's doing
		e.Kind, e.Guest = hypervisor.ShutDown, d.Guest
		if d.Reason == "guest-reset" {
			e.Kind = hypervisor.Reset
		}
	case "GUEST_PANICKED":
		e.Kind, e.Guest = hypervisor.Panicked, true
	default:
		return
	}
	select {
	case vm.events <- e:
	default: // a machine ends once; a guest that makes more of it than fits is not listened to
	}
}

// PID is the process's id.
func (vm *VM) PID() int { return vm.cmd.Process.Pid }

// Events delivers what the machine did.
func (vm *VM) Events() <-chan hypervisor.Event { return vm.events }

// Done is closed when the process is gone.
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
