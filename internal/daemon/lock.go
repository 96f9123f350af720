package daemon

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/halevm/hale/internal/store"
)

// lockPatience is how long a lock may be held in the name of a daemon that has ended.
const lockPatience = 5 * time.Second

// lockFile is the lock's name in a data directory.
const lockFile = "lock"

// lockDir takes the data directory's lock. A daemon that was killed while it started a process leaves a child that has the lock's
// descriptor until its program begins, or until it finds that its parent has gone: that one is waited for, and so is who only looks (Find). Another
// daemon is not.
func lockDir(ctx context.Context, root *store.Root, dir string) (*store.Lock, error) {
	for deadline := time.Now().Add(lockPatience); ; {
		lock, err := root.Lock(lockFile)
		held, ok := errors.AsType[*store.LockedError](err)
		switch {
		case err == nil:
			return lock, nil
		case !ok:
			return nil, fmt.Errorf("the data directory: %w", err)
		case held.PID != 0 && !ended(held.PID) || time.Now().After(deadline):
			return nil, fmt.Errorf("another daemon (process %d) uses %s", held.PID, dir)
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// ended reports whether there is no such process.
func ended(pid int) bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }
