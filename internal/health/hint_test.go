package health

import (
	"fmt"
	"testing"
	"time"
)

// A hint asks for a probe now and decides nothing. Only the checked port is one; "began" only while not healthy, "ceased" only while
// healthy.
func TestHintsThatAsk(t *testing.T) {
	const unhealthy = `{"interval":"10s","timeout":"1s","failure_threshold":1,"tcp":{"port":80}}`
	for name, c := range map[string]struct {
		sim       *sim
		port      uint16
		listening bool
		asks      bool
	}{
		"began while starting":         {startingSim(t, steady), 80, true, true},
		"ceased while starting":        {startingSim(t, steady), 80, false, false},
		"began while unhealthy":        {startingSim(t, unhealthy), 80, true, true},
		"ceased while unhealthy":       {startingSim(t, unhealthy), 80, false, false},
		"began while healthy":          {healthySim(t, steady), 80, true, false},
		"ceased while healthy":         {healthySim(t, steady), 80, false, true},
		"another port began":           {startingSim(t, steady), 81, true, false},
		"another port ceased":          {healthySim(t, steady), 81, false, false},
		"no port":                      {startingSim(t, steady), 0, true, false},
		"no port, and none is checked": {startingSim(t, `{"interval":"10s","timeout":"1s","exec":{"command":["x"]}}`), 0, true, false},
		"http":                         {startingSim(t, `{"interval":"10s","timeout":"1s","http":{"port":80}}`), 80, true, true},
		"grpc":                         {startingSim(t, `{"interval":"10s","timeout":"1s","grpc":{"port":80}}`), 80, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			m := c.sim
			m.t = t
			m.pass(time.Second)
			before := m.s
			m.hint(c.port, c.listening)
			if c.asks {
				m.wants(0)
			} else {
				m.wants(9 * time.Second)
			}
			if m.s.Status != before.Status || m.s.Successes != before.Successes || m.s.Failures != before.Failures || m.s.N != before.N {
				t.Error("the hint decided something")
			}
			if m.s.Kept != NoHint {
				t.Error("it is kept")
			}
		})
	}
}

// Nothing asks where nothing is probed.
func TestHintsOfOneThatRests(t *testing.T) {
	m := healthySim(t, steady)
	m.phase(Inactive)
	m.hint(80, true)
	m.hint(80, false)
	if m.s.Kept != NoHint || m.s.Asked || !m.due.IsZero() {
		t.Errorf("%+v", m.s)
	}
	m = startingSim(t, steady)
	m.next(Input{Kind: Begun})
	m.hint(80, true)
	m.phase(Inactive)
	m.phase(Running)
	if m.s.Kept != NoHint {
		t.Error("it came back")
	}
}

// At most one in 100 ms with a burst of three, delayed rather than dropped.
func TestHintLimiter(t *testing.T) {
	m := startingSim(t, steady)
	m.pass(time.Second)
	for range 3 {
		m.hint(80, true)
		m.wants(0)
		m.ends(bad, 0, true)
	}
	m.hint(80, true)
	m.wants(100 * time.Millisecond)
	m.pass(60 * time.Millisecond)
	m.hint(80, true) // one probe serves both
	m.wants(40 * time.Millisecond)
	m.pass(40*time.Millisecond - 1)
	m.wants(1)
	m.pass(1)
	m.wants(0)
	if !m.s.Asked {
		t.Error("not asked for")
	}
	m.ends(bad, 0, true)
	m.hint(80, true)
	m.wants(100 * time.Millisecond)
	m.pass(250 * time.Millisecond) // one is used, and one and a half are there
	m.wants(0)
	m.ends(bad, 0, true)
	m.hint(80, true)
	m.wants(0)
	m.ends(bad, 0, true)
	m.hint(80, true)
	m.wants(50 * time.Millisecond)
	m.pass(50 * time.Millisecond)
	m.ends(bad, 0, true)
	m.pass(time.Second) // full again, and no fuller than three
	for range 3 {
		if m.s.Hints = 0; m.s.Kept != NoHint {
			t.Fatal("kept")
		}
		m.hint(80, true)
		m.wants(0)
		m.ends(bad, 0, true)
	}
	m.hint(80, true)
	m.wants(100 * time.Millisecond)
}

// A probe that begins for another reason serves a hint that is delayed, which costs nothing then.
func TestDelayedHintIsServed(t *testing.T) {
	m := startingSim(t, steady)
	m.pass(10*time.Second - 50*time.Millisecond)
	for range 3 {
		m.hint(80, true)
		m.ends(bad, 0, true)
	}
	m.hint(80, true)
	m.wants(50 * time.Millisecond) // the scheduled one comes first
	free := m.s.HintFree
	m.probe(bad)
	if m.s.Kept != NoHint || m.s.HintFree != free || m.s.Hints != 3 {
		t.Errorf("%+v", m.s)
	}
	m.wants(10 * time.Second)

	// Though when its own time has come at that probe's begin, it is that probe's reason.
	m.hint(80, true)
	m.wants(50 * time.Millisecond)
	m.now = m.due
	m.next(Input{Kind: Begun})
	if m.s.Kept != NoHint || m.s.Asked || m.s.HintFree != free.Add(hintEvery) || m.s.Hints != 4 {
		t.Errorf("%+v", m.s)
	}
}

