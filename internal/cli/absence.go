package cli

import (
	"context"
	"fmt"
	"time"
)

// reconnectPause is the time between two attempts to reach a daemon that went away.
const reconnectPause = time.Second

const goneAway = "the daemon went away; waiting for it"

// An absence is one of the daemon's, over which a command waits: its zero value is before it.
type absence struct{ told bool }

// wait tells it, the first time, and returns after a pause; or at once with ctx's error.
func (x *absence) wait(ctx context.Context, say func(line string), pause time.Duration) error {
	if !x.told {
		x.told = true
		say("hale: " + goneAway)
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(pause):
		return nil
	}
}

// say tells a person something.
func (a *app) say(line string) { fmt.Fprintln(a.Stderr, line) }
