package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/event"
	"github.com/halevm/hale/internal/health"
	"github.com/halevm/hale/internal/instance"
	"github.com/halevm/hale/internal/store"
)

// healthConsumer is the health controller's name as a reader of the event log.
const healthConsumer = "health"

// followHealth keeps the health loops in step with the instances until ctx is done. It follows the event log, but what
// it hands on is always the instance as it is now, so a missed or repeated event changes nothing.
func (d *Daemon) followHealth(ctx context.Context) error {
	reader := d.events.Follow(event.ID{}, healthConsumer)
	defer reader.Close()
	d.observeAll()
	d.takenUp.Do(func() { close(d.known) })
	for {
		e, err := reader.Next(ctx)
		if err != nil {
			return err
		}
		switch e.Type {
		case event.TypeResync:
			d.observeAll()
		case event.TypeDeleted:
			d.forget(e.Instance)
		case event.TypeCreated, event.TypeState, event.TypeUpdated:
			d.observe(e.Instance)
		case event.TypeHealth, event.TypeHost: // our own
		}
		reader.Ack(e.ID)
	}
}

// awaitHealth returns when health has taken up all that there is, so that nobody sees what runs and is well as if it had just been
// started. It waits a few seconds at most: the rest of the daemon does not stand or fall with it.
func (d *Daemon) awaitHealth(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	select {
	case <-d.known:
	case <-ctx.Done():
	}
}

// settled returns when health has taken in everything that happened so far, so that what is read after a change is what
// the change made of it. It waits a second at most.
func (d *Daemon) settled(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	d.events.WaitConsumed(ctx, healthConsumer, d.events.Last()) // too late is no error: the answer is then a little old
}

// observeAll hands on every instance there is.
func (d *Daemon) observeAll() {
	for _, in := range d.instances.List() {
		d.observe(in.ID)
	}
}

// observe hands on one instance as it is now. Both controllers come here, and what is handed on last must be the latest.
func (d *Daemon) observe(id string) {
	d.observing.Lock()
	defer d.observing.Unlock()
	in, err := d.instances.Find(id)
	if errors.Is(err, api.NotFound) {
		d.health.Forget(id)
		return
	}
	if err != nil {
		d.log.Error("look up an instance for its health", "instance", id, "err", err)
		return
	}
	d.health.Sync(observed(in))
	d.watch(in)
}

func (d *Daemon) forget(id string) {
	d.observing.Lock()
	defer d.observing.Unlock()
	d.health.Forget(id)
}

// observed is what health sees of an instance.
func observed(in instance.Instance) health.Observed {
	o := health.Observed{ID: in.ID, Run: in.Run, Entered: in.Since, Agent: in.Agent, Network: in.Network}
	switch in.State {
	case instance.Initializing:
		o.Phase = health.Initializing
	case instance.Running:
		o.Phase = health.Running
	}
	o.Policy, _ = in.Spec.Policy()
	return o
}

// probe asks the machine of an instance once.
func (d *Daemon) probe(ctx context.Context, id string, p health.Policy, started func()) health.Result {
	inconclusive := func(cause, reason string) health.Result {
		return health.Result{Start: time.Now(), Outcome: health.Inconclusive, Cause: cause, Reason: reason}
	}
	m, err := d.instances.Machine(id)
	if err != nil {
		return inconclusive(health.CauseNoMachine, err.Error())
	}
	prober, ok := m.(instance.Prober)
	if !ok {
		return inconclusive(health.CauseUnsupported, "this driver cannot probe")
	}
	return prober.Probe(ctx, p, started)
}

// journal is where health keeps what must outlive the daemon: transitions in the event log, the rest in
// instances/ID/health.json.
type journal struct {
	events    *event.Log
	instances *store.Root // of DIR/instances
	name      func(id string) string
	replay    map[string][]health.Transition // by instance, as the log held them at the start
}

const healthFile = "/health.json"

// Commit appends the transition to the event log.
func (j *journal) Commit(ctx context.Context, id string, t health.Transition) error {
	_, err := j.events.Append(ctx, event.TypeHealth, id, j.name(id), t)
	return err
}

// Save writes the record. Deleting an instance's directory deletes its health with it.
func (j *journal) Save(id string, blob []byte) error {
	err := j.instances.WriteFile(id+healthFile, blob)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Load reads it.
func (j *journal) Load(id string) ([]byte, error) {
	b, err := j.instances.ReadFile(id+healthFile, health.MaxRecord)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

// SetAside puts an unreadable record out of the way.
func (j *journal) SetAside(id string) error {
	_, err := j.instances.SetAside(id + healthFile)
	return err
}

// Replay gives the transitions of an instance that the event log held when the daemon started, oldest first.
func (j *journal) Replay(id string) ([]health.Transition, error) { return j.replay[id], nil }

// readTransitions reads the transitions that the event log holds, by instance.
func readTransitions(ctx context.Context, events *event.Log) (map[string][]health.Transition, error) {
	last := events.Last()
	reader := events.Follow(events.Oldest(), "replay")
	defer reader.Close()
	replay := make(map[string][]health.Transition)
	for at := events.Oldest(); at.Seq < last.Seq; {
		e, err := reader.Next(ctx)
		if err != nil {
			return nil, err
		}
		at = e.ID
		switch e.Type {
		case event.TypeHealth:
			var t health.Transition
			if err := json.Unmarshal(e.Data, &t); err != nil {
				return nil, fmt.Errorf("event %s: %w", e.ID, err)
			}
			replay[e.Instance] = append(replay[e.Instance], t)
		case event.TypeDeleted:
			delete(replay, e.Instance)
		}
	}
	return replay, nil
}
