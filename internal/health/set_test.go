package health

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
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
				b.seen(1, Running, strings.Replace(pacedPolicy, "80", "81", 1))
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
				b.close()
			})
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
		_, saves := b.journal.record()
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
		if _, n := b.journal.record(); n != saves {
			t.Error("the record was written")
		}
		b.close()
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
		b.close()
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
		b.close()
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
		b.close()
	})
}

func TestCheckNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		if _, err := b.CheckNow(t.Context(), "a"); !errors.Is(err, ErrUnknown) {
			t.Error(err)
		}
		b.seen(0, Inactive, pacedPolicy)
		if _, err := b.CheckNow(t.Context(), "a"); !errors.Is(err, ErrInactive) {
			t.Error(err)
		}
		synctest.Wait()
		if n := len(b.loop("a", false).waiters); n != 0 {
			t.Errorf("%d wait for what was refused", n)
		}
		b.answers(good, 100*ms)
		b.seen(1, Running, pacedPolicy)
		time.Sleep(50 * ms)
		r, err := b.CheckNow(t.Context(), "a") // joins
		if err != nil || r.Outcome != Success || r.Window != 1 || time.Since(b.start) != 100*ms {
			t.Errorf("%+v, %v at %v", r, err, time.Since(b.start))
		}
		time.Sleep(300 * ms)
		if r, err = b.CheckNow(t.Context(), "a"); err != nil || !r.Start.Equal(b.start.Add(400*ms)) { // runs one
			t.Errorf("%+v, %v", r, err)
		}
		b.probed(0, 400*ms)

		// Many at once share one probe.
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				if _, err := b.CheckNow(t.Context(), "a"); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		b.probed(0, 400*ms, 500*ms)

		// One who waits across a new window gets the new window's first result.
		wg.Go(func() {
			if r, err := b.CheckNow(t.Context(), "a"); err != nil || r.Window != 2 {
				t.Errorf("%+v, %v", r, err)
			}
		})
		time.Sleep(50 * ms)
		b.seen(2, Running, pacedPolicy)
		wg.Wait()

		// One who gives up, and one whose check is taken away.
		ctx, cancel := context.WithTimeout(t.Context(), ms)
		defer cancel()
		if _, err := b.CheckNow(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		wg.Go(func() {
			if _, err := b.CheckNow(t.Context(), "a"); !errors.Is(err, ErrNoPolicy) {
				t.Error(err)
			}
		})
		synctest.Wait()
		b.seen(2, Running, `null`)
		wg.Wait()

		b.seen(2, Running, pacedPolicy)
		wg.Go(func() {
			if _, err := b.CheckNow(t.Context(), "a"); !errors.Is(err, ErrClosed) {
				t.Error(err)
			}
		})
		synctest.Wait()
		b.close()
		wg.Wait()
	})
}

// A panic in a probe or in a loop is contained: told, counted, and the loop goes on.
func TestPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		var once sync.Once
		b.hooks.Transition = func(Status, Status, bool) { once.Do(func() { panic("a hook has a bug") }) }
		b.open()
		b.seen(0, Inactive, pacedPolicy)
		b.seen(1, Running, pacedPolicy) // the panic comes before the first probe is begun
		b.is(StatusStarting)
		time.Sleep(time.Second)
		b.is(StatusHealthy)
		if b.panics.Load() != 1 || !strings.Contains(b.log.String(), "a hook has a bug") {
			t.Errorf("%d panics, log %s", b.panics.Load(), b.log)
		}
		b.answers(Result{Reason: "panic"}, 0)
		time.Sleep(time.Second)
		s := b.is(StatusHealthy)
		if last := s.Results[len(s.Results)-1]; last.Cause != CausePanic || !strings.Contains(last.Reason, "panicked") || b.panics.Load() != 2 {
			t.Errorf("%+v, %d panics", last, b.panics.Load())
		}
		b.close()
	})
}

// A result that is lost in a panic, and with it the next probe's time, does not end the checks.
func TestLostResult(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.log.panics = "agent is not connected"
		b.answers(noAgent, 0)
		b.seen(1, Running, strings.Replace(execPolicy, `"1h"`, `"0s"`, 1))
		b.is(StatusStarting)
		b.probed(0)
		time.Sleep(restartPause)
		b.probed(0, restartPause)
		if s := b.is(StatusStarting); s.ConsecutiveFailures != 1 || b.panics.Load() != 1 {
			t.Errorf("%+v, %d panics", s, b.panics.Load())
		}
		b.close()
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
		b.close()
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
		b.close()
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
		b.close()
	})
}

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
		if log := b.log.String(); strings.Count(log, "stale=no_conclusive_result") != 1 || strings.Count(log, "was=starting") != 1 || strings.Count(log, "was=") != 1 {
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
			b.close()
		})
	}
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
		b.close()
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
		b.close()
	})
}

