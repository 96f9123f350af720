package health

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestStaleIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.seen(1, Running, pacedPolicy)
		b.is(StatusHealthy)
		b.answers(dunno, 0)
		time.Sleep(30*time.Second - 1)
		if b.is(StatusHealthy).Stale {
			t.Error("too early")
		}
		time.Sleep(time.Nanosecond)
		if s := b.is(StatusHealthy); s.StaleReason != StaleInconclusive {
			t.Errorf("%+v", s)
		}
		b.answers(good, 0)
		b.Ask("a")
		if s := b.is(StatusHealthy); s.Stale {
			t.Error("asked, and still stale")
		}
		b.close()
		n := len(b.journal.log)
		if b.journal.log[n-2].Stale != StaleInconclusive || b.journal.log[n-1].Stale != "" {
			t.Errorf("%+v", b.journal.log)
		}
		if log := b.log.String(); strings.Count(log, "stale=no_conclusive_result") != 1 || strings.Count(log, "was=starting") != 1 || strings.Count(log, "was=") != 2 {
			t.Errorf("the log: %s", log)
		}
	})
}

// It turns stale in the step that comes first at that moment or behind it, whatever that step is about; and what was committed is shown.
func TestStaleByAnyStep(t *testing.T) {
	for _, in := range []Input{{Kind: Asking}, {Kind: Begun}, {Kind: Hinted, Port: 80}} { // while Queued it does not turn stale
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t)
			l := newLoop(b.Set, "a") // which nobody runs: the steps are taken here
			l.loaded = true
			l.seen(Observed{ID: "a", Run: 1, Phase: Running, Policy: mustParse(t, steady), Entered: time.Now()})
			l.next(time.Now(), Input{Kind: Begun})
			l.next(time.Now(), Input{Kind: Probed, Result: Result{Start: time.Now(), Outcome: Success}})
			time.Sleep(time.Minute)
			l.next(time.Now(), in)
			last := b.journal.log[len(b.journal.log)-1]
			s, _ := l.snapshot()
			if last.Stale != StaleInconclusive || s.StaleReason != StaleInconclusive || s.Transitions[len(s.Transitions)-1].Stale != StaleInconclusive {
				t.Errorf("a step of kind %d: committed %+v, shown %+v", in.Kind, last, s)
			}
			if !l.saver.urgent {
				t.Errorf("a step of kind %d: the record is not written", in.Kind)
			}
			l.forget()
		})
	}
}

// Time queued is no time without a result: nothing turns stale for it.
func TestStaleWithoutTimeQueued(t *testing.T) {
	m := healthySim(t, steady) // stale after 3 × 11 s
	m.pass(10 * time.Second)
	m.next(Input{Kind: Asking})
	m.next(Input{Kind: Queued})
	if m.s.Asked || !m.s.StaleAt(&m.p).IsZero() {
		t.Fatalf("%+v", m.s)
	}
	m.pass(time.Hour)
	if m.s.Stale != "" {
		t.Fatal("stale while it is queued")
	}
	m.next(Input{Kind: Begun})
	if want := m.now.Add(23 * time.Second); !m.s.StaleAt(&m.p).Equal(want) || !m.s.Queued.IsZero() {
		t.Fatalf("stale at %v, want %v", m.s.StaleAt(&m.p), want)
	}
	m.next(Input{Kind: Probed, Result: dunno, Asked: true, Hash: half})
	m.pass(23*time.Second - 1)
	if m.s.Stale != "" {
		t.Fatal("too early")
	}
	m.pass(1)
	if m.s.Stale != StaleInconclusive {
		t.Fatal("too late")
	}

	// Time queued before staleness began to be measured anew takes nothing from it.
	m = newSim(t, steady)
	m.phase(Initializing)
	m.next(Input{Kind: Queued})
	m.pass(time.Hour)
	m.phase(Running)
	m.pass(time.Second)
	m.next(Input{Kind: Begun})
	if want := m.now.Add(33 * time.Second); !m.s.StaleAt(&m.p).Equal(want) {
		t.Errorf("stale at %v, want %v", m.s.StaleAt(&m.p), want)
	}
	if m.s.Asked {
		t.Error("the entry into Running asked for another one than that which begins after it")
	}
	// Given up by a pause.
	m = healthySim(t, steady)
	m.next(Input{Kind: Queued})
	m.phase(Inactive)
	if !m.s.Queued.IsZero() {
		t.Error("still queued")
	}
}

// A result that comes without its turn's end ends the wait as well.
func TestProbedEndsTheWait(t *testing.T) {
	m := healthySim(t, steady)
	m.next(Input{Kind: Queued})
	m.pass(time.Hour)
	m.next(Input{Kind: Probed, Result: dunno, Hash: half})
	if want := m.now.Add(33 * time.Second); !m.s.Queued.IsZero() || !m.s.StaleAt(&m.p).Equal(want) {
		t.Errorf("stale at %v, want %v", m.s.StaleAt(&m.p), want)
	}
}

// The same in the loop.
func TestNotStaleWhileQueued(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.queue = newQueue(1)
		b.seen(1, Running, `{"interval":"10s","timeout":"1s","start_period":"0s","exec":{"command":["x"]}}`)
		b.is(StatusHealthy)
		time.Sleep(time.Second)
		for range 1000 { // fifty seconds of others
			b.queue.join(false, idle)
		}
		b.answers(dunno, 0)
		b.Ask("a")
		time.Sleep(49 * time.Second)
		if b.is(StatusHealthy).Stale || b.count() != 1 {
			t.Error("stale while it is queued")
		}
		time.Sleep(33*time.Second - 1)
		if b.is(StatusHealthy).Stale || b.count() == 1 {
			t.Error("the time queued is counted")
		}
		time.Sleep(time.Nanosecond)
		if !b.is(StatusHealthy).Stale {
			t.Error("never stale")
		}
	})
}

// A pause shows no staleness, in the status or in the log, and ends none: also where the record is older than both.
func TestStaleOverAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.seen(1, Running, graceless)
		b.is(StatusHealthy)
		b.answers(dunno, 0)
		time.Sleep(32 * time.Second)
		record := b.journal.record()
		time.Sleep(2 * time.Second)
		if b.is(StatusHealthy).StaleReason != StaleInconclusive {
			t.Fatal("not stale")
		}
		b.seen(1, Inactive, graceless)
		s := b.is(StatusUnknown)
		if last := s.Transitions[len(s.Transitions)-1]; s.Stale || last.To != StatusUnknown || last.Stale != "" {
			t.Errorf("stale %v, %+v", s.Stale, last)
		}
		for _, when := range []string{"", "after a crash"} {
			if when != "" {
				b.crash(record)
				b.seen(1, Inactive, graceless)
				b.is(StatusUnknown)
			}
			b.seen(1, Running, graceless)
			if s := b.is(StatusHealthy); s.StaleReason != StaleInconclusive {
				t.Errorf("%s: stale for %q", when, s.StaleReason)
			}
			b.seen(1, Inactive, graceless)
		}
		n := b.is(StatusUnknown).Changes
		b.seen(1, Inactive, steady) // a new window, which is not stale: nobody saw that the last one was
		if s := b.is(StatusUnknown); s.Changes != n {
			t.Errorf("told %+v", s.Transitions[len(s.Transitions)-1])
		}
	})
}
