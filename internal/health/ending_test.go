package health

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

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

// What a Prober wants done when its context ends is waited for, too.
func TestCloseWaitsForWhatEndsWithAProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		var done atomic.Int32
		b.config.Probe = func(ctx context.Context, _ string, _ Policy, _ func()) Result {
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

func TestForget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.seen(1, Running, pacedPolicy)
		b.is(StatusHealthy)
		b.answers(good, 500*ms)
		time.Sleep(2700 * ms) // one counter is not written yet, and a probe is in flight
		delete(b.journal.saved, "a")
		changed := b.Changed("a")
		b.Forget("a")
		<-changed
		again := b.Changed("a")
		select {
		case <-again:
			t.Error("who waits for it to be known would not wait")
		default:
		}
		defer func() { // of another, too: who waits looks again
			b.Sync(Observed{ID: "b"})
			<-again
		}()
		if _, ok := b.Snapshot("a"); ok || b.Watched() != 0 {
			t.Error("still there")
		}
		time.Sleep(time.Hour)
		if b.journal.saved["a"] != nil {
			t.Error("its record came back")
		}
		b.Forget("a")
	})
}

// A record that is forgotten does not come back with what comes while its loop waits for a probe.
func TestForgottenRecordStaysAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.seen(1, Running, pacedPolicy)
		b.is(StatusHealthy)
		time.Sleep(1500 * ms) // a counter is not written yet
		b.ignore(true)
		b.answers(good, 2*saveEvery)
		time.Sleep(time.Second) // a probe is in flight, and deaf
		writes, l := b.journal.writes(), b.loop("a", false)
		go b.Forget("a")
		time.Sleep(saveEvery)
		l.send(message{hint: &heard{80, true}})
		if n := b.journal.writes(); n != writes {
			t.Errorf("it was written %d times", n-writes)
		}
	})
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
