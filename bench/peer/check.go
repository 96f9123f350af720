package peer

import (
	"fmt"
	"strings"
	"sync"

	"github.com/halevm/hale/bench/target"
	"github.com/halevm/hale/internal/health"
)

// An expectation is what is known of one fickle target: what it does follows from its seed and the number of the connection, and what
// the status has to be follows from that by a few lines that share nothing with the engine's.
type expectation struct {
	mu     sync.Mutex
	n      uint64 // connections so far
	bad    int    // failures one after the other
	status health.Status
	last   health.Result
}

// check compares one result with what the target did.
func (h *hale) check(a *asked, p health.Policy, r health.Result) {
	e := &a.expect
	e.mu.Lock()
	defer e.mu.Unlock()
	e.n++
	h.checked.Add(1)
	fate := target.FateOf(h.config.Seed, a.index, e.n)
	want, reason, definite := health.Failure, "", false
	switch fate {
	case target.Answers:
		want, reason = health.Success, "status 200"
	case target.Fails:
		reason = "status 503"
	case target.Hangs:
		reason = "timeout after"
	case target.Resets:
		reason, definite = "reset before the first byte", true
	case target.Hangup:
		reason, definite = "closed before the first byte", true
	case target.Garbles:
		reason = "not an HTTP answer"
	}
	// What hangs may be inconclusive on a host that is starved, and on one that is starved badly anything may be late.
	starved := r.Outcome == health.Inconclusive && r.Cause == health.CauseStarved
	if starved {
		h.starved.Add(1) // whoever runs this says how many are too many
	}
	if !starved && (r.Outcome != want || !strings.Contains(r.Reason, reason) || r.Definite != definite) {
		h.complain("target %d, connection %d: %v, definite %v, %q; it did %q", a.index, e.n, r.Outcome, r.Definite, r.Reason, reason)
	}
	e.last = r
	switch r.Outcome {
	case health.Success:
		e.bad, e.status = 0, health.StatusHealthy
	case health.Failure:
		if e.bad++; e.bad >= p.FailureThreshold {
			e.status = health.StatusUnhealthy
		}
	}
}

// compare compares a status with what the results so far make of it, unless the last result is still on its way to it.
func (h *hale) compare(a *asked, snap health.Snapshot) {
	e := &a.expect
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(snap.Results) == 0 || e.status == "" || snap.ConsecutiveFailures != e.bad {
		return
	}
	if last := snap.Results[len(snap.Results)-1]; last.Reason != e.last.Reason || last.Outcome != e.last.Outcome {
		return
	}
	if snap.Status != e.status {
		h.complain("target %d is %s, and %s by its results", a.index, snap.Status, e.status)
	}
}

func (h *hale) complain(format string, args ...any) {
	h.wrong.Add(1)
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.words) < 10 {
		h.words = append(h.words, fmt.Sprintf(format, args...))
	}
}
