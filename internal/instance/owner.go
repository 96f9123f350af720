package instance

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/event"
	"github.com/halevm/hale/internal/machine"
	"github.com/halevm/hale/internal/store"
)

const (
	settleEvery = time.Second     // how often a change that the disk refused is tried again
	clockEvery  = time.Minute     // how often an expiry is compared with the wall clock, which may be set
	afterPanic  = 5 * time.Second // from a panic of the loop to its restart
)

// An owner is the goroutine of one instance, with what it owns.
type owner struct {
	s        *Set
	id       string
	log      *slog.Logger
	requests chan request
	done     chan struct{} // closed when the goroutine has ended

	// The goroutine's own; until it runs, its maker's.
	rec     record
	m       Machine // the present run; nil: none
	notices <-chan machine.Notice
	because string    // why we killed the machine, for its exit
	faulty  bool      // the loop has panicked since the last machine came
	owed    []change  // what was published and is not on disk yet, oldest first
	unsaved bool      // the record on disk is behind
	notYet  time.Time // an expiry that could not be carried out is tried again then
	over    bool      // the goroutine ends
	// When settle and takeBack are tried again, whatever comes meanwhile; zero: they wait their time from now on.
	settleAgain, lookAgain time.Time

	// Guarded by s.mu.
	visible bool
	now     Instance
	present Machine
	holds   bool // its memory is taken
	changed chan struct{}
	forcing int           // deletions that wait their turn and give the guest no time
	forced  chan struct{} // closed while there are any
}

// A change is an event that is to be appended.
type change struct {
	typ  event.Type
	data any
}

// A request is an operation; the owner answers each one that it took.
type request struct {
	do     func() error
	result chan error // buffered
}

func (s *Set) newOwner(r record) *owner {
	return &owner{
		s: s, id: r.Instance.ID, log: s.Logger(r.Instance.ID),
		requests: make(chan request), done: make(chan struct{}), changed: make(chan struct{}), forced: make(chan struct{}),
		rec: r, now: r.Instance, holds: r.Instance.State.Active() || r.Instance.State == Created, // that one is about to be
	}
}

// call has do carried out in the owner's goroutine, after what came before it. When ctx ends while do waits its turn,
// nothing was done; when it ends later, do is finished all the same.
func (o *owner) call(ctx context.Context, do func() error) error {
	r, err := o.queue(ctx, do)
	if err != nil {
		return err
	}
	return o.result(ctx, r)
}

// queue returns when do is being carried out.
func (o *owner) queue(ctx context.Context, do func() error) (request, error) {
	r := request{do: do, result: make(chan error, 1)}
	select {
	case o.requests <- r:
		return r, nil
	case <-o.done:
		select {
		case <-o.s.closing:
			return r, errClosing
		default:
			return r, fmt.Errorf("there is no instance %q: %w", o.id, api.NotFound)
		}
	case <-ctx.Done():
		return r, fmt.Errorf("wait for instance %q: %w", o.id, context.Cause(ctx))
	}
}

func (o *owner) result(ctx context.Context, r request) error {
	select {
	case err := <-r.result:
		return err
	case <-ctx.Done():
		return fmt.Errorf("wait for instance %q: %w", o.id, context.Cause(ctx))
	}
}

// run is the goroutine. A panic in it is contained: it is logged and told, and the loop begins again.
func (o *owner) run() {
	defer close(o.done)
	for !o.over {
		if o.contained(o.loop) {
			o.faulty = true
			select {
			case <-time.After(afterPanic):
			case <-o.s.closing:
			}
		}
	}
}

func (o *owner) contained(do func()) (panicked bool) {
	defer func() {
		if v := recover(); v != nil {
			panicked = true
			o.log.Error("a panic in the instance's loop was contained; the loop begins again", "panic", v, "stack", string(debug.Stack()))
			if o.s.c.Panicked != nil {
				o.s.c.Panicked("instance", v)
			}
		}
	}()
	do()
	return false
}

func (o *owner) loop() {
	if o.faulty && o.m == nil && o.rec.Instance.State != Unknown { // the panic may have come between the record and the machine
		o.takeBack()
	}
	o.stopOn()
	for !o.over {
		select {
		case r := <-o.requests:
			o.serve(r)
		case n, ok := <-o.notices:
			o.notice(n, ok)
		case <-o.expiry():
			o.expire()
		case <-o.again():
			o.lookAgain = time.Time{}
			o.takeBack()
			o.stopOn()
		case <-o.retry():
			o.settleAgain = time.Time{}
			if err := o.settle(); err == nil {
				o.log.Info("what could not be written is on disk now")
			}
		case <-o.s.closing:
			o.leave()
		}
	}
}

// stopOn goes on with a stop that the last daemon began.
func (o *owner) stopOn() {
	if o.rec.Instance.State != Shutdown || o.m == nil {
		return
	}
	if err := o.end(true); err != nil {
		o.log.Error("stopping", "err", err)
	}
}

