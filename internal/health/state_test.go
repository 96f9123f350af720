package health

import (
	"strings"
	"testing"
	"time"
)

func TestLifecycle(t *testing.T) {
	m := newSim(t, steady)
	m.phase(Inactive)
	m.is(StatusUnknown, 0, 0, time.Time{}.Sub(m.now))
	if m.s.N != 0 {
		t.Error("the first status is a transition")
	}
	m.phase(Initializing)
	m.is(StatusStarting, 0, 0, 0)
	if m.s.Window != 1 || !m.s.WindowAt.Equal(epoch) {
		t.Errorf("window %d at %v", m.s.Window, m.s.WindowAt)
	}
	m.phase(Running)
	m.probe(good)
	m.is(StatusHealthy, 1, 0, 10*time.Second)
	for i, r := range []Result{bad, bad, bad} {
		status := StatusHealthy
		if i == 2 {
			status = StatusUnhealthy
		}
		m.probe(r)
		m.is(status, 0, i+1, 10*time.Second)
	}
	if m.s.Error != bad.Reason {
		t.Errorf("last error %q", m.s.Error)
	}
	m.phase(Inactive)
	m.is(StatusUnknown, 0, 3, time.Time{}.Sub(m.now))
	if m.s.Last != StatusUnhealthy {
		t.Errorf("last status %s", m.s.Last)
	}
	m.run++
	m.phase(Initializing)
	m.is(StatusStarting, 0, 0, 0)
	if m.s.Error != "" || m.s.Window != 2 || m.s.Last != "" || !m.s.CheckedAt.IsZero() {
		t.Errorf("the new window begins with %+v", m.s)
	}
}

// Initializing masks everything; the entry into Running unmasks a streak of successes, and failures from before it never count.
func TestInitializingMasks(t *testing.T) {
	m := newSim(t, `{"interval":"10s","start_period":"0s","failure_threshold":1,"success_threshold":2,"tcp":{"port":80}}`)
	m.phase(Initializing)
	m.probe(bad)
	m.is(StatusStarting, 0, 0, 100*time.Millisecond)
	m.probe(good)
	m.is(StatusStarting, 1, 0, 120*time.Millisecond) // sooner than the confirming pace
	m.probe(good)
	m.probe(good)
	if m.s.Status != StatusStarting || m.s.Successes != 3 {
		t.Fatalf("%s with %d successes", m.s.Status, m.s.Successes)
	}
	m.phase(Running)
	m.is(StatusHealthy, 3, 0, 0)

	m = newSim(t, `{"start_period":"0s","failure_threshold":1,"tcp":{"port":80}}`)
	m.phase(Initializing)
	m.next(Input{Kind: Begun})
	r := bad
	r.Start = m.now
	m.pass(time.Second)
	m.phase(Running)
	m.pass(time.Millisecond)
	m.next(Input{Kind: Probed, Result: r, Asked: true})
	m.is(StatusStarting, 0, 0, 0) // and the probe that the entry asked for is still to come
	if m.s.GraceFailures != 1 {
		t.Errorf("%d grace failures", m.s.GraceFailures)
	}
	m.probe(bad)
	if m.s.Status != StatusUnhealthy {
		t.Errorf("%s after a failure that counts", m.s.Status)
	}
}

// The grace is from the entry into Running; a probe belongs to it by its start, and one at its very end counts.
func TestGrace(t *testing.T) {
	const policy = `{"interval":"1s","timeout":"1s","start_period":"5s","start_interval":"1s","failure_threshold":1,"tcp":{"port":80}}`
	m := newSim(t, policy)
	m.phase(Initializing)
	m.pass(time.Minute)
	m.phase(Running)
	for range 5 { // at 0s … 4s
		m.probe(bad)
		m.is(StatusStarting, 0, 0, time.Second)
	}
	m.pass(900 * time.Millisecond)
	m.ends(bad, 500*time.Millisecond, true) // begins inside the grace and ends outside
	m.is(StatusStarting, 0, 0, -400*time.Millisecond)
	if m.s.GraceFailures != 6 {
		t.Fatalf("%d grace failures", m.s.GraceFailures)
	}

	m = newSim(t, policy)
	m.phase(Initializing)
	m.phase(Running)
	for range 6 {
		m.probe(bad)
	}
	if at := m.now.Sub(epoch); m.s.Status != StatusUnhealthy || at != 5*time.Second || m.s.GraceFailures != 5 {
		t.Errorf("%s at %v", m.s.Status, at)
	}
}

