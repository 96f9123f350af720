package store

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// A Lock keeps a second daemon out of a directory for as long as its holder lives.
type Lock struct{ f *os.File }

// A LockedError says that another process holds the lock.
type LockedError struct {
	Path string
	PID  int // 0: it did not say
}

func (e *LockedError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("%s is held by another process", e.Path)
	}
	return fmt.Sprintf("%s is held by process %d", e.Path, e.PID)
}

// Lock takes the lock file name and writes this process's pid into it. The kernel lets go of it when the process
// ends, however it ends. A lock that is held is a *LockedError.
func (r *Root) Lock(name string) (*Lock, error) {
	f, err := r.root.OpenFile(name, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, r.fail("lock", name, err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, &LockedError{Path: r.Path(name), PID: readPID(f)}
		}
		return nil, r.fail("lock", name, err)
	}
	// On a full disk the lock holds all the same; only its holder's pid is not told.
	if err := f.Truncate(0); err == nil {
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return &Lock{f: f}, nil
}

// Holder tells which process holds the lock at path, 0 where it did not say; held is false where none does. To look is to hold it for a
// moment, as one of many.
func Holder(path string) (pid int, held bool, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return 0, false, err
	}
	defer f.Close()
	switch err := syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB); {
	case errors.Is(err, syscall.EWOULDBLOCK):
		return readPID(f), true, nil
	case err != nil:
		return 0, false, &os.PathError{Op: "lock", Path: path, Err: err}
	}
	return 0, false, nil
}

func readPID(f *os.File) int {
	b := make([]byte, 32)
	n, _ := f.ReadAt(b, 0)
	pid, err := strconv.Atoi(strings.TrimSpace(string(b[:n])))
	if err != nil || pid < 1 {
		return 0
	}
	return pid
}

// Close lets go of the lock. The file stays: removing it would let two processes hold two files of one name.
func (l *Lock) Close() error {
	return errors.Join(l.f.Truncate(0), l.f.Close())
}
