package health

import (
	"time"
)

// A State is everything that the next decision about one instance follows from. It is a value: Next returns another one.
//
// Times are of two kinds. Those that are shown (Since, CheckedAt, SuccessAt, FailureAt, WindowAt) are of the wall clock. The
// others are compared with now, so they carry the monotonic reading of the clock that now was read from.
type State struct {
	Run    uint64
	Window uint64 // grows by one with each window; 0: none yet
	Phase  Phase
	Agent  bool

	Status  Status    // as it is shown; "" before the first Observed
	Since   time.Time // entry into Status
	Last    Status    // while Status is unknown: the one before
	Verdict Status    // starting, healthy or unhealthy: this window's, also while the phase masks it
	N       uint64    // transitions so far, those of staleness included

	Successes     int
	Failures      int // those that count
	GraceFailures int
	CheckedAt     time.Time
	SuccessAt     time.Time
	FailureAt     time.Time
	WindowAt      time.Time
	Error         string

	Stale string    // why it is stale; "": it is not
	Fresh time.Time // from when on staleness is measured

	Entered  time.Time // entry into Running in this window; zero: not yet
	GraceEnd time.Time // once Entered: a probe that starts before it belongs to the grace
	AgentBy  time.Time // once Entered: a probe that starts before it may still miss the agent

	Due        time.Time     // the scheduled probe; zero: none
	Asked      bool          // a probe was asked for and has not begun
	CountFrom  time.Time     // when the gap that the last counted failure set is over
	Gap        time.Duration // the last one that was set
	Pace       time.Duration // the last gap at the adaptive pace; 0: it begins anew
	Confirming bool          // the last gap was that of an edge
}

// A Kind says what an Input is about.
type Kind int

// The kinds of input. Later ones (a hint of the agent, the host's starvation) join this list, and nothing else in the loop's shape.
const (
	Tick      Kind = iota // time passed
	Seen                  // the controller told what it knows: Run, Phase, Entered, Agent, PolicyChanged
	Asking                // a probe is wanted now: a person, or somebody who waits on a stale instance
	Begun                 // a probe began
	Probed                // a probe ended: Result, Asked, Hash
	Restarted             // the daemon was away and has read this state from its record: Hash
)

// An Input is one thing that happened.
type Input struct {
	Kind          Kind
	Run           uint64
	Phase         Phase
	Entered       time.Time // not after now
	Agent         bool
	PolicyChanged bool // p is not equal to the policy of the last Next
	Result        Result
	Asked         bool   // the probe was asked for, rather than due
	Hash          uint64 // of id and probe number, for jitter; of the id alone, for Restarted
}

// Next returns the state after in happened at now, and when the next probe is due: zero for never, now or earlier for at once. The
// caller calls it for a Tick at StaleAt at the latest. It reads no clock and no randomness. p is the policy in force.
func (s State) Next(p Policy, now time.Time, in Input) (State, time.Time) {
	before := s
	switch in.Kind {
	case Seen:
		s = s.seen(p, now, in)
	case Asking:
		s.Asked = s.probing(p)
	case Begun:
		s.Asked = false
	case Probed:
		s = s.probed(p, now, in)
	case Restarted:
		s = s.restarted(p, now, in)
	}
	if in.Kind != Restarted { // what is shown stays until the controller has spoken
		s = s.staled(p, now).show(p, now)
	}
	if s.tells(before) {
		s.N++
	}
	switch {
	case !s.probing(p):
		return s, time.Time{}
	case s.Asked && (s.Due.IsZero() || now.Before(s.Due)):
		return s, now
	}
	return s, s.Due
}

// probing reports whether the instance is active and has a policy.
func (s State) probing(p Policy) bool { return !p.Disabled() && s.Phase != Inactive }

// seen takes the controller's view.
func (s State) seen(p Policy, now time.Time, in Input) State {
	before := s
	s.Phase, s.Agent = in.Phase, in.Agent
	active := in.Phase != Inactive
	if active {
		s.Run = in.Run
	}
	fresh := in.PolicyChanged || active && (s.Run != before.Run || s.Window == 0 || before.Phase == Running && s.Phase == Initializing)
	if fresh {
		s = s.open(p, now)
	}
	if !s.probing(p) {
		s.Asked = false
		return s
	}
	switch {
	case s.Phase == Running && s.Entered.IsZero():
		s = s.enter(p, now, in)
	case fresh:
		s.Asked = true
	case before.Phase == Inactive: // resumed
		s.Asked, s.Fresh = true, now
	case s.Agent && !before.Agent && s.Due.IsZero(): // what waited for the guest
		s.Asked = true
	}
	return s
}

// open begins a window. With no policy there is nothing to observe, and no window.
func (s State) open(p Policy, now time.Time) State {
	next := State{Run: s.Run, Window: s.Window, Phase: s.Phase, Agent: s.Agent, Status: s.Status, Since: s.Since, Last: s.Last, N: s.N, Verdict: StatusStarting}
	if !p.Disabled() {
		next.Window++
		next.WindowAt, next.Fresh = wall(now), now
	}
	return next
}

