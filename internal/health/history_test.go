package health

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
)

func TestHistoryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.seen(1, Running, pacedPolicy)
		for i := range uint64(100) {
			b.seen(i, Inactive, pacedPolicy)
			b.seen(i+2, Running, pacedPolicy)
			b.is(StatusHealthy)
		}
		s := b.snapshot()
		if len(s.Results) != 64 || len(s.Transitions) != 64 || s.Results[63].Window != 101 || s.Transitions[63].To != StatusHealthy {
			t.Errorf("%d results, %d transitions, the last of window %d", len(s.Results), len(s.Transitions), s.Results[63].Window)
		}
	})
}

// Neither the outputs of results nor those of transitions push the others out: one that flaps shows what its newest failures said.
func TestOutputsOfBothKindsAreKept(t *testing.T) {
	var h history
	output := func(i int) string { return fmt.Sprintf("%04d", i) + strings.Repeat("x", maxOutput-4) }
	sizes := func() (results, transitions int) {
		t.Helper()
		gap := false
		for _, r := range h.listResults() {
			if gap = gap || r.Output != ""; gap && r.Output == "" {
				t.Error("an older result's output is kept than one that is not")
			}
			results += len(r.Output)
		}
		for _, tr := range h.listTransitions() {
			transitions += len(tr.Output)
		}
		return results, transitions
	}
	for i := range 20 {
		h.addResult(WindowResult{Result: Result{Outcome: Failure, Output: output(i)}})
	}
	if r, _ := sizes(); r != keepOutput {
		t.Errorf("results alone have %d bytes of %d", r, keepOutput)
	}
	for i := 20; i < 40; i++ {
		h.addResult(WindowResult{Result: Result{Outcome: Failure, Output: output(i)}})
		h.addTransition(Transition{From: StatusHealthy, To: StatusUnhealthy, Output: output(i)})
		if r, tr := sizes(); r+tr > keepOutput {
			t.Fatalf("%d and %d bytes of %d", r, tr, keepOutput)
		}
	}
	r, tr := sizes()
	results, transitions := h.listResults(), h.listTransitions()
	if r != keepOutput/2 || tr != keepOutput/2 || results[len(results)-1].Output != output(39) || transitions[len(transitions)-1].Output != output(39) {
		t.Errorf("flapping leaves %d bytes of results and %d of transitions", r, tr)
	}
	var again history // as a record is read
	for _, w := range results {
		again.addResult(w)
	}
	for _, w := range transitions {
		again.addTransition(w)
	}
	if !slices.EqualFunc(again.listResults(), results, func(a, b WindowResult) bool { return a == b }) || !slices.Equal(again.listTransitions(), transitions) {
		t.Error("it is another one after a record")
	}
}
