package reference

import "github.com/halevm/hale/internal/health"

func (r *Reference) takeResult(in *health.Input) {
	// What is asked of the time before this result is asked before it is one.
	straddled, inactive := r.inactiveSinceBegun()
	unscheduled := r.schedule() == never
	e := r.entered()
	f := fact{
		kind: result, when: r.instant(in.Result.Start), took: in.Result.Duration, outcome: in.Result.Outcome,
		cause: in.Result.Cause, reason: in.Result.Reason, definite: in.Result.Definite, asked: in.Asked,
	}
	if r.policy.Disabled() {
		return
	}
	switch {
	case inactive || straddled:
		if inactive {
			r.hit(ResultCutShort)
		} else {
			r.hit(ResultCutShortResumed)
		}
		f.outcome, f.cause, f.reason, f.definite = health.Inconclusive, health.CauseCutShort, "", false
	case f.outcome == health.Inconclusive && f.cause == health.CauseNoAgent:
		switch {
		case e == nil || f.when < e.when || r.restore != never && f.when < r.restore+guestTime:
			r.hit(ResultNoAgentEarly)
		case r.daemon != never && f.when < r.daemon+guestTime:
			r.hit(ResultNoAgentDaemon)
		default:
			r.hit(ResultNoAgentFailure)
			f.outcome, f.cause, f.reason, f.noAgent, f.definite = health.Failure, "", "", true, false
		}
	}
	var counts bool
	switch f.outcome {
	case health.Inconclusive:
		r.hit(ResultInconclusive)
	case health.Success:
		counts = true
	case health.Failure:
		f.inGrace = r.inGrace(f.when)
		counts = !f.inGrace && r.failureCounts(&f)
	}
	f.counts = counts
	if unscheduled && !counts && f.asked {
		r.hit(ScheduleMissing)
	}
	f.sets = counts || !f.asked || unscheduled
	if !f.sets {
		r.hit(ScheduleKept)
	}

	verdict, graceEnd, why := r.Verdict(), r.graceEnd(), r.Stale()
	last := r.add(f)
	switch {
	case f.outcome == health.Success && r.Phase() != health.Running:
		r.hit(SuccessInitializing)
	case f.outcome == health.Success && r.Successes() < r.policy.SuccessThreshold:
		r.hit(SuccessShort)
	case f.outcome == health.Success:
		switch verdict {
		case health.StatusHealthy:
			r.hit(SuccessStays)
		case health.StatusUnhealthy:
			r.hit(SuccessRecovers)
		default:
			r.hit(SuccessTurns)
		}
		if r.now < graceEnd {
			r.hit(SuccessEndsGrace)
		}
		last.turn = health.StatusHealthy
	case counts && r.Failures() >= r.policy.FailureThreshold && verdict != health.StatusUnhealthy:
		if verdict == health.StatusHealthy {
			r.hit(FailureTurns)
		} else {
			r.hit(FailureTurnsUndecided)
		}
		last.turn = health.StatusUnhealthy
	case counts:
		r.hit(FailureStays)
	}
	if why != "" && last.conclusive() {
		if f.outcome == health.Success {
			r.hit(SuccessEndsStale)
		} else {
			r.hit(FailureEndsStale)
		}
	}
	if f.sets {
		r.setGap(last, in.Hash)
	}
}

// inGrace reports whether a failure of a probe that began at start does not count for when it began.
func (r *Reference) inGrace(start instant) bool {
	e := r.entered()
	switch {
	case e == nil:
		r.hit(FailureInitializing)
		return true
	case start < r.graceEnd() && start < e.when:
		r.hit(FailureBeforeEntry)
		return true
	case start < r.graceEnd():
		r.hit(FailureGrace)
		return true
	case start < r.hello():
		r.hit(FailureBeforeHello)
		return true
	case start == r.graceEnd():
		r.hit(FailureAtGraceEnd)
	}
	return false
}

func (r *Reference) failureCounts(f *fact) bool {
	if !f.asked {
		r.hit(FailureCounts)
		return true
	}
	if r.Failures() == 0 {
		r.hit(FailureAskedFirst)
		return true
	}
	for i := len(r.facts) - 1; ; i-- { // there is one, for there is a streak
		if c := &r.facts[i]; c.kind == result && c.outcome == health.Failure && c.counts {
			if f.when < c.at+c.gap {
				r.hit(FailureAskedTooSoon)
				return false
			}
			r.hit(FailureAskedLater)
			return true
		}
	}
}

// inactiveSinceBegun reports whether the instance was inactive at any time since the probe in flight began, and whether it is now.
func (r *Reference) inactiveSinceBegun() (any, now bool) {
	now = r.Phase() == health.Inactive
	for i := len(r.facts) - 1; i >= 0; i-- {
		switch f := &r.facts[i]; f.kind {
		case seen, window:
			if f.phase == health.Inactive {
				return true, now
			}
		case begun:
			return false, now
		}
	}
	return false, now
}
