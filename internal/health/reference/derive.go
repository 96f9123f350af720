package reference

import (
	"time"

	"github.com/halevm/hale/internal/health"
)

// Phase is the last one that was seen.
func (r *Reference) Phase() health.Phase {
	if f := r.lastSeen(); f != nil {
		return f.phase
	}
	return health.Inactive
}

func (r *Reference) lastSeen() *fact {
	for i := len(r.facts) - 1; i >= 0; i-- {
		if f := &r.facts[i]; f.kind == seen || f.kind == window {
			return f
		}
	}
	return nil
}

// Probed reports whether the instance is active and has a policy.
func (r *Reference) Probed() bool { return r.probed(r.Phase()) }

func (r *Reference) probed(p health.Phase) bool { return p != health.Inactive && !r.policy.Disabled() }

// entered is the entry into Running in this window, or nil.
func (r *Reference) entered() *fact {
	for i := range r.facts {
		if r.facts[i].kind == entry {
			return &r.facts[i]
		}
	}
	return nil
}

// Verdict is what the window has come to: where it turned last.
func (r *Reference) Verdict() health.Status {
	for i := len(r.facts) - 1; i >= 0; i-- {
		if turn := r.facts[i].turn; turn != "" {
			return turn
		}
	}
	return health.StatusStarting
}

// Successes is the streak that stands now: back to the last failure or the last time without conclusive results.
func (r *Reference) Successes() (n int) {
	for i := len(r.facts) - 1; i >= 0; i-- {
		switch f := &r.facts[i]; {
		case f.kind == stale, f.kind == result && f.outcome == health.Failure:
			return n
		case f.kind == result && f.outcome == health.Success:
			n++
		}
	}
	return n
}

// Failures is the streak of failures that counted.
func (r *Reference) Failures() (n int) {
	for i := len(r.facts) - 1; i >= 0; i-- {
		switch f := &r.facts[i]; {
		case f.kind == stale, f.kind == result && f.outcome == health.Success:
			return n
		case f.kind == result && f.outcome == health.Failure && f.counts:
			n++
		}
	}
	return n
}

// GraceFailures is how many did not count for when they began.
func (r *Reference) GraceFailures() (n int) {
	for i := range r.facts {
		if r.facts[i].inGrace {
			n++
		}
	}
	return n
}

// newest is the last result with this outcome, of any for "".
func (r *Reference) newest(o health.Outcome) *fact {
	for i := len(r.facts) - 1; i >= 0; i-- {
		if f := &r.facts[i]; f.kind == result && (o == "" || f.outcome == o) {
			return f
		}
	}
	return nil
}

// hello is the agent's HELLO, or the end of the time that it has, after a restore; never otherwise.
func (r *Reference) hello() instant {
	e := r.entered()
	if e == nil || e.restored == never {
		return never
	}
	limit := e.restored + guestTime
	for i := range r.facts {
		f := &r.facts[i]
		if f == e || f.kind == seen && f.at >= e.at {
			if f.agent {
				return min(f.at, limit)
			}
		}
	}
	return limit
}

// graceEnd is the earlier of the end of start_period and the moment in which it became healthy.
func (r *Reference) graceEnd() instant {
	e := r.entered()
	if e == nil {
		return never
	}
	end := max(e.when, r.hello()) + r.policy.StartPeriod
	for i := range r.facts {
		if f := &r.facts[i]; f.turn == health.StatusHealthy && (f == e || f.kind == result) {
			return min(end, f.at)
		}
	}
	return end
}

// there reports whether what the check needs of the guest is.
func (r *Reference) there() bool {
	f := r.lastSeen()
	return f != nil && (f.agent || f.network && r.policy.NeedsNetwork())
}

// onItsWay reports whether it is not, and may still be waited for.
func (r *Reference) onItsWay() bool {
	e := r.entered()
	return !r.there() && (e == nil || e.restored != never && r.now < e.restored+guestTime)
}

// Stale is why the status is.
func (r *Reference) Stale() string {
	for i := len(r.facts) - 1; i >= 0; i-- {
		switch f := &r.facts[i]; {
		case f.kind == stale:
			return health.StaleInconclusive
		case f.kind == restarted && f.stales:
			return health.StaleRestarted
		case f.conclusive():
			return ""
		}
	}
	return ""
}

// shownStale is what can be seen of that: none of one that does not run.
func (r *Reference) shownStale() string {
	if r.Phase() == health.Inactive {
		return ""
	}
	return r.Stale()
}

// staleAt is when a conclusive result will be wanting: the limit after the latest of the moments from which it is measured, each
// moved by the time queued since. Nobody turns stale in the queue.
func (r *Reference) staleAt() instant {
	if r.queuedAt() != never || !r.canTurnStale() {
		return never
	}
	latest, waited := never, false
	for i := range r.facts {
		latest = max(latest, r.measured(&r.facts[i]))
		waited = waited || r.facts[i].kind == queued
	}
	for i := range r.facts {
		if at := r.measured(&r.facts[i]); waited && at != never {
			latest = max(latest, at+r.queuedSince(at, i))
		}
	}
	return latest + r.limit()
}

// measured is the moment that f is, if staleness is measured from it.
func (r *Reference) measured(f *fact) instant {
	switch {
	case f.kind == window, f.resumed, f.kind == restarted, f.conclusive():
		return f.at
	case f.kind == entry:
		return f.when
	}
	return never
}

func (r *Reference) canTurnStale() bool {
	return !r.policy.Disabled() && r.Phase() == health.Running && r.Stale() != health.StaleInconclusive
}

func (r *Reference) limit() time.Duration {
	return max(3*(r.policy.Interval+r.policy.Timeout), 30*time.Second)
}

// queuedSince sums the time that probes have waited for their turn since from, of which the fact with this number told: a wait
// that was over by then is no part of it.
func (r *Reference) queuedSince(from instant, fact int) (sum time.Duration) {
	since := never
	for i := range r.facts {
		switch f := &r.facts[i]; f.kind {
		case queued:
			since = f.at
		case begun, result:
			if since != never && i > fact {
				sum += f.at - max(since, from)
			}
			since = never
		case restarted:
			since = never
		case seen:
			if f.phase == health.Inactive {
				since = never
			}
		}
	}
	return sum
}

// queuedAt is since when the next probe waits for its turn.
func (r *Reference) queuedAt() instant {
	for i := len(r.facts) - 1; i >= 0; i-- {
		switch f := &r.facts[i]; f.kind {
		case queued:
			return f.at
		case begun, result, restarted:
			return never
		case seen:
			if f.phase == health.Inactive {
				return never
			}
		}
	}
	return never
}

// Flying reports whether a probe of this window has begun and not ended.
func (r *Reference) Flying() bool {
	for i := len(r.facts) - 1; i >= 0; i-- {
		switch r.facts[i].kind {
		case begun:
			return true
		case result, restarted:
			return false
		}
	}
	return false
}

// Asked reports whether a probe was asked for and has not begun.
func (r *Reference) Asked() bool {
	for i := len(r.facts) - 1; i >= 0; i-- {
		switch f := &r.facts[i]; f.kind {
		case asked, entry, hinted:
			return true
		case begun, queued, restarted:
			return false
		case seen:
			if f.phase == health.Inactive {
				return false
			}
		}
	}
	return false
}
