package shim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A process is a process that may be somebody else's child: it is held by a pidfd, so that what is killed or waited for is
// never another one that was given the same pid later.
type process struct {
	pid int
	fd  *os.File
}

var errOtherProcess = errors.New("the process with this id is another one")

// openProcess takes hold of pid, which must have begun at startTime (clock ticks after boot; 0: any).
func openProcess(pid int, startTime uint64) (process, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return process{}, fmt.Errorf("process %d: %w", pid, err)
	}
	p := process{pid: pid, fd: os.NewFile(uintptr(fd), "pidfd")}
	if startTime != 0 {
		t, err := startTimeOf(pid)
		if err == nil && t != startTime {
			err = errOtherProcess
		}
		if err != nil {
			p.close()
			return process{}, fmt.Errorf("process %d: %w", pid, err)
		}
	}
	return p, nil
}

func (p process) close() { p.fd.Close() }

// kill sends SIGKILL; a process that has ended already is no error, also where nobody holds it any more.
func (p process) kill() error {
	raw, err := p.fd.SyscallConn()
	var killErr error
	if err == nil {
		err = raw.Control(func(fd uintptr) { killErr = unix.PidfdSendSignal(int(fd), unix.SIGKILL, nil, 0) })
	}
	if err != nil && !errors.Is(err, os.ErrClosed) {
		return err
	}
	if errors.Is(killErr, unix.ESRCH) {
		return nil
	}
	return killErr
}

// wait returns when the process has ended (it may still be a zombie of its parent) or ctx is done.
func (p process) wait(ctx context.Context) error {
	raw, err := p.fd.SyscallConn()
	if err != nil {
		return err
	}
	p.fd.SetReadDeadline(time.Time{}) // that of an earlier wait is over
	over := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { p.fd.SetReadDeadline(aLongTimeAgo); close(over) })
	defer func() {
		if !stop() {
			<-over
		}
	}()
	// A pidfd is readable once its process has ended.
	err = raw.Read(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return n > 0 || err != nil && !errors.Is(err, unix.EINTR)
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// startTimeOf reads when a process began, in clock ticks after boot (proc(5), field 22 of stat).
func startTimeOf(pid int) (uint64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The second field is the command in parentheses, and may hold anything.
	rest := b[bytes.LastIndexByte(b, ')')+1:]
	fields := strings.Fields(string(rest))
	if len(fields) < 20 {
		return 0, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	return strconv.ParseUint(fields[19], 10, 64)
}

// isShim reports whether the process's command line is that of the shim of instance id.
func isShim(pid int, id string) (bool, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil && !gone(err) {
		return false, err
	}
	args := strings.Split(strings.TrimRight(string(b), "\x00"), "\x00")
	return len(args) >= 3 && args[1] == Command && args[2] == id, nil
}

// bootID tells one boot of the host from another.
func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b)), err
}
