package health

import (
	"testing"
	"time"
)

const restoring = `{"interval":"1s","timeout":"1s","start_period":"5s","start_interval":"1s","failure_threshold":1,"tcp":{"port":80}}`

// A restore is a new window, Running from the moment the machine goes on; the grace runs from the agent's HELLO.
func TestRestoreGraceFromHello(t *testing.T) {
	m, in := restoredSim(t, restoring)
	m.is(StatusStarting, 0, 0, 0)
	if m.s.Window != 2 || m.s.Error != "" {
		t.Fatalf("%+v", m.s)
	}
	m.pass(3 * time.Second)
	in.Agent = true
	m.sees(in)
	if want := m.now.Add(5 * time.Second); !m.s.GraceEnd.Equal(want) {
		t.Errorf("the grace ends at %v, want %v", m.s.GraceEnd, want)
	}
	m.pass(time.Second)
	m.sees(in) // level, not edge: a HELLO is one
	if want := m.now.Add(4 * time.Second); !m.s.GraceEnd.Equal(want) {
		t.Errorf("the grace ends at %v, want %v", m.s.GraceEnd, want)
	}
	m.pass(4*time.Second - 1)
	m.asked(bad)
	m.is(StatusStarting, 0, 0, time.Second)
	m.pass(1)
	m.asked(bad)
	if m.s.Status != StatusUnhealthy {
		t.Errorf("%s", m.s.Status)
	}
}

// … or 10 s after it went on, if none came.
func TestRestoreGraceWithoutHello(t *testing.T) {
	m, in := restoredSim(t, restoring)
	went := m.now
	if want := went.Add(15 * time.Second); !m.s.GraceEnd.Equal(want) {
		t.Fatalf("the grace ends at %v, want %v", m.s.GraceEnd, want)
	}
	m.pass(10 * time.Second)
	in.Agent = true
	m.sees(in) // too late to move it
	if want := went.Add(15 * time.Second); !m.s.GraceEnd.Equal(want) {
		t.Errorf("the grace ends at %v, want %v", m.s.GraceEnd, want)
	}
	m.now = went.Add(15*time.Second - 1)
	m.asked(bad)
	if m.s.Status != StatusStarting {
		t.Errorf("%s", m.s.Status)
	}
	m.pass(1)
	m.asked(bad)
	if m.s.Status != StatusUnhealthy {
		t.Errorf("%s", m.s.Status)
	}
}

// Failures before it never count, also those of a workload that was healthy already; its grace is over then.
func TestRestoreFailuresBeforeHelloNeverCount(t *testing.T) {
	for _, hello := range []time.Duration{4 * time.Second, 0} {
		m, in := restoredSim(t, restoring)
		went := m.now
		m.probe(good)
		m.is(StatusHealthy, 1, 0, time.Second) // the steady pace
		m.probe(bad)
		m.is(StatusHealthy, 0, 0, time.Second)
		if m.s.GraceFailures != 1 {
			t.Fatalf("%d grace failures", m.s.GraceFailures)
		}
		until := 10 * time.Second
		if hello != 0 {
			m.now = went.Add(hello)
			in.Agent = true
			m.sees(in)
			until = hello
		}
		if m.s.GraceEnd.After(m.now) {
			t.Error("HELLO began a grace though it is healthy")
		}
		m.now = went.Add(until - 1)
		m.asked(bad)
		if m.s.Status != StatusHealthy || m.s.Failures != 0 {
			t.Errorf("%+v", m.s)
		}
		m.now = went.Add(until)
		m.asked(bad)
		if m.s.Status != StatusUnhealthy {
			t.Errorf("HELLO at %v: %s", hello, m.s.Status)
		}
	}
}

