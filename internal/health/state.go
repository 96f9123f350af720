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
	// What is known of the guest in this run.
	Agent   bool // has said HELLO
	Network bool // has sent a frame

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
	// Of a machine that was restored; zero: it was booted.
	Patience time.Time // ten seconds after it went on: until then its network and its agent are waited for
	Hello    time.Time // its agent's HELLO, or Patience until that comes: a failure of a probe that starts before it never counts

	Due        time.Time     // the scheduled probe; zero: none
	Asked      bool          // a probe was asked for and has not begun
	Queued     time.Time     // since when the next probe waits for its turn; zero: none does
	Flying     bool          // a probe of this window has begun and not ended
	CountFrom  time.Time     // when the gap that the last counted failure set is over
	Gap        time.Duration // the last one that was set
	Pace       time.Duration // the last gap at the adaptive pace; 0: it begins anew
	Confirming bool          // the last gap was that of an edge
	Waiting    bool          // rather than a gap: the last result found missing what the guest is still on its way to

	Kept     Hint      // the newest hint that has not been judged
	Hints    int       // how many asked for a probe since the status changed
	HintFree time.Time // when the limiter of hints is full again; zero: it is
}

// A Kind says what an Input is about.
type Kind int

// The kinds of input.
const (
	Tick      Kind = iota // time passed
	Seen                  // the controller told what it knows: Run, Phase, Entered, Agent, Network, Restored, PolicyChanged
	Asking                // a probe is wanted now: a person, or somebody who waits on a stale instance
	Hinted                // the guest's agent said that Port began, or ceased, to be listened on: Listening
	Queued                // a probe that was due or asked for waits for its turn; Begun follows, unless it is no longer wanted
	Begun                 // a probe began
	Probed                // a probe of this window ended: Result, Asked, Hash
	Restarted             // the daemon was away and has read this state from its record: Hash
)

// An Input is one thing that happened.
type Input struct {
	Kind          Kind
	Run           uint64
	Phase         Phase
	Entered       time.Time // not after now
	Agent         bool
	Network       bool
	Restored      time.Time // zero: booted; not after now
	PolicyChanged bool      // p is not equal to the policy of the last Next
	Port          uint16
	Listening     bool
	Result        Result
	Asked         bool   // the probe was asked for, rather than due
	Hash          uint64 // of id and probe number, for jitter; of the id alone, for Restarted
}

// Next returns the state after in happened at now, and when the next probe is due: zero for never, now or earlier for at once. The
// caller calls it for a Tick at StaleAt at the latest. It reads no clock and no randomness. p is the policy in force.
func (s State) Next(p Policy, now time.Time, in Input) (State, time.Time) {
	due := s.step(&p, now, &in)
	return s, due
}

// step is Next in place: a state has half a kilobyte, and copies of it, on the stack of each of thousands of loops, are what their
// memory would be.
func (s *State) step(p *Policy, now time.Time, in *Input) time.Time {
	status, stale := s.Status, s.stale()
	switch in.Kind {
	case Seen:
		s.seen(p, now, in)
	case Asking:
		s.Asked = s.probing(p)
	case Hinted:
		s.hinted(p, in)
	case Queued:
		s.Asked, s.Queued = false, now
	case Begun:
		s.dequeued(now)
		s.heed(p, now) // a hint whose time has come asked for this probe
		s.Asked, s.Flying, s.Kept = false, true, NoHint
	case Probed:
		s.dequeued(now)
		s.Flying = false
		s.probed(p, now, in)
	case Restarted:
		s.restarted(p, now, in)
	}
	if in.Kind != Restarted { // what is shown stays until the controller has spoken
		s.staled(p, now)
		s.show(p, now)
		s.heed(p, now)
	}
	if s.tells(status, stale) {
		s.N++
	}
	return s.next(p, now)
}

// next returns when the next probe is due.
func (s *State) next(p *Policy, now time.Time) time.Time {
	switch {
	case !s.probing(p):
		return time.Time{}
	case s.Asked:
		return sooner(s.Due, now)
	case s.Kept != NoHint && !s.Flying:
		return sooner(s.Due, s.hintAt())
	}
	return s.Due
}

// dequeued ends the wait for a turn. It was no time in which a result could have come.
func (s *State) dequeued(now time.Time) {
	if !s.Queued.IsZero() {
		s.Fresh = s.Fresh.Add(max(now.Sub(later(s.Queued, s.Fresh)), 0))
		s.Queued = time.Time{}
	}
}

// probing reports whether the instance is active and has a policy.
func (s *State) probing(p *Policy) bool { return !p.Disabled() && s.Phase != Inactive }

// seen takes the controller's view.
func (s *State) seen(p *Policy, now time.Time, in *Input) {
	run, phase, awaited := s.Run, s.Phase, s.awaits(p, now)
	s.Phase, s.Agent, s.Network = in.Phase, in.Agent, in.Network
	active := in.Phase != Inactive
	if active {
		s.Run = in.Run
	}
	fresh := in.PolicyChanged || active && (s.Run != run || s.Window == 0 || s.Phase == Initializing && !s.Entered.IsZero())
	if fresh {
		s.open(p, now)
	}
	if !s.probing(p) {
		s.Asked, s.Queued, s.Kept = false, time.Time{}, NoHint
		return
	}
	resumed := !fresh && phase == Inactive
	if resumed {
		s.Fresh = now
	}
	switch {
	case s.Phase == Running && s.Entered.IsZero():
		s.enter(p, now, in)
	case fresh || resumed:
		s.Asked = true
	case (s.Waiting || s.Due.IsZero()) && awaited && !s.awaits(p, now):
		s.Asked = true
	}
	if s.Agent && now.Before(s.Hello) {
		s.greeted(p, now)
	}
}

