package health

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

const (
	probeSlack    = 10 * time.Second // beyond the timeout, for what probes for us to answer: it also clears up after an exec
	saveEvery     = 5 * time.Second  // counters may lag behind by as much
	restartPause  = time.Second      // after a panic
	commitPatient = time.Second      // then a transition is announced without its commit
)

// A loop watches one instance. Whoever runs it (see mailbox) owns every field of the first group.
type loop struct {
	set  *Set
	id   string
	hash uint64
	log  *slog.Logger

	check      *shared // the policy in force, set by adopt
	p          *Policy // the same
	s          State
	due        time.Time // of the next probe, as Next said
	flight     *flight   // the probe in flight; nil: none
	leaving    *flight   // the same, while whoever runs the loop is to make it
	free       time.Time // when the last flight landed
	probes     uint64    // begun so far, by this process
	loaded     bool
	logged     string     // the sum of the policy that the log says was in force, before the controller has spoken; "": the record's was
	given      time.Time  // of a window that only the log knows of: when its policy came, if that began it
	notYet     time.Time  // until then it was Initializing, by the record
	shaken     bool       // a panic was contained, and the loop has not gone on yet
	agentTold  uint64     // the window in which the log was told that the agent is missing
	committing chan error // a commit that took too long and is not over; nil: none
	saver      saver
	slow       bool // the last start used up its turn
	counted    bool // as one of set.watched
	ending     bool // nothing is begun any more
	lastSave   bool // the last write has begun

	mail   mailbox
	seat   int           // its seat among the alarms, from 1, with the timers' lock held; 0: it has none
	done   chan struct{} // closed when the loop has ended and nothing of it is left
	forgot atomic.Bool   // set before it ends: the instance is deleted, so nothing is saved

	mu      sync.Mutex // of what follows, for readers; never held while anything waits
	shown   Snapshot   // but for its lists, which are made of history
	history history
	changed chan struct{} // closed at the next change; nil: nobody waits
	waiters []chan<- answer
	over    bool
}

// A message asks the loop for something.
type message struct {
	seen  *Observed     // take this
	hint  *heard        // or this
	taken chan struct{} // closed when it was taken
	reply chan<- answer // of one who waits for a result; a buffer of one; nil: nobody does
}

// A heard is what the agent said of a port.
type heard struct {
	port      uint16
	listening bool
}

type answer struct {
	result WindowResult
	err    error
}

// prepare does what comes before anything is handled: at first, and after a panic.
func (l *loop) prepare(k kind) {
	if !l.loaded {
		l.loaded = true
		l.load()
	}
	if l.shaken && k != ending && !l.ending {
		l.recovered()
	}
}

// handle takes one thing that was brought, and does what follows from it.
func (l *loop) handle(k kind, m message, written error) {
	switch k {
	case bell:
		l.tick(time.Now())
	case answered:
		l.landed()
	case granted:
		if f := l.flight; f != nil && f.start.IsZero() && f.turn.came() { // else it is the turn of one that gave up the wait meanwhile
			l.depart(f, time.Now())
		}
	case saved:
		l.saved(written)
	case ending:
		l.end()
	default:
		if l.ending {
			close(m.taken)
		} else {
			l.take(m)
		}
	}
	if l.ending {
		l.windUp()
		return
	}
	l.begin()
	l.save()
}

// recovered goes on after a panic.
func (l *loop) recovered() {
	l.shaken = false
	if f := l.flight; f != nil && f.start.IsZero() { // it never began
		f.turn.end(false)
		l.flight = nil
	}
	if l.flight == nil { // what was lost may have been the result that sets the next probe
		l.next(time.Now(), Input{Kind: Asking})
	}
}

// wake returns when something is to be done without anybody's asking; zero for never.
func (l *loop) wake() (at time.Time) {
	if f := l.flight; f == nil {
		at = l.due
	} else if !f.late {
		at = f.until
	}
	return sooner(sooner(at, l.s.StaleAt(l.p)), l.saver.at())
}

// tick is what the bell is for: wake's time has come, or a moment later.
func (l *loop) tick(now time.Time) {
	if f := l.flight; f != nil && !f.until.IsZero() && !now.Before(f.until) {
		f.late = true
		f.end(errOverdue)
	}
	if at := l.s.StaleAt(l.p); !at.IsZero() && !now.Before(at) { // for a probe that is due its beginning is the step
		l.next(now, Input{}) // a Tick
	}
}

// next takes one step, commits what changed and publishes it.
func (l *loop) next(now time.Time, in Input) {
	l.set.touch(now)
	before := l.s
	l.due = l.s.step(l.p, now, &in)
	var t *Transition
	if l.s.N != before.N {
		t = l.announce(&before, now, &in)
	}
	switch {
	case l.s == before:
		return
	case t != nil: // whatever the step was about: what was committed is shown
	case in.Kind == Begun || in.Kind == Asking || in.Kind == Queued || in.Kind == Hinted: // nothing that anybody sees
		return
	}
	if !l.p.Disabled() || l.s.N > 0 { // one that never had a check needs no record
		l.saver.dirty(t != nil || l.s.Window != before.Window)
	}
	l.publish(t, &in)
}

// announce commits the transition from before.
func (l *loop) announce(before *State, now time.Time, in *Input) *Transition {
	t := l.s.transition(before, l.p, now, in)
	l.commit(&t)
	return &t
}

