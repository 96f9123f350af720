package health

import (
	"fmt"
	"testing"
	"time"
)

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

// A start_interval holds in the grace that there is when nobody has asked for one, whoever set it; and at its end it is over.
func TestStartIntervalWithoutStartPeriod(t *testing.T) {
	fromImage, _ := FromImage([]byte(`{"Test":["CMD","x"],"Interval":20000000000,"StartInterval":2000000000}`), nil)
	for name, p := range map[string]Policy{
		"asked for":   mustParse(t, `{"interval":"20s","start_interval":"2s","exec":{"command":["x"]}}`),
		"the image's": fromImage,
	} {
		m := &sim{t: t, p: p, now: epoch, run: 1}
		m.phase(Initializing)
		m.probe(bad)
		m.is(StatusStarting, 0, 0, 2*time.Second)
		m.phase(Running)
		m.is(StatusStarting, 0, 0, 0)
		for m.due.Sub(epoch) < p.StartPeriod {
			m.probe(bad)
			m.is(StatusStarting, 0, 0, 2*time.Second)
		}
		m.probe(bad)
		if m.s.Failures != 1 || m.due.Sub(m.now) != 20*time.Second {
			t.Errorf("%s: after the grace %d failures count, and the next probe comes in %v", name, m.s.Failures, m.due.Sub(m.now))
		}
	}
	// Without any grace it is the pace of Initializing.
	m := newSim(t, `{"interval":"20s","start_interval":"2s","start_period":"0s","tcp":{"port":80}}`)
	m.phase(Initializing)
	m.probe(bad)
	m.is(StatusStarting, 0, 0, 2*time.Second)
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

// The hash of an id is the same in every process, and in every version: an instance keeps its place.
func TestHashIsKept(t *testing.T) {
	if got := hashID("k3v9x2mp"); got != 0x9f9019f26f85dcd0 {
		t.Errorf("%#x", got)
	}
	if got := mix(1); got != 0x5692161d100b05e5 {
		t.Errorf("%#x", got)
	}
}
