package health

import (
	"slices"
	"time"
	"unique"
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
	said     words
}

type packedTransition struct {
	time     int64
	window   uint64
	n        uint64
	said     words
	from, to uint8 // index into statuses
	stale    uint8 // index into stales
	lost     bool  // not persisted
}

// Words are what was found, kept once for all instances: the same come again and again, and what a thousand say is at hand when the next does.
type words = unique.Handle[said]

type said struct {
	reason   string
	output   string
	cause    string
	outcome  uint8 // index into outcomes
	definite bool
}

var (
	outcomes = []Outcome{Success, Failure, Inconclusive}
	statuses = []Status{StatusDisabled, StatusUnknown, StatusStarting, StatusHealthy, StatusUnhealthy}
	stales   = []string{"", StaleRestarted, StaleInconclusive}
)

// index returns where v is in list. What is not there does not get here: results are cleaned and records checked.
func index[T comparable](list []T, v T) uint8 { return uint8(max(slices.Index(list, v), 0)) }

func (h *history) addResult(r WindowResult) {
	h.results.add(packedResult{
		start: r.Start.UnixNano(), duration: r.Duration, window: r.Window,
		said: unique.Make(said{reason: r.Reason, output: r.Output, cause: r.Cause, outcome: index(outcomes, r.Outcome), definite: r.Definite}),
	})
	if r.Output != "" {
		h.trim()
	}
}

func (h *history) addTransition(t Transition) {
	h.transitions.add(packedTransition{
		time: t.Time.UnixNano(), window: t.Window, n: t.N, said: unique.Make(said{reason: t.Reason, output: t.Output}),
		from: index(statuses, t.From), to: index(statuses, t.To), stale: index(stales, t.Stale),
		lost: t.Persisted != nil && !*t.Persisted,
	})
	if t.Output != "" {
		h.trim()
	}
}

// trim drops the oldest outputs above the bound. Results and transitions have half of it each, and what the other leaves: a workload that
// flaps shows what its newest failures said, and one that only fails what it said when it turned.
func (h *history) trim() {
	ofResults := func(i int) *words { return &h.results.at(i).said }
	ofTransitions := func(i int) *words { return &h.transitions.at(i).said }
	transitions := 0
	for i := range h.transitions.len() {
		transitions += len(ofTransitions(i).Value().output)
	}
	results := trim(h.results.len(), ofResults, max(keepOutput/2, keepOutput-transitions))
	trim(h.transitions.len(), ofTransitions, keepOutput-results)
}

// trim keeps the newest outputs of n entries up to a bound, drops the others, and returns how many bytes are left.
func trim(n int, of func(i int) *words, bound int) (size int) {
	for i := n - 1; i >= 0; i-- {
		w := of(i)
		said := w.Value()
		if said.output == "" {
			continue
		}
		if size+len(said.output) <= bound {
			size += len(said.output)
			continue
		}
		bound = 0 // what is older goes too
		said.output = ""
		*w = unique.Make(said)
	}
	return size
}

func (h *history) listResults() []WindowResult {
	list := make([]WindowResult, h.results.len())
	for i := range list {
		p := h.results.at(i)
		said := p.said.Value()
		list[i] = WindowResult{Window: p.window, Result: Result{
			Start: time.Unix(0, p.start).UTC(), Duration: p.duration, Outcome: outcomes[said.outcome],
			Reason: said.reason, Output: said.output, Cause: said.cause, Definite: said.definite,
		}}
	}
	return list
}

var lost = new(bool) // what Persisted points to: false

func (h *history) listTransitions() []Transition {
	list := make([]Transition, h.transitions.len())
	for i := range list {
		p := h.transitions.at(i)
		said := p.said.Value()
		list[i] = Transition{
			Time: time.Unix(0, p.time).UTC(), From: statuses[p.from], To: statuses[p.to], Reason: said.reason, Output: said.output,
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