// Becoming healthy ends the grace: a workload that dies then is judged at once.
func TestHealthyEndsTheGrace(t *testing.T) {
	m := healthySim(t, `{"interval":"1s","start_period":"1h","failure_threshold":2,"tcp":{"port":80}}`)
	m.probe(bad)
	m.probe(bad)
	m.is(StatusUnhealthy, 0, 2, time.Second)
}

// A failure that does not count clears the streak of successes.
func TestUncountedFailureResets(t *testing.T) {
	m := newSim(t, `{"interval":"10s","success_threshold":3,"tcp":{"port":80}}`)
	m.phase(Initializing)
	m.phase(Running)
	m.probe(good)
	m.probe(good)
	m.probe(bad)
	if m.s.Successes != 0 || m.s.Failures != 0 || m.s.GraceFailures != 1 {
		t.Errorf("%+v", m.s)
	}
}

func TestPolicyChange(t *testing.T) {
	m := healthySim(t, steady)
	m.pass(time.Hour)
	before := m.s
	m.policy(steady)
	if m.s.Window != before.Window || m.s.Asked || m.s.Status != StatusHealthy {
		t.Fatal("an equal policy changed something")
	}
	m.policy(`{"interval":"10s","timeout":"1s","start_period":"30s","failure_threshold":1,"tcp":{"port":81}}`)
	m.is(StatusStarting, 0, 0, 0)
	if m.s.Window != before.Window+1 || !m.s.GraceEnd.Equal(m.now.Add(30*time.Second)) {
		t.Errorf("window %d, grace to %v", m.s.Window, m.s.GraceEnd)
	}
	m.probe(bad)
	m.is(StatusStarting, 0, 0, 100*time.Millisecond)

	m.policy(`{"type":"none"}`)
	m.is(StatusDisabled, 0, 0, time.Time{}.Sub(m.now))
	m.policy(steady)
	m.is(StatusStarting, 0, 0, 0)
}

// A pause is no window: the old status comes back, since the resume, with one probe at once.
func TestPause(t *testing.T) {
	m := healthySim(t, steady)
	m.probe(bad)
	m.pass(time.Second)
	m.phase(Inactive)
	m.pass(time.Hour)
	if m.s.Status != StatusUnknown || m.s.Last != StatusHealthy || m.s.Stale != "" {
		t.Fatalf("%+v", m.s)
	}
	m.phase(Running)
	if m.s.Status != StatusHealthy || !m.s.Since.Equal(m.now) || m.s.Failures != 1 || m.s.Window != 1 || m.due.After(m.now) {
		t.Errorf("%+v", m.s)
	}
}

// A controller that missed the end of a run, and was told of no new one, sees it initialize again.
func TestInitializingAgain(t *testing.T) {
	m := healthySim(t, steady)
	m.phase(Initializing)
	m.is(StatusStarting, 0, 0, 0)
	if m.s.Window != 2 {
		t.Errorf("window %d", m.s.Window)
	}
}

// A probe that ends after its instance stopped says nothing.
func TestStoppedInTheMiddle(t *testing.T) {
	m := healthySim(t, `{"failure_threshold":1,"tcp":{"port":80}}`)
	m.next(Input{Kind: Begun})
	m.phase(Inactive)
	m.next(Input{Kind: Probed, Result: refusal})
	if m.s.Failures != 0 || m.s.Verdict != StatusHealthy || m.s.Error != "" {
		t.Errorf("%+v", m.s)
	}
}

