package shim

import (
	"context"
	"time"

	"github.com/halevm/hale/internal/health"
)

// endingPatience is how long the agent may take to say whether the program is ending. It is asked after a check that failed, and no
// part of its time.
const endingPatience = 200 * time.Millisecond

// unlessEnding returns what a probe found, unless it failed because the program has ended: its connections are closed, and its port
// refuses, some time before its end can be told, and that end is no matter of health.
func (r *run) unlessEnding(ctx context.Context, found health.Result) health.Result {
	if found.Outcome != health.Failure {
		return found
	}
	r.mu.Lock()
	ending := r.over
	r.mu.Unlock()
	if !ending {
		ctx, cancel := context.WithTimeout(ctx, endingPatience)
		defer cancel()
		ending, _ = r.agent.Ending(ctx) // an agent that does not answer says nothing
	}
	if !ending {
		return found
	}
	return health.Result{
		Start: found.Start, Duration: found.Duration, Wait: found.Wait,
		Outcome: health.Inconclusive, Cause: health.CauseCutShort, Reason: "cut short: the program has ended (" + found.Reason + ")",
	}
}
