package reference

import (
	"math/bits"
	"time"

	"github.com/halevm/hale/internal/health"
)

// schedule is when the next probe is due by the gaps: the one that was set last since the window began or was entered, or later by
// the daemon's restarts after it; never if none was.
func (r *Reference) schedule() instant {
	due := never
	for i := len(r.facts) - 1; i >= 0; i-- {
		switch f := &r.facts[i]; {
		case f.kind == entry:
			return due
		case f.kind == restarted:
			due = max(due, f.when)
		case f.kind == result && f.sets && f.waits:
			if e := r.entered(); e != nil && e.restored != never {
				due = max(due, e.restored+guestTime)
			}
			return due
		case f.kind == result && f.sets:
			return max(due, f.at+f.gap)
		}
	}
	return due
}

// setter is the newest result that set the schedule, before one, since the window began or was entered.
func (r *Reference) setter(before *fact) *fact {
	for i := len(r.facts) - 1; i >= 0; i-- {
		switch f := &r.facts[i]; {
		case f.kind == entry:
			return nil
		case f.kind == result && f.sets && f != before:
			return f
		}
	}
	return nil
}

// waits reports whether the schedule waits for the guest.
func (r *Reference) waits() bool {
	f := r.setter(nil)
	return f != nil && f.waits
}

// lastGap is the gap that was set last in this window; 0 if none was, or if it waits.
func (r *Reference) lastGap() time.Duration {
	for i := len(r.facts) - 1; i >= 0; i-- {
		if f := &r.facts[i]; f.kind == result && f.sets {
			return f.gap
		}
	}
	return 0
}

// setGap decides on the gap after f, the newest fact.
func (r *Reference) setGap(f *fact, hash uint64) {
	if f.outcome == health.Inconclusive && r.onItsWay() {
		switch f.cause {
		case health.CauseNoMachine, health.CauseNoNetwork, health.CauseNoAgent:
			if r.entered() == nil {
				r.hit(GapWaitsInitializing)
			} else {
				r.hit(GapWaitsRestored)
			}
			f.waits = true
			return
		}
	}
	p := r.policy
	grace := r.entered() == nil || r.now < r.graceEnd()
	switch {
	case grace && p.StartInterval != 0:
		r.hit(GapStartInterval)
		f.gap = p.StartInterval
	case grace:
		r.hit(GapAdaptive)
		f.adaptive = true
		f.gap = r.pace()
		if f.gap == p.Interval {
			r.hit(GapAdaptiveAtInterval)
		}
		if p.Type == health.TypeExec && 4*f.took > f.gap {
			r.hit(GapAdaptiveExec)
			f.gap = min(p.Interval, 4*f.took)
		}
	default:
		r.hit(GapSteady)
		share, _ := bits.Mul64(hash, uint64(p.Interval/10))
		f.gap = p.Interval - p.Interval/20 + time.Duration(share)
	}

	healthy := r.Verdict() == health.StatusHealthy
	switch f.outcome {
	case health.Success:
		f.confirms = !healthy
	case health.Failure:
		f.confirms = healthy && f.definite
	case health.Inconclusive:
		if s := r.setter(f); s != nil && s.confirms {
			r.hit(ConfirmAgain)
			f.confirms = true
		}
	}
	if !f.confirms {
		return
	}
	confirm := p.ConfirmInterval
	if confirm == 0 {
		confirm = min(p.Interval, max(p.Interval/10, time.Second))
	}
	switch {
	case healthy:
		r.hit(ConfirmDefinite)
		f.gap = confirm
	case confirm < f.gap:
		r.hit(ConfirmSuccess)
		f.gap = confirm
	default:
		r.hit(ConfirmSuccessGapSooner)
	}
}

// pace is the adaptive gap after as many as were set at that pace since the window began or was entered.
func (r *Reference) pace() time.Duration {
	gap := time.Duration(0)
	for i := len(r.facts) - 1; i >= 0 && r.facts[i].kind != entry; i-- {
		if r.facts[i].adaptive {
			gap = min(r.policy.Interval, max(100*time.Millisecond, gap+gap/5))
		}
	}
	return gap
}
