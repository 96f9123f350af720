package peer

import (
	"testing"

	"github.com/halevm/hale/bench/target"
	"github.com/halevm/hale/internal/health"
)

// Every result is compared with what the target did; those that say nothing, for want of a processor, are counted apart.
func TestCheck(t *testing.T) {
	const seed = 7
	h := &hale{config: Config{Seed: seed}}
	a := new(asked)
	p := health.Policy{FailureThreshold: 3}
	const n = 40
	for i := range uint64(n) {
		r := health.Result{Outcome: health.Failure, Reason: "status 503"}
		switch i % 4 {
		case 0:
			r = health.Result{Outcome: health.Inconclusive, Cause: health.CauseStarved}
		case 1:
			r = health.Result{Outcome: health.Inconclusive, Cause: health.CauseResources} // which never excuses anything
		case 2:
			r = health.Result{Outcome: health.Success, Reason: "status 200"}
		}
		before := h.wrong.Load()
		h.check(a, p, r)
		fate := target.FateOf(seed, 0, i+1)
		right := i%4 == 0 || i%4 == 2 && fate == target.Answers || i%4 == 3 && fate == target.Fails
		if wrong := h.wrong.Load() > before; wrong == right {
			t.Errorf("connection %d, fate %d, is %v: wrong %v", i+1, fate, r.Outcome, wrong)
		}
	}
	h.set = health.NewSet(health.Config{})
	defer h.set.Close(t.Context())
	var s Stats
	h.stats(&s, true)
	if s.Checked != n || s.Starved != n/4 || s.Wrong < n/4 {
		t.Errorf("%d results checked, %d of a starved host, %d wrong", s.Checked, s.Starved, s.Wrong)
	}
}
