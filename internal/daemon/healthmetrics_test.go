package daemon

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/halevm/hale/internal/health"
	"github.com/halevm/hale/internal/instance/fake"
)

// The gauge of stale instances says for which reason: what a restart of the daemon leaves behind is no alarm.
func TestStaleByReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var blind atomic.Bool
		d := watched(t, &told{fake.New(fake.Config{}), func() health.Result {
			if blind.Load() {
				return health.Result{Outcome: health.Inconclusive, Cause: health.CauseStarved}
			}
			return health.Result{Outcome: health.Success}
		}}, nil)
		in := d.make(t, "web")
		d.until(t, in.ID, health.StatusHealthy)
		registry := prometheus.NewRegistry()
		registry.MustRegister(healthCollector{d})
		see := func(when string, restarted, inconclusive float64) {
			t.Helper()
			synctest.Wait()
			all, err := registry.Gather()
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]float64{}
			for _, family := range all {
				for _, m := range family.Metric {
					for _, l := range m.Label {
						if family.GetName() == "hale_instance_stale" && l.GetName() == "reason" {
							got[l.GetValue()] = m.Gauge.GetValue()
						}
					}
					if s, _ := d.health.Snapshot(in.ID); family.GetName() == "hale_instance_health_transitions_total" && m.Counter.GetValue() != float64(s.Transitions[len(s.Transitions)-1].N) {
						t.Errorf("%s: %v transitions", when, m.Counter.GetValue())
					}
				}
			}
			if len(got) != 2 || got[health.StaleRestarted] != restarted || got[health.StaleInconclusive] != inconclusive {
				t.Errorf("%s: %v", when, got)
			}
		}
		see("healthy", 0, 0)
		blind.Store(true)
		d.health.Forget(in.ID) // as a daemon's end would: its record stays
		d.mail.look(in.ID)
		d.mail.heard(t.Context(), in.ID)
		see("after a restart", 1, 0)
		time.Sleep(time.Minute)
		see("nothing certain since", 0, 1)
		blind.Store(false)
		time.Sleep(5 * time.Second)
		see("healthy again", 0, 0)
	})
}
