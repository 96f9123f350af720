package health

import (
	"testing"
	"time"
)

// The ten seconds that an agent has after the daemon's start go on when a window begins in them.
func TestAgentMissingInAnotherWindow(t *testing.T) {
	for _, c := range []struct {
		after   time.Duration
		outcome Outcome
	}{{2 * time.Second, Inconclusive}, {10*time.Second - 1, Inconclusive}, {10 * time.Second, Failure}} {
		m := newSim(t, `{"exec":{"command":["true"]},"interval":"1m","start_period":"0s"}`)
		m.phase(Running)
		m.probe(good)
		m.pass(time.Hour)
		m.next(Input{Kind: Restarted})
		m.pass(2 * time.Second)
		m.policy(`{"exec":{"command":["false"]},"interval":"1m","start_period":"0s"}`)
		m.pass(c.after - 2*time.Second)
		m.ends(noAgent, 0, true)
		if failed := !m.s.FailureAt.IsZero(); failed != (c.outcome == Failure) {
			t.Errorf("%v after the daemon's start, in a window that began after 2s: failed %v; want %s", c.after, failed, c.outcome)
		}
	}
}
