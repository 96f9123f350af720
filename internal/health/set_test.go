package health

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.answers(bad, 10*ms)
		b.seen(0, Inactive, pacedPolicy)
		b.is(StatusUnknown)
		b.seen(1, Initializing, pacedPolicy)
		if s := b.snapshot(); s.Status != StatusStarting || !s.WindowStartedAt.Equal(time.Now()) {
			t.Errorf("Sync returned before the window began: %+v", s)
		}
		if b.Watched() != 1 {
			t.Errorf("%d watched", b.Watched())
		}
		time.Sleep(2500 * ms) // probes at 0, 1.01, 2.02
		b.answers(good, 10*ms)
		b.seen(1, Running, pacedPolicy)
		time.Sleep(9 * ms)
		b.is(StatusStarting)
		time.Sleep(1 * ms)
		s := b.is(StatusHealthy)
		b.probed(0, 1010*ms, 2020*ms, 2500*ms)
		if s.ConsecutiveSuccesses != 1 || s.GraceFailures != 3 || s.LastError != bad.Reason || !s.LastSuccessAt.Equal(time.Now().Add(-10*ms)) {
			t.Errorf("%+v", s)
		}
		if len(s.Results) != 4 || s.Results[3].Duration != 10*ms || s.Results[3].Window != 1 {
			t.Errorf("%+v", s.Results)
		}
		b.answers(refusal, 0)
		time.Sleep(4 * time.Second)
		s = b.is(StatusUnhealthy)
		if last := s.Transitions[len(s.Transitions)-1]; last.Reason != refusal.Reason || !last.Time.Equal(s.Since) || last.Persisted != nil {
			t.Errorf("%+v", last)
		}
		b.seen(1, Inactive, pacedPolicy)
		if s := b.is(StatusUnknown); s.LastStatus != StatusUnhealthy || b.Watched() != 0 {
			t.Errorf("%+v", s)
		}
		n := b.count()
		time.Sleep(time.Hour)
		if b.count() != n {
			t.Error("probed though it is not running")
		}
		b.close()
		if got := b.journal.path(); got != "unknown>starting starting>healthy healthy>unhealthy unhealthy>unknown" {
			t.Error(got)
		}
	})
}

// The first transition does not depend on whether anybody saw the instance before it was started.
func TestFirstTransition(t *testing.T) {
	for name, c := range map[string]struct {
		seen   []Phase
		policy string
		want   string
	}{
		"created, then on its way": {[]Phase{Inactive, Initializing}, pacedPolicy, "unknown>starting"},
		"on its way":               {[]Phase{Initializing}, pacedPolicy, "unknown>starting"},
		"running":                  {[]Phase{Running}, pacedPolicy, "unknown>starting"},
		"without a check":          {[]Phase{Running}, "null", ""},
		"created only":             {[]Phase{Inactive}, pacedPolicy, ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t)
			b.answers(good, time.Hour)
			for _, phase := range c.seen {
				b.seen(1, phase, c.policy)
			}
			if got := b.journal.path(); got != c.want {
				t.Errorf("%s: %q, want %q", name, got, c.want)
			}
			for _, moved := range b.snapshot().Transitions {
				if moved.Reason != "the instance started" {
					t.Errorf("%s: %+v", name, moved)
				}
			}
		})
	}
}

// An update that changes nothing asks nothing and tells nobody.
func TestSyncIsIdempotent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.seen(1, Running, pacedPolicy)
		b.is(StatusHealthy)
		changed := b.Changed("a")
		saves := b.journal.writes()
		policy := b.loop("a", false).p
		for range 10 {
			b.seen(1, Running, pacedPolicy)
		}
		synctest.Wait()
		if b.loop("a", false).p != policy {
			t.Error("an equal policy took the place of the one that was there")
		}
		select {
		case <-changed:
			t.Error("a change was published")
		default:
		}
		b.probed(0)
		if n := b.journal.writes(); n != saves {
			t.Error("the record was written")
		}
	})
}

// Nothing is said of a success, nor of any other result that changes nothing.
func TestResultsAreSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.seen(0, Inactive, pacedPolicy)
		b.seen(1, Running, pacedPolicy)
		b.is(StatusHealthy)
		said, told := b.log.String(), b.journal.path()
		if strings.Count(said, "\n") != 2 || told != "unknown>starting starting>healthy" {
			t.Errorf("told %s, said\n%s", told, said)
		}
		for _, r := range []Result{good, dunno, bad, good} {
			b.answers(r, 0)
			time.Sleep(time.Second)
			b.is(StatusHealthy)
		}
		time.Sleep(time.Hour)
		if n := b.count(); n < 3000 || b.log.String() != said || b.journal.path() != told {
			t.Errorf("%d probes later: told %s, said\n%s", n, b.journal.path(), b.log)
		}
	})
}

