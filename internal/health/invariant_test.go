package health

import (
	"encoding/json"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// A machine drives Next through any history that the loop could, and checks what must hold in all of them.
type machine struct {
	sim
	o       Input // what the controller knows
	flying  bool
	queued  bool
	asked   bool
	start   time.Time
	window  uint64
	succeed bool // a success was seen in this window
}

func TestInvariants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &machine{sim: sim{p: brisk(t), now: epoch, run: 1}}
		m.next(Input{Kind: Seen, Phase: Inactive})
		t.Repeat(map[string]func(*rapid.T){
			"":       m.check,
			"phase":  m.drawPhase,
			"policy": m.drawPolicy,
			"begin":  m.begin,
			"end":    m.end,
			"queue":  m.queue,
			"guest":  m.drawGuest,
			"hint": func(t *rapid.T) {
				port := m.p.Port() + uint16(rapid.IntRange(0, 1).Draw(t, "port"))
				m.step(t, Input{Kind: Hinted, Port: port, Listening: rapid.Bool().Draw(t, "listening")})
			},
			"ask":  func(*rapid.T) { m.step(t, Input{Kind: Asking}) },
			"pass": func(t *rapid.T) { m.drawPass(t); m.step(t, Input{}) },
			"restart": func(t *rapid.T) {
				m.flying, m.queued = false, false
				m.s = m.recorded(t)
				m.step(t, Input{Kind: Restarted, Hash: m.hash(t)})
			},
		})
	})
}

// brisk returns a policy whose thresholds are within reach.
func brisk(t *rapid.T) Policy {
	p, err := Parse(json.RawMessage(genPolicy(t)))
	if err != nil {
		t.Fatal(err)
	}
	p.FailureThreshold, p.SuccessThreshold = rapid.IntRange(1, 4).Draw(t, "ft"), rapid.IntRange(1, 3).Draw(t, "st")
	p.StartPeriod = min(p.StartPeriod, 3*p.Interval)
	return p
}

func (m *machine) hash(t *rapid.T) uint64 { return rapid.Uint64().Draw(t, "hash") }

func (m *machine) drawPass(t *rapid.T) {
	m.now = m.now.Add(time.Duration(rapid.Int64Range(0, int64(m.p.Interval)*2).Draw(t, "pass")))
}

// recorded is the state as the next daemon reads it.
func (m *machine) recorded(t *rapid.T) State {
	c := clock{bootID: "b", origin: epoch, uptime: time.Hour}
	blob, err := encoded(c, m.p, m.s, new(history))
	if err != nil {
		t.Fatal(err)
	}
	p, s, _, err := decode(c, blob)
	want := m.s
	want.Asked, want.Queued, want.Flying = false, time.Time{}, false
	want.Kept, want.Hints, want.HintFree = NoHint, 0, time.Time{}
	if err != nil || !p.Equal(m.p) || s != want {
		t.Fatalf("the record holds\n%+v, %v\nwant\n%+v", s, err, want)
	}
	return s
}

func (m *machine) step(t *rapid.T, in Input) {
	before := m.s
	m.next(in)
	if m.s.Window != before.Window {
		m.succeed = false
	}
	if m.s.Queued.IsZero() { // it was given up
		m.queued = false
	}
	told := before.Status != "" && (m.s.Status != before.Status || m.s.stale() != before.stale() && m.s.stale() != StaleRestarted)
	if (m.s.N != before.N) != told || m.s.N > before.N+1 {
		t.Fatalf("transition %d after %d: %s to %s, stale %q to %q", m.s.N, before.N, before.Status, m.s.Status, before.Stale, m.s.Stale)
	}
	if told {
		m.s.transition(&before, &m.p, m.now, &in)
	}
	if in.Kind == Probed && before.Phase != Inactive && in.Result.Outcome == Inconclusive && in.Result.Cause == CauseResources {
		if m.s.Successes != before.Successes && m.s.Stale == before.Stale || m.s.Verdict != before.Verdict {
			t.Fatal("an inconclusive result moved something")
		}
	}
	if m.s.Verdict == StatusUnhealthy && before.Verdict != StatusUnhealthy && !m.succeed && m.s.Window == before.Window {
		least := time.Duration(m.p.FailureThreshold-1) * (m.p.Interval - m.p.Interval/20)
		if grace := later(m.s.Entered, m.s.Hello).Add(m.p.StartPeriod); m.now.Before(grace.Add(least)) {
			t.Fatalf("unhealthy %v after the grace, and not %v at the least", m.now.Sub(grace), least)
		}
	}
}

func (m *machine) drawPhase(t *rapid.T) {
	phase := rapid.SampledFrom([]Phase{Inactive, Initializing, Running, Running}).Draw(t, "phase")
	if m.s.Phase == Inactive && phase != Inactive && rapid.Bool().Draw(t, "new run") {
		m.run++
	}
	if m.o.Run != m.run {
		m.o.Agent, m.o.Network, m.o.Restored = false, false, time.Time{}
		if phase == Running && rapid.Bool().Draw(t, "restored") {
			m.o.Restored = m.now
		}
	}
	m.o.Kind, m.o.Run, m.o.Phase, m.o.Entered = Seen, m.run, phase, m.now
	m.step(t, m.o)
}

