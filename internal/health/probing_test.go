package health

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A new window cuts the probe in flight short; its result is dropped; and the next begins when it is gone, not before.
func TestNewWindow(t *testing.T) {
	for name, ignores := range map[string]bool{"that returns at once": false, "that does not": true} {
		t.Run("a probe "+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				b.ignore(ignores)
				b.answers(good, 5*time.Second)
				b.seen(1, Running, pacedPolicy)
				time.Sleep(time.Second)
				b.answers(good, 10*ms)
				b.seen(1, Running, otherPaced)
				if s := b.snapshot(); len(s.Results) != 0 || s.Status != StatusStarting {
					t.Errorf("%+v", s)
				}
				if ignores {
					time.Sleep(4 * time.Second)
					b.probed(0, 5*time.Second)
				} else {
					b.probed(0, time.Second)
				}
				time.Sleep(10 * ms)
				s := b.is(StatusHealthy)
				if len(s.Results) != 1 || s.Results[0].Window != 2 {
					t.Errorf("%+v", s.Results)
				}
			})
		})
	}
}

// Stopping in the middle of a probe says nothing about the workload.
func TestStopInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.seen(1, Running, pacedPolicy)
		b.is(StatusHealthy)
		b.answers(bad, time.Second)
		b.ignore(true)
		time.Sleep(1100 * ms)
		b.seen(1, Inactive, pacedPolicy)
		time.Sleep(time.Minute)
		s := b.is(StatusUnknown)
		last := s.Results[len(s.Results)-1]
		if last.Outcome != Inconclusive || last.Cause != CauseCutShort || s.LastStatus != StatusHealthy || s.ConsecutiveFailures != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// A pause that is over before the probe it cut short is gone: its answer says nothing all the same.
func TestPauseInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		policy := strings.Replace(pacedPolicy, `"failure_threshold":2`, `"failure_threshold":1`, 1)
		b.seen(1, Running, policy)
		b.is(StatusHealthy)
		b.answers(bad, time.Second)
		b.ignore(true)
		time.Sleep(1100 * ms)
		b.seen(1, Inactive, policy)
		b.answers(good, 0)
		b.seen(1, Running, policy)
		time.Sleep(time.Second)
		s := b.is(StatusHealthy)
		cut := WindowResult{Window: 1, Result: Result{
			Start: b.start.Add(b.probes[1]).UTC(), Duration: time.Second, Outcome: Inconclusive, Cause: CauseCutShort, Reason: reasonCutShort,
		}}
		if n := len(s.Results); n != 3 || s.Results[1] != cut || s.Results[2].Outcome != Success {
			t.Errorf("%+v", s.Results)
		}
	})
}

// What probes for us and does not answer is no failure of the workload.
func TestOverdue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.seen(1, Running, pacedPolicy)
		b.is(StatusHealthy)
		b.answers(bad, time.Hour)
		time.Sleep(17 * time.Second)
		s := b.is(StatusHealthy)
		want := WindowResult{Window: 1, Result: Result{
			Start: b.start.Add(b.probes[1]).UTC(), Duration: 14 * time.Second, Outcome: Inconclusive, Cause: CauseNoAnswer, Reason: errOverdue.Error(),
		}}
		if s.Results[1] != want {
			t.Errorf("%+v, want %+v", s.Results[1], want)
		}
	})
}

// One that does not even end when it is told to is waited for, and nothing else.
func TestOverdueAndDeaf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.seen(1, Running, pacedPolicy)
		b.is(StatusHealthy)
		b.answers(bad, time.Minute)
		b.ignore(true)
		time.Sleep(62 * time.Second)
		s := b.is(StatusHealthy)
		if last := s.Results[1]; last.Cause != CauseNoAnswer || last.Duration != time.Minute || b.count() > 3 {
			t.Errorf("%+v, %d probes", last, b.count())
		}
	})
}

// An answer that came in time is not overdue because the loop was busy when it came.
func TestAnswerInTimeForABusyLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.seen(1, Initializing, pacedPolicy)
		synctest.Wait()
		b.ignore(true)
		b.answers(bad, 13900*ms) // from 1 s on; it would be overdue at 15 s
		time.Sleep(14800 * ms)
		b.journal.breaks(time.Second, nil) // healthy is committed until 15.8 s
		b.seen(1, Running, pacedPolicy)
		b.journal.breaks(0, nil)
		b.answers(good, 0)
		if r := b.is(StatusHealthy).Results[1]; r.Outcome != Failure {
			t.Errorf("%+v", r)
		}
	})
}

// What came due during a flight that was asked for follows at once when that has landed, and is not late.
func TestDueInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t) // which checks the lag
		b.answers(bad, 0)
		b.seen(1, Running, pacedPolicy)
		b.probed(0)
		b.answers(bad, 500*ms)
		time.Sleep(900 * ms)
		b.Ask("a")
		time.Sleep(500 * ms)
		b.probed(0, 900*ms, 1400*ms)
	})
}

