package shim

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/halevm/hale/api"
	guestprotocol "github.com/halevm/hale/internal/guest/protocol"
	"github.com/halevm/hale/internal/health"
	"github.com/halevm/hale/internal/machine"
	"github.com/halevm/hale/internal/probe"
	"github.com/halevm/hale/internal/shim/protocol"
)

// handle answers one request of a control connection.
func (r *run) handle(ctx context.Context, method string, params json.RawMessage, begun func()) (any, error) {
	switch method {
	case protocol.MethodStop:
		var p protocol.Stop
		if err := decode(params, &p); err != nil {
			return nil, err
		}
		return nil, r.stop(ctx, p.Grace)
	case protocol.MethodKill:
		return nil, r.ask(ctx, ask{kill: true})
	case protocol.MethodStat:
		var p protocol.Stat
		if err := decode(params, &p); err != nil {
			return nil, err
		}
		if r.life() == notStarted { // the agent's root may not be the image's yet
			return nil, errNotBooted
		}
		info, err := r.agent.Stat(ctx, p.Path, p.FollowLinks)
		return info, asked(err)
	case protocol.MethodProbe:
		return r.probe(ctx, params, begun)
	case protocol.MethodStats:
		return r.stats()
	case protocol.MethodPorts:
		return r.ports, nil
	case protocol.MethodWatch:
		var p protocol.Watch
		if err := decode(params, &p); err != nil {
			return nil, err
		}
		r.watch(p.Port)
		return nil, nil
	}
	return nil, fmt.Errorf("this shim knows no method %q: %w", method, api.Unimplemented)
}

func decode(params json.RawMessage, v any) error {
	if err := json.Unmarshal(params, v); err != nil {
		return fmt.Errorf("%v: %w", err, api.Invalid)
	}
	return nil
}

func (r *run) ask(ctx context.Context, a ask) error {
	select {
	case r.asks <- a:
		return nil
	case <-r.vm.Done():
		return errGone
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// stop asks the agent first: without one there is nobody to stop in an orderly way, and the caller kills.
func (r *run) stop(ctx context.Context, grace time.Duration) error {
	if !r.agent.Connected() {
		return errNoAgent
	}
	if err := r.ask(ctx, ask{grace: grace}); err != nil {
		return err
	}
	return asked(r.agent.Shutdown(ctx, grace))
}

func (r *run) exec(ctx context.Context, req machine.ExecRequest) (execSession, error) {
	if r.life() == notStarted { // the agent may be there by now, and takes no command yet: who waits for it waits on
		return nil, errNotBooted
	}
	e, err := r.agent.Exec(ctx, req)
	if err != nil {
		return nil, asked(err)
	}
	return e, nil
}

// probe asks the workload once.
func (r *run) probe(ctx context.Context, params json.RawMessage, begun func()) (health.Result, error) {
	policy, err := r.policy(params)
	if err != nil {
		return health.Result{}, err
	}
	target := probe.Target{
		Dial: r.dial, NetworkUp: r.networkUp, Loopback: r.onLoopback, RunDelay: r.vcpus.delays, Begun: begun, Version: r.c.Build,
	}
	if policy.Type == health.TypeExec {
		left, done := clearing(ctx)
		defer done()
		target.Exec = r.execFor(ctx, left)
	}
	return r.disk.probe(func() health.Result { return r.unlessEnding(ctx, probe.Run(ctx, target, policy)) }), nil
}

// policy decodes the policy in a protocol.Probe, which is nearly always the one of the probe before.
func (r *run) policy(params json.RawMessage) (health.Policy, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.policyText != "" && string(params) == r.policyText {
		return r.lastPolicy, nil
	}
	var asked protocol.Probe
	var p health.Policy
	if err := decode(params, &asked); err != nil {
		return p, err
	}
	if err := json.Unmarshal(asked.Policy, &p); err != nil {
		return p, fmt.Errorf("the policy: %v: %w", err, api.Invalid)
	}
	r.policyText, r.lastPolicy = string(params), p
	return p, nil
}

// networkUp reports whether the guest can have a network by now.
func (r *run) networkUp() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.said {
		return true
	}
	if r.net == nil {
		return false
	}
	select {
	case <-r.net.Seen():
		return true
	default:
		return false
	}
}

// onLoopback reports what the agent told of a port.
func (r *run) onLoopback(port uint16) bool { return r.agent.Listening(port) == guestprotocol.Loopback }
