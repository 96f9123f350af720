package health

import (
	"slices"
	"time"
)

// How much is kept to be shown.
const (
	keep       = 64       // results, and as many transitions
	keepOutput = 32 << 10 // bytes of output in all
)

// A history is the last results and transitions of one instance, packed: thousands of them are kept in memory.
type history struct {
	results     ring[packedResult]
	transitions ring[packedTransition]
}

type packedResult struct {
	start    int64 // Unix nanoseconds
	duration time.Duration
	window   uint64
	reason   string
	output   string
	cause    string
	outcome  uint8 // index into outcomes
	definite bool
}

type packedTransition struct {
	time     int64
	window   uint64
	n        uint64
	reason   string
	output   string
	from, to uint8 // index into statuses
	stale    uint8 // index into stales
	lost     bool  // not persisted
}

var (
	outcomes = []Outcome{Success, Failure, Inconclusive}
	statuses = []Status{StatusDisabled, StatusUnknown, StatusStarting, StatusHealthy, StatusUnhealthy}
	stales   = []string{"", StaleRestarted, StaleInconclusive}
)

// index returns where v is in list. What is not there does not get here: results are cleaned and records checked.
func index[T comparable](list []T, v T) uint8 { return uint8(max(slices.Index(list, v), 0)) }

func (h *history) addResult(r WindowResult) {
	p := packedResult{
		start: r.Start.UnixNano(), duration: r.Duration, window: r.Window, reason: r.Reason, output: r.Output, cause: r.Cause,
		outcome: index(outcomes, r.Outcome), definite: r.Definite,
	}
	for i := h.results.len() - 1; i >= 0; i-- { // the same words again and again are kept once
		if old := h.results.at(i); old.reason == p.reason && old.cause == p.cause && old.output == p.output {
			p.reason, p.cause, p.output = old.reason, old.cause, old.output
			break
		}
	}
	h.results.add(p)
	if p.output != "" {
		h.trim()
	}
}

func (h *history) addTransition(t Transition) {
	h.transitions.add(packedTransition{
		time: t.Time.UnixNano(), window: t.Window, n: t.N, reason: t.Reason, output: t.Output,
		from: index(statuses, t.From), to: index(statuses, t.To), stale: index(stales, t.Stale),
		lost: t.Persisted != nil && !*t.Persisted,
	})
	if t.Output != "" {
		h.trim()
	}
}

// trim drops the oldest outputs above the bound, those of transitions last.
func (h *history) trim() {
	left := keepOutput
	drop := func(output *string) {
		if left -= len(*output); left < 0 {
			*output = ""
		}
	}
	for i := h.transitions.len() - 1; i >= 0; i-- {
		drop(&h.transitions.at(i).output)
	}
	for i := h.results.len() - 1; i >= 0; i-- {
		drop(&h.results.at(i).output)
	}
}

func (h *history) listResults() []WindowResult {
	list := make([]WindowResult, h.results.len())
	for i := range list {
		p := h.results.at(i)
		list[i] = WindowResult{Window: p.window, Result: Result{
			Start: time.Unix(0, p.start).UTC(), Duration: p.duration, Outcome: outcomes[p.outcome],
			Reason: p.reason, Output: p.output, Cause: p.cause, Definite: p.definite,
		}}
	}
	return list
}

var lost = new(bool) // what Persisted points to: false

func (h *history) listTransitions() []Transition {
	list := make([]Transition, h.transitions.len())
	for i := range list {
		p := h.transitions.at(i)
		list[i] = Transition{
			Time: time.Unix(0, p.time).UTC(), From: statuses[p.from], To: statuses[p.to], Reason: p.reason, Output: p.output,
			Window: p.window, N: p.n, Stale: stales[p.stale],
		}
		if p.lost {
			list[i].Persisted = lost
		}
	}
	return list
}

// A ring holds the last keep values; it grows as they come.
type ring[T any] struct {
	buf   []T
	start int
}

func (r *ring[T]) add(v T) {
	if len(r.buf) < keep {
		r.buf = append(r.buf, v)
		return
	}
	r.buf[r.start] = v
	r.start = (r.start + 1) % keep
}

func (r *ring[T]) len() int { return len(r.buf) }

// at returns the i-th value, the oldest first.
func (r *ring[T]) at(i int) *T { return &r.buf[(r.start+i)%len(r.buf)] }
