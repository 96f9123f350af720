package daemon

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/halevm/hale/internal/health"
)

// healthCollector looks up how each instance that is watched is at the moment of a scrape, so that an alert can say which.
type healthCollector struct{ d *Daemon }

// named says which instance; names alone may be double, where a record was mended by hand.
var named = []string{"instance_id", "instance_name"}

var (
	unhealthyDesc = prometheus.NewDesc("hale_instance_unhealthy_seconds", "How long a watched instance has been unhealthy, 0 where it is not.", named, nil)
	staleDesc     = prometheus.NewDesc("hale_instance_stale", "Whether the health of a watched instance rests on results that are too old.", named, nil)
	changesDesc   = prometheus.NewDesc("hale_instance_health_transitions_total", "Changes of a watched instance's health, in its life.", named, nil)
)

// Describe is for Prometheus.
func (c healthCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{unhealthyDesc, staleDesc, changesDesc} {
		ch <- d
	}
}

// Collect is for Prometheus.
func (c healthCollector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	now := time.Now()
	for _, in := range c.d.instances.List() {
		h, ok := c.d.health.Snapshot(in.ID)
		if !ok {
			continue
		}
		if h.Status == health.StatusDisabled || h.Status == health.StatusUnknown {
			continue
		}
		var unhealthy time.Duration
		if h.Status == health.StatusUnhealthy {
			unhealthy = max(now.Sub(h.Since), time.Millisecond) // clocks may be set; it is not 0
		}
		var changes uint64
		if n := len(h.Transitions); n > 0 {
			changes = h.Transitions[n-1].N
		}
		gauge(unhealthyDesc, unhealthy.Seconds(), in.ID, in.Spec.Name)
		gauge(staleDesc, truth(h.Stale), in.ID, in.Spec.Name)
		ch <- prometheus.MustNewConstMetric(changesDesc, prometheus.CounterValue, float64(changes), in.ID, in.Spec.Name)
	}
}
