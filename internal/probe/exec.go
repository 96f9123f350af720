package probe

import (
	"cmp"
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

// ExecCleanup is how much longer than its time an exec may take: the agent kills what the command left behind, and waits for that for
// up to 5 s. An agent that takes longer hangs, which is a failure.
const ExecCleanup = 7 * time.Second

func (t Target) exec(s *span, p health.Policy) health.Result {
	if t.Exec == nil {
		return inconclusive(health.CauseNoAgent, ErrNoAgent.Error())
	}
	e, err := t.Exec(s.context(), execRequest(p))
	if err != nil {
		return s.unasked(err)
	}
	defer e.Close()
	t.begun()
	exit, err := e.Wait(s.context())
	if err != nil && !errors.Is(err, ErrNoAgent) && s.over() && s.ctx.Err() == nil {
		exit, err = finish(s, e)
	}
	if err != nil {
		return s.unasked(err)
	}
	return s.judgeExit(exit)
}

// finish kills a command that has had its time, and waits until all of it is gone.
func finish(s *span, e Execution) (machine.ExecExit, error) {
	ctx, cancel := context.WithTimeoutCause(s.ctx, ExecCleanup, errTimeout)
	defer cancel()
	err := e.Kill(ctx) // one that has just ended cannot be killed, and still has an exit
	if errors.Is(err, ErrNoAgent) {
		return machine.ExecExit{}, err
	}
	exit, waitErr := e.Wait(ctx)
	if waitErr != nil {
		return exit, cmp.Or(err, waitErr)
	}
	// One that ended by itself at the last moment has answered.
	exit.TimedOut = exit.TimedOut || exit.Signal == "SIGKILL"
	return exit, nil
}

// execRequest is what the agent is asked to run. The time of a probe is measured here, where it is known what the host kept from it; the
// agent's own limit is for a host that is lost.
func execRequest(p health.Policy) machine.ExecRequest {
	c := p.Exec
	r := machine.ExecRequest{Argv: c.Command, Dir: c.WorkingDir, User: c.User, Timeout: MaxFactor*p.Timeout + time.Second, Capture: execCapture}
	for _, name := range slices.Sorted(maps.Keys(c.Env)) {
		r.Env = append(r.Env, name+"="+c.Env[name])
	}
	return r
}

// unasked says what an exec without an exit means.
func (s *span) unasked(err error) health.Result {
	if r, ok := hosts(s.ctx, err); ok {
		return r
	}
	switch {
	case errors.Is(err, ErrNoAgent):
		return inconclusive(health.CauseNoAgent, ErrNoAgent.Error())
	case errors.Is(err, ErrNotBooted):
		return inconclusive(health.CauseNoAgent, ErrNotBooted.Error())
	case errors.Is(err, ErrTooMany):
		return inconclusive(health.CauseResources, ErrTooMany.Error())
	case s.over() || timedOut(err):
		return s.overdue("the guest agent did not answer")
	}
	return failure("the guest agent could not run the command: " + words(err))
}

func (s *span) judgeExit(exit machine.ExecExit) health.Result {
	if exit.Code == 0 && exit.Signal == "" && exit.Error == "" && !exit.TimedOut {
		return within(exit, success("exit code 0"))
	}
	var r health.Result
	switch {
	case exit.TimedOut:
		r = s.overdue("the command was killed")
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
	if wait := s.wait(time.Now()); !exit.TimedOut && exit.Error == "" && starvedExit(s.timeout, wait) {
		r = inconclusive(health.CauseStarved, fmt.Sprintf("%s, while the host was starved and kept %s from it", r.Reason, wait.Round(time.Millisecond)))
	}
	if exit.Lingering && exit.Error == "" {
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
