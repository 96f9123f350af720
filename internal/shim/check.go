package shim

import (
	"context"
	"errors"
	"time"

	"github.com/halevm/hale/internal/guest"
	"github.com/halevm/hale/internal/machine"
	"github.com/halevm/hale/internal/probe"
)

// A check is a check's command, and the request that asked for it.
type check struct {
	*guest.Exec
	request context.Context
	left    context.Context // how long it may take to be gone once the request was withdrawn
}

// execFor returns what starts the command of the check that request asks for; left is of clearing. Its output comes with its exit.
func (r *run) execFor(request, left context.Context) func(context.Context, machine.ExecRequest) (probe.Execution, error) {
	return func(ctx context.Context, what machine.ExecRequest) (probe.Execution, error) {
		r.mu.Lock()
		booted := r.booted
		r.mu.Unlock()
		if !booted {
			return nil, probe.ErrNotBooted
		}
		ctx, cancel := outlast(ctx, request, left)
		defer cancel()
		e, err := r.agent.Exec(ctx, what)
		if err != nil {
			return nil, missing(err)
		}
		return check{e, request, left}, nil
	}
}

// clearing returns a context that ends a while after the request was withdrawn: by then nothing may be left of its command.
func clearing(request context.Context) (context.Context, context.CancelFunc) {
	left, cancel := context.WithCancel(context.WithoutCancel(request))
	stop := context.AfterFunc(request, func() { time.AfterFunc(probe.ExecCleanup, cancel) })
	return left, func() { stop(); cancel() }
}

// outlast returns a context that ends as ctx does, but where the request was withdrawn: a command that is being started then has to be
// there before it can be killed, and waited for, until left ends.
func outlast(ctx, request, left context.Context) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		if request.Err() != nil {
			select {
			case <-left.Done():
			case <-longer.Done():
			}
		}
		cancel(context.Cause(ctx))
	})
	return longer, func() { stop(); cancel(nil) }
}

// missing has package probe recognise an agent that is not there, or takes no more.
func missing(err error) error {
	switch {
	case errors.Is(err, guest.ErrNotConnected):
		return probe.ErrNoAgent
	case errors.Is(err, guest.ErrTooMany):
		return probe.ErrTooMany
	}
	return err
}

func (c check) Kill(ctx context.Context) error { return missing(c.Signal(ctx, "SIGKILL")) }

func (c check) Wait(ctx context.Context) (machine.ExecExit, error) {
	exit, err := c.Exec.Wait(ctx)
	return exit, missing(err)
}

// Close kills the command if it still runs. It waits for nothing, unless the request was withdrawn: its reply lets the next probe begin,
// whose command would be refused while anything of this one is there.
func (c check) Close() error {
	if c.request.Err() != nil {
		if c.Kill(c.left) == nil { // else it has ended, or cannot be asked
			c.Exec.Wait(c.left)
		}
	}
	return c.Exec.Close()
}
