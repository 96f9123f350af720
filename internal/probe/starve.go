package probe

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/halevm/hale/internal/health"
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
	due   time.Time     // the next beat
	late  time.Duration // all beats before it
	timer *time.Timer
}

var thePulse pulse

// join has the pulse beat, and returns the lateness up to now: what at says later is to be compared with it.
func (p *pulse) join(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.users++; p.users == 1 {
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

func (p *pulse) sum(now time.Time) time.Duration { return p.late + max(0, now.Sub(p.due)) }

// next sets the next beat. p.mu is held.
func (p *pulse) next(now time.Time) {
	p.due = now.Add(tick)
	if p.timer != nil {
		p.timer.Reset(tick)
		return
	}
	var timer *time.Timer
	timer = time.AfterFunc(tick, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.timer != timer { // stopped meanwhile
			return
		}
		now := time.Now()
		p.late = p.sum(now)
		p.next(now)
	})
	p.timer = timer
}

// A span is the time of one probe.
type span struct {
	ctx     context.Context // of who asked
	within  context.Context // is done too, for errTimeout, when the probe is over
	cancel  context.CancelCauseFunc
	timeout time.Duration
	start   time.Time
	late    time.Duration // the pulse at start
	delays  func([]time.Duration) []time.Duration
	before  []time.Duration // the delays at start

	mu      sync.Mutex
	timer   *time.Timer
	due     time.Time // of timer
	ended   bool
	lasted  time.Duration // when it was over
	waited  time.Duration
	starved bool
}

// begin starts the time of a probe; end must be called.
func (t Target) begin(ctx context.Context, start time.Time, timeout time.Duration) *span {
	s := &span{ctx: ctx, timeout: timeout, start: start, late: thePulse.join(start), delays: t.RunDelay, due: start.Add(timeout)}
	if s.delays != nil {
		s.before = s.delays(nil)
	}
	s.within, s.cancel = context.WithCancelCause(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.timer = time.AfterFunc(timeout, s.check)
	return s
}

func (s *span) end() {
	s.mu.Lock()
	s.ended = true
	s.timer.Stop()
	s.mu.Unlock()
	s.cancel(nil)
	thePulse.leave()
}

// check is called when the probe may have had its time.
func (s *span) check() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
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
	s.cancel(errTimeout)
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
func (s *span) over() bool { return s.within.Err() != nil && context.Cause(s.within) == errTimeout }

// late is what a probe amounts to that did not get its answer.
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
