package health

import (
	"runtime/debug"
	"slices"
	"time"
)

// begin begins a probe if one is due and none is in flight, or joins the queue for it.
func (l *loop) begin() {
	now := time.Now()
	if l.flight != nil || l.due.IsZero() || now.Before(l.due) || l.set.ctx.Err() != nil || l.forgot.Load() {
		return
	}
	l.set.hooks.Began(l.id, now.Sub(later(l.due, l.free))) // what came due during a flight waits for its end by design
	f := &flight{crew: &l.set.crew, window: l.s.Window, joined: now}
	if l.p.queues() {
		f.turn = l.set.queue.join(l.slow, func() { l.mail.bring(granted) })
		l.flight = f
		l.next(now, Input{Kind: Queued})
	} else {
		l.depart(f, now)
	}
}

// depart begins the probe whose turn it is: whoever runs the loop makes it.
func (l *loop) depart(f *flight, now time.Time) {
	f.asked = l.s.Due.IsZero() || now.Before(l.s.Due)
	if f.turn != nil {
		l.set.hooks.Waited(l.p.Type, now.Sub(f.joined))
	}
	l.next(now, Input{Kind: Begun})
	f.start, f.until = now, now.Add(4*l.p.Timeout+probeSlack)
	f.policy = l.p
	l.flight = f
	l.probes++
	l.set.flying.Add(1)
	l.leaving = f
}

// probe asks once. Its answer is waited for in every case. It is called while the loop is not the caller's.
func (l *loop) probe(f *flight) (r Result) {
	t := f.turn
	started := idle
	if t != nil {
		started = func() { t.end(false) }
	}
	defer func() {
		if v := recover(); v != nil {
			l.log.Error("a probe panicked", "panic", v, "stack", string(debug.Stack()))
			l.set.hooks.Panicked()
			r = Result{Outcome: Inconclusive, Cause: CausePanic, Reason: "the probe panicked: the daemon's log has the stack"}
		}
		started()
		l.set.flying.Add(-1)
	}()
	return l.set.config.Probe(f, l.id, *f.policy, started)
}

func idle() {}

// landed takes the answer of the probe in flight.
func (l *loop) landed() {
	f, now := l.flight, time.Now()
	l.flight, l.free = nil, now
	overdue := f.Err() == errOverdue
	f.end(errLanded)
	if l.ending { // the daemon ends, or the instance is gone: that says nothing about the workload
		return
	}
	r := f.answer
	l.slow = f.turn != nil && f.turn.usedUp()
	if f.window != l.s.Window || l.p.Disabled() {
		l.unanswered()
		return
	}
	r = r.clean()
	r.Start, r.Queued = f.start, f.start.Sub(f.joined)
	took := now.Sub(f.start)
	if r.Duration <= 0 {
		r.Duration = took
	}
	r.Duration = min(r.Duration, took)
	switch {
	case f.cut:
		r = Result{Start: r.Start, Duration: r.Duration, Outcome: Inconclusive, Cause: CauseCutShort, Reason: reasonCutShort}
	case overdue && r.Outcome != Success:
		r = Result{Start: r.Start, Duration: r.Duration, Outcome: Inconclusive, Cause: CauseNoAnswer, Reason: errOverdue.Error()}
	}
	r = l.s.judge(r)
	if r.Reason == reasonNoAgent && l.agentTold != l.s.Window {
		l.agentTold = l.s.Window
		l.log.Warn("the guest agent is not connected: exec checks fail until it is back")
	}
	l.next(now, Input{Kind: Probed, Result: r, Asked: f.asked, Hash: mix(l.hash + l.probes)})
	l.set.hooks.Probed(l.p.Type, r.Outcome, r.Cause, r.Duration)
	l.reply(answer{result: WindowResult{Result: r, Window: f.window}})
}

// reply answers all who wait for a result.
func (l *loop) reply(a answer) {
	l.mu.Lock()
	waiters := l.waiters
	l.waiters = nil
	l.mu.Unlock()
	for _, w := range waiters {
		w <- a
	}
}

// leave is one who waits no longer.
func (l *loop) leave(reply chan<- answer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := slices.Index(l.waiters, reply); i >= 0 {
		l.waiters = slices.Delete(l.waiters, i, i+1)
	}
}

// unanswered is for those who waited for a probe that left no result: they wait for the new window's first, if there will be one.
func (l *loop) unanswered() {
	if err := l.refusal(); err != nil {
		l.reply(answer{err: err})
	}
}
