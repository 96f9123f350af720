package daemon

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// loopNames are the controllers that serve starts.
var loopNames = []string{healthConsumer, hintConsumer}

// controllerCollector tells of the daemon's own loops.
type controllerCollector struct{ d *Daemon }

var (
	upDesc       = prometheus.NewDesc("hale_controller_up", "Whether a controller runs: not before it was started, nor while it waits to be started again.", []string{"controller"}, nil)
	restartsDesc = prometheus.NewDesc("hale_controller_restarts_total", "How often a controller failed and was started again.", []string{"controller"}, nil)
	activityDesc = prometheus.NewDesc("hale_controller_last_activity_timestamp_seconds", "When a controller last did something.", []string{"controller"}, nil)
)

// Describe is for Prometheus.
func (c controllerCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- upDesc
	ch <- restartsDesc
	ch <- activityDesc
}

// Collect is for Prometheus.
func (c controllerCollector) Collect(ch chan<- prometheus.Metric) {
	for _, name := range loopNames {
		ch <- prometheus.MustNewConstMetric(upDesc, prometheus.GaugeValue, truth(c.d.loops.isUp(name)), name)
		ch <- prometheus.MustNewConstMetric(restartsDesc, prometheus.CounterValue, float64(c.d.loops.restarts(name)), name)
	}
	active := float64(c.d.health.LastActivity().UnixNano()) / float64(time.Second)
	ch <- prometheus.MustNewConstMetric(activityDesc, prometheus.GaugeValue, active, healthConsumer)
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
