package probe

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/halevm/hale/internal/health"
	"github.com/halevm/hale/internal/machine"
)

// ended is a command that has ended.
type ended struct {
	exit machine.ExecExit
	err  error
}

func (e ended) Wait(context.Context) (machine.ExecExit, error) { return e.exit, e.err }
func (ended) Kill(context.Context) error                       { return nil }
func (ended) Close() error                                     { return nil }

func TestExec(t *testing.T) {
	var asked machine.ExecRequest
	run := func(exit machine.ExecExit, err error) health.Result {
		target := Target{Exec: func(ctx context.Context, r machine.ExecRequest) (Execution, error) {
			asked = r
			return ended{exit, err}, nil
		}}
		return Run(t.Context(), target, policy(t, `{"timeout":"2s","exec":{"command":["check","-x"],"env":{"B":"2","A":"1"},"user":"u","working_dir":"/w"}}`))
	}
	out := []byte(strings.Repeat("x", 5000) + "\nno database\n")
	for _, c := range []struct {
		exit    machine.ExecExit
		err     error
		outcome health.Outcome
		reason  string
	}{
		{machine.ExecExit{Output: out}, nil, health.Success, "exit code 0"},
		{machine.ExecExit{Code: 1, Output: out}, nil, health.Failure, "exit code 1: no database"},
		{machine.ExecExit{Code: 3}, nil, health.Failure, "exit code 3"},
		{machine.ExecExit{Code: 127, Output: []byte("sh: nope: not found")}, nil, health.Failure, "exit code 127: sh: nope: not found"},
		{machine.ExecExit{Code: 127, Error: "check: no such file"}, nil, health.Failure, "command not found: check: no such file!"},
		{machine.ExecExit{Code: 126, Error: "check: permission denied"}, nil, health.Failure, "the command cannot be run: check: permission denied"},
		{machine.ExecExit{Code: 137, Signal: "SIGKILL"}, nil, health.Failure, "killed by SIGKILL"},
		{machine.ExecExit{Code: 124, TimedOut: true}, nil, health.Failure, "timeout after 2s: the command was killed"},
		{machine.ExecExit{Code: 124, TimedOut: true, Lingering: true}, nil, health.Failure, "still there after it was killed"},
		{machine.ExecExit{}, fmt.Errorf("exec: %w", ErrNoAgent), health.Inconclusive, "not connected"},
		{machine.ExecExit{}, errors.New("session ended"), health.Failure, "the guest agent could not run the command: session ended"},
		{machine.ExecExit{}, context.DeadlineExceeded, health.Failure, "timeout after 2s: the guest agent did not answer"},
		{machine.ExecExit{}, syscall.ENOMEM, health.Inconclusive, "out of resources"},
		{machine.ExecExit{}, ErrNotBooted, health.Inconclusive, "still booting"},
		{machine.ExecExit{}, ErrTooMany, health.Inconclusive, "as many commands as may run"},
	} {
		r := run(c.exit, c.err)
		found(t, r, c.outcome, c.reason)
		if r.Outcome != health.Failure && r.Output != "" || len(r.Output) > 4096 {
			t.Errorf("%s: %d bytes of output", c.reason, len(r.Output))
		}
		if r.Outcome == health.Failure && (r.Output == "") != (len(c.exit.Output) == 0) {
			t.Errorf("%s: %d bytes of output of %d", c.reason, len(r.Output), len(c.exit.Output))
		}
		if (r.Cause == health.CauseNoAgent) != (errors.Is(c.err, ErrNoAgent) || errors.Is(c.err, ErrNotBooted)) {
			t.Errorf("%s: cause %q", c.reason, r.Cause)
		}
	}
	if got := fmt.Sprintf("%v %v %v %v %v %v %v %v", asked.Argv, asked.Env, asked.Dir, asked.User, asked.Timeout, asked.Capture, asked.TTY, asked.Stdin); got != "[check -x] [A=1 B=2] /w u 9s 4096 false false" {
		t.Error(got)
	}
	if r := run(machine.ExecExit{Duration: 70 * time.Millisecond}, nil); r.Duration != 70*time.Millisecond {
		t.Errorf("duration %v", r.Duration)
	}
	if r := Run(t.Context(), Target{}, policy(t, `{"exec":{"command":["x"]}}`)); r.Cause != health.CauseNoAgent {
		t.Errorf("%+v", r)
	}
}
