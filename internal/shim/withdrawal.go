package shim

import (
	"context"
	"sync"
	"time"
)

// A withdrawal is the context of one request: done when it is withdrawn, when its connection ends, or when it was answered. What a
// context costs that has a parent and a channel would be felt where a request is a probe: nearly none is withdrawn, and few ask for the
// channel.
type withdrawal struct {
	mu    sync.Mutex
	err   error
	done  chan struct{} // closed with err; nil: nobody asked
	after []*func()     // called with err
}

// end is called when it is so; again, it does nothing.
func (w *withdrawal) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return
	}
	w.err = context.Canceled
	if w.done != nil {
		close(w.done)
	}
	for _, do := range w.after {
		go (*do)()
	}
	w.after = nil
}

// Deadline is a method of context.Context, as the next three are.
func (w *withdrawal) Deadline() (time.Time, bool) { return time.Time{}, false }

// Done returns a channel that is closed when it is so.
func (w *withdrawal) Done() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.done == nil {
		w.done = make(chan struct{})
		if w.err != nil {
			close(w.done)
		}
	}
	return w.done
}

// Err returns why it is so; nil while it is not.
func (w *withdrawal) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// Value returns nothing: it holds none.
func (w *withdrawal) Value(any) any { return nil }

// AfterFunc has do called, in a goroutine of its own, when it is so; stop takes that back, as context.AfterFunc's does. Package context
// knows this method too.
func (w *withdrawal) AfterFunc(do func()) (stop func() bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		go do()
		return func() bool { return false }
	}
	entry := &do
	w.after = append(w.after, entry)
	return func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		for i, e := range w.after {
			if e == entry {
				w.after = append(w.after[:i], w.after[i+1:]...)
				return true
			}
		}
		return false
	}
}
