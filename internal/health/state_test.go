package health

import (
	"fmt"
	"testing"
	"time"
)

// A sim drives Next as the loop does, with a clock of its own.
type sim struct {
	t   *testing.T
	p   Policy
	now time.Time
	s   State
	due time.Time
	run uint64
}

var epoch = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func newSim(t *testing.T, policy string) *sim {
	return &sim{t: t, p: mustParse(t, policy), now: epoch, run: 1}
}

func (m *sim) next(in Input) { m.s, m.due = m.s.Next(m.p, m.now, in) }

func (m *sim) phase(p Phase) { m.next(Input{Kind: Seen, Run: m.run, Phase: p, Entered: m.now}) }

func (m *sim) policy(policy string) {
	p := mustParse(m.t, policy)
	changed := !p.Equal(m.p)
	m.p = p
	m.next(Input{Kind: Seen, Run: m.run, Phase: m.s.Phase, Entered: epoch, PolicyChanged: changed})
}

func (m *sim) pass(d time.Duration) { m.now = m.now.Add(d); m.next(Input{}) }

// half is a hash in the middle: the jitter of it is none.
const half = 1 << 63

// ends is a probe that begins when it is due, or now, takes d, and ends with r.
func (m *sim) ends(r Result, d time.Duration, asked bool) {
	m.t.Helper()
	if !asked {
		if m.due.IsZero() {
			m.t.Fatal("no probe is due")
		}
		if m.due.After(m.now) {
			m.now = m.due
		}
		asked = m.s.Due.IsZero() || m.now.Before(m.s.Due)
	}
	m.next(Input{Kind: Begun})
	r.Start, r.Duration = m.now, d
	m.now = m.now.Add(d)
	m.next(Input{Kind: Probed, Result: r, Asked: asked, Hash: half})
}

// probe is the next probe in its turn.
func (m *sim) probe(r Result) { m.t.Helper(); m.ends(r, 0, false) }

// asked is a probe that somebody asked for now.
func (m *sim) asked(r Result) { m.t.Helper(); m.next(Input{Kind: Asking}); m.ends(r, 0, true) }

// is checks the status, both streaks, and how long it is to the next probe.
func (m *sim) is(status Status, successes, failures int, gap time.Duration) {
	m.t.Helper()
	if m.s.Status != status || m.s.Successes != successes || m.s.Failures != failures || m.due.Sub(m.now) != gap {
		m.t.Fatalf("%s, %d successes, %d failures, next in %v; want %s, %d, %d, %v",
			m.s.Status, m.s.Successes, m.s.Failures, m.due.Sub(m.now), status, successes, failures, gap)
	}
}

var (
	good    = Result{Outcome: Success, Reason: "status 200"}
	bad     = Result{Outcome: Failure, Reason: "status 500, expected 200"}
	refusal = Result{Outcome: Failure, Reason: "connection refused (port 80)", Definite: true}
	dunno   = Result{Outcome: Inconclusive, Cause: CauseResources}
	noAgent = Result{Outcome: Inconclusive, Cause: CauseNoAgent}
)

// healthySim is past its grace and healthy.
func healthySim(t *testing.T, policy string) *sim {
	m := newSim(t, policy)
	m.phase(Initializing)
	m.phase(Running)
	m.probe(good)
	if m.s.Status != StatusHealthy {
		t.Fatalf("%s after a success", m.s.Status)
	}
	return m
}

const steady = `{"interval":"10s","timeout":"1s","start_period":"30s","tcp":{"port":80}}`

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

func TestAdaptivePace(t *testing.T) {
	m := newSim(t, `{"interval":"1s","timeout":"1s","start_period":"1h","tcp":{"port":80}}`)
	m.phase(Initializing)
	for _, ms := range []float64{100, 120, 144, 172.8, 207.36} {
		m.probe(bad)
		m.is(StatusStarting, 0, 0, time.Duration(ms*1e6))
	}
	m.probe(dunno) // the same kind of gap
	m.is(StatusStarting, 0, 0, 248832*time.Microsecond)
	for range 20 {
		m.probe(bad)
	}
	m.is(StatusStarting, 0, 0, time.Second)
	m.phase(Running) // begins anew
	m.is(StatusStarting, 0, 0, 0)
	m.probe(bad)
	m.is(StatusStarting, 0, 0, 100*time.Millisecond)
}

// An exec leaves four times its own duration free.
func TestAdaptivePaceOfExec(t *testing.T) {
	m := newSim(t, `{"interval":"2s","start_period":"1h","exec":{"command":["x"]}}`)
	m.phase(Initializing)
	m.ends(bad, 200*time.Millisecond, false)
	m.is(StatusStarting, 0, 0, 800*time.Millisecond)
	m.ends(bad, time.Second, false)
	m.is(StatusStarting, 0, 0, 2*time.Second)
	m.ends(bad, time.Millisecond, false)
	m.is(StatusStarting, 0, 0, 144*time.Millisecond)
}

