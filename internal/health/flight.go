package health

import (
	"context"
	"sync"
	"time"
)

// A flight is one probe, from the moment it is wanted. It is the context of its probe too: what a context costs that has a parent, a
// timer and a channel would be a good part of what a probe costs here. The loop's own timer ends one that takes too long, the loop ends
// with its context, and few ask for the channel.
type flight struct {
	policy *Policy // never changed
	crew   *crew
	turn   *turn     // of one that costs CPU to begin; nil: it needs none
	joined time.Time // since when it waited for its turn
	start  time.Time // zero: it waits for its turn
	until  time.Time // then it is overdue
	window uint64
	asked  bool
	cut    bool // its instance stopped, or its window ended: whatever it answers says nothing
	late   bool // it is overdue, and was told so
	answer Result

	mu    sync.Mutex
	err   error         // why its probe is to end; nil: it is not
	done  chan struct{} // closed with err; nil: nobody asked
	after []func()      // called with err; nil: taken back
}

// An endError is why a probe is to end: in words of our own, and of a kind that the users of a context know.
type endError struct {
	words string
	kind  error
}

func (e *endError) Error() string { return e.words }
func (e *endError) Unwrap() error { return e.kind }

var (
	errOverdue  error = &endError{"what probes for us did not answer in time", context.DeadlineExceeded}
	errCutShort error = &endError{"its instance stopped, or its window ended", context.Canceled}
	errLanded   error = &endError{"its probe is over", context.Canceled}
)

// end tells the probe to end. The first reason stays.
func (f *flight) end(why error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return
	}
	f.err = why
	if f.done != nil {
		close(f.done)
	}
	for _, do := range f.after {
		if do != nil {
			f.crew.do(jobFunc(do))
		}
	}
}

// Deadline is a method of context.Context, as the next three are.
func (f *flight) Deadline() (time.Time, bool) { return f.until, true }

// Done returns a channel that is closed when the probe is to end.
func (f *flight) Done() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.done != nil:
	case f.err != nil:
		f.done = closedChannel
	default:
		f.done = make(chan struct{})
	}
	return f.done
}

// Err returns why the probe is to end; nil while it is not.
func (f *flight) Err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// Value returns nothing: a flight holds none.
func (f *flight) Value(any) any { return nil }

// AfterFunc has do called, in a goroutine of its own, when the probe is to end; stop takes that back, as context.AfterFunc's does.
// Package context knows this method too.
func (f *flight) AfterFunc(do func()) (stop func() bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		f.crew.do(jobFunc(do))
		return func() bool { return false }
	}
	i := len(f.after)
	f.after = append(f.after, do)
	return func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.err != nil || f.after[i] == nil {
			return false
		}
		f.after[i] = nil
		return true
	}
}
