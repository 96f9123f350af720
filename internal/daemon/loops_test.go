package daemon

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func TestLoopsTellWhetherTheyRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		panics := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "panics_total"}, []string{"where"})
		l := newLoops(slog.New(slog.DiscardHandler), panics)
		fail := make(chan func() error)
		see := func(when string, up bool, restarts int) {
			t.Helper()
			synctest.Wait()
			if l.isUp("one") != up || l.restarts("one") != restarts {
				t.Errorf("%s: up %v, restarts %d; want %v, %d", when, l.isUp("one"), l.restarts("one"), up, restarts)
			}
		}
		see("before it was started", false, 0)
		l.start("one", func(ctx context.Context) error {
			select {
			case f := <-fail:
				return f()
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		see("started", true, 0)
		fail <- func() error { return errors.New("no") }
		see("failed", false, 1)
		time.Sleep(loopPause)
		see("started again", true, 1)
		fail <- func() error { panic("oh") }
		see("panicked", false, 2)
		time.Sleep(loopPause)
		see("started once more", true, 2)
		l.stop()
		see("stopped", false, 2)
	})
}