// At an edge: only a definite failure of a healthy workload, and a success of one that is not healthy, are confirmed quickly.
func TestConfirmation(t *testing.T) {
	const policy = `{"interval":"20s","start_period":"0s","success_threshold":2,"tcp":{"port":80}}`
	m := newSim(t, policy)
	m.phase(Initializing)
	m.phase(Running)
	m.probe(refusal) // not healthy yet: nothing to confirm
	m.is(StatusStarting, 0, 1, 20*time.Second)
	m.probe(good)
	m.is(StatusStarting, 1, 0, 2*time.Second)
	m.probe(dunno) // the same kind of gap
	m.is(StatusStarting, 1, 0, 2*time.Second)
	m.probe(good)
	m.is(StatusHealthy, 2, 0, 20*time.Second)
	m.probe(bad) // slow or wrong for a moment: keeps its whole tolerance
	m.is(StatusHealthy, 0, 1, 20*time.Second)
	m.probe(refusal)
	m.is(StatusHealthy, 0, 2, 2*time.Second)
	m.probe(dunno)
	m.is(StatusHealthy, 0, 2, 2*time.Second)
	m.probe(refusal)
	m.is(StatusUnhealthy, 0, 3, 20*time.Second)

	for policy, want := range map[string]time.Duration{
		`{"interval":"5s","tcp":{"port":1}}`:                           time.Second,
		`{"interval":"100ms","tcp":{"port":1}}`:                        100 * time.Millisecond,
		`{"interval":"1m","tcp":{"port":1}}`:                           6 * time.Second,
		`{"interval":"1m","confirm_interval":"50ms","tcp":{"port":1}}`: 50 * time.Millisecond,
	} {
		if got := mustParse(t, policy).confirm(); got != want {
			t.Errorf("%s: %v, want %v", policy, got, want)
		}
	}
}

// A result that says nothing moves no counter, and the next probe comes after the same kind of gap.
func TestInconclusive(t *testing.T) {
	m := healthySim(t, steady)
	m.probe(bad)
	m.probe(dunno)
	m.is(StatusHealthy, 0, 1, 10*time.Second)
	m.pass(time.Second)
	m.asked(dunno) // leaves the schedule as it was
	m.is(StatusHealthy, 0, 1, 9*time.Second)
}

// What was asked for: a success always counts; a failure as the first of a streak, or when it begins no sooner than the gap.
func TestAskedFor(t *testing.T) {
	m := healthySim(t, steady)
	m.pass(5 * time.Second)
	m.asked(bad) // the first of a streak
	m.is(StatusHealthy, 0, 1, 10*time.Second)
	for range 5 {
		m.pass(time.Second)
		m.asked(bad)
	}
	m.is(StatusHealthy, 0, 1, 5*time.Second)
	m.probe(bad)
	m.is(StatusHealthy, 0, 2, 10*time.Second)
	m.pass(time.Second)
	m.asked(good)
	m.is(StatusHealthy, 1, 0, 10*time.Second)
	m.pass(time.Second)
	m.asked(bad)
	m.pass(time.Second)
	m.asked(bad) // does not count, and clears no streak of its own kind
	m.is(StatusHealthy, 0, 1, 9*time.Second)
	if m.s.Error != bad.Reason || !m.s.CheckedAt.Equal(m.now) || !m.s.FailureAt.Equal(m.now) {
		t.Error("a result that does not count is recorded all the same")
	}
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
	m.next(Input{Kind: Restarted, Hash: 3e9 + 10e9*7})
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

func TestJitter(t *testing.T) {
	for hash, want := range map[uint64]time.Duration{0: 9500 * time.Millisecond, half: 10 * time.Second, ^uint64(0): 10500*time.Millisecond - 1} {
		if got := jitter(10*time.Second, hash); got != want {
			t.Errorf("%x: %v, want %v", hash, got, want)
		}
	}
	// Over many ids and probes it is spread evenly: no tenth of the range is twice as full as it should be.
	var buckets [10]int
	for i := range 1000 {
		h := hashID(fmt.Sprintf("instance-%d", i))
		for n := range uint64(10) {
			buckets[int((jitter(time.Second, mix(h+n))-950*time.Millisecond)/(10*time.Millisecond))]++
		}
	}
	for i, n := range buckets {
		if n < 800 || n > 1200 {
			t.Errorf("bucket %d holds %d of 10000", i, n)
		}
	}
}