// The machine went on a little before the loop heard of it; a moment in the future is now.
func TestRestoredIsTaken(t *testing.T) {
	for _, ago := range []time.Duration{2 * time.Second, 0, -time.Minute} {
		m := newSim(t, restoring)
		m.sees(Input{Phase: Running, Entered: m.now.Add(-ago), Restored: m.now.Add(-ago)})
		if want := m.now.Add(10*time.Second - max(ago, 0)); !m.s.Patience.Equal(want) || !m.s.Hello.Equal(want) || !m.s.AgentBy.Equal(want) {
			t.Errorf("%v ago: patience until %v, want %v", ago, m.s.Patience, want)
		}
	}
	// An hour later a new policy begins a window, and nothing is waited for any more.
	m, in := restoredSim(t, restoring)
	m.pass(time.Hour)
	m.p = mustParse(t, steady)
	in.PolicyChanged = true
	m.sees(in)
	if want := m.now.Add(30 * time.Second); !m.s.GraceEnd.Equal(want) || m.s.Window != 3 {
		t.Errorf("the grace ends at %v, want %v", m.s.GraceEnd, want)
	}
	// A second after, with the agent there, it runs from the commit.
	m, in = restoredSim(t, restoring)
	m.pass(time.Second)
	m.p = mustParse(t, steady)
	in.PolicyChanged, in.Agent = true, true
	m.sees(in)
	if want := m.now.Add(30 * time.Second); !m.s.GraceEnd.Equal(want) || !m.s.Hello.Equal(m.now) {
		t.Errorf("the grace ends at %v, want %v", m.s.GraceEnd, want)
	}
	// Without it, from the later of both.
	m, in = restoredSim(t, restoring)
	m.pass(time.Second)
	m.p = mustParse(t, steady)
	in.PolicyChanged = true
	m.sees(in)
	if want := m.now.Add(39 * time.Second); !m.s.GraceEnd.Equal(want) {
		t.Errorf("the grace ends at %v, want %v", m.s.GraceEnd, want)
	}
}

// The agent is missing up to 10 s after a restore: inconclusive, once; later it is a failure.
func TestRestoreAgentMissing(t *testing.T) {
	const policy = `{"interval":"1s","timeout":"1s","start_period":"0s","failure_threshold":1,"exec":{"command":["x"]}}`
	m, _ := restoredSim(t, policy)
	m.probe(noAgent)
	m.is(StatusStarting, 0, 0, 10*time.Second) // it waits
	m.pass(10*time.Second - 1)
	m.asked(noAgent)
	m.is(StatusStarting, 0, 0, 1)
	m.pass(1)
	m.probe(noAgent)
	if m.s.Status != StatusUnhealthy || m.s.Error != reasonNoAgent {
		t.Errorf("%s: %s", m.s.Status, m.s.Error)
	}

	m, in := restoredSim(t, policy)
	m.probe(noAgent)
	m.pass(time.Second)
	in.Network = true
	m.sees(in) // no matter to an exec
	m.is(StatusStarting, 0, 0, 9*time.Second)
	in.Agent = true
	m.sees(in)
	m.is(StatusStarting, 0, 0, 0)
	m.probe(good)
	m.is(StatusHealthy, 1, 0, time.Second)
}

// Before the guest has a network a probe waits, for the first of a frame, the HELLO, the entry into Running of a booted machine, and 10 s
// after a restored one goes on. That is one inconclusive result, and each of these asks for a probe at once.
func TestNetworkIsWaitedFor(t *testing.T) {
	for name, comes := range map[string]func(m *sim){
		"a frame": func(m *sim) { m.sees(Input{Phase: Initializing, Network: true}) },
		"HELLO":   func(m *sim) { m.sees(Input{Phase: Initializing, Agent: true}) },
		"both":    func(m *sim) { m.sees(Input{Phase: Initializing, Agent: true, Network: true}) },
		"Running": func(m *sim) { m.phase(Running) },
	} {
		t.Run(name, func(t *testing.T) {
			for _, missing := range []Result{noNetwork, {Outcome: Inconclusive, Cause: CauseNoMachine}} {
				m := newSim(t, steady)
				m.phase(Initializing)
				m.probe(missing)
				if m.pass(time.Minute); !m.due.IsZero() {
					t.Fatalf("the next probe comes in %v", m.due.Sub(m.now))
				}
				comes(m)
				m.is(StatusStarting, 0, 0, 0)
				m.probe(bad)
				m.is(StatusStarting, 0, 0, 100*time.Millisecond)
				m.sees(Input{Phase: m.s.Phase, Agent: true, Network: true}) // what nothing waits for asks for nothing
				m.is(StatusStarting, 0, 0, 100*time.Millisecond)
			}
		})
	}
	t.Run("10 s after the restore", func(t *testing.T) {
		m, in := restoredSim(t, restoring)
		m.probe(noNetwork)
		m.is(StatusStarting, 0, 0, 10*time.Second)
		m.pass(time.Second)
		m.asked(noNetwork)
		m.is(StatusStarting, 0, 0, 9*time.Second) // leaves the schedule as it was
		m.pass(9 * time.Second)
		m.is(StatusStarting, 0, 0, 0)
		m.probe(noNetwork) // whatever keeps it from asking now is no wait
		m.is(StatusStarting, 0, 0, time.Second)
		in.Network = true
		m.sees(in)
		m.is(StatusStarting, 0, 0, time.Second)
	})
	t.Run("a frame after the restore", func(t *testing.T) {
		m, in := restoredSim(t, restoring)
		m.probe(noNetwork)
		m.pass(time.Second)
		in.Network = true
		m.sees(in)
		m.is(StatusStarting, 0, 0, 0)
		m.probe(good)
		m.is(StatusHealthy, 1, 0, time.Second)
	})
}