// publish makes the state visible to readers.
func (l *loop) publish(t *Transition, in *Input) {
	if t != nil { // first: who waits for it finds it in the log
		l.tell(t)
	}
	l.mu.Lock()
	l.shown = l.s.shown()
	if in.Kind == Probed {
		l.history.addResult(WindowResult{Result: in.Result, Window: l.s.Window})
	}
	if t != nil {
		l.history.addTransition(*t)
	}
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
	l.mu.Unlock()
	if watched := l.s.probing(l.p); watched != l.counted {
		l.counted = watched
		l.set.count(watched)
	}
	if t == nil {
		return
	}
	l.set.suspect.moved(l.id, t.From, t.To, time.Now(), l.set.Watched())
	persisted := t.Persisted == nil
	l.set.hooks.Transition(t.From, t.To, persisted)
}

// tell writes a transition to the log.
func (l *loop) tell(t *Transition) {
	if t.From == t.To {
		l.log.Info("health is "+string(t.To), "stale", t.Stale, "reason", t.Reason)
	} else {
		l.log.Info("health is "+string(t.To), "was", t.From, "reason", t.Reason)
	}
}

// take answers a message.
func (l *loop) take(m message) {
	defer close(m.taken)
	switch {
	case m.seen != nil:
		l.seen(*m.seen)
		return
	case m.hint != nil:
		l.next(time.Now(), Input{Kind: Hinted, Port: m.hint.port, Listening: m.hint.listening})
		return
	}
	if err := l.refusal(); err != nil {
		if m.reply != nil {
			m.reply <- answer{err: err}
		}
		return
	}
	if m.reply != nil {
		l.mu.Lock()
		l.waiters = append(l.waiters, m.reply)
		l.mu.Unlock()
	}
	if l.flight == nil {
		l.next(time.Now(), Input{Kind: Asking})
	}
}

// refusal says why nothing is probed; nil if something is.
func (l *loop) refusal() error {
	switch {
	case l.p.Disabled():
		return ErrNoPolicy
	case l.s.Phase == Inactive:
		return ErrInactive
	}
	return nil
}

// seen takes the controller's view, and cuts the probe in flight short if it is no longer wanted.
func (l *loop) seen(o Observed) {
	now := time.Now()
	in := Input{Kind: Seen, Run: o.Run, Phase: o.Phase, Entered: l.possible(now, o.Entered), Agent: o.Agent, Network: o.Network, Restored: l.possible(now, o.Restored)}
	in.PolicyChanged = l.s.Status != "" && !(l.p.Disabled() && o.Policy.Disabled()) && !l.p.Equal(o.Policy)
	if sum := l.logged; sum != "" {
		l.logged = ""
		if in.PolicyChanged = o.Policy.sum() != sum; !in.PolicyChanged {
			l.adopt(o.Policy)
		}
		l.restart()
	}
	if !in.Entered.IsZero() { // the grace runs from the later of the two
		in.Entered = later(in.Entered, l.given)
	}
	l.adopt(o.Policy)
	if l.s.Status == "" && o.Phase != Inactive { // it was Inactive before; whether anybody saw that is chance
		l.s.step(l.p, now, &Input{}) // a Tick
	}
	l.next(time.Now(), in)
	if f := l.flight; f != nil && (l.refusal() != nil || f.window != l.s.Window) {
		if f.start.IsZero() { // it was never asked, so there is nothing to wait for or to record
			f.turn.end(false)
			l.flight = nil
			l.unanswered()
		} else {
			f.cut = true
			f.end(errCutShort)
		}
	}
}

// possible is when an instance became Running that is said to have at t. That may be of the wall clock, which may have been set since: it
// was not before the host's boot, nor while the last daemon knew it to be on its way.
func (l *loop) possible(now, t time.Time) time.Time {
	if !t.IsZero() {
		t = now.Add(-min(now.Sub(t), now.Sub(later(l.notYet, l.set.clock.boot()))))
	}
	return t
}

// adopt takes a policy.
func (l *loop) adopt(p Policy) {
	if l.p.Equal(p) {
		return
	}
	old := l.check
	l.check = l.set.policies.take(p)
	l.p = &l.check.policy
	l.set.policies.drop(old)
}

// end has the probe in flight end, and begins nothing more.
func (l *loop) end() {
	l.ending = true
	l.set.timers.set(l, time.Time{})
	f := l.flight
	if f != nil && f.start.IsZero() {
		f.turn.end(false)
		l.flight = nil
	} else if f != nil {
		f.end(errCutShort)
	}
}

// windUp leaves nothing behind: no probe, no writer, nobody who waits. It is called until that is so.
func (l *loop) windUp() {
	if l.saver.writing {
		return
	}
	if l.saver.stale && !l.lastSave && !l.forgot.Load() {
		l.lastSave = true
		l.write(time.Now())
	}
	if l.saver.writing || l.flight != nil {
		return
	}
	l.mail.close()
	if l.committing != nil {
		<-l.committing
	}
	if l.counted {
		l.set.count(false)
	}
	l.set.policies.drop(l.check)
	l.mu.Lock()
	l.over = true
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
	l.mu.Unlock()
	close(l.done)
	l.set.loopWG.Done()
}
