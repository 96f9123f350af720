package health

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// What was brought when a record's reading panicked is not lost: after the rest it is handled.
func TestPanicBeforeAnythingIsHandled(t *testing.T) {
	for name, do := range map[string]func(*bench){
		"Sync":   func(b *bench) { b.seen(1, Running, pacedPolicy); b.is(StatusHealthy) },
		"Forget": func(b *bench) { b.loop("a", true); b.Forget("a") }, // a Sync is about to come
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				var once sync.Once
				b.journal.onLoad = func() { once.Do(func() { panic("the journal has a bug") }) }
				returned := make(chan struct{})
				go func() { do(b); close(returned) }()
				select {
				case <-returned:
				case <-time.After(2 * restartPause):
					t.Fatal("it has not returned")
				}
				b.close()
				<-returned
			})
		})
	}
}

// Close returns though what goes on after a panic panics again.
func TestCloseAfterPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		var broken atomic.Bool
		b.hooks.Transition = func(Status, Status, bool) {
			if broken.Load() {
				panic("a hook has a bug")
			}
		}
		b.hooks.Began = func(string, time.Duration) {
			if broken.Load() {
				panic("a hook has a bug")
			}
		}
		b.seen(1, Running, pacedPolicy)
		b.is(StatusHealthy)
		broken.Store(true)
		time.Sleep(2 * time.Minute) // it is stale by then, and cannot say so
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := b.Close(ctx); err != nil {
			t.Error("Close:", err)
		}
	})
}

// Close does not wait for the rest after a panic.
func TestCloseInTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.hooks.Transition = func(Status, Status, bool) { panic("a hook has a bug") }
		b.seen(1, Running, pacedPolicy)
		synctest.Wait()
		b.close()
		if took := time.Since(b.start); took != 0 {
			t.Errorf("Close took %v", took)
		}
	})
}

// A turn that comes for a probe that was given up meanwhile begins none.
func TestTurnOfOneGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.queue = newQueue(1)
		b.journal.slow.Store(true)
		b.answers(good, 20*ms)
		policy := strings.Replace(execPolicy, `"start_period":"1h"`, `"start_period":"0s"`, 1)
		b.seen(1, Running, policy)
		time.Sleep(2 * time.Second)
		b.is(StatusHealthy)
		probed := b.count()
		b.queue.join(false, idle) // holds the turn for 50 ms
		go b.CheckNow(context.Background(), "a")
		synctest.Wait() // it waits behind that
		for range 10 {
			b.queue.join(false, idle)
		}
		b.journal.breaks(100*ms, nil) // while a new run's starting is committed the turn comes
		go b.seen(2, Running, policy)
		time.Sleep(150 * ms)
		b.journal.breaks(0, nil)
		if b.count() > probed && b.Queued() > 0 {
			t.Errorf("a probe began though %d wait before it", b.Queued())
		}
		time.Sleep(time.Minute)
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

// While a loop ends, what comes is let go and changes nothing.
func TestNothingIsTakenAtTheEnd(t *testing.T) {
	for name, end := range map[string]func(*bench){"Close": (*bench).close, "Forget": func(b *bench) { b.Forget("a") }} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				b.seen(1, Running, pacedPolicy)
				b.is(StatusHealthy)
				b.ignore(true)
				b.answers(good, 5*time.Second)
				time.Sleep(1500 * ms) // a probe is in flight, and deaf
				l := b.loop("a", false)
				ended := make(chan struct{})
				go func() { end(b); close(ended) }()
				synctest.Wait()
				before := b.journal.path()
				l.send(message{seen: &Observed{ID: "a", Run: 1, Phase: Inactive, Policy: mustParse(t, pacedPolicy)}})
				<-ended
				if got := b.journal.path(); got != before {
					t.Errorf("committed at the end: %q, after %q", got, before)
				}
				if name == "Forget" {
					b.close()
				}
			})
		})
	}
}

// No probe begins once Close was called, also where one came due meanwhile.
func TestNoProbeBeginsAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.seen(1, Initializing, pacedPolicy)
		synctest.Wait() // the next probe is due at 1 s
		time.Sleep(900 * ms)
		b.ignore(true)
		b.answers(good, 5*time.Second)
		b.journal.breaks(500*ms, nil)
		go b.seen(1, Running, pacedPolicy) // it is committed until 1.4 s
		time.Sleep(200 * ms)
		b.close()
		if b.count() != 1 {
			t.Errorf("a probe began after Close: %v", b.probes)
		}
	})
}
