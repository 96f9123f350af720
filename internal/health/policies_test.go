package health

import (
	"testing"
	"testing/synctest"
)

// Equal policies are one while somebody has them, however they were written; others are others.
func TestPoliciesAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		has := func(id string) *shared { return b.loop(id, false).check }
		kept := func(want int) {
			t.Helper()
			b.policies.mu.Lock()
			defer b.policies.mu.Unlock()
			if n := len(b.policies.kept); n != want {
				t.Errorf("%d policies are kept, want %d", n, want)
			}
		}
		see := func(id, policy string) {
			b.Sync(Observed{ID: id, Run: 1, Phase: Running, Policy: mustParse(t, policy)})
			synctest.Wait()
		}
		see("a", `{"tcp":{"port":80}}`)
		see("b", `{"type":"tcp","interval":"10s","tcp":{"port":80}}`)
		kept(1)
		if has("a") != has("b") || !has("a").policy.Equal(mustParse(t, `{"tcp":{"port":80}}`)) {
			t.Error("equal ones are two")
		}
		see("b", `{"tcp":{"port":81}}`)
		kept(2)
		if has("a") == has("b") || has("b").policy.TCP.Port != 81 {
			t.Error("two are one")
		}
		see("b", `{"type":"none"}`)
		kept(2)
		b.Forget("a")
		kept(1)
		b.close()
		kept(0)
	})
}

// A policy that is Synced once more is not written as JSON once more.
func TestThePolicyInForceIsAdoptedForNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLoop(newBench(t).Set, "a") // which nobody runs
		p := mustParse(t, `{"http":{"port":80}}`)
		l.adopt(p)
		if n := testing.AllocsPerRun(100, func() { l.adopt(p) }); n != 0 {
			t.Errorf("%v allocations", n)
		}
		l.forget()
	})
}
