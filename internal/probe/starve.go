package probe

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/halevm/hale/internal/health"
	"github.com/halevm/hale/internal/slack"
)

// A host that is starved keeps a probe, or the guest, from running, and that is not the workload's fault. What it kept is measured: the
// lateness of a tick in this process, and the time that the machine's virtual processors were ready and did not run. Nothing is
// guessed from a load average.
const (
	tick      = 50 * time.Millisecond
	onTime    = 20 * time.Millisecond // a timer that fires later was kept from it
	lookAgain = 10 * time.Millisecond // what came while nobody ran is looked at first
	leastMore = time.Millisecond      // that a timer is set for
	leastWait = 250 * time.Millisecond
)

// MaxFactor times its timeout is the longest that a probe takes, whatever the host keeps from it.
const MaxFactor = 4

// extension returns how much longer a probe may go on that has lasted so long, of which the host kept wait from it: until its time
// less its wait reaches the timeout, and to four timeouts in all. 0: it is over.
func extension(timeout, lasted, wait time.Duration) time.Duration {
	return max(0, min(timeout-(lasted-wait), MaxFactor*timeout-lasted))
}

// hadTime reports whether a probe had its timeout: then that it did not answer is a failure, else nothing is known.
func hadTime(timeout, lasted, wait time.Duration) bool { return lasted-wait >= timeout }

// starvedExit reports whether a command that failed while the host kept so much from it says nothing about the workload: what it
// asked may have had a timeout of its own.
func starvedExit(timeout, wait time.Duration) bool { return wait > max(timeout/2, leastWait) }

// A pulse is the tick of this process. It beats while a probe is in flight, so that a process at rest rests.
type pulse struct {
	mu    sync.Mutex
	users int
	due   time.Time            // the next beat
	late  time.Duration        // all beats before it
	timer *time.Timer          // nil: no probe is in flight. It is not used again: a test's clock is another one in each test.
	slack func() time.Duration // that each beat may be late by this process's own will, which nobody was starved by; nil: none
}

var thePulse = pulse{slack: slack.Own}

// join has the pulse beat, and returns the lateness up to now: what at says later is to be compared with it.
func (p *pulse) join(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.users++; p.timer == nil {
		p.late = 0
		p.next(now)
	}
	return p.sum(now)
}

func (p *pulse) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.users--; p.users == 0 {
		p.timer.Stop()
		p.timer = nil
	}
}

// at returns the lateness up to now, that of the beat which is due included. Whoever calls it has joined.
func (p *pulse) at(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sum(now)
}

func (p *pulse) sum(now time.Time) time.Duration {
	late := now.Sub(p.due)
	if p.slack != nil {
		late -= p.slack()
	}
	return p.late + max(0, late)
}

// next sets the next beat. p.mu is held.
func (p *pulse) next(now time.Time) {
	p.due = now.Add(tick)
	if p.timer == nil {
		p.timer = time.AfterFunc(tick, p.fire)
	} else {
		p.timer.Reset(tick)
	}
}

func (p *pulse) fire() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.users > 0 {
		p.beat(time.Now())
	}
}

// beat takes down how late it is. p.mu is held.
func (p *pulse) beat(now time.Time) {
	p.late = p.sum(now)
	p.next(now)
}

// A span is the time of one probe.
type span struct {
	ctx     context.Context // of who asked
	unhook  func() bool
	timeout time.Duration
	start   time.Time
	late    time.Duration // the pulse at start
	delays  func([]time.Duration) []time.Duration
	before  []time.Duration // the delays at start

	mu      sync.Mutex
	timer   *time.Timer
	due     time.Time // of timer
	state   spanState
	conn    net.Conn                // what waits on it ends with the time; nil: nothing does
	ended   chan struct{}           // closed when the time is over; nil: nobody has asked for it
	inner   context.Context         // is done when the time is over; nil: nobody has asked for it
	cancel  context.CancelCauseFunc // of inner
	lasted  time.Duration           // when it was over
	waited  time.Duration
	starved bool
}

// A spanState is what becomes of the time of a probe.
type spanState int

const (
	running  spanState = iota
	over               // the probe has had all the time that it gets
	cut                // who asked no longer wants to know
	draining           // there is a verdict, and the connection has a moment to end in order
	done
)

