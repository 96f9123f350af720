package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"runtime/debug"
	"sync"
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
// is handed on is always the instance as it is by then, so a missed or repeated event changes nothing. It waits for no instance.
func (d *Daemon) followHealth(ctx context.Context) error {
	reader := d.events.Follow(event.ID{}, healthConsumer)
	defer reader.Close()
	d.lookAtAll()
	for {
		e, err := reader.Next(ctx)
		if err != nil {
			return err
		}
		switch e.Type {
		case event.TypeResync:
			d.lookAtAll()
		case event.TypeCreated, event.TypeState, event.TypeUpdated, event.TypeBootRetry, event.TypeDeleted:
			d.mail.look(e.Instance)
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
	d.lookAtAll()
	for _, in := range d.instances.List() {
		d.mail.heard(ctx, in.ID)
	}
}

// settled returns when health has taken in everything that happened to an instance so far, so that what is read after a change is what
// the change made of it. It waits a second at most.
func (d *Daemon) settled(ctx context.Context, id string) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	d.events.WaitConsumed(ctx, healthConsumer, d.events.Last()) // too late is no error: the answer is then a little old
	d.mail.heard(ctx, id)
}

func (d *Daemon) lookAtAll() {
	for _, in := range d.instances.List() {
		d.mail.look(in.ID)
	}
}

// hand hands on to health what there is of one instance, as it is now; for one instance it is not called twice at a time.
func (d *Daemon) hand(id string, m mail) {
	in, err := d.instances.Find(id)
	if errors.Is(err, api.NotFound) || err == nil && in.ID != id { // a name may look like an id
		d.health.Forget(id)
		d.journal.drop(id)
		return
	}
	if err != nil {
		d.log.Error("look up an instance for its health", "instance", id, "err", err)
		return
	}
	if _, known := d.health.Snapshot(id); m.look || !known {
		d.health.Sync(observed(in))
	}
	d.watch(in)
	if m.hint != nil {
		d.health.Hint(id, m.hint.port, m.hint.listening)
	}
}

// handFailed contains a panic of hand.
func (d *Daemon) handFailed(id string, panicked any) {
	d.metrics.panics.WithLabelValues(healthConsumer).Inc()
	d.log.Error("what happened to an instance could not be handed on to health; it is tried again",
		"instance", id, "panic", panicked, "stack", string(debug.Stack()), "in", loopPause)
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

	mu      sync.Mutex
	replay  map[string][]health.Transition // by instance, as the log held them at the start, until each was asked for
	records map[string]*record             // by instance; nil: of none yet
}

// A record is the file of an instance's health record. The instance's loop reads and writes it, and nobody else.
type record struct {
	*store.Drafted
	whole int // how many of the next writes are to be; under journal.mu
}

const healthFile = "/health.json"

// recordWhole is how often the record of an instance that is probed all the time is written as files are. A status does not wait for it, nor
// for anything but the event log; the drafts between are for the counters, which after a crash of the host are another boot's.
const recordWhole = time.Minute

// Commit appends the transition to the event log. The record is written whole after it: a person may look there, and it has the status
// alone where the log refuses.
func (j *journal) Commit(ctx context.Context, id string, t health.Transition) error {
	j.record(id, func(r *record) { r.whole = 2 }) // one that is under way may not hold it yet
	_, err := j.events.Append(ctx, event.TypeHealth, id, j.name(id), t)
	return err
}

// Save writes the record, unless it could not be read again: the last one that can is better then. Deleting an instance's directory deletes
// its health with it.
func (j *journal) Save(id string, blob []byte) error {
	if len(blob) > health.MaxRecord {
		return fmt.Errorf("the health record of instance %s takes %d bytes, and is read up to %d only", id, len(blob), health.MaxRecord)
	}
	whole := false
	r := j.record(id, func(r *record) { whole = r.whole > 0 })
	err := r.Write(blob, whole)
	if err == nil && whole {
		j.record(id, func(r *record) { r.whole-- })
	}
	if errors.Is(err, fs.ErrNotExist) {
		j.forget(id)
		return nil
	}
	return err
}

// Load reads it.
func (j *journal) Load(id string) ([]byte, error) {
	b, err := j.record(id, nil).Read(health.MaxRecord)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

// SetAside puts an unreadable record out of the way.
func (j *journal) SetAside(id string) error { return j.record(id, nil).SetAside() }

// record is the record of an instance, and what do does with it while nobody else looks at it.
func (j *journal) record(id string, do func(*record)) *record {
	j.mu.Lock()
	defer j.mu.Unlock()
	r := j.records[id]
	if r == nil {
		if j.records == nil {
			j.records = make(map[string]*record)
		}
		r = &record{Drafted: j.instances.Drafted(id+healthFile, recordWhole)}
		j.records[id] = r
	}
	if do != nil {
		do(r)
	}
	return r
}

func (j *journal) forget(id string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.records, id)
}

// Replay gives, once, the transitions of an instance that the event log held when the daemon started, oldest first.
func (j *journal) Replay(id string) ([]health.Transition, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	defer delete(j.replay, id)
	return j.replay[id], nil
}

// drop forgets an instance that was deleted.
func (j *journal) drop(id string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.replay, id)
	delete(j.records, id)
}

// readTransitions reads the transitions of instances that there are from the event log. One that makes no sense is passed over: the
// record has the status too, and no daemon must fail to start for it.
func readTransitions(ctx context.Context, events *event.Log, there []instance.Instance, log *slog.Logger) (map[string][]health.Transition, error) {
	last := events.Last()
	reader := events.Follow(events.Oldest(), "replay")
	defer reader.Close()
	replay := make(map[string][]health.Transition)
	known := make(map[string]bool)
	for _, in := range there {
		known[in.ID] = true
	}
	for at := events.Oldest(); at.Seq < last.Seq; {
		e, err := reader.Next(ctx)
		if err != nil {
			return nil, err
		}
		at = e.ID
		if e.Type != event.TypeHealth || !known[e.Instance] {
			continue
		}
		var t health.Transition
		if err := json.Unmarshal(e.Data, &t); err != nil {
			log.Error("a health event in the log makes no sense; it is passed over", "event", e.ID.String(), "instance", e.Instance, "err", err)
			continue
		}
		replay[e.Instance] = append(replay[e.Instance], t)
	}
	return replay, nil
}