// Of one who no longer waits for a check nothing is kept.
func TestCheckNowGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.answers(good, time.Second)
		b.seen(1, Running, pacedPolicy)
		gone, leave := context.WithCancelCause(t.Context())
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				if _, err := b.CheckNow(gone, "a"); !errors.Is(err, errLeft) {
					t.Error(err)
				}
			})
		}
		wg.Go(func() {
			if r, err := b.CheckNow(t.Context(), "a"); err != nil || r.Outcome != Success {
				t.Errorf("%+v, %v", r, err)
			}
		})
		waiting := func() int {
			synctest.Wait()
			l := b.loop("a", false)
			l.mu.Lock()
			defer l.mu.Unlock()
			return len(l.waiters)
		}
		if n := waiting(); n != 101 {
			t.Errorf("%d wait", n)
		}
		leave(errLeft)
		if n := waiting(); n != 1 {
			t.Errorf("%d wait when one does", n)
		}
		wg.Wait()
		if n := waiting(); n != 0 {
			t.Errorf("%d wait when none does", n)
		}
		alone, leave := context.WithCancelCause(t.Context())
		wg.Go(func() {
			if _, err := b.CheckNow(alone, "a"); !errors.Is(err, errLeft) {
				t.Error(err)
			}
		})
		if n := waiting(); n != 1 {
			t.Errorf("%d wait alone", n)
		}
		leave(errLeft)
		if n := waiting(); n != 0 {
			t.Errorf("%d wait when the only one has left", n)
		}
		wg.Wait()
		b.close()
	})
}

var errLeft = errors.New("the client left")

// What a Prober wants done when its context ends is waited for, too.
func TestCloseWaitsForWhatEndsWithAProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		var done atomic.Int32
		b.Set.config.Probe = func(ctx context.Context, _ string, _ Policy, _ func()) Result {
			ctx.(interface{ AfterFunc(func()) func() bool }).AfterFunc(func() { time.Sleep(time.Minute); done.Add(1) })
			return good
		}
		b.seen(1, Running, pacedPolicy)
		b.is(StatusHealthy)
		b.close()
		if done.Load() != 1 {
			t.Error("it goes on after Close")
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
			b.open()
			b.answers(Result{Outcome: Inconclusive, Cause: given}, 0)
			b.seen(1, Running, pacedPolicy)
			if s := b.is(StatusStarting); s.Results[0].Cause != want {
				t.Errorf("%q is shown as %q, want %q", given, s.Results[0].Cause, want)
			}
			b.close()
		})
	}
}

func TestHistoryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.seen(1, Running, pacedPolicy)
		for i := range uint64(100) {
			b.seen(i, Inactive, pacedPolicy)
			b.seen(i+2, Running, pacedPolicy)
			b.is(StatusHealthy)
		}
		s := b.snapshot()
		if len(s.Results) != 64 || len(s.Transitions) != 64 || s.Results[63].Window != 101 || s.Transitions[63].To != StatusHealthy {
			t.Errorf("%d results, %d transitions, the last of window %d", len(s.Results), len(s.Transitions), s.Results[63].Window)
		}
		b.close()
	})
}

// The agent's word brings the probe forward, and what follows confirms it.
func TestHint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.Hint("a", 80, true) // nobody knows it
		const policy = `{"interval":"10s","timeout":"1s","start_period":"0s","tcp":{"port":80}}`
		b.answers(refusal, 0)
		b.seen(1, Running, policy)
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
		b.close()
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
		if s := b.is(StatusStarting); len(s.Results) != 4 || s.Results[2].Window != 2 || len(s.Transitions) != 0 {
			t.Errorf("%+v", s)
		}
		b.close()
	})
}

// A panic before a probe has begun does not end the checks.
func TestPanicBeforeAProbe(t *testing.T) {
	for _, policy := range []string{pacedPolicy, execPolicy} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t)
			hook := func() func() {
				panics := 3
				return func() {
					if panics > 0 {
						panics--
						panic("a hook has a bug")
					}
				}
			}
			began, waited := hook(), hook()
			b.Set.hooks.Began = func(string, time.Duration) { began() }
			b.Set.hooks.Waited = func(Type, time.Duration) { waited() }
			want := int64(3)
			if policy == execPolicy {
				want = 6
			}
			b.seen(1, Running, policy)
			time.Sleep(time.Minute)
			b.is(StatusHealthy)
			if b.panics.Load() != want || b.Queued() != 0 {
				t.Errorf("%d panics, %d queued", b.panics.Load(), b.Queued())
			}
			b.close()
		})
	}
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
		_, saves := b.journal.record()
		time.Sleep(saveEvery - 2*time.Second - 1)
		_, early := b.journal.record()
		time.Sleep(time.Nanosecond)
		if _, n := b.journal.record(); n != saves+1 || early != saves {
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
		b.close()
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
			_, saves := b.journal.record()
			do()
			synctest.Wait()
			select {
			case <-changed:
				t.Error("published")
			default:
			}
			if _, n := b.journal.record(); n != saves {
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
		b.close()
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
		b.close()
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
		b.close()
	})
}

