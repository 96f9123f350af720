package health

import (
	"testing"
	"time"
)

// What a transition says.
func TestTransitions(t *testing.T) {
	const policy = `{"interval":"10s","timeout":"1s","failure_threshold":1,"exec":{"command":["x"]}}`
	failed := Result{Outcome: Failure, Reason: "exit 1", Output: "no disk"}
	well := Result{Outcome: Success, Reason: "exit 0", Output: "all is well"} // which the loop would have removed
	for name, c := range map[string]struct {
		do   func(m *sim)
		want Transition // its Time, Window and N are checked beside
	}{
		"healthy":   {func(m *sim) { m.probe(failed); m.probe(well) }, Transition{From: StatusUnhealthy, To: StatusHealthy, Reason: "exit 0"}},
		"unhealthy": {func(m *sim) { m.probe(failed) }, Transition{From: StatusHealthy, To: StatusUnhealthy, Reason: "exit 1", Output: "no disk"}},
		"paused":    {func(m *sim) { m.phase(Inactive) }, Transition{From: StatusHealthy, To: StatusUnknown, Reason: "the instance is not running"}},
		"resumed": {func(m *sim) { m.phase(Inactive); m.phase(Running) },
			Transition{From: StatusUnknown, To: StatusHealthy, Reason: "the instance goes on"}},
		"started": {func(m *sim) { m.phase(Inactive); m.run++; m.phase(Initializing) },
			Transition{From: StatusUnknown, To: StatusStarting, Reason: "the instance started"}},
		"started, seen late": {func(m *sim) { m.run++; m.phase(Running) },
			Transition{From: StatusHealthy, To: StatusStarting, Reason: "the instance started"}},
		"restored": {func(m *sim) {
			m.phase(Inactive)
			m.run++
			m.sees(Input{Phase: Running, Restored: m.now})
		}, Transition{From: StatusUnknown, To: StatusStarting, Reason: "the instance was restored from standby"}},
		"early": {func(m *sim) { m.run++; m.phase(Initializing); m.probe(well); m.phase(Running) },
			Transition{From: StatusStarting, To: StatusHealthy, Reason: "it answered while it was initializing"}},
		"changed": {func(m *sim) { m.policy(steady) }, Transition{From: StatusHealthy, To: StatusStarting, Reason: "the health check changed"}},
		"changed after a restore": {func(m *sim) {
			m.run++
			m.sees(Input{Phase: Running, Restored: m.now})
			m.probe(well)
			m.p = mustParse(m.t, steady)
			m.sees(Input{Phase: Running, Restored: m.now, PolicyChanged: true})
		}, Transition{From: StatusHealthy, To: StatusStarting, Reason: "the health check changed"}},
		"disabled": {func(m *sim) { m.policy(`{"type":"none"}`) },
			Transition{From: StatusHealthy, To: StatusDisabled, Reason: "no health check is set"}},
		"stale": {func(m *sim) { m.pass(33*time.Second + 400*time.Millisecond) },
			Transition{From: StatusHealthy, To: StatusHealthy, Reason: "no conclusive result for 33s", Stale: StaleInconclusive}},
		"stale by a result": {func(m *sim) { m.pass(33*time.Second - 1); m.ends(dunno, 1, false) },
			Transition{From: StatusHealthy, To: StatusHealthy, Reason: "no conclusive result for 33s", Stale: StaleInconclusive}},
		"no longer stale": {func(m *sim) { m.pass(time.Hour); m.probe(well) },
			Transition{From: StatusHealthy, To: StatusHealthy, Reason: "exit 0"}},
		"no longer stale, and unhealthy": {func(m *sim) { m.pass(time.Hour); m.probe(failed) },
			Transition{From: StatusHealthy, To: StatusUnhealthy, Reason: "exit 1", Output: "no disk"}},
		"stale and paused": {func(m *sim) { m.pass(time.Hour); m.phase(Inactive) },
			Transition{From: StatusHealthy, To: StatusUnknown, Reason: "the instance is not running"}},
		"no longer restarted": {func(m *sim) { m.next(Input{Kind: Restarted}); m.probe(well) },
			Transition{From: StatusHealthy, To: StatusHealthy, Reason: "exit 0"}},
		"restarted and paused": {func(m *sim) { m.next(Input{Kind: Restarted}); m.phase(Inactive) },
			Transition{From: StatusHealthy, To: StatusUnknown, Reason: "the instance is not running"}},
	} {
		t.Run(name, func(t *testing.T) {
			m := healthySim(t, policy)
			c.do(m)
			got := m.told()
			if !got.Time.Equal(m.now) || got.Window != m.s.Window || got.N != m.s.N || got.Window == 0 || got.N == 0 {
				t.Errorf("%+v", got)
			}
			if got.Run != m.run || got.Policy != m.p.sum() {
				t.Errorf("of run %d and policy %q, want %d and %q", got.Run, got.Policy, m.run, m.p.sum())
			}
			got.Time, got.Window, got.N, got.Run, got.Policy = time.Time{}, 0, 0, 0, ""
			if got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
		})
	}
}

