package probe

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/halevm/hale/internal/health"
	"github.com/halevm/hale/internal/machine"
)

const (
	execCapture = 4 << 10
)

// ExecCleanup is how much longer than the timeout the agent may take over an exec: it kills what the command left behind, and waits for
// that for up to 5 s. An agent that takes longer hangs, which is a failure.
const ExecCleanup = 7 * time.Second

func (t Target) exec(ctx context.Context, p health.Policy) health.Result {
	if t.Exec == nil {
		return inconclusive(health.CauseNoAgent, ErrNoAgent.Error())
	}
	within, cancel := context.WithTimeoutCause(ctx, p.Timeout+ExecCleanup, errTimeout)
	defer cancel()
	exit, err := t.Exec(within, execRequest(p))
	if err != nil {
		return unasked(ctx, err, p)
	}
	return judgeExit(exit, p)
}

// execRequest is what the agent is asked to run. The agent enforces the timeout, so that its end is also the command's.
func execRequest(p health.Policy) machine.ExecRequest {
	c := p.Exec
	r := machine.ExecRequest{Argv: c.Command, Dir: c.WorkingDir, User: c.User, Timeout: p.Timeout, Capture: execCapture}
	for _, name := range slices.Sorted(maps.Keys(c.Env)) {
		r.Env = append(r.Env, name+"="+c.Env[name])
	}
	return r
}

// unasked says what an exec without an exit means.
func unasked(ctx context.Context, err error, p health.Policy) health.Result {
	if r, ok := hosts(ctx, err); ok {
		return r
	}
	switch {
	case errors.Is(err, ErrNoAgent):
		return inconclusive(health.CauseNoAgent, ErrNoAgent.Error())
	case timedOut(err):
		return failure(fmt.Sprintf("timeout after %s: the guest agent did not answer", p.Timeout))
	}
	return failure("the guest agent could not run the command: " + words(err))
}

func judgeExit(exit machine.ExecExit, p health.Policy) health.Result {
	if exit.Code == 0 && exit.Signal == "" && exit.Error == "" && !exit.TimedOut {
		return within(exit, success("exit code 0"))
	}
	var r health.Result
	switch {
	case exit.TimedOut:
		r = failure(fmt.Sprintf("timeout after %s: the command was killed", p.Timeout))
	case exit.Error != "" && exit.Code == 127:
		r = definite(fmt.Sprintf("command not found: %.300s", exit.Error))
	case exit.Error != "":
		r = failure(fmt.Sprintf("the command cannot be run: %.300s", exit.Error))
	case exit.Signal != "":
		r = failure(fmt.Sprintf("killed by %.20s", exit.Signal))
	default:
		r = failure(fmt.Sprintf("exit code %d", exit.Code))
		if line := lastLine(exit.Output); line != "" {
			r.Reason += ": " + line
		}
	}
	if exit.Lingering {
		r.Reason += "; something that it started is still there after it was killed"
	}
	r.Output = string(exit.Output[max(0, len(exit.Output)-execCapture):])
	return within(exit, r)
}

// within gives a result the command's own duration, where the agent measured it.
func within(exit machine.ExecExit, r health.Result) health.Result {
	r.Duration = max(exit.Duration, 0)
	return r
}

// lastLine returns the last line that says anything, for a reason.
func lastLine(output []byte) string {
	s := strings.TrimSpace(string(output))
	return strings.TrimSpace(fmt.Sprintf("%.200s", s[strings.LastIndexByte(s, '\n')+1:]))
}