// After Close nothing is taken: nothing is probed, committed or shown, whatever comes.
func TestAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.seen(0, Inactive, pacedPolicy)
		b.seen(1, Running, pacedPolicy)
		b.is(StatusHealthy)
		b.close()
		path, shown := b.journal.path(), fmt.Sprint(b.snapshot())
		b.seen(1, Inactive, pacedPolicy)
		b.seen(2, Running, pacedPolicy)
		b.Ask("a")
		b.Hint("a", 80, false)
		if _, err := b.CheckNow(t.Context(), "a"); !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
		b.Sync(Observed{ID: "another", Run: 1, Phase: Running, Policy: mustParse(t, pacedPolicy)})
		if _, ok := b.Snapshot("another"); ok {
			t.Error("another was begun")
		}
		time.Sleep(time.Minute)
		b.probed(0)
		if got := fmt.Sprint(b.snapshot()); got != shown || b.journal.path() != path || b.panics.Load() != 0 {
			t.Errorf("%s, then %s; shown\n%s, then\n%s; %d panics", path, b.journal.path(), shown, got, b.panics.Load())
		}
		b.close() // again
	})
}

// While a loop ends, and waits for a probe that does not heed its context, nobody else who comes waits with it.
func TestNobodyWaitsForTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.answers(good, 5*time.Second)
		b.ignore(true)
		b.seen(1, Running, pacedPolicy)
		time.Sleep(time.Second)
		var wg sync.WaitGroup
		wg.Go(b.close)
		synctest.Wait()
		b.seen(1, Inactive, pacedPolicy)
		b.Ask("a")
		b.Hint("a", 80, false)
		if at := time.Since(b.start); at != time.Second {
			t.Errorf("they were let go at %v", at)
		}
		wg.Wait()
		if at := time.Since(b.start); at != 5*time.Second {
			t.Errorf("closed at %v", at)
		}
		b.probed(0)
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
		b.close()
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

// Neither the outputs of results nor those of transitions push the others out: one that flaps shows what its newest failures said.
func TestOutputsOfBothKindsAreKept(t *testing.T) {
	var h history
	output := func(i int) string { return fmt.Sprintf("%04d", i) + strings.Repeat("x", maxOutput-4) }
	sizes := func() (results, transitions int) {
		t.Helper()
		gap := false
		for _, r := range h.listResults() {
			if gap = gap || r.Output != ""; gap && r.Output == "" {
				t.Error("an older result's output is kept than one that is not")
			}
			results += len(r.Output)
		}
		for _, tr := range h.listTransitions() {
			transitions += len(tr.Output)
		}
		return results, transitions
	}
	for i := range 20 {
		h.addResult(WindowResult{Result: Result{Outcome: Failure, Output: output(i)}})
	}
	if r, _ := sizes(); r != keepOutput {
		t.Errorf("results alone have %d bytes of %d", r, keepOutput)
	}
	for i := 20; i < 40; i++ {
		h.addResult(WindowResult{Result: Result{Outcome: Failure, Output: output(i)}})
		h.addTransition(Transition{From: StatusHealthy, To: StatusUnhealthy, Output: output(i)})
		if r, tr := sizes(); r+tr > keepOutput {
			t.Fatalf("%d and %d bytes of %d", r, tr, keepOutput)
		}
	}
	r, tr := sizes()
	results, transitions := h.listResults(), h.listTransitions()
	if r != keepOutput/2 || tr != keepOutput/2 || results[len(results)-1].Output != output(39) || transitions[len(transitions)-1].Output != output(39) {
		t.Errorf("flapping leaves %d bytes of results and %d of transitions", r, tr)
	}
	var again history // as a record is read
	for _, w := range results {
		again.addResult(w)
	}
	for _, w := range transitions {
		again.addTransition(w)
	}
	if !slices.EqualFunc(again.listResults(), results, func(a, b WindowResult) bool { return a == b }) || !slices.Equal(again.listTransitions(), transitions) {
		t.Error("it is another one after a record")
	}
}