// enter is the entry into Running: the grace runs from here, or from now if the policy came later; the pace begins anew with a
// probe at once; and successes from before are worth what they are.
func (s State) enter(p Policy, now time.Time, in Input) State {
	entered := now
	if !in.PolicyChanged && !in.Entered.IsZero() && in.Entered.Before(now) {
		entered = now.Add(-now.Sub(in.Entered)) // with now's monotonic reading, whatever in.Entered has
	}
	s.Entered, s.GraceEnd = entered, entered.Add(p.StartPeriod)
	s.AgentBy = later(s.AgentBy, entered)
	s.Fresh = later(s.Fresh, entered)
	s.Asked, s.Due, s.Pace, s.Confirming = true, time.Time{}, 0, false
	if s.Successes >= p.SuccessThreshold || s.Verdict == StatusHealthy { // the latter was read from the log
		s = s.healthy(now)
	}
	return s
}

// healthy decides so, which ends the grace.
func (s State) healthy(now time.Time) State {
	s.Verdict = StatusHealthy
	if now.Before(s.GraceEnd) {
		s.GraceEnd = now
	}
	return s
}

// inGrace reports whether a probe that starts at t belongs to the grace. All of Initializing does.
func (s State) inGrace(t time.Time) bool { return s.Entered.IsZero() || t.Before(s.GraceEnd) }

// probed takes the result of a probe of this window.
func (s State) probed(p Policy, now time.Time, in Input) State {
	if p.Disabled() {
		return s
	}
	r := s.judge(in.Result)
	s.CheckedAt = wall(r.Start)
	counted := false
	switch r.Outcome {
	case Success:
		counted = true
		s.Failures, s.SuccessAt = 0, s.CheckedAt
		s.Successes++
		if s.Phase == Running && s.Successes >= p.SuccessThreshold {
			s = s.healthy(now)
		}
	case Failure:
		s.Successes, s.FailureAt, s.Error = 0, s.CheckedAt, r.Reason
		switch {
		case s.inGrace(r.Start):
			s.GraceFailures++
		case !in.Asked || s.Failures == 0 || !r.Start.Before(s.CountFrom):
			counted = true
			s.Failures++
			if s.Failures >= p.FailureThreshold {
				s.Verdict = StatusUnhealthy
			}
		}
	}
	if r.Outcome != Inconclusive {
		s.Stale, s.Fresh = "", now
	}
	if counted || !in.Asked || s.Due.IsZero() {
		s = s.schedule(p, now, in.Hash, r, counted)
	}
	if counted && r.Outcome == Failure {
		s.CountFrom = s.Due
	}
	return s
}

// judge returns what a result means in this state: nothing about the workload once it is stopping, and an agent that is missing is
// a failure when it has had its time.
func (s State) judge(r Result) Result {
	switch {
	case s.Phase == Inactive:
		return Result{Start: r.Start, Duration: r.Duration, Outcome: Inconclusive, Cause: CauseCutShort, Reason: reasonCutShort}
	case r.Outcome == Inconclusive && r.Cause == CauseNoAgent && !s.Entered.IsZero() && !r.Start.Before(s.AgentBy):
		return Result{Start: r.Start, Duration: r.Duration, Outcome: Failure, Reason: reasonNoAgent}
	}
	return r
}

const reasonCutShort = "cut short: the instance is no longer running"

const reasonNoAgent = "the guest agent is not connected, so no command can be run: it ended, its port is unbound, or the guest hangs; " +
	"the guest's console (logs with source=vmm) says more, and stop and start bring the agent back"

// agentPatience is how long after a daemon's start, or a restore, an agent may be missing.
const agentPatience = 10 * time.Second

// restarted goes on where the record ends: no new window, nothing flips. The first probes of all instances are spread.
func (s State) restarted(p Policy, now time.Time, in Input) State {
	if !s.probing(p) {
		return s
	}
	if s.Stale == "" {
		s.Stale = StaleRestarted
	}
	s.Asked, s.Fresh = false, now
	s.AgentBy = now.Add(agentPatience)
	gap := s.Gap
	if gap == 0 {
		gap = p.Interval
	}
	spread := time.Duration(in.Hash % uint64(min(gap, 30*time.Second)))
	s.Due = later(s.Due, now.Add(spread))
	return s
}

// StaleAt returns when the state turns stale unless a conclusive result comes first; zero for never.
func (s State) StaleAt(p Policy) time.Time {
	if p.Disabled() || s.Phase != Running || s.Stale == StaleInconclusive {
		return time.Time{}
	}
	return s.Fresh.Add(max(3*(p.Interval+p.Timeout), 30*time.Second))
}

func (s State) staled(p Policy, now time.Time) State {
	if at := s.StaleAt(p); !at.IsZero() && !now.Before(at) {
		s.Stale, s.Successes, s.Failures = StaleInconclusive, 0, 0
	}
	return s
}

// show makes Status what the phase lets be seen of the verdict.
func (s State) show(p Policy, now time.Time) State {
	shown := s.Verdict
	switch {
	case p.Disabled():
		shown = StatusDisabled
	case s.Phase == Inactive:
		shown = StatusUnknown
	case s.Phase == Initializing:
		shown = StatusStarting
	}
	if shown == s.Status {
		return s
	}
	if shown == StatusUnknown && s.Status != StatusDisabled {
		s.Last = s.Status
	} else {
		s.Last = ""
	}
	s.Status, s.Since = shown, wall(now)
	return s
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// wall returns t as it is shown and kept: without a monotonic reading.
func wall(t time.Time) time.Time { return t.Round(0).UTC() }