func TestStale(t *testing.T) {
	m := healthySim(t, `{"interval":"20s","timeout":"1s","tcp":{"port":80}}`) // 3 × 21 s
	for m.now.Sub(epoch) < 50*time.Second {
		m.probe(dunno)
	}
	m.now = epoch
	m.pass(63*time.Second - 1)
	if m.s.Stale != "" {
		t.Fatal("too early")
	}
	n := m.s.N
	m.pass(1)
	if m.s.Stale != StaleInconclusive || m.s.Status != StatusHealthy || m.s.Successes != 0 || m.s.N != n+1 {
		t.Fatalf("%+v", m.s)
	}
	m.pass(time.Hour)
	m.probe(dunno)
	if m.s.Stale == "" || m.s.N != n+1 {
		t.Fatal("an inconclusive result ended it, or it was told twice")
	}
	m.probe(bad)
	if m.s.Stale != "" || m.s.N != n+2 || m.s.Failures != 1 {
		t.Fatalf("%+v", m.s)
	}

	m = newSim(t, steady) // 3 × 11 s
	m.phase(Initializing)
	m.pass(time.Hour)
	if m.s.Stale != "" {
		t.Error("stale while Initializing")
	}
	m.phase(Running)
	m.pass(33*time.Second - 1)
	if m.s.Stale != "" {
		t.Error("stale too soon after the entry into Running")
	}
	m.pass(1)
	if m.s.Stale != StaleInconclusive {
		t.Error("not stale though nothing was ever learned")
	}
}

// While it initializes a missing agent is waited for, not asked again and again; later it is a failure that says what to do.
func TestAgentMissing(t *testing.T) {
	m := newSim(t, `{"start_period":"0s","exec":{"command":["x"]}}`)
	m.phase(Initializing)
	m.probe(noAgent)
	if !m.due.IsZero() {
		t.Fatalf("the next probe is due in %v", m.due.Sub(m.now))
	}
	m.next(Input{Kind: Seen, Run: 1, Phase: Initializing, Agent: true})
	m.is(StatusStarting, 0, 0, 0)
	m.next(Input{Kind: Begun})
	m.phase(Running)
	m.next(Input{Kind: Probed, Result: Result{Start: m.now.Add(-1), Outcome: Inconclusive, Cause: CauseNoAgent}})
	m.is(StatusStarting, 0, 0, 0)
	if m.s.Error != "" {
		t.Errorf("a failure though the probe began while it was initializing: %s", m.s.Error)
	}
	m.probe(noAgent)
	m.is(StatusStarting, 0, 1, 10*time.Second)
	if m.s.Error != reasonNoAgent {
		t.Errorf("last error %q", m.s.Error)
	}
	for _, what := range []string{"not connected", "source=vmm", "stop and start"} { // what it is, where to look, and what to do
		if !strings.Contains(reasonNoAgent, what) {
			t.Errorf("%q says nothing of %q", reasonNoAgent, what)
		}
	}

	m = healthySim(t, `{"exec":{"command":["x"]}}`)
	m.next(Input{Kind: Restarted, Hash: 0})
	m.asked(noAgent)
	m.pass(10*time.Second - 1)
	m.asked(noAgent)
	if m.s.Failures != 0 {
		t.Error("counted though the daemon has just started")
	}
	m.pass(1)
	m.asked(noAgent)
	if m.s.Failures != 1 {
		t.Error("not counted")
	}
}

// The daemon was away: nothing flips, the schedule goes on, spread over the instances.
func TestRestarted(t *testing.T) {
	m := healthySim(t, steady)
	m.probe(bad)
	m.probe(bad)
	before := m.s
	m.now = m.now.Add(2 * time.Second)
	m.next(Input{Kind: Queued})
	m.next(Input{Kind: Asking})
	m.next(Input{Kind: Restarted, Hash: 3e9 + 10e9*7})
	if m.s.Asked || !m.s.Queued.IsZero() {
		t.Error("what was asked of the daemon before is asked of this one")
	}
	m.phase(Running)
	m.is(StatusHealthy, 0, 2, 8*time.Second) // the gap that was due is later
	if m.s.Window != before.Window || m.s.N != before.N || m.s.Stale != StaleRestarted || m.s.GraceEnd != before.GraceEnd {
		t.Errorf("%+v", m.s)
	}
	m.now = m.now.Add(time.Hour)
	m.next(Input{Kind: Restarted, Hash: 3e9 + 10e9*7})
	m.is(StatusHealthy, 0, 2, 3*time.Second) // the hash is later
	m.probe(good)
	if m.s.Stale != "" || m.s.N != before.N+1 {
		t.Errorf("%+v", m.s)
	}
}