// begin starts the time of a probe; end must be called.
func (t Target) begin(ctx context.Context, start time.Time, timeout time.Duration) *span {
	s := &span{ctx: ctx, timeout: timeout, start: start, late: thePulse.join(start), delays: t.RunDelay, due: start.Add(timeout)}
	if s.delays != nil {
		s.before = s.delays(nil)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.timer = time.AfterFunc(timeout, s.check)
	if c, ok := ctx.(interface{ AfterFunc(func()) func() bool }); ok { // it does so without what package context puts around it
		s.unhook = c.AfterFunc(s.cutShort)
	} else {
		s.unhook = context.AfterFunc(ctx, s.cutShort)
	}
	return s
}

func (s *span) end() {
	s.mu.Lock()
	if s.ended != nil && (s.state == running || s.state == draining) {
		close(s.ended)
	}
	s.state, s.conn = done, nil
	cancel := s.cancel
	s.mu.Unlock()
	s.timer.Stop()
	s.unhook()
	if cancel != nil {
		cancel(nil)
	}
	thePulse.leave()
}

// check is called when the probe may have had its time.
func (s *span) check() {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch s.state {
	case running:
	case draining:
		s.conn.SetDeadline(aLongTimeAgo)
		return
	default:
		return
	}
	now := time.Now()
	lasted, wait := now.Sub(s.start), s.wait(now)
	more := extension(s.timeout, lasted, wait)
	if more == 0 && now.Sub(s.due) > onTime && lasted < MaxFactor*s.timeout {
		more = min(lookAgain, MaxFactor*s.timeout-lasted)
	}
	if more > 0 {
		more = max(more, leastMore)
		s.due = now.Add(more)
		s.timer.Reset(more)
		return
	}
	s.lasted, s.waited, s.starved = lasted, wait, !hadTime(s.timeout, lasted, wait)
	s.stop(over)
}

// cutShort is called when who asked no longer wants to know.
func (s *span) cutShort() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == running {
		s.stop(cut)
	}
}

// stop ends whatever waits. s.mu is held.
func (s *span) stop(why spanState) {
	s.state = why
	if s.conn != nil {
		s.conn.SetDeadline(aLongTimeAgo)
	}
	if s.ended != nil {
		close(s.ended)
	}
	if s.cancel != nil && why == over {
		s.cancel(errTimeout)
	}
}

// hold has what waits on the connection end with the time of the probe.
func (s *span) hold(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conn = conn
	if s.state != running {
		conn.SetDeadline(aLongTimeAgo)
	}
}

// drain gives the connection a moment more, whatever the time of the probe; false if that is over.
func (s *span) drain() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != running || s.ctx.Err() != nil {
		return false
	}
	s.state = draining
	s.timer.Reset(drainTime)
	return true
}

// stopped reports whether the time of the probe is over, for whatever reason.
func (s *span) stopped() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state == over || s.ctx.Err() != nil
}

// context returns one that is done when the time of the probe is over.
func (s *span) context() context.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inner == nil {
		s.inner, s.cancel = context.WithCancelCause(s.ctx)
		switch s.state {
		case running, draining, cut:
		case over:
			s.cancel(errTimeout)
		case done:
			s.cancel(nil)
		}
	}
	return s.inner
}

// channel returns one that is closed when the time of the probe is over.
func (s *span) channel() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended == nil {
		s.ended = make(chan struct{})
		if s.state != running && s.state != draining {
			close(s.ended)
		}
	}
	return s.ended
}

// A patience is the context of a span, made when somebody asks why it ended: most connections open at once, or as soon as the guest answers.
type patience struct{ *span }

func (p patience) Deadline() (time.Time, bool) { return p.ctx.Deadline() }
func (p patience) Done() <-chan struct{}       { return p.channel() }
func (p patience) Value(key any) any           { return p.context().Value(key) }

func (p patience) Err() error {
	select {
	case <-p.channel():
		return cmp.Or(p.context().Err(), context.Canceled)
	default:
		return nil
	}
}

// wait returns what the host has kept from the probe up to now: the larger of the tick's lateness and the delay of the virtual
// processor that waited most.
func (s *span) wait(now time.Time) time.Duration {
	most := thePulse.at(now) - s.late
	if s.delays == nil {
		return most
	}
	var room [8]time.Duration
	for i, d := range s.delays(room[:0]) {
		if i < len(s.before) {
			most = max(most, d-s.before[i])
		}
	}
	return most
}

// over reports whether the probe has had all the time that it gets.
func (s *span) over() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state == over
}

// overdue is what a probe amounts to that did not get its answer.
func (s *span) overdue(format string, args ...any) health.Result {
	what := fmt.Sprintf(format, args...)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.starved {
		return inconclusive(health.CauseStarved, fmt.Sprintf("the host is starved: it kept %s from the %s that the probe took, so it did not have its timeout of %s: %s",
			s.waited.Round(time.Millisecond), s.lasted.Round(time.Millisecond), s.timeout, what))
	}
	return failure(fmt.Sprintf("timeout after %s: %s", s.timeout, what))
}
