package daemon

import (
	"context"
	"sync"

	"github.com/halevm/hale/internal/instance"
)

// hintConsumer is the name of the controller that hands on the guests' hints.
const hintConsumer = "hints"

// A hint is a guest's word on the port that is checked.
type hint struct {
	port      uint16
	listening bool
}

// hints are the newest words of the guests' agents that health has not heard, one of each instance.
type hints struct {
	mu     sync.Mutex
	newest map[string]hint
	some   chan struct{} // a buffer of one
}

func newHints() *hints { return &hints{newest: make(map[string]hint), some: make(chan struct{}, 1)} }

// add never waits.
func (h *hints) add(id string, port uint16, listening bool) {
	h.mu.Lock()
	h.newest[id] = hint{port, listening}
	h.mu.Unlock()
	select {
	case h.some <- struct{}{}:
	default:
	}
}

func (h *hints) take() map[string]hint {
	h.mu.Lock()
	defer h.mu.Unlock()
	taken := h.newest
	h.newest = make(map[string]hint)
	return taken
}

// followHints hands them on until ctx is done.
func (d *Daemon) followHints(ctx context.Context) error {
	for {
		select {
		case <-d.hints.some:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		for id, h := range d.hints.take() {
			if _, known := d.health.Snapshot(id); !known { // its machine was taken back a moment ago
				d.observe(id)
			}
			d.health.Hint(id, h.port, h.listening)
		}
	}
}

// watch has the guest of an active instance tell of the port that is checked, if any, and of no other.
func (d *Daemon) watch(in instance.Instance) {
	if !in.State.Active() {
		return
	}
	m, err := d.instances.Machine(in.ID)
	if err != nil {
		return // it is on its way, and says HELLO when it is there
	}
	w, ok := m.(instance.Watcher)
	if !ok {
		return
	}
	p, _ := in.Spec.Policy()
	w.Watch(p.Port())
}