// Nothing a guest says is kept raw, or without bound.
func TestCleanedResults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.answers(Result{Outcome: Failure, Reason: strings.Repeat("é\x1b[31m", 200), Output: "\x00a\xff\n" + strings.Repeat("x", 5000)}, 0)
		b.seen(1, Running, pacedPolicy)
		time.Sleep(time.Minute)
		s := b.is(StatusStarting)
		if len(s.LastError) > 512 || strings.ContainsRune(s.LastError, '\x1b') || !strings.HasPrefix(s.LastError, "é[31mé") {
			t.Errorf("%q", s.LastError)
		}
		total := 0
		for _, r := range s.Results {
			total += len(r.Output)
			if len(r.Output) > 4096 {
				t.Errorf("%d bytes of output", len(r.Output))
			}
		}
		if total == 0 || total > 32<<10 {
			t.Errorf("%d bytes of output in all", total)
		}
	})
}

// A cause labels a metric, so it is one of those that are known.
func TestUnknownCauses(t *testing.T) {
	wants := map[string]string{"": CauseNoAnswer, "cause 4711": CauseNoAnswer}
	for _, known := range []string{ // which dashboards know by these names; of a missing agent Next makes a failure
		"no_network", "no_machine", "host_resources", "disk_full", "cut_short", "no_answer", "starved",
		"unsupported_driver", "shim_unavailable", "panic",
	} {
		wants[known] = known
	}
	for given, want := range wants {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t)
			b.hooks.Probed = func(_ Type, _ Outcome, cause string, _ time.Duration) {
				if cause != want {
					t.Errorf("%q labels the metric as %q, want %q", given, cause, want)
				}
			}
			b.answers(Result{Outcome: Inconclusive, Cause: given}, 0)
			b.seen(1, Running, pacedPolicy)
			if s := b.is(StatusStarting); s.Results[0].Cause != want {
				t.Errorf("%q is shown as %q, want %q", given, s.Results[0].Cause, want)
			}
		})
	}
}

// The Prober's own measure of its time counts, as far as it can be true; and its context ends with it.
func TestDurations(t *testing.T) {
	for given, want := range map[time.Duration]time.Duration{0: 10 * ms, -1: 10 * ms, 5 * ms: 5 * ms, 10 * ms: 10 * ms, time.Hour: 10 * ms} {
		synctest.Test(t, func(t *testing.T) {
			var probe context.Context
			s := NewSet(Config{Journal: archive(nil), Probe: func(ctx context.Context, _ string, _ Policy, _ func()) Result {
				probe = ctx
				time.Sleep(10 * ms)
				if ctx.Err() != nil {
					t.Error("its context ended before it")
				}
				return Result{Outcome: Success, Duration: given, Queued: time.Hour, Wait: -1}
			}})
			s.Sync(Observed{ID: "a", Run: 1, Phase: Running, Policy: mustParse(t, pacedPolicy)})
			r, err := s.CheckNow(t.Context(), "a")
			if err != nil || r.Duration != want || r.Queued != 0 || r.Wait != 0 {
				t.Errorf("%v: %+v, %v", given, r, err)
			}
			if probe.Err() == nil {
				t.Error("its context did not end with it")
			}
			s.Close(t.Context())
		})
	}
}

// What the hooks are told of probes.
func TestHooks(t *testing.T) {
	type probed struct {
		t       Type
		o       Outcome
		cause   string
		took    time.Duration
		waited  int
		waiting time.Duration
	}
	for policy, want := range map[string]probed{
		`{"http":{"port":80}}`:                  {t: TypeHTTP, o: Inconclusive, cause: CauseResources, took: 30 * ms},
		`{"http":{"port":80,"scheme":"https"}}`: {t: TypeHTTP, o: Inconclusive, cause: CauseResources, took: 30 * ms, waited: 1, waiting: 50 * ms},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t)
			b.queue = newQueue(1)
			b.queue.join(false, idle)
			var mu sync.Mutex
			var got probed
			b.hooks.Probed = func(t Type, o Outcome, cause string, took time.Duration) {
				mu.Lock()
				defer mu.Unlock()
				got.t, got.o, got.cause, got.took = t, o, cause, took
			}
			b.hooks.Waited = func(t Type, waiting time.Duration) {
				mu.Lock()
				defer mu.Unlock()
				got.waited++
				got.waiting = waiting
			}
			b.answers(dunno, 30*ms)
			b.seen(1, Running, policy)
			time.Sleep(90 * ms)
			synctest.Wait()
			mu.Lock()
			if got != want {
				t.Errorf("%+v, want %+v", got, want)
			}
			mu.Unlock()
		})
	}
}

// Whether a probe was asked for reaches the decision: its failure counts only if it begins no sooner than the gap of the last.
func TestAskedReachesTheDecision(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.seen(1, Running, graceless)
		b.is(StatusHealthy)
		b.answers(bad, 0)
		for range 5 {
			time.Sleep(time.Second)
			b.Ask("a")
			if s := b.is(StatusHealthy); s.ConsecutiveFailures != 1 || !s.LastCheckedAt.Equal(time.Now()) || !s.LastFailureAt.Equal(time.Now()) {
				t.Errorf("%+v", s)
			}
		}
	})
}

// The steady pace has jitter of its own for each probe, within a twentieth.
func TestJitterOfTheLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.seen(1, Running, graceless)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		gaps := map[time.Duration]bool{}
		b.mu.Lock()
		for i, at := range b.probes[1:] {
			gap := at - b.probes[i]
			if gap < 9500*ms || gap > 10500*ms {
				t.Errorf("a gap of %v", gap)
			}
			gaps[gap] = true
		}
		b.mu.Unlock()
		if len(gaps) < 10 {
			t.Errorf("gaps: %v", gaps)
		}
	})
}
