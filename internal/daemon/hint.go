package daemon

import (
	"context"
	"time"

	"github.com/halevm/hale/internal/instance"
)

// hintConsumer is the name of the controller that keeps the guests told which port to tell of.
const hintConsumer = "hints"

// watchEvery is how often a guest is told once more: a machine that could not be told is told then, the others are not troubled.
const watchEvery = 10 * time.Second

// A hint is a guest's word on the port that is checked.
type hint struct {
	port      uint16
	listening bool
}

// keepWatching has the guests told once more from time to time, until ctx is done.
func (d *Daemon) keepWatching(ctx context.Context) error {
	again := time.NewTicker(watchEvery)
	defer again.Stop()
	for {
		select {
		case <-again.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		for _, in := range d.instances.List() {
			if in.State.Active() {
				d.mail.watch(in.ID)
			}
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