// drawGuest is what the guest shows of itself.
func (m *machine) drawGuest(t *rapid.T) {
	m.o.Kind, m.o.Run, m.o.Phase = Seen, m.run, m.s.Phase
	m.o.Agent, m.o.Network = m.o.Agent || rapid.Bool().Draw(t, "agent"), m.o.Network || rapid.Bool().Draw(t, "network")
	m.step(t, m.o)
}

// queue is a probe that waits for its turn.
func (m *machine) queue(t *rapid.T) {
	if m.flying || m.queued || m.due.IsZero() {
		t.Skip()
	}
	m.now = later(m.now, m.due)
	m.queued = true
	m.step(t, Input{Kind: Queued})
}

func (m *machine) drawPolicy(t *rapid.T) {
	p := Policy{Type: TypeNone}
	if rapid.IntRange(0, 3).Draw(t, "enabled") > 0 {
		p = brisk(t)
	}
	changed := !p.Equal(m.p)
	window, probing := m.s.Window, m.s.Phase != Inactive && !p.Disabled()
	m.p = p
	in := m.o
	in.Kind, in.Run, in.Phase, in.PolicyChanged = Seen, m.run, m.s.Phase, changed
	m.step(t, in)
	if changed && probing && (m.s.Window != window+1 || m.s.Verdict != StatusStarting) {
		t.Fatal("a new policy without a new window")
	}
}

func (m *machine) begin(t *rapid.T) {
	if m.flying || m.due.IsZero() {
		t.Skip()
	}
	if !m.queued {
		m.now = later(m.now, m.due)
	}
	m.queued = false
	m.flying, m.asked, m.start, m.window = true, m.s.Due.IsZero() || m.now.Before(m.s.Due), m.now, m.s.Window
	m.step(t, Input{Kind: Begun})
}

func (m *machine) end(t *rapid.T) {
	if !m.flying {
		t.Skip()
	}
	m.flying = false
	m.drawPass(t)
	if m.window != m.s.Window || m.p.Disabled() {
		return // as the loop drops it
	}
	r := rapid.SampledFrom([]Result{good, good, bad, bad, bad, refusal, dunno, noAgent}).Draw(t, "result")
	r.Start, r.Duration = m.start, m.now.Sub(m.start)
	m.succeed = m.succeed || r.Outcome == Success
	m.step(t, Input{Kind: Probed, Result: r, Asked: m.asked, Hash: m.hash(t)})
}

// check is what holds at any time.
func (m *machine) check(t *rapid.T) {
	s := m.s
	if s.Successes > 0 && s.Failures > 0 {
		t.Fatal("two streaks at once")
	}
	if s.Failures > 0 && (s.inGrace(m.now) || m.now.Before(s.Hello)) {
		t.Fatal("failures count inside the grace")
	}
	if s.Hints > hintsInVain || s.HintFree.Sub(m.now) > hintBurst*hintEvery {
		t.Fatalf("%d hints asked, and the limiter is full again in %v", s.Hints, s.HintFree.Sub(m.now))
	}
	if s.Kept != NoHint && !s.Flying && !m.queued && m.due.IsZero() {
		t.Fatal("a hint is kept, and nothing comes")
	}
	if (s.Status == StatusHealthy || s.Status == StatusUnhealthy) && (s.Phase != Running || m.p.Disabled()) {
		t.Fatalf("%s while %s", s.Status, s.Phase)
	}
	if s.Phase == Running && !m.p.Disabled() && !m.flying && !m.queued && m.due.IsZero() {
		t.Fatal("no probe will ever come again")
	}
	if !s.probing(&m.p) && !m.due.IsZero() {
		t.Fatal("a probe is due though nothing is watched")
	}
	if late := m.due.Sub(m.now); !m.due.IsZero() && late > m.p.Interval+m.p.Interval/20 && !(s.Waiting && late <= patience) {
		t.Fatalf("the next probe comes in %v", late)
	}
	if s.Last != "" && s.Status != StatusUnknown {
		t.Fatalf("a last status beside %s", s.Status)
	}
}

func FuzzDecode(f *testing.F) {
	c := clock{bootID: "b", origin: epoch, uptime: time.Hour}
	m := healthySim(&testing.T{}, steady)
	var h history
	h.addResult(WindowResult{Result: bad, Window: 1})
	h.addTransition(Transition{From: StatusStarting, To: StatusHealthy})
	blob, err := encoded(c, m.p, m.s, &h)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(blob)
	f.Add([]byte(`{"version":1,"policy":null}`))
	f.Add([]byte(`{"version":2}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, s, h, err := decode(c, b)
		if err != nil {
			return
		}
		// Whatever was accepted can be gone on from, and written again.
		s, _ = s.Next(p, epoch.Add(time.Hour), Input{Kind: Restarted, Hash: 7})
		s, _ = s.Next(p, epoch.Add(time.Hour), Input{Kind: Seen, Run: s.Run, Phase: Running})
		if _, err := encoded(c, p, s, &h); err != nil && s.sane() {
			t.Fatal(err)
		}
	})
}

// sane reports whether JSON can hold the state's dates.
func (s State) sane() bool {
	for _, d := range []time.Time{s.Since, s.CheckedAt, s.SuccessAt, s.FailureAt, s.WindowAt} {
		if y := d.UTC().Year(); y < 0 || y > 9999 {
			return false
		}
	}
	return true
}
