package daemon

import (
	"cmp"
	"context"
	"errors"
	"runtime/debug"
	"time"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/event"
	"github.com/halevm/hale/internal/health"
	"github.com/halevm/hale/internal/instance"
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
	switch m.fate {
	case asBefore:
	case leaves: // health goes on to show what it knows, until the instance is gone
		d.health.Sync(observed(in))
		d.journal.bar(id)
		return
	case stays:
		d.journal.admit(id)
	}
	if d.journal.bars(id) {
		return
	}
	if _, known := d.health.Status(id); m.look || !known {
		d.health.Sync(observed(in))
	}
	d.watch(in)
	if m.hint != nil {
		d.health.Hint(id, m.hint.port, m.hint.listening)
	}
}

// leavePatience bounds how long a deletion waits for health: a transition that the disk is slow to take has a second.
const leavePatience = 3 * time.Second

// leaving has health tell the last of an instance that is about to be deleted, so that nothing is told of it after that. It is called from
// the instance's own goroutine, for which health waits in nothing.
func (d *Daemon) leaving(id string) (stays func()) {
	ctx, cancel := context.WithTimeoutCause(context.Background(), leavePatience, errors.New("health has not told the last of it"))
	defer cancel()
	if !d.mail.leaves(ctx, id) { // its disk hangs, or the daemon ends: then nobody is told what health has to say yet
		d.journal.bar(id)
	}
	return func() {
		d.journal.admit(id)
		d.mail.stays(id)
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
	o := health.Observed{ID: in.ID, Run: in.Run, Entered: cmp.Or(in.Entered, in.Since), Agent: in.Agent, Network: in.Network}
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
	in, _ := d.instances.Find(id) // before its machine, which is then of this run or of a later one
	m, err := d.instances.Machine(id)
	if err != nil {
		return inconclusive(health.CauseNoMachine, err.Error())
	}
	prober, ok := m.(instance.Prober)
	if !ok {
		return inconclusive(health.CauseUnsupported, "this driver cannot probe")
	}
	r := prober.Probe(ctx, p, started)
	if r.Outcome != health.Success && !d.stillRuns(id, in.Run) {
		return inconclusive(health.CauseCutShort, "cut short: the instance is no longer running ("+r.Reason+")")
	}
	return r
}

// stillRuns reports whether a run of an instance goes on. Health hears of the end of one a while later than the instances know of it; and
// what we end ourselves, a stop or a deletion, they know before it can make a check fail.
func (d *Daemon) stillRuns(id string, run uint64) bool {
	in, err := d.instances.Find(id)
	return err == nil && in.ID == id && in.Run == run && observed(in).Phase != health.Inactive
}
