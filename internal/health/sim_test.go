package health

import (
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

	before State // the last step
	in     Input
}

var epoch = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func newSim(t *testing.T, policy string) *sim {
	return &sim{t: t, p: mustParse(t, policy), now: epoch, run: 1}
}

func (m *sim) next(in Input) {
	m.before, m.in = m.s, in
	m.s, m.due = m.s.Next(m.p, m.now, in)
}

// told is the transition that the last step was.
func (m *sim) told() Transition {
	m.t.Helper()
	if m.s.N == m.before.N {
		m.t.Fatal("the last step is no transition")
	}
	return m.s.transition(&m.before, &m.p, m.now, &m.in)
}

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

// hint is the agent's word about a port.
func (m *sim) hint(port uint16, listening bool) {
	m.next(Input{Kind: Hinted, Port: port, Listening: listening})
}

// wants checks how long it is to the next probe.
func (m *sim) wants(d time.Duration) {
	m.t.Helper()
	if m.due.IsZero() || m.due.Sub(m.now) != d {
		m.t.Fatalf("the next probe comes in %v, want %v", m.due.Sub(m.now), d)
	}
}

// startingSim is past its grace, fails, and has probed last just now.
func startingSim(t *testing.T, policy string) *sim {
	m := newSim(t, policy)
	m.phase(Initializing)
	m.phase(Running)
	m.pass(time.Hour)
	m.probe(bad)
	return m
}

// sees is the controller's word, whole.
func (m *sim) sees(in Input) {
	in.Kind = Seen
	if in.Run == 0 {
		in.Run = m.run
	}
	m.next(in)
}

// restoredSim is a machine that was restored just now: a new run, and Running from the moment it goes on.
func restoredSim(t *testing.T, policy string) (*sim, Input) {
	m := healthySim(t, policy)
	m.phase(Inactive)
	m.pass(time.Hour)
	m.run++
	in := Input{Run: m.run, Phase: Running, Entered: m.now, Restored: m.now}
	m.sees(in)
	return m, in
}