// One that comes during a probe is kept and asks when it ends; the newest counts, by the status that the result leaves.
func TestHintInFlight(t *testing.T) {
	for _, c := range []struct {
		healthy bool
		hints   []bool
		result  Result
		asks    bool
	}{
		{false, []bool{true}, bad, true},
		{false, []bool{true}, good, false},
		{false, []bool{false}, bad, false},
		{false, []bool{false}, good, true},
		{false, []bool{true, false}, bad, false},
		{false, []bool{false, true}, bad, true},
		{true, []bool{false}, good, true},
		{true, []bool{true}, good, false},
		{true, []bool{false}, dunno, true},
		{true, []bool{true, false}, good, true},
	} {
		t.Run(fmt.Sprint(c.healthy, c.hints, c.result.Outcome), func(t *testing.T) {
			m := startingSim(t, steady)
			if c.healthy {
				m.asked(good)
			}
			m.next(Input{Kind: Asking})
			m.next(Input{Kind: Begun})
			for _, h := range c.hints {
				m.hint(80, h)
				if m.s.Asked || m.s.Kept == NoHint {
					t.Fatal("not kept")
				}
			}
			m.pass(50 * time.Millisecond)
			r := c.result
			r.Start = m.now
			m.next(Input{Kind: Probed, Result: r, Asked: true, Hash: half})
			if asks := m.s.Asked && !m.due.After(m.now); asks != c.asks || m.s.Kept != NoHint {
				t.Errorf("asks: %v, want %v; kept %v", asks, c.asks, m.s.Kept)
			}
		})
	}
}

// After ten that changed no status further ones are ignored until it changes.
func TestHintsInVain(t *testing.T) {
	m := startingSim(t, `{"interval":"10m","timeout":"1s","success_threshold":2,"tcp":{"port":80}}`)
	for range 10 {
		m.pass(time.Second)
		m.hint(80, true)
		m.wants(0)
		m.ends(bad, 0, true)
	}
	m.pass(time.Second)
	m.hint(80, true)
	if m.s.Asked || m.s.Kept != NoHint {
		t.Fatal("the eleventh asks")
	}
	m.asked(good)
	m.hint(80, true)
	if m.s.Asked {
		t.Fatal("a success that changed no status lets it ask")
	}
	m.asked(good)
	m.is(StatusHealthy, 2, 0, 10*time.Minute)
	m.pass(time.Second)
	m.hint(80, false)
	m.wants(0)

	// The tenth's own probe may be the one that changes it.
	m = startingSim(t, `{"interval":"10m","timeout":"1s","tcp":{"port":80}}`)
	for range 9 {
		m.pass(time.Second)
		m.hint(80, true)
		m.ends(bad, 0, true)
	}
	m.pass(time.Second)
	m.hint(80, true)
	m.next(Input{Kind: Begun})
	m.hint(80, false)
	r := good
	r.Start = m.now
	m.next(Input{Kind: Probed, Result: r, Asked: true, Hash: half})
	m.wants(0)
	if m.s.Status != StatusHealthy || !m.s.Asked || m.s.Hints != 1 {
		t.Errorf("%+v", m.s)
	}
}

// A new window and a restart of the daemon know of no hints.
func TestHintsAreForgotten(t *testing.T) {
	m := startingSim(t, steady)
	for range 3 {
		m.hint(80, true)
		m.ends(bad, 0, true)
	}
	m.next(Input{Kind: Asking})
	m.next(Input{Kind: Begun})
	m.hint(80, true)
	if m.s.Kept == NoHint || m.s.HintFree.IsZero() || m.s.Hints != 3 {
		t.Fatalf("%+v", m.s)
	}
	w := *m
	w.run++
	w.phase(Running)
	r := *m
	r.next(Input{Kind: Restarted, Hash: 5e9})
	for _, s := range []State{w.s, r.s} {
		if s.Kept != NoHint || s.Hints != 0 || !s.HintFree.IsZero() || s.Flying {
			t.Errorf("%+v", s)
		}
	}
	if r.due != m.s.Due {
		t.Errorf("due %v", r.due)
	}
}

// Only what a hint asked for is limited: the count is of those that asked.
func TestHintsThatAreIgnoredCostNothing(t *testing.T) {
	m := startingSim(t, steady)
	for range 100 {
		m.hint(80, false)
		m.hint(81, true)
	}
	if m.s.Hints != 0 || !m.s.HintFree.IsZero() {
		t.Errorf("%+v", m.s)
	}
}
