package shim

import (
	"context"
	"time"

	"github.com/halevm/hale/internal/health"
)

// endingPatience is how long the agent may take to say whether the program is ending. It is asked after a check that failed, and no
// part of its time.
const endingPatience = 500 * time.Millisecond

// A programLife is what is known of the program, for results that its end makes worthless.
type programLife int

const (
	notStarted programLife = iota
	started
	over
)

// unlessEnding returns what a probe found, unless it failed because the program has ended: its connections are closed, and its port
// refuses, some time before its end can be told, and the agent goes some time before the machine; that end is no matter of health.
func (r *run) unlessEnding(ctx context.Context, found health.Result) health.Result {
	if found.Outcome != health.Failure && found.Cause != health.CauseNoAgent { // health may make a failure of the latter
		return found
	}
	switch r.life() {
	case notStarted:
		return found
	case started:
		ctx, cancel := context.WithTimeout(ctx, endingPatience)
		defer cancel()
		// An agent that does not answer says nothing. One that does is a guest's, so it is asked each time, until the program is over.
		if ends, _ := r.agent.Ending(ctx); !ends && r.life() != over {
			return found
		}
	}
	return health.Result{
		Start: found.Start, Duration: found.Duration, Wait: found.Wait,
		Outcome: health.Inconclusive, Cause: health.CauseCutShort, Reason: "cut short: the program has ended (" + found.Reason + ")",
	}
}

func (r *run) life() programLife {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.program
}

// lives takes down how far the program's life has come; it never goes back.
func (r *run) lives(l programLife) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.program = max(r.program, l)
}