// What never had a check leaves no trace.
func TestWithoutPolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.seen(0, Inactive, `null`)
		b.seen(1, Initializing, `null`)
		b.seen(1, Running, `null`)
		time.Sleep(time.Hour)
		s := b.is(StatusDisabled)
		if _, err := b.CheckNow(t.Context(), "a"); !errors.Is(err, ErrNoPolicy) {
			t.Error(err)
		}
		b.close()
		if b.journal.saves != 0 || len(b.journal.log) != 0 || b.count() != 0 || b.log.String() != "" || !s.WindowStartedAt.IsZero() {
			t.Errorf("%d saves, %d events, log %q, %+v", b.journal.saves, len(b.journal.log), b.log, s)
		}
	})
}

// Every step of a loop is activity.
func TestLastActivity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		time.Sleep(time.Minute)
		if !b.LastActivity().Equal(b.start) {
			t.Errorf("%v", b.LastActivity())
		}
		b.seen(1, Inactive, pacedPolicy)
		if !b.LastActivity().Equal(time.Now()) {
			t.Errorf("%v", b.LastActivity())
		}
	})
}

// An agent that is missing is told once, not at every probe.
func TestAgentMissingIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.seen(1, Running, execPolicy)
		b.is(StatusHealthy)
		b.answers(noAgent, 0)
		time.Sleep(time.Minute)
		s := b.is(StatusUnhealthy)
		if n := strings.Count(b.log.String(), "level=WARN"); n != 1 || s.LastError != reasonNoAgent {
			t.Errorf("told %d times, last error %q", n, s.LastError)
		}
	})
}

// The agent's word brings the probe forward, and what follows confirms it.
func TestHint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.Hint("a", 80, true) // nobody knows it
		b.answers(refusal, 0)
		b.seen(1, Running, graceless)
		b.probed(0)
		time.Sleep(3 * time.Second)
		b.answers(good, 200*ms)
		b.Hint("a", 81, true)
		b.Hint("a", 80, false)
		b.probed(0)
		b.Hint("a", 80, true)
		time.Sleep(200 * ms)
		b.is(StatusHealthy)
		b.probed(0, 3*time.Second)

		// During a probe it is kept.
		time.Sleep(time.Second)
		go b.CheckNow(t.Context(), "a")
		synctest.Wait()
		b.answers(refusal, 0)
		b.Hint("a", 80, false)
		time.Sleep(200*ms - 1)
		b.probed(0, 3*time.Second, 4200*ms)
		time.Sleep(time.Nanosecond)
		b.probed(0, 3*time.Second, 4200*ms, 4400*ms)
		if s := b.is(StatusHealthy); s.ConsecutiveFailures != 1 {
			t.Errorf("%+v", s)
		}
		time.Sleep(2 * time.Second)
		b.is(StatusUnhealthy)
		b.probed(0, 3*time.Second, 4200*ms, 4400*ms, 5400*ms, 6400*ms)

		// The limiter's delay is the loop's, too.
		for range 4 {
			b.Hint("a", 80, true)
			synctest.Wait()
		}
		n := b.count()
		if n != 9 {
			t.Errorf("%d probes", n)
		}
		time.Sleep(100*ms - 1)
		if b.count() != n {
			t.Error("too early")
		}
		time.Sleep(time.Nanosecond)
		if b.count() != n+1 {
			t.Error("not at all")
		}
	})
}

// What Next waits for comes with Sync.
func TestNetworkComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		o := Observed{ID: "a", Run: 1, Phase: Initializing, Policy: mustParse(t, pacedPolicy)}
		b.answers(noNetwork, 0)
		b.Sync(o)
		time.Sleep(time.Minute)
		b.probed(0)
		o.Network = true
		b.Sync(o)
		b.probed(0, time.Minute)
		o = Observed{ID: "a", Run: 2, Phase: Running, Policy: o.Policy, Restored: time.Now().Add(-time.Second)}
		b.Sync(o)
		b.probed(0, time.Minute, time.Minute)
		time.Sleep(9*time.Second - 1)
		b.probed(0, time.Minute, time.Minute)
		time.Sleep(time.Nanosecond)
		b.probed(0, time.Minute, time.Minute, 69*time.Second)
		if s := b.is(StatusStarting); len(s.Results) != 4 || s.Results[2].Window != 2 || len(s.Transitions) != 1 {
			t.Errorf("%+v", s)
		}
	})
}

// The loop wakes for what is due without a probe: staleness, and counters that are to be written.
func TestWakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.seen(1, Running, `{"interval":"1h","timeout":"2s","start_period":"0s","confirm_interval":"1h","http":{"port":80}}`)
		b.is(StatusHealthy)
		time.Sleep(time.Minute)
		for range 2 {
			if _, err := b.CheckNow(t.Context(), "a"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		saves := b.journal.writes()
		time.Sleep(saveEvery - 2*time.Second - 1)
		early := b.journal.writes()
		time.Sleep(time.Nanosecond)
		if n := b.journal.writes(); n != saves+1 || early != saves {
			t.Errorf("%d writes, %d, %d", saves, early, n)
		}
		b.answers(dunno, 0)
		last := b.start.Add(time.Minute + time.Second)
		time.Sleep(time.Until(last.Add(3*(time.Hour+2*time.Second) - 1)))
		if b.is(StatusHealthy).Stale {
			t.Error("too early")
		}
		time.Sleep(time.Nanosecond)
		if !b.is(StatusHealthy).Stale {
			t.Error("not told in time")
		}
	})
}