// A record of before the last transitions takes them from the log.
func TestReplay(t *testing.T) {
	m := healthySim(t, steady)
	log := []Transition{
		{N: m.s.N, Window: 1, From: StatusStarting, To: StatusHealthy, Time: epoch},
		{N: m.s.N + 1, Window: 1, From: StatusHealthy, To: StatusHealthy, Time: epoch.Add(time.Minute), Stale: StaleInconclusive},
		{N: m.s.N + 2, Window: 1, From: StatusHealthy, To: StatusUnhealthy, Time: epoch.Add(time.Hour)},
	}
	s := m.s.replay(log)
	if s.Status != StatusUnhealthy || s.Verdict != StatusUnhealthy || s.N != m.s.N+2 || !s.Since.Equal(epoch.Add(time.Hour)) || s.Stale != "" {
		t.Errorf("%+v", s)
	}
	if again := s.replay(log); again != s {
		t.Error("replaying twice makes a difference")
	}
	s = m.s.replay(append(log, Transition{N: m.s.N + 3, Window: 2, From: StatusUnhealthy, To: StatusStarting, Time: epoch.Add(2 * time.Hour)}))
	if s.Status != StatusStarting || s.Window != 2 || s.Successes != 0 {
		t.Errorf("%+v", s)
	}
}

// What a result means when its instance has stopped, or its agent has had its time.
func TestJudge(t *testing.T) {
	at := epoch.Add(time.Second)
	given := Result{Start: at, Duration: time.Second, Outcome: Inconclusive, Cause: CauseNoAgent, Reason: "no agent", Output: "x"}
	cut := Result{Start: at, Duration: time.Second, Outcome: Inconclusive, Cause: CauseCutShort, Reason: reasonCutShort}
	failed := Result{Start: at, Duration: time.Second, Outcome: Failure, Reason: reasonNoAgent}
	other := given
	other.Cause = CauseResources
	success := given
	success.Outcome = Success
	running := State{Phase: Running, Entered: epoch, AgentBy: at}
	patient := running
	patient.AgentBy = at.Add(1)
	for name, c := range map[string]struct {
		s        State
		in, want Result
	}{
		"stopped":                 {State{Phase: Inactive, Entered: epoch}, given, cut},
		"agent missing":           {running, given, failed},
		"agent missing, patience": {patient, given, given},
		"agent missing in a boot": {State{Phase: Initializing}, given, given},
		"another cause":           {running, other, other},
		"success":                 {running, success, success},
	} {
		if got := c.s.judge(c.in); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

// A failure that was asked for and begins exactly when the gap of the last is over counts. Only a failure that counts sets that gap.
func TestCountFrom(t *testing.T) {
	m := healthySim(t, steady)
	m.probe(bad)
	from := m.s.CountFrom
	m.pass(10*time.Second - 1)
	m.asked(bad)
	m.is(StatusHealthy, 0, 1, 1)
	m.asked(dunno)
	if m.s.CountFrom != from {
		t.Error("a failure that does not count set it")
	}
	w := *m
	w.asked(good)
	if w.s.CountFrom != from {
		t.Error("a success set it")
	}
	m.pass(1)
	m.asked(bad)
	m.is(StatusHealthy, 0, 2, 10*time.Second)
	if m.s.CountFrom != m.s.Due {
		t.Error("a failure that counts did not set it")
	}
}

// Staleness clears both streaks.
func TestStaleClearsFailures(t *testing.T) {
	m := healthySim(t, steady)
	m.probe(bad)
	m.pass(33*time.Second - 1)
	if m.s.Failures != 1 || m.s.Stale != "" {
		t.Fatalf("%+v", m.s)
	}
	m.pass(1)
	if m.s.Failures != 0 || m.s.Stale != StaleInconclusive {
		t.Errorf("%+v", m.s)
	}
}

// Always starting while Initializing, whatever a start has read from the log.
func TestInitializingIsStarting(t *testing.T) {
	for _, v := range []Status{StatusHealthy, StatusUnhealthy} {
		m := newSim(t, steady)
		m.phase(Initializing)
		m.s.Verdict = v
		m.pass(1)
		if m.s.Status != StatusStarting {
			t.Errorf("%s", m.s.Status)
		}
	}
}

// A result without a policy is nobody's, though it ends the flight.
func TestResultWithoutPolicy(t *testing.T) {
	m := healthySim(t, steady)
	m.policy(`{"type":"none"}`)
	m.next(Input{Kind: Begun})
	before := m.s
	m.pass(time.Second)
	m.next(Input{Kind: Probed, Result: Result{Start: m.now, Outcome: Success}})
	before.Flying = false
	if m.s != before || !m.due.IsZero() {
		t.Errorf("%+v\nwant\n%+v", m.s, before)
	}
}