// What comes while the probe that misses it is in flight is not missed.
func TestNetworkComesInFlight(t *testing.T) {
	m := newSim(t, steady)
	m.phase(Initializing)
	m.next(Input{Kind: Begun})
	m.sees(Input{Phase: Initializing, Network: true})
	r := noNetwork
	r.Start = m.now
	m.pass(time.Millisecond)
	m.next(Input{Kind: Probed, Result: r, Asked: true})
	m.is(StatusStarting, 0, 0, 0)
	if m.s.Due.IsZero() {
		t.Error("nothing but the asked one would come")
	}
}

// A probe that could not be made for another reason, or was made, is no wait.
func TestOtherResultsDoNotWait(t *testing.T) {
	for _, r := range []Result{bad, dunno, {Outcome: Inconclusive, Cause: CauseStarved}, {Outcome: Failure, Cause: CauseNoNetwork}} {
		m := newSim(t, steady)
		m.phase(Initializing)
		m.probe(r)
		m.is(StatusStarting, 0, 0, 100*time.Millisecond)
	}
	m := newSim(t, steady) // the network is there, and still
	m.sees(Input{Phase: Initializing, Network: true})
	m.probe(noNetwork)
	m.is(StatusStarting, 0, 0, 100*time.Millisecond)
}

// A wait goes on over a restart of the daemon.
func TestWaitAcrossRestart(t *testing.T) {
	m := newSim(t, steady)
	m.phase(Initializing)
	m.probe(noNetwork)
	m.next(Input{Kind: Restarted, Hash: 3e9})
	m.is(StatusStarting, 0, 0, 3*time.Second)
	m.sees(Input{Phase: Initializing})
	m.is(StatusStarting, 0, 0, 3*time.Second)
	m.sees(Input{Phase: Initializing, Network: true})
	m.is(StatusStarting, 0, 0, 0)
	// An agent that is found again after a restart of the daemon is no news to what did not wait for it.
	m = healthySim(t, `{"interval":"10s","timeout":"1s","exec":{"command":["x"]}}`)
	m.next(Input{Kind: Restarted, Hash: 3e9})
	m.sees(Input{Phase: Running})
	m.asked(noAgent)
	m.is(StatusHealthy, 1, 0, 10*time.Second)
	m.sees(Input{Phase: Running, Agent: true})
	m.is(StatusHealthy, 1, 0, 10*time.Second)
}

// A pause, and a standby that failed: unknown meanwhile, then the old status, since the resume, with one probe at once, and no new window.
func TestPauseKeepsTheSchedule(t *testing.T) {
	m := healthySim(t, steady)
	m.probe(bad)
	n := m.s.N
	m.pass(time.Second)
	m.phase(Inactive)
	m.pass(time.Second)
	m.phase(Running)
	m.is(StatusHealthy, 0, 1, 0)
	if m.s.N != n+2 || m.s.Last != "" || !m.s.Since.Equal(m.now) || !m.s.Fresh.Equal(m.now) {
		t.Errorf("%+v", m.s)
	}
	m.probe(bad) // asked for, and sooner than the gap that the last failure set
	m.is(StatusHealthy, 0, 1, 8*time.Second)
	m.next(Input{Kind: Asking})
	m.phase(Inactive)
	fresh := m.s.Fresh
	m.pass(time.Second)
	m.phase(Inactive) // it still is
	m.pass(-time.Second)
	if !m.s.Fresh.Equal(fresh) {
		t.Error("a pause that goes on is taken for its end")
	}
	if m.s.Asked || !m.due.IsZero() {
		t.Error("what was asked of it is kept")
	}
	// Over the end of the gap one probe serves both.
	m.phase(Inactive)
	m.pass(time.Minute)
	m.phase(Running)
	m.probe(bad)
	m.is(StatusHealthy, 0, 2, 10*time.Second)
	// Paused while it initializes.
	m = newSim(t, steady)
	m.phase(Initializing)
	m.probe(bad)
	m.phase(Inactive)
	m.is(StatusUnknown, 0, 0, time.Time{}.Sub(m.now))
	m.pass(time.Hour)
	entered := m.now
	m.pass(time.Minute)
	m.sees(Input{Phase: Running, Entered: entered})
	m.is(StatusStarting, 0, 0, 0)
	if m.s.Window != 1 || !m.s.Fresh.Equal(m.now) || !m.s.Entered.Equal(entered) {
		t.Errorf("%+v", m.s)
	}
}