// That a probe was asked for, waits for its turn or has begun is published to nobody, and is no reason to write.
func TestBeginningsAreNoNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.queue = newQueue(1)
		const slow = `{"interval":"1h","timeout":"1s","start_period":"0s",`
		quiet := func(do func()) {
			t.Helper()
			changed := b.Changed("a")
			saves := b.journal.writes()
			do()
			synctest.Wait()
			select {
			case <-changed:
				t.Error("published")
			default:
			}
			if n := b.journal.writes(); n != saves {
				t.Error("written")
			}
		}
		b.seen(1, Running, slow+`"http":{"port":80}}`)
		b.is(StatusHealthy)
		time.Sleep(time.Minute)
		b.answers(refusal, time.Second)
		n := b.count()
		quiet(func() { b.Ask("a") })
		time.Sleep(time.Minute)
		quiet(func() { b.Hint("a", 80, true) })
		b.answers(good, time.Second)
		b.Ask("a")
		time.Sleep(time.Minute)
		quiet(func() { b.Hint("a", 80, false) })
		if got := b.count() - n; got < 3 {
			t.Errorf("%d probes", got)
		}
		time.Sleep(time.Minute)
		b.answers(good, 0)
		b.seen(1, Running, slow+`"exec":{"command":["x"]}}`)
		b.is(StatusHealthy)
		time.Sleep(time.Minute)
		holder := b.queue.join(false, idle)
		quiet(func() { b.Ask("a") })
		if b.Queued() != 1 {
			t.Errorf("%d queued", b.Queued())
		}
		holder.end(false)
		b.is(StatusHealthy)
	})
}

// What Sync hands on reaches the decision: the entry into Running was long ago, and so is the grace over.
func TestSyncHandsOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.answers(bad, 0)
		p := mustParse(t, `{"start_period":"30s","failure_threshold":1,"tcp":{"port":80}}`)
		b.Sync(Observed{ID: "a", Run: 1, Phase: Running, Policy: p, Entered: time.Now().Add(-40 * time.Second)})
		b.is(StatusUnhealthy)
		b.answers(noAgent, 0)
		o := Observed{ID: "a", Run: 2, Phase: Initializing, Policy: mustParse(t, execPolicy)}
		b.Sync(o)
		b.probed(0, 0)
		time.Sleep(time.Minute)
		o.Agent = true
		b.Sync(o)
		b.probed(0, 0, time.Minute)
	})
}

// Of one that ended nothing is kept until the time at which it would have been rung.
func TestEndedLoopsAreNotRung(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.seen(1, Running, pacedPolicy)
		b.is(StatusHealthy)
		b.timers.mu.Lock()
		if n := len(b.timers.alarms.heap); n != 1 {
			t.Errorf("%d are to be rung", n)
		}
		b.timers.mu.Unlock()
		b.Forget("a")
		b.timers.mu.Lock()
		if n := len(b.timers.alarms.heap); n != 0 {
			t.Errorf("%d are to be rung after the end", n)
		}
		b.timers.mu.Unlock()
	})
}

// A check that is taken away and given back begins anew.
func TestCheckIsTakenAwayAndBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.seen(0, Inactive, pacedPolicy)
		b.seen(1, Running, pacedPolicy)
		b.is(StatusHealthy)
		b.answers(bad, 0)
		b.seen(1, Running, `null`)
		b.is(StatusDisabled)
		b.seen(1, Running, pacedPolicy)
		if s := b.is(StatusStarting); s.Results[len(s.Results)-1].Window != 2 || s.ConsecutiveSuccesses != 0 {
			t.Errorf("%+v", s)
		}
		b.close()
		if got := b.journal.path(); got != "unknown>starting starting>healthy healthy>disabled disabled>starting" {
			t.Error(got)
		}
	})
}

// Status is Snapshot but for the histories, and makes nothing on the heap.
func TestStatusIsTheSnapshotWithoutHistories(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		if _, ok := b.Status("a"); ok {
			t.Error("one that is unknown has a status")
		}
		b.seen(0, Inactive, pacedPolicy)
		b.seen(1, Running, pacedPolicy)
		b.is(StatusHealthy)
		b.answers(refusal, ms)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		want := b.is(StatusUnhealthy)
		if len(want.Results) == 0 || len(want.Transitions) != 3 || want.Changes != want.Transitions[2].N {
			t.Errorf("%+v", want)
		}
		want.Results, want.Transitions = nil, nil
		if got, ok := b.Status("a"); !ok || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v, want %+v", got, want)
		}
		if n := testing.AllocsPerRun(100, func() { b.Status("a") }); n > 0 && !raceDetector {
			t.Errorf("%v allocations", n)
		}
	})
}
