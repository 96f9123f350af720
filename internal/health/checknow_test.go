package health

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

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
	})
}

var errLeft = errors.New("the client left")