// serve answers also when do panics; the panic is the loop's then.
func (o *owner) serve(r request) {
	err := error(&api.Error{Kind: api.Internal, Code: "internal", Message: "the operation panicked"})
	defer func() { r.result <- err }()
	err = r.do()
}

func (o *owner) expiry() <-chan time.Time {
	at := o.rec.Instance.Spec.ExpiresAt
	if at.IsZero() {
		return nil
	}
	if at.Before(o.notYet) {
		at = o.notYet
	}
	return time.After(min(max(time.Until(at), 0), clockEvery))
}

func (o *owner) expire() {
	now := time.Now()
	if at := o.rec.Instance.Spec.ExpiresAt; at.IsZero() || now.Before(at) || now.Before(o.notYet) {
		return
	}
	o.log.Info("its time has come: it is deleted", "expires_at", o.rec.Instance.Spec.ExpiresAt)
	if err := o.remove(true, "expired"); err != nil {
		o.notYet = now.Add(clockEvery)
		o.log.Error("an expired instance cannot be deleted", "err", err)
	}
}

func (o *owner) retry() <-chan time.Time {
	if len(o.owed) == 0 && !o.unsaved {
		o.settleAgain = time.Time{}
		return nil
	}
	return after(&o.settleAgain, settleEvery)
}

// after is due when d has passed since the first time that it was asked for at: a loop that has much to do asks again and again.
func after(at *time.Time, d time.Duration) <-chan time.Time {
	if at.IsZero() {
		*at = time.Now().Add(d)
	}
	return time.After(time.Until(*at))
}

// commit makes next the instance's record, with the event that tells of it: durable first, then published. On an error
// nothing happened.
func (o *owner) commit(next record, c change) error {
	if err := o.settle(); err != nil {
		return err
	}
	p, err := o.s.prepare(next)
	if err != nil {
		return err
	}
	_, err = o.s.c.Events.Commit(o.s.ctx, c.typ, o.id, next.Instance.Spec.Name, c.data, func(event.Event) { o.publish(next.Instance) })
	if err != nil {
		p.Abort()
		return err
	}
	o.rec = next
	if err := p.Commit(); err != nil {
		o.unsaved = true
		o.s.c.SaveFailed()
		o.log.Error("the record is behind; it is tried again", "err", err)
	}
	return nil
}

// happened is commit for what cannot be refused: when the disk does, it is published all the same, and written later.
func (o *owner) happened(next record, c change) {
	err := o.commit(next, c)
	if err == nil {
		return
	}
	o.rec = next
	o.owed = append(o.owed, c)
	o.s.c.SaveFailed()
	o.publish(next.Instance)
	o.s.c.Unwritten(o.id)
	o.log.Error("a change cannot be written; it is tried again until there is room", "state", next.Instance.State, "err", err)
}

// settle brings to disk what was published without.
func (o *owner) settle() error {
	if len(o.owed) == 0 && !o.unsaved {
		return nil
	}
	prepare := o.s.prepare
	if o.unsaved { // the log is ahead of the record on disk already
		prepare = func(r record) (*store.Pending, error) {
			r.Seen = event.ID{}
			return o.s.put(r)
		}
	}
	p, err := prepare(o.rec)
	if err != nil {
		return err
	}
	for len(o.owed) > 0 {
		c := o.owed[0]
		if _, err := o.s.c.Events.Append(o.s.ctx, c.typ, o.id, o.rec.Instance.Spec.Name, c.data); err != nil {
			if !o.unsaved {
				p.Abort()
			}
			return err
		}
		o.owed, o.unsaved = o.owed[1:], true
	}
	if err := p.Commit(); err != nil {
		return err
	}
	o.unsaved = false
	return nil
}

// publish is what makes i the answer of Find and List.
func (o *owner) publish(i Instance) {
	o.s.mu.Lock()
	defer o.s.mu.Unlock()
	o.now = i
	o.holds = i.State.Active() || i.State == Created
	if !o.holds {
		o.present = nil
	}
	close(o.changed)
	o.changed = make(chan struct{})
}

// step is the next record, in another state since now.
func (o *owner) step(to State) (record, event.StateChange) {
	next := o.rec
	next.Instance.State = to
	next.Instance.Entered = time.Now()
	next.Instance.Since = next.Instance.Entered.UTC().Round(0)
	next.Instance.Unreachable = ""
	next.Stopping = to == Unknown && o.rec.Instance.State == Shutdown
	return next, event.StateChange{From: string(o.rec.Instance.State), To: string(to)}
}

// now is the time as records hold it, so that a value is the same before and after it was on disk.
func now() time.Time { return time.Now().UTC().Round(0) }

// leave ends the goroutine when the daemon stops.
func (o *owner) leave() {
	o.over = true
	if o.m != nil && !o.s.recovers() {
		o.because = daemonStopped
		if err := o.kill(); err != nil {
			o.log.Error("the machine outlives the daemon, and nothing will find it", "err", err)
		}
	}
	if err := o.settle(); err != nil {
		o.log.Error("what happened last is not on disk", "err", err)
	}
}
