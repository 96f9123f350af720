package health

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// Whether a probe was asked for reaches the decision: its failure counts only if it begins no sooner than the gap of the last.
func TestAskedReachesTheDecision(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.seen(1, Running, tcpPolicy)
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
		b.seen(1, Running, tcpPolicy)
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

// A turn ends with its probe, also where nobody says that it has started.
func TestTurnEndsWithTheProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, func(ctx context.Context, id string, started func()) Result { time.Sleep(10 * ms); return good })
		c.seen("a", 1, Running, crowdPolicy)
		c.seen("b", 1, Running, crowdPolicy)
		time.Sleep(time.Second)
		c.probed("a", 0)
		c.probed("b", 10*ms)
		c.close()
	})
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

// Forget waits for a probe that goes on though nobody wants it.
func TestForgetWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.answers(good, 5*time.Second)
		b.ignore(true)
		b.seen(1, Running, pacedPolicy)
		time.Sleep(time.Second)
		b.Forget("a")
		if at := time.Since(b.start); at != 5*time.Second {
			t.Errorf("after %v", at)
		}
	})
}

// A slow disk: one write at a time, and Close waits for the last, which holds everything.
func TestSlowSaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		var writing atomic.Int64
		b.journal.onSave = func([]byte) error {
			if writing.Add(1) > 1 {
				t.Error("two writes at once")
			}
			time.Sleep(3 * time.Second)
			writing.Add(-1)
			return nil
		}
		b.seen(1, Running, pacedPolicy)
		b.is(StatusHealthy)
		time.Sleep(20 * time.Second)
		want := b.is(StatusHealthy).ConsecutiveSuccesses
		b.close()
		_, s, _, err := decode(b.Set.clock, b.journal.record())
		if err != nil || s.Successes != want || want < 15 {
			t.Errorf("%d successes are written, of %d: %v", s.Successes, want, err)
		}
		select {
		case <-b.Changed("a"): // nobody waits for one that has ended
		default:
			t.Error("a change will be waited for that never comes")
		}
	})
}

// That the last write fails is told, too.
func TestLastSaveFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.seen(1, Running, `{"interval":"1h","tcp":{"port":80}}`)
		b.is(StatusHealthy)
		time.Sleep(time.Second)
		b.Ask("a") // a counter that is not written yet
		synctest.Wait()
		b.journal.breaks(0, errors.New("disk full"))
		b.close()
		if !strings.Contains(b.log.String(), "cannot be written") {
			t.Errorf("the log: %s", b.log)
		}
	})
}
