package daemon

import (
	"slices"
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
	staleDesc     = prometheus.NewDesc("hale_instance_stale", "Whether the health of a watched instance rests on results that are too old, by reason.", append(slices.Clone(named), "reason"), nil)
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
		h, ok := c.d.health.Status(in.ID)
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
		gauge(unhealthyDesc, unhealthy.Seconds(), in.ID, in.Spec.Name)
		for _, reason := range []string{health.StaleRestarted, health.StaleInconclusive} {
			gauge(staleDesc, truth(h.StaleReason == reason), in.ID, in.Spec.Name, reason)
		}
		ch <- prometheus.MustNewConstMetric(changesDesc, prometheus.CounterValue, float64(h.Changes), in.ID, in.Spec.Name)
	}
}
