package daemon

import (
	"cmp"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/halevm/hale/internal/health"
)

// metrics are the daemon's own, beside the server's. What is a matter of now (instances by state, how far a reader is
// behind) is looked up when somebody asks.
type metrics struct {
	registry *prometheus.Registry
	panics   *prometheus.CounterVec

	bootRetries prometheus.Counter

	probes      *prometheus.CounterVec
	probeTime   *prometheus.HistogramVec
	probeLag    prometheus.Histogram
	probeQueue  *prometheus.HistogramVec
	transitions *prometheus.CounterVec
	succeeded   map[health.Type]tally
	saveFailed  prometheus.Counter
	notWritten  prometheus.Counter

	pulls     *prometheus.CounterVec
	pullBytes prometheus.Counter
	pullTime  *prometheus.HistogramVec
	converted *prometheus.HistogramVec
}

func newMetrics(d *Daemon) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		panics: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hale_panics_total", Help: "Panics that were contained, by the loop or handler that panicked.",
		}, []string{"where"}),
		bootRetries: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "hale_boot_retries_total", Help: "Machines that were booted again because they ended before their agent said a word.",
		}),
		probes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hale_health_probes_total", Help: "Probes, by type and outcome, and the cause of an inconclusive one.",
		}, []string{"type", "outcome", "cause"}),
		probeTime: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "hale_health_probe_duration_seconds", Help: "Length of a probe, by type.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"type"}),
		probeLag: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "hale_health_probe_lag_seconds", Help: "How long after it was due a probe began.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
		}),
		probeQueue: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "hale_health_probe_queue_seconds", Help: "How long a probe that costs CPU to begin waited for its turn, by type.",
			Buckets: []float64{.0005, .001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"type"}),
		transitions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hale_health_transitions_total", Help: "Changes of a health status, and whether each was on disk before it was announced.",
		}, []string{"from", "to", "persisted"}),
		saveFailed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "hale_health_save_failures_total", Help: "Health records that could not be written.",
		}),
		notWritten: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "hale_instance_save_failures_total", Help: "Times that the disk refused the record of an instance, or an event of it. They are tried again.",
		}),
		pulls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hale_image_pulls_total", Help: "Pulls that ended, by outcome: ok, interrupted, or the code of the refusal.",
		}, []string{"outcome"}),
		pullBytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "hale_image_pull_bytes_total", Help: "Bytes of layers that pulls fetched from registries.",
		}),
		pullTime: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "hale_image_pull_duration_seconds", Help: "Time from the beginning of a pull to the image's being ready, or its failure; waiting for its turn counts.",
			Buckets: []float64{.1, .5, 1, 2.5, 5, 10, 30, 60, 180, 600, 1800},
		}, []string{"outcome"}),
		converted: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "hale_image_conversion_duration_seconds", Help: "Time that making a disk took, by whether that ended well.",
			Buckets: []float64{.1, .5, 1, 2.5, 5, 10, 30, 60, 180, 600},
		}, []string{"ok"}),
	}
	m.registry.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		m.panics, m.bootRetries, m.probes, m.probeTime, m.probeLag, m.probeQueue, m.transitions, m.saveFailed, m.notWritten, m.pulls, m.pullBytes, m.pullTime, m.converted, snapshotCollector{d}, healthCollector{d}, controllerCollector{d},
	)
	for _, where := range append([]string{loopPanic, "instance", "handler"}, loopNames...) {
		m.panics.WithLabelValues(where) // so that the first panic is a rise, from 0
	}
	m.succeeded = make(map[health.Type]tally)
	for _, t := range []health.Type{health.TypeTCP, health.TypeHTTP, health.TypeExec, health.TypeGRPC} {
		m.succeeded[t] = tally{m.probes.WithLabelValues(string(t), string(health.Success), ""), m.probeTime.WithLabelValues(string(t))}
	}
	return m
}

// A tally is of the probes of one type that succeed, which are nearly all: they are counted without a look for what is labelled so.
type tally struct {
	count prometheus.Counter
	time  prometheus.Observer
}

// loopPanic is where a health loop or a probe panics.
const loopPanic = "health loop"

// healthHooks count what the health loops tell.
func (m *metrics) healthHooks() health.Hooks {
	return health.Hooks{
		Began: func(_ string, lag time.Duration) { m.probeLag.Observe(lag.Seconds()) },
		Waited: func(t health.Type, queued time.Duration) {
			m.probeQueue.WithLabelValues(string(t)).Observe(queued.Seconds())
		},
		Probed: func(t health.Type, o health.Outcome, cause string, took time.Duration) {
			if ok, known := m.succeeded[t]; known && o == health.Success && cause == "" {
				ok.count.Inc()
				ok.time.Observe(took.Seconds())
				return
			}
			m.probes.WithLabelValues(string(t), string(o), cause).Inc()
			m.probeTime.WithLabelValues(string(t)).Observe(took.Seconds())
		},
		Transition: func(from, to health.Status, persisted bool) {
			m.transitions.WithLabelValues(string(from), string(to), boolLabel(persisted)).Inc()
		},
		SaveFailed: m.saveFailed.Inc,
		Panicked:   m.panics.WithLabelValues(loopPanic).Inc,
	}
}

