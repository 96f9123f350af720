package health

import (
	"context"
	"sync"
)

// A Set is the loops of all instances.
type Set struct {
	config Config
	mu     sync.Mutex
}

// NewSet returns an empty set.
func NewSet(c Config) *Set { return &Set{config: c} }

// Sync takes what the controller knows of one instance now.
func (s *Set) Sync(o Observed) {}

// Forget ends the loop of an instance that was deleted.
func (s *Set) Forget(id string) {}

// Snapshot returns what was published last.
func (s *Set) Snapshot(id string) (Snapshot, bool) { return Snapshot{}, false }

// CheckNow joins the probe in flight, or runs one.
func (s *Set) CheckNow(ctx context.Context, id string) (WindowResult, error) {
	return WindowResult{}, ErrUnknown
}

// Ask asks for a probe at once and does not wait for it.
func (s *Set) Ask(id string) {}

// Changed is closed at the next published change.
func (s *Set) Changed(id string) <-chan struct{} { return nil }

// Watched is the number of instances that are active and have a policy.
func (s *Set) Watched() int { return 0 }

// Close ends all loops and saves.
func (s *Set) Close(ctx context.Context) error { return nil }