// A pause is over and the instance initializes in the same run, though it ran in this window: a run whose end nobody told.
func TestInitializingAgainAfterAPause(t *testing.T) {
	m := healthySim(t, steady)
	m.phase(Inactive)
	m.phase(Initializing)
	if m.s.Window != 2 || m.s.Verdict != StatusStarting || !m.s.Asked {
		t.Errorf("%+v", m.s)
	}
}

// Without the daemon a machine that was stopped, or paused, keeps its ten seconds for the agent after the daemon's start.
func TestAgentAfterRestartOfOneThatRested(t *testing.T) {
	m := healthySim(t, `{"failure_threshold":1,"exec":{"command":["x"]}}`)
	m.phase(Inactive)
	m.pass(time.Hour)
	m.next(Input{Kind: Restarted})
	m.phase(Running)
	m.asked(noAgent)
	if m.s.Status != StatusHealthy || m.s.Stale != "" {
		t.Errorf("%+v", m.s)
	}
	m.pass(patience)
	m.asked(noAgent)
	if m.s.Status != StatusUnhealthy {
		t.Errorf("%+v", m.s)
	}
}

// A wait has no gap, is no edge, and is over with the next result.
func TestWaitIsNoGap(t *testing.T) {
	const slow = `{"interval":"10s","timeout":"1s","start_period":"1h","start_interval":"10s","tcp":{"port":80}}`
	m := newSim(t, slow)
	m.phase(Initializing)
	m.probe(good)
	m.is(StatusStarting, 1, 0, time.Second) // an edge
	m.probe(noNetwork)
	if !m.due.IsZero() || m.s.Gap != 0 {
		t.Fatalf("%+v", m.s)
	}
	w := *m
	w.next(Input{Kind: Restarted, Hash: 3e9}) // within the interval, and not within a second
	w.is(StatusStarting, 1, 0, 3*time.Second)
	m.asked(dunno)
	m.is(StatusStarting, 1, 0, 10*time.Second) // of the kind of no edge
	m.sees(Input{Phase: Initializing, Network: true})
	m.is(StatusStarting, 1, 0, 10*time.Second) // nothing waited
}

// The entry into Running begins the pace anew: the edge and the wait of before are over. A streak that stands at the threshold is enough.
func TestEntryBeginsAnew(t *testing.T) {
	const policy = `{"interval":"10s","timeout":"1s","start_period":"1h","start_interval":"10s","success_threshold":2,"tcp":{"port":80}}`
	m := newSim(t, policy)
	m.phase(Initializing)
	m.probe(good)
	m.is(StatusStarting, 1, 0, time.Second)
	m.phase(Running)
	m.probe(dunno)
	m.is(StatusStarting, 1, 0, 10*time.Second)

	m = newSim(t, policy)
	m.phase(Initializing)
	m.probe(noNetwork)
	m.phase(Running)
	if m.s.Waiting || m.s.Confirming {
		t.Errorf("%+v", m.s)
	}

	m = newSim(t, policy)
	m.phase(Initializing)
	m.probe(good)
	m.probe(good)
	m.is(StatusStarting, 2, 0, time.Second)
	m.phase(Running)
	m.is(StatusHealthy, 2, 0, 0)
}

// The ten seconds that an agent has after the daemon's start go on when a window begins in them.
func TestAgentMissingInAnotherWindow(t *testing.T) {
	for _, c := range []struct {
		after   time.Duration
		outcome Outcome
	}{{2 * time.Second, Inconclusive}, {10*time.Second - 1, Inconclusive}, {10 * time.Second, Failure}} {
		m := newSim(t, `{"exec":{"command":["true"]},"interval":"1m","start_period":"0s"}`)
		m.phase(Running)
		m.probe(good)
		m.pass(time.Hour)
		m.next(Input{Kind: Restarted})
		m.pass(2 * time.Second)
		m.policy(`{"exec":{"command":["false"]},"interval":"1m","start_period":"0s"}`)
		m.pass(c.after - 2*time.Second)
		m.ends(noAgent, 0, true)
		if failed := !m.s.FailureAt.IsZero(); failed != (c.outcome == Failure) {
			t.Errorf("%v after the daemon's start, in a window that began after 2s: failed %v; want %s", c.after, failed, c.outcome)
		}
	}
}