// The beginning of daemon_restarted, and a first status, are told to nobody.
func TestNoTransitions(t *testing.T) {
	m := newSim(t, steady)
	m.phase(Running)
	if m.s.N != 0 {
		t.Error("the first status is one")
	}
	m = healthySim(t, steady)
	n := m.s.N
	m.next(Input{Kind: Restarted})
	m.phase(Running)
	if m.s.N != n || m.s.Stale != StaleRestarted {
		t.Errorf("%+v", m.s)
	}
	m.run++
	m.phase(Initializing) // stale no more, starting
	n = m.s.N
	m.run++
	m.phase(Initializing) // starting after starting
	if m.s.N != n {
		t.Error("starting after starting is one")
	}
}

// What the log says of a window that the record does not know.
func TestReplayOfANewWindow(t *testing.T) {
	m := healthySim(t, steady)
	m.sees(Input{Phase: Running, Agent: true, Network: true})
	m.probe(bad)
	m.s.Last = StatusHealthy // as if it had been unknown
	at := epoch.Add(time.Hour)
	tr := Transition{N: m.s.N + 1, Window: 2, From: StatusHealthy, To: StatusStarting, Time: at, Stale: StaleRestarted}
	want := State{
		Run: 1, Window: 2, Phase: Running, Agent: true, Network: true, Status: StatusStarting, Verdict: StatusStarting, Since: at,
		Last: StatusHealthy, N: tr.N, Stale: StaleRestarted,
	}
	if got := m.s.replay([]Transition{tr}); got != want {
		t.Errorf("%+v\nwant\n%+v", got, want)
	}
	tr.To, want.Status, want.Last, want.Phase, want.Stale = StatusUnknown, StatusUnknown, StatusHealthy, Inactive, ""
	if got := m.s.replay([]Transition{tr}); got != want {
		t.Errorf("%+v\nwant\n%+v", got, want)
	}
}