// open begins a window. With no policy there is nothing to observe, and no window.
func (s *State) open(p *Policy, now time.Time) {
	next := State{Run: s.Run, Window: s.Window, Phase: s.Phase, Agent: s.Agent, Network: s.Network, Status: s.Status, Since: s.Since, Last: s.Last, N: s.N, AgentBy: s.AgentBy, Verdict: StatusStarting}
	if !p.Disabled() {
		next.Window++
		next.WindowAt, next.Fresh = wall(now), now
	}
	*s = next
}

// enter is the entry into Running: the grace runs from here, or from now if the policy came later; the pace begins anew with a
// probe at once; and successes from before are worth what they are.
func (s *State) enter(p *Policy, now time.Time, in *Input) {
	entered := now
	if !in.PolicyChanged && !in.Entered.IsZero() {
		entered = past(now, in.Entered)
	}
	if !in.Restored.IsZero() {
		s.Patience = past(now, in.Restored).Add(patience)
		s.Hello = s.Patience
	}
	s.Entered, s.GraceEnd = entered, later(entered, s.Hello).Add(p.StartPeriod)
	s.AgentBy = later(s.AgentBy, later(entered, s.Patience))
	s.Fresh = later(s.Fresh, entered)
	s.Asked, s.Due, s.Pace, s.Confirming, s.Waiting = true, time.Time{}, 0, false, false
	if s.Successes >= p.SuccessThreshold || s.Verdict == StatusHealthy { // the latter was read from the log
		s.healthy(now)
	}
}

// greeted is the HELLO of a restored machine's agent, in time: the grace runs from here, if it runs.
func (s *State) greeted(p *Policy, now time.Time) {
	s.Hello = now
	if s.Verdict != StatusHealthy {
		s.GraceEnd = now.Add(p.StartPeriod)
	}
}

// awaits reports whether the guest is still on its way to what the check needs, so that a probe that found it missing waits for it.
func (s *State) awaits(p *Policy, now time.Time) bool {
	there := s.Agent || s.Network && p.NeedsNetwork()
	return !there && (s.Entered.IsZero() || now.Before(s.Patience))
}

// healthy decides so, which ends the grace.
func (s *State) healthy(now time.Time) {
	s.Verdict = StatusHealthy
	s.GraceEnd = past(now, s.GraceEnd)
}

// inGrace reports whether a probe that starts at t belongs to the grace. All of Initializing does.
func (s *State) inGrace(t time.Time) bool { return s.Entered.IsZero() || t.Before(s.GraceEnd) }

// probed takes the result of a probe of this window.
func (s *State) probed(p *Policy, now time.Time, in *Input) {
	if p.Disabled() {
		return
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
			s.healthy(now)
		}
	case Failure:
		s.Successes, s.FailureAt, s.Error = 0, s.CheckedAt, r.Reason
		switch {
		case s.inGrace(r.Start) || r.Start.Before(s.Hello):
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
		s.schedule(p, now, in.Hash, r)
	}
	if counted && r.Outcome == Failure {
		s.CountFrom = s.Due
	}
}

// judge returns what a result means in this state: nothing about the workload once it is stopping, and an agent that is missing is
// a failure when it has had its time.
func (s *State) judge(r Result) Result {
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

// patience is how long after a daemon's start, or a restore, an agent may be missing, and after a restore the network.
const patience = 10 * time.Second

// restarted goes on where the record ends: no new window, nothing flips. The first probes of all instances are spread.
func (s *State) restarted(p *Policy, now time.Time, in *Input) {
	s.Asked, s.Queued, s.Flying = false, time.Time{}, false
	s.Kept, s.Hints, s.HintFree = NoHint, 0, time.Time{}
	s.Fresh, s.AgentBy = now, now.Add(patience)
	if !s.probing(p) {
		return
	}
	if s.Stale == "" {
		s.Stale = StaleRestarted
	}
	gap := s.Gap
	if gap == 0 {
		gap = p.Interval
	}
	spread := time.Duration(in.Hash % uint64(min(gap, 30*time.Second)))
	s.Due = later(s.Due, now.Add(spread))
}

// StaleAt returns when the state turns stale unless a conclusive result comes first; zero for never.
func (s *State) StaleAt(p *Policy) time.Time {
	if p.Disabled() || s.Phase != Running || s.Stale == StaleInconclusive || !s.Queued.IsZero() {
		return time.Time{}
	}
	return s.Fresh.Add(max(3*(p.Interval+p.Timeout), 30*time.Second))
}

func (s *State) staled(p *Policy, now time.Time) {
	if at := s.StaleAt(p); !at.IsZero() && !now.Before(at) {
		s.Stale, s.Successes, s.Failures = StaleInconclusive, 0, 0
	}
}

// show makes Status what the phase lets be seen of the verdict.
func (s *State) show(p *Policy, now time.Time) {
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
		return
	}
	if shown == StatusUnknown && s.Status != StatusDisabled {
		s.Last = s.Status
	} else {
		s.Last = ""
	}
	s.Status, s.Since, s.Hints = shown, wall(now), 0
}

// sooner returns the sooner of two times, of which zero is never.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// past returns t, or now if that is sooner, with now's monotonic reading, whatever t has.
func past(now, t time.Time) time.Time { return now.Add(-max(now.Sub(t), 0)) }

// wall returns t as it is shown and kept: without a monotonic reading.
func wall(t time.Time) time.Time { return t.Round(0).UTC() }
