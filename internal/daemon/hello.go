package daemon

import (
	"context"
	"slices"
	"sync"
)

// helloConsumer is the name of the controller that follows the guests' agents.
const helloConsumer = "agents"

// hellos are the instances whose agents have said HELLO, or whose guests have sent a first frame, and whose health has not heard of it.
// There is no event for that: it is
// news to health only, for which a check may wait.
type hellos struct {
	mu   sync.Mutex
	ids  []string
	some chan struct{} // a buffer of one
}

func newHellos() *hellos { return &hellos{some: make(chan struct{}, 1)} }

// add never waits.
func (h *hellos) add(id string) {
	h.mu.Lock()
	if !slices.Contains(h.ids, id) {
		h.ids = append(h.ids, id)
	}
	h.mu.Unlock()
	select {
	case h.some <- struct{}{}:
	default:
	}
}

func (h *hellos) take() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	ids := h.ids
	h.ids = nil
	return ids
}

// followHellos hands on the instances whose agent is there, until ctx is done.
func (d *Daemon) followHellos(ctx context.Context) error {
	for {
		select {
		case <-d.hellos.some:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		for _, id := range d.hellos.take() {
			d.observe(id)
		}
	}
}
