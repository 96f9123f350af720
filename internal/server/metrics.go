package server

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the server's own.
type metrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	panics   *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer, panics *prometheus.CounterVec) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hale_http_requests_total",
			Help: "Requests answered, by route, method, status and the error's code (empty for none).",
		}, []string{"route", "method", "status", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "hale_http_request_duration_seconds",
			Help:    "Time from a request's headers to the end of its answer. Streams and waits count until they end.",
			Buckets: []float64{.001, .005, .025, .1, .5, 2.5, 10, 60},
		}, []string{"route", "method"}),
		panics: panics,
	}
	r.MustRegister(m.requests, m.duration)
	return m
}

// methods are those that become a label; whatever else a client invents is one.
var methods = map[string]bool{"GET": true, "HEAD": true, "POST": true, "PUT": true, "PATCH": true, "DELETE": true}

func (m *metrics) observe(i *requestInfo, method string, status int, took time.Duration) {
	if !methods[method] {
		method = "other"
	}
	m.requests.WithLabelValues(i.route, method, strconv.Itoa(status), i.code).Inc()
	m.duration.WithLabelValues(i.route, method).Observe(took.Seconds())
}
