package daemon

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/halevm/hale/internal/health"
)

// The end of a daemon waits for a check that hangs, and for what is on its way to health, as long as it does for the probes in flight
// and no longer: what comes after them has its time.
func TestTheEndWaitsForHealthNoLongerThanForProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		free := make(chan struct{})
		d := &Daemon{log: slog.New(slog.DiscardHandler)}
		d.health = health.NewSet(health.Config{Journal: &slowDisk{}, Probe: func(context.Context, string, health.Policy, func()) health.Result {
			<-free
			return health.Result{Outcome: health.Success}
		}})
		policy, err := health.Parse([]byte(`{"tcp":{"port":80}}`))
		if err != nil {
			t.Fatal(err)
		}
		d.health.Sync(health.Observed{ID: "a", Run: 1, Phase: health.Running, Policy: policy})
		d.mail = newMailboxes(func(string, mail) { <-free }, nil)
		d.mail.start()
		d.mail.look("a")
		synctest.Wait()
		d.mail.stop()
		begun := time.Now()
		if err := d.close(t.Context()); err != nil {
			t.Error(err)
		}
		if took := time.Since(begun); took != probesEnd {
			t.Errorf("it took %v", took)
		}
		close(free)
	})
}
