package daemon

import (
	"context"
	"encoding/json"
	"errors"
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
	seen := reader.Position()
	d.observeAll()
	reader.Ack(seen)
	for {
		e, err := reader.Next(ctx)
		if err != nil {
			return err
		}
		d.healthActive.touch()
		switch e.Type {
		case event.TypeResync:
			d.observeAll()
		case event.TypeDeleted:
			d.health.Forget(e.Instance)
		case event.TypeCreated, event.TypeState, event.TypeUpdated:
			d.observe(e.Instance)
		case event.TypeHealth: // our own
		}
		reader.Ack(e.ID)
	}
}

// observeAll hands on every instance there is.
func (d *Daemon) observeAll() {
	for _, in := range d.instances.List() {
		d.health.Sync(observed(in))
	}
}

func (d *Daemon) observe(id string) {
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
}

// observed is what health sees of an instance.
func observed(in instance.Instance) health.Observed {
	o := health.Observed{ID: in.ID, Run: in.Run, Entered: in.Since}
	switch in.State {
	case instance.Initializing:
		o.Phase = health.Initializing
	case instance.Running:
		o.Phase = health.Running
	}
	if p := in.Spec.HealthCheck; p != nil {
		o.Policy = *p
	}
	return o
}

// probe asks the machine of an instance once.
func (d *Daemon) probe(ctx context.Context, id string, p health.Policy) health.Result {
	inconclusive := func(cause, reason string) health.Result {
		return health.Result{Start: time.Now(), Outcome: health.Inconclusive, Cause: cause, Reason: reason}
	}
	m, err := d.instances.Machine(id)
	if err != nil {
		return inconclusive("no_machine", err.Error())
	}
	prober, ok := m.(instance.Prober)
	if !ok {
		return inconclusive("unsupported_driver", "this driver cannot probe")
	}
	return prober.Probe(ctx, p)
}

// journal is where health keeps what must outlive the daemon: transitions in the event log, the rest in
// instances/ID/health.json.
type journal struct {
	events    *event.Log
	instances *store.Root // of DIR/instances
	name      func(id string) string
}

const (
	healthFile    = "/health.json"
	maxHealthFile = 1 << 20
)

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
	b, err := j.instances.ReadFile(id+healthFile, maxHealthFile)
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

// Replay gives the transitions of an instance that the event log still holds, oldest first.
func (j *journal) Replay(id string) ([]health.Transition, error) {
	var ts []health.Transition
	for _, e := range j.events.Of(id) {
		if e.Type != event.TypeHealth {
			continue
		}
		var t health.Transition
		if err := json.Unmarshal(e.Data, &t); err != nil {
			return nil, err
		}
		ts = append(ts, t)
	}
	return ts, nil
}
