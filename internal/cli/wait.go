package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/halevm/hale/api"
	hale "github.com/halevm/hale/sdk/go"
)

func (a *app) waitCommand() *cobra.Command {
	var (
		healthy       bool
		health, state string
		timeout       time.Duration
	)
	cmd := &cobra.Command{
		Use: "wait NAME (--healthy | --health STATUS | --state STATE)", Short: "Wait until an instance is healthy, or in a state", GroupID: groupInstances, Args: cobra.ExactArgs(1),
		Long: `Wait until an instance is healthy, or in a state. It ends early when that cannot be reached any more: the instance was deleted, has
stopped, has no health check. A daemon that goes away meanwhile is waited for.

Ends with 0 when it is as asked, with 5 when the time is over or it cannot be reached, with 3 when there is no such instance, and with 6
when the daemon does not answer, or is still away when the time is over.`,
		Example: "  hale wait web --healthy --timeout 30s\n  hale wait job --state Stopped --timeout 1h",
		RunE: func(cmd *cobra.Command, args []string) error {
			var target awaited
			var err error
			if target.health, err = oneOf("--health", health, healths); err != nil {
				return err
			}
			if target.state, err = oneOf("--state", state, states); err != nil {
				return err
			}
			if healthy && target.health == "" {
				target.health = api.HealthStateHealthy
			}
			if (target.health == "") == (target.state == "") || healthy && target.health != api.HealthStateHealthy {
				return usagef("say what to wait for: --healthy, or --health STATUS, or --state STATE")
			}
			if timeout < 0 {
				return usagef("--timeout is 0 or more")
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			ctx, cancel := patient(cmd.Context(), c, timeout)
			defer cancel()
			inst, err := c.Instance(ctx, args[0])
			if err != nil {
				return err
			}
			return a.await(cmd.Context(), inst, target, timeout)
		},
	}
	cmd.Flags().BoolVar(&healthy, "healthy", false, "until it is healthy")
	cmd.Flags().StringVar(&health, "health", "", "until its health is this `status`: healthy, unhealthy, …")
	cmd.Flags().StringVar(&state, "state", "", "until it is in this `state`: Running, Stopped, …")
	cmd.Flags().DurationVar(&timeout, "timeout", time.Minute, "longest time to wait")
	return cmd
}

// awaited is what a wait is for: a health or a state, the other is empty.
type awaited struct {
	health api.HealthState
	state  api.InstanceState
}

func (w awaited) String() string { return string(w.health) + string(w.state) }

// longestWait is the longest that the daemon waits in one request.
const longestWait = 5 * time.Minute

// lateAnswer is how much later than it was asked to a daemon may answer before it is taken for one that does not. Tests shorten it.
var lateAnswer = 10 * time.Second

// patient is ctx for a request that may take as long as timeout, and not much longer.
func patient(ctx context.Context, c *hale.Client, timeout time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, timeout+lateAnswer, &hale.UnreachableError{URL: c.URL(), Err: errors.New("it is there, and says nothing")})
}

// await returns nil once the instance is as it should be, or was meanwhile, and an error with exitTimeout when it is not in time or cannot be. A daemon
// that goes away meanwhile is waited for.
func (a *app) await(ctx context.Context, inst api.Instance, target awaited, timeout time.Duration) error {
	deadline := time.Now().Add(timeout)
	var away absence
	for {
		left := time.Until(deadline)
		got, err := a.askWhether(ctx, inst.ID, target, min(max(left, time.Millisecond), longestWait))
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil && reached(got, target):
			return nil
		case err == nil && got.TimedOut && time.Until(deadline) > 0:
			away = absence{}
			continue
		case err == nil && a.passed(ctx, inst, target):
			return nil
		case err == nil:
			return exitStatus{exitTimeout, errors.New(notReached(inst.Name, got, target, timeout))}
		case gone(err):
			return exitStatus{exitTimeout, fmt.Errorf("%s will not be %s: the instance was deleted", inst.Name, target)}
		case codeOf(err) != exitUnreachable || left <= 0:
			return err
		}
		if err := away.wait(ctx, a.say, min(reconnectPause, max(time.Until(deadline), 0))); err != nil {
			return err
		}
	}
}

// askWhether waits in one request.
func (a *app) askWhether(ctx context.Context, id string, target awaited, timeout time.Duration) (got api.WaitForStateResponse, err error) {
	c, err := a.client() // each time: a daemon that comes back may be at another address
	if err != nil {
		return got, err
	}
	ctx, cancel := patient(ctx, c, timeout)
	defer cancel()
	return c.WaitInstance(ctx, id, hale.Wait{State: target.state, Health: target.health, Timeout: timeout})
}

func reached(got api.WaitForStateResponse, target awaited) bool {
	if got.TimedOut {
		return false
	}
	if target.health != "" {
		h := got.HealthStatus
		return h != nil && h.Status == target.health && !(h.Status == api.HealthStateHealthy && h.Stale && h.StaleReason == "no_conclusive_result")
	}
	return got.State == target.state
}

// passed reports whether an instance that has stopped was Running since before: a program may end before anybody has seen it run.
func (a *app) passed(ctx context.Context, before api.Instance, target awaited) bool {
	if target.state != api.InstanceStateRunning {
		return false
	}
	c, err := a.client()
	if err != nil {
		return false
	}
	ctx, cancel := patient(ctx, c, 0)
	defer cancel()
	now, err := c.Instance(ctx, before.ID)
	if err != nil || now.State != api.InstanceStateStopped {
		return false
	}
	old := before.State == api.InstanceStateStopped && or(before.StartedAt, time.Time{}).Equal(or(now.StartedAt, time.Time{}))
	return !old && (now.RunningAt != nil || now.ExitReason == programExited)
}

// programExited is the reason of a program that ended by itself.
const programExited = "program_exited"

func notReached(name string, got api.WaitForStateResponse, target awaited, timeout time.Duration) string {
	now := string(got.State)
	if h := got.HealthStatus; h != nil && h.Status != api.HealthStateDisabled {
		now += ", " + string(h.Status)
		// The last error stays after it was mended, and then explains nothing.
		failing := h.Status == api.HealthStateUnhealthy || h.ConsecutiveFailures > 0 || h.GraceFailures > 0 && h.Status == api.HealthStateStarting && h.ConsecutiveSuccesses == 0
		if r := or(h.LastError, ""); r != "" && failing {
			now += ": " + oneLine(r)
		}
	}
	if why := or(got.StateError, ""); why != "" {
		why, console, _ := strings.Cut(why, "\n")
		now += " (" + oneLine(why) + ")"
		for line := range strings.Lines(console) {
			now += "\n  " + oneLine(line)
		}
	}
	if got.TimedOut {
		return fmt.Sprintf("%s is not %s after %v: it is %s", name, target, timeout, now)
	}
	return fmt.Sprintf("%s will not be %s: it is %s", name, target, now)
}
