package peer

import (
	"sync/atomic"
	"time"
)

// Quantiles of durations.
type Quantiles struct{ P50, P99, Max time.Duration }

const (
	lagStep  = 50 * time.Microsecond
	lagSteps = 40_000 // 2 s
)

// A histogram counts durations. Its methods may be called from many goroutines.
type histogram struct {
	steps [lagSteps + 1]atomic.Uint32
	max   atomic.Int64
}

func (h *histogram) add(d time.Duration) {
	h.steps[min(max(d, 0)/lagStep, lagSteps)].Add(1)
	for {
		old := h.max.Load()
		if int64(d) <= old || h.max.CompareAndSwap(old, int64(d)) {
			return
		}
	}
}

func (h *histogram) reset() {
	for i := range h.steps {
		h.steps[i].Store(0)
	}
	h.max.Store(0)
}

// quantiles are exact to a step, from above.
func (h *histogram) quantiles() Quantiles {
	total := uint64(0)
	for i := range h.steps {
		total += uint64(h.steps[i].Load())
	}
	at := func(share float64) time.Duration {
		seen, want := uint64(0), uint64(share*float64(total))
		for i := range h.steps {
			if seen += uint64(h.steps[i].Load()); seen > want {
				return min(time.Duration(i+1)*lagStep, time.Duration(h.max.Load()))
			}
		}
		return time.Duration(h.max.Load())
	}
	return Quantiles{P50: at(0.5), P99: at(0.99), Max: time.Duration(h.max.Load())}
}
