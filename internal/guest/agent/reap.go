package agent

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// children starts processes and takes their ends.
//
// PID 1 has to reap every orphan, and a wait for any child would steal the status of those that somebody waits for. So
// there is one place that waits, and a registry of those that are waited for. It first looks (WNOWAIT), which leaves a
// zombie and its pid in place, and then takes it under the lock that starts hold: a pid in the registry is never that of
// another process, neither when its status is handed on nor when it is sent a signal. Package os/exec, which waits by
// itself, is not used in this package. (A pidfd for each child would do as well, but orphans need the loop all the same.)
//
// An agent that is not PID 1 waits for its own children only, each on a goroutine.
type children struct {
	init bool
	mu   sync.Mutex
	of   map[int]*process
}

// A process is a child.
type process struct {
	c      *children
	pid    int
	done   chan struct{} // closed with status set
	status syscall.WaitStatus
}

func newChildren(init bool) *children { return &children{init: init, of: map[int]*process{}} }

// start starts a program. Its files are the child's from descriptor 0 on; they stay open here.
func (c *children) start(path string, argv []string, dir string, env []string, files []*os.File, sys *syscall.SysProcAttr) (*process, error) {
	fds := make([]uintptr, len(files))
	for i, f := range files {
		fds[i] = f.Fd()
		syscall.SetNonblock(int(fds[i]), false) // programs do not expect anything else
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	pid, _, err := syscall.StartProcess(path, argv, &syscall.ProcAttr{Dir: dir, Env: env, Files: fds, Sys: sys})
	if err != nil {
		return nil, err
	}
	p := &process{c: c, pid: pid, done: make(chan struct{})}
	c.of[pid] = p
	if !c.init {
		go func() {
			for {
				var info unix.Siginfo
				err := unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOWAIT, nil)
				if err != unix.EINTR {
					break
				}
			}
			c.reap(pid)
		}()
	}
	return p, nil
}

// reapAll takes every child that ends, until ctx is done.
func (c *children) reapAll(ctx context.Context) {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGCHLD)
	defer signal.Stop(ended)
	for {
		for pid := c.peek(); pid > 0; pid = c.peek() {
			c.reap(pid)
		}
		select {
		case <-ended:
		case <-ctx.Done():
			return
		}
	}
}

// peek returns a child that has ended, and leaves it as it is; 0: none has.
func (c *children) peek() int {
	for {
		var info unix.Siginfo
		switch err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOWAIT|unix.WNOHANG, nil); err {
		case nil:
			// x/sys does not name si_pid, the first field of the union that follows four 32-bit words (64-bit Linux).
			return int(*(*int32)(unsafe.Add(unsafe.Pointer(&info), 16)))
		case unix.EINTR:
		default: // ECHILD: no children
			return 0
		}
	}
}

// reap takes a child that has ended, and hands its status to who waits for it.
func (c *children) reap(pid int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var status syscall.WaitStatus
	if got, err := syscall.Wait4(pid, &status, syscall.WNOHANG, nil); err != nil || got != pid {
		return
	}
	if p := c.of[pid]; p != nil {
		delete(c.of, pid)
		p.status = status
		close(p.done)
	}
}

// signal sends a signal to the process, or to its process group, as long as it has not been reaped.
func (p *process) signal(sig syscall.Signal, group bool) error {
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	if p.c.of[p.pid] != p {
		return os.ErrProcessDone
	}
	if group {
		return syscall.Kill(-p.pid, sig)
	}
	return syscall.Kill(p.pid, sig)
}

// code is the exit code (128+n for signal n) and the signal's name, of a process that is done.
func (p *process) code() (int, string) {
	if p.status.Signaled() {
		sig := p.status.Signal()
		return 128 + int(sig), signalName(sig)
	}
	return p.status.ExitStatus(), ""
}
