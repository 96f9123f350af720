package health

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A panic in a probe or in a loop is contained: told, counted, and the loop goes on.
func TestPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		var once sync.Once
		b.hooks.Transition = func(Status, Status, bool) { once.Do(func() { panic("a hook has a bug") }) }
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
			b.hooks.Began = func(string, time.Duration) { began() }
			b.hooks.Waited = func(Type, time.Duration) { waited() }
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
		})
	}
}

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

// A panic while a probe waits for its turn gives that up, too.
func TestPanicWhileQueued(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, func(ctx context.Context, id string, started func()) Result {
			<-ctx.Done()
			return dunno
		})
		for i := range 40 { // each holds its turn for 50 ms
			c.seen(fmt.Sprint("hangs ", i), 1, Running, crowdPolicy)
		}
		c.seen("x", 1, Running, crowdPolicy)
		c.hooks.Transition = func(Status, Status, bool) { panic("a hook has a bug") }
		c.seen("x", 1, Inactive, crowdPolicy)
		time.Sleep(restartPause + 20*ms)
		synctest.Wait()
		if n := c.Queued(); n != 40-21 {
			t.Errorf("%d wait", n)
		}
		c.probed("x")
	})
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

// A log that panics did not take the transition; it is told and counted.
func TestCommitPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.journal.onCommit = func() { panic("the log has a bug") }
		b.answers(good, time.Hour)
		b.seen(0, Inactive, pacedPolicy)
		b.seen(1, Running, pacedPolicy)
		s := b.is(StatusStarting)
		if last := s.Transitions[0]; last.Persisted == nil || *last.Persisted || b.panics.Load() != 1 || !strings.Contains(b.log.String(), "the log has a bug") {
			t.Errorf("%+v, %d panics, log %s", last, b.panics.Load(), b.log)
		}
	})
}

// A panic while the record is made or written is a write that failed: told, counted, and tried again; the loop does not rest for it.
func TestPanicsOfTheRecord(t *testing.T) {
	for _, what := range []string{"encoding", "writing"} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				var failed atomic.Int64
				b.hooks.SaveFailed = func() { failed.Add(1) }
				var mad atomic.Bool
				b.journal.onSave = func([]byte) error {
					if mad.Load() {
						panic("the disk has a bug")
					}
					return nil
				}
				b.seen(0, Inactive, pacedPolicy)
				b.seen(1, Running, pacedPolicy)
				b.is(StatusHealthy)
				breaks := func(broken bool) {
					if what == "writing" {
						mad.Store(broken)
						return
					}
					stale := &b.loop("a", false).history.transitions.at(0).stale
					if *stale = 0; broken {
						*stale = uint8(len(stales)) // which none is
					}
					b.Hint("a", 81, true) // which is no port of the check: the loop looks once more
				}
				saves := b.journal.writes()
				breaks(true)
				time.Sleep(saveEvery + 100*ms)
				synctest.Wait()
				log := b.log.String()
				if n := strings.Count(log, what+" the health record panicked"); n < 1 || strings.Contains(log, "loop panicked") || !strings.Contains(log, "cannot be written") {
					t.Errorf("told %d times, log %s", n, log)
				}
				if n := b.journal.writes(); n != saves || strings.Contains(log, "written again") {
					t.Errorf("%d writes that tell nothing, log %s", n-saves, log)
				}
				if b.panics.Load() != 1 || failed.Load() != 1 || b.count() < 6 {
					t.Errorf("%d panics, %d writes failed, %d probes", b.panics.Load(), failed.Load(), b.count())
				}
				breaks(false)
				time.Sleep(saveEvery)
				if n := b.journal.writes(); n != saves+1 || !strings.Contains(b.log.String(), "can be written again") {
					t.Errorf("%d writes, log %s", n-saves, b.log)
				}
			})
		})
	}
}
