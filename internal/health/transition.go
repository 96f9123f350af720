package health

import (
	"fmt"
	"slices"
	"time"
)

// tells reports whether the way from a status and staleness, as they were shown, to s is a transition: one of status, or of staleness. The first
// status of an instance is none, and that the daemon was away is no news of the instance.
func (s *State) tells(status Status, stale string) bool {
	if status == "" {
		return false
	}
	now := s.stale()
	return s.Status != status || now != stale && now != StaleRestarted
}

// transition describes the way from before to s, which tells.
func (s *State) transition(before *State, p *Policy, now time.Time, in *Input) Transition {
	t := Transition{Time: wall(now), From: before.Status, To: s.Status, Window: s.Window, N: s.N, Stale: s.stale(), Run: s.Run, Policy: p.sum()}
	if in.Kind == Probed && in.Result.Outcome == Failure {
		t.Output = in.Result.Output
	}
	switch {
	case s.Stale == StaleInconclusive && before.Stale != StaleInconclusive && s.Status == before.Status:
		t.Reason = fmt.Sprintf("no conclusive result for %s", now.Sub(s.Fresh).Round(time.Second))
	case in.Kind == Probed:
		t.Reason = in.Result.Reason
	case s.Status == StatusDisabled:
		t.Reason = "no health check is set"
	case s.Status == StatusUnknown:
		t.Reason = "the instance is not running"
	case s.Window != before.Window && s.Run == before.Run:
		t.Reason = "the health check changed"
	case s.Window != before.Window && !s.Patience.IsZero():
		t.Reason = "the instance was restored from standby"
	case s.Window != before.Window:
		t.Reason = "the instance started"
	case before.Status == StatusUnknown:
		t.Reason = "the instance goes on"
	case s.Status == StatusHealthy:
		t.Reason = "it answered while it was initializing"
	}
	return t
}

// replay applies transitions that the log holds and the record behind s has not seen: the log is the commit.
func (s State) replay(log []Transition) State {
	for _, t := range log {
		if t.N <= s.N {
			continue
		}
		if !t.known() {
			s.N = t.N // so that no other one gets its number
			continue
		}
		if t.Window != s.Window || t.To == StatusDisabled {
			// The record knows nothing of that window, or of its end. The controller's first word is the entry into Running once more, and
			// leaves the verdict alone.
			s = State{Run: s.Run, Window: t.Window, Phase: s.Phase, Agent: s.Agent, Network: s.Network, Last: s.Last, Verdict: StatusStarting}
		}
		s.N = t.N
		if t.To != StatusUnknown { // which shows none, and ends none
			s.Stale = t.Stale
		}
		if t.Run != 0 {
			s.Run = t.Run
		}
		if s.Stale == StaleInconclusive {
			s.Successes, s.Failures = 0, 0
		}
		if t.From != t.To {
			s.Since = t.Time
		}
		s.Status = t.To
		switch t.To {
		case StatusStarting:
			s.Verdict = t.To
			if s.Phase == Inactive {
				s.Phase = Initializing
			}
		case StatusHealthy:
			s.Phase, s.Verdict, s.Failures = Running, t.To, 0
			s.GraceEnd = past(s.Entered, s.GraceEnd) // it was over at some time before now
		case StatusUnhealthy:
			s.Phase, s.Verdict, s.Successes, s.Error = Running, t.To, 0, t.Reason
		case StatusUnknown:
			s.Phase = Inactive
			if t.From != t.To {
				s.Last = t.From
			}
		}
	}
	return s
}

// known reports whether this version knows what a transition says.
func (t *Transition) known() bool {
	return slices.Contains(statuses, t.From) && slices.Contains(statuses, t.To) && slices.Contains(stales, t.Stale)
}