// pulled counts a pull that ended.
func (m *metrics) pulled(outcome string, bytes int64, took time.Duration) {
	m.pulls.WithLabelValues(outcome).Inc()
	m.pullBytes.Add(float64(bytes))
	m.pullTime.WithLabelValues(outcome).Observe(took.Seconds())
}

// convertedImage counts a conversion that ended.
func (m *metrics) convertedImage(err error, took time.Duration) {
	m.converted.WithLabelValues(boolLabel(err == nil)).Observe(took.Seconds())
}

func boolLabel(b bool) string {
	if b {
		return "true"
	}
	return "false"
}

// snapshotCollector looks up what is so at the moment of a scrape.
type snapshotCollector struct{ d *Daemon }

var (
	instancesDesc = prometheus.NewDesc("hale_instances", "Instances, by state.", []string{"state"}, nil)
	healthDesc    = prometheus.NewDesc("hale_instances_by_health", "Instances, by health status.", []string{"status"}, nil)
	imagesDesc    = prometheus.NewDesc("hale_images", "Images, by status.", []string{"status"}, nil)
	lagDesc       = prometheus.NewDesc("hale_event_consumer_lag", "Events that a reader of the log has not handled yet.", []string{"consumer"}, nil)
	oldestDesc    = prometheus.NewDesc("hale_event_consumer_oldest_unread_seconds", "Age of the oldest event that a reader has not handled.", []string{"consumer"}, nil)
	resyncsDesc   = prometheus.NewDesc("hale_event_consumer_resyncs_total", "How often a reader fell behind what is kept and was told to list again.", []string{"consumer"}, nil)
	watchedDesc   = prometheus.NewDesc("hale_health_watched", "Instances that are active and have a health check.", nil, nil)
	flyingDesc    = prometheus.NewDesc("hale_health_probes_in_flight", "Probes that have begun and not ended.", nil, nil)
	queuedDesc    = prometheus.NewDesc("hale_health_probes_queued", "Probes that wait for their turn to begin.", nil, nil)
	suspectDesc   = prometheus.NewDesc("hale_health_host_suspect", "1 while so many instances turned unhealthy at once that the host is the likelier culprit.", nil, nil)
)

// Describe is for Prometheus.
func (c snapshotCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{instancesDesc, healthDesc, imagesDesc, lagDesc, oldestDesc, resyncsDesc, watchedDesc, flyingDesc, queuedDesc, suspectDesc} {
		ch <- d
	}
}

// Collect is for Prometheus.
func (c snapshotCollector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	states, statuses := map[string]int{}, map[string]int{}
	for _, s := range []health.Status{health.StatusDisabled, health.StatusUnknown, health.StatusStarting, health.StatusHealthy, health.StatusUnhealthy} {
		statuses[string(s)] = 0
	}
	for _, in := range c.d.instances.List() {
		states[string(in.State)]++
		if h, ok := c.d.health.Status(in.ID); ok {
			statuses[string(h.Status)]++
		}
	}
	images := map[string]int{}
	for _, img := range c.d.images.List() {
		images[string(img.Status)]++
	}
	for d, counts := range map[*prometheus.Desc]map[string]int{instancesDesc: states, healthDesc: statuses, imagesDesc: images} {
		for label, n := range counts {
			gauge(d, float64(n), label)
		}
	}
	gauge(watchedDesc, float64(c.d.health.Watched()))
	gauge(flyingDesc, float64(c.d.health.InFlight()))
	gauge(queuedDesc, float64(c.d.health.Queued()))
	suspect := 0.0
	if c.d.health.Suspect() {
		suspect = 1
	}
	gauge(suspectDesc, suspect)
	c.collectConsumers(ch, gauge)
}

// collectConsumers adds up the readers of one name: the streams of API clients have none.
func (c snapshotCollector) collectConsumers(ch chan<- prometheus.Metric, gauge func(*prometheus.Desc, float64, ...string)) {
	type sum struct {
		lag    uint64
		oldest time.Duration
	}
	sums := map[string]*sum{}
	for _, consumer := range c.d.events.Consumers() {
		name := cmp.Or(consumer.Name, "api")
		s := sums[name]
		if s == nil {
			s = new(sum)
			sums[name] = s
		}
		s.lag += consumer.Lag
		s.oldest = max(s.oldest, consumer.OldestUnread)
		if consumer.Name == healthConsumer {
			s.oldest = max(s.oldest, c.d.mail.oldest())
		}
	}
	for name, s := range sums {
		gauge(lagDesc, float64(s.lag), name)
		gauge(oldestDesc, s.oldest.Seconds(), name)
	}
	for name, n := range c.d.events.Resyncs() {
		ch <- prometheus.MustNewConstMetric(resyncsDesc, prometheus.CounterValue, float64(n), cmp.Or(name, "api"))
	}
}
