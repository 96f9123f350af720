package shim

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"syscall"
	"time"

	"github.com/halevm/hale/internal/machine"
)

// silencePatience is how long a shim that runs may keep a daemon out, which asks again and again, before it is killed with its machine:
// nobody could ever stop that. A host that is busy, or asleep for a while, is no reason to lose one.
const silencePatience = 30 * time.Second

// silences are the shims that did not let the daemon in, since when.
type silences struct {
	mu    sync.Mutex
	since map[string]time.Time // by instance
}

// of returns how long that of instance id has been silent, and begins to count.
func (s *silences) of(id string) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	begun, ok := s.since[id]
	if !ok {
		if s.since == nil {
			s.since = make(map[string]time.Time)
		}
		begun = time.Now()
		s.since[id] = begun
	}
	return time.Since(begun)
}

func (s *silences) over(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.since, id)
}

// gone reports whether err says that a process is not there any more. Whatever else keeps us from looking says nothing.
func gone(err error) bool {
	return errors.Is(err, syscall.ESRCH) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, errOtherProcess)
}

// ours reports whether it is the daemon's own want that kept it from talking to a shim.
func ours(ctx context.Context, err error) bool {
	return ctx.Err() != nil || errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOMEM)
}

// silenced is how a machine ended whose shim was killed because it did not answer.
func (d *runDir) silenced(r record) machine.Exit {
	e := d.exit(r)
	if e.Reason == machine.ShimDied { // it left no word of its own
		e.Reason = machine.ShimFailed
		e.Message = fmt.Sprintf("the process beside the machine (hale shim, pid %d) did not answer for %v, and was killed with its machine", r.PID, silencePatience)
	}
	return e
}