// What the log says of the record's own window, one after the other.
func TestReplayOfTheSameWindow(t *testing.T) {
	at := epoch.Add(time.Hour)
	for _, c := range []struct {
		tr   Transition
		want func(s *State)
	}{
		{Transition{From: StatusStarting, To: StatusHealthy}, func(s *State) { s.Status, s.Verdict, s.Failures, s.Since = StatusHealthy, StatusHealthy, 0, at }},
		{Transition{From: StatusStarting, To: StatusUnhealthy, Reason: "exit 1"}, func(s *State) {
			s.Status, s.Verdict, s.Successes, s.Error, s.Since = StatusUnhealthy, StatusUnhealthy, 0, "exit 1", at
		}},
		{Transition{From: StatusUnknown, To: StatusStarting}, func(s *State) { s.Status, s.Verdict, s.Since = StatusStarting, StatusStarting, at }},
		{Transition{From: StatusHealthy, To: StatusUnknown}, func(s *State) {
			s.Status, s.Last, s.Since, s.Phase = StatusUnknown, StatusHealthy, at, Inactive
		}},
		{Transition{From: StatusDisabled, To: StatusUnknown}, func(s *State) { s.Status, s.Last, s.Since, s.Phase = StatusUnknown, StatusDisabled, at, Inactive }},
		{Transition{From: StatusUnknown, To: StatusUnknown}, func(s *State) { s.Status, s.Phase = StatusUnknown, Inactive }},
		{Transition{From: StatusHealthy, To: StatusDisabled}, func(s *State) {
			*s = State{Run: 1, Window: 3, Phase: Running, Status: StatusDisabled, Verdict: StatusStarting, Since: at, N: 8}
		}},
		{Transition{From: StatusStarting, To: StatusStarting, Stale: StaleInconclusive}, func(s *State) {
			s.Status, s.Stale, s.Verdict, s.Successes, s.Failures = StatusStarting, StaleInconclusive, StatusStarting, 0, 0
		}},
		{Transition{From: StatusHealthy, To: StatusHealthy, Run: 5}, func(s *State) { s.Run, s.Status, s.Verdict, s.Failures = 5, StatusHealthy, StatusHealthy, 0 }},
		{Transition{From: StatusHealthy, To: "splendid"}, func(*State) {}},
		{Transition{From: "splendid", To: StatusHealthy}, func(*State) {}},
		{Transition{From: StatusHealthy, To: StatusHealthy, Stale: "bored"}, func(*State) {}},
	} {
		before := State{Run: 1, Window: 3, Phase: Running, Status: StatusUnhealthy, Verdict: StatusUnhealthy, Since: epoch, N: 7, Successes: 2, Failures: 3, Error: "e"}
		c.tr.Time, c.tr.Window, c.tr.N = at, 3, 8
		want := before
		want.N = 8
		c.want(&want)
		if got := before.replay([]Transition{c.tr}); got != want {
			t.Errorf("%s to %s: %+v\nwant\n%+v", c.tr.From, c.tr.To, got, want)
		}
		c.tr.N = 7
		if got := before.replay([]Transition{c.tr}); got != before {
			t.Errorf("what the record has seen is applied again: %+v", got)
		}
	}
}

// What was healthy is out of its grace, and what was stopped is not active, also where the record is older than that.
func TestReplayMovesGraceAndPhase(t *testing.T) {
	m := newSim(t, steady)
	m.phase(Running)
	m.pass(10 * time.Second)
	tr := Transition{N: 1, Window: 1, From: StatusStarting, To: StatusHealthy, Time: m.now}
	if got := m.s.replay([]Transition{tr}); got.inGrace(m.now) {
		t.Errorf("healthy and in its grace until %v", got.GraceEnd)
	}
	for _, c := range []struct {
		before   Phase
		from, to Status
		want     Phase
	}{
		{Inactive, StatusUnknown, StatusStarting, Initializing},
		{Running, StatusUnknown, StatusStarting, Running},
		{Inactive, StatusUnknown, StatusHealthy, Running},
		{Inactive, StatusUnknown, StatusUnhealthy, Running},
		{Running, StatusHealthy, StatusUnknown, Inactive},
	} {
		s := State{Window: 1, Phase: c.before}
		if got := s.replay([]Transition{{N: 1, Window: 1, From: c.from, To: c.to}}); got.Phase != c.want {
			t.Errorf("%s, then %s to %s: %s, want %s", c.before, c.from, c.to, got.Phase, c.want)
		}
	}
}

// A new window that begins in starting after starting leaves Since alone, and one of a paused instance what was known last.
func TestNewWindowKeepsWhatIsShown(t *testing.T) {
	m := newSim(t, steady)
	m.phase(Initializing)
	m.pass(time.Hour)
	m.run++
	m.phase(Initializing)
	if !m.s.Since.Equal(epoch) || !m.s.WindowAt.Equal(m.now) {
		t.Errorf("%+v", m.s)
	}
	m = healthySim(t, steady)
	m.phase(Inactive)
	m.pass(time.Hour)
	n := m.s.N
	m.policy(restoring)
	if m.s.Last != StatusHealthy || !m.s.Since.Equal(epoch) || m.s.N != n || m.s.Window != 2 {
		t.Errorf("%+v", m.s)
	}
	m.run++
	m.sees(Input{Phase: Running, Entered: m.now.Add(-time.Minute)}) // staleness is measured from the window's start, if that is later
	if !m.s.Fresh.Equal(m.now) || !m.s.Entered.Equal(m.now.Add(-time.Minute)) {
		t.Errorf("%+v", m.s)
	}
}
