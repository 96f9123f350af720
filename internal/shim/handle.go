package shim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/guest"
	"github.com/halevm/hale/internal/health"
	"github.com/halevm/hale/internal/machine"
	"github.com/halevm/hale/internal/probe"
	"github.com/halevm/hale/internal/shim/protocol"
)

// handle answers one request of a control connection.
func (r *run) handle(ctx context.Context, method string, params json.RawMessage) (any, error) {
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
		info, err := r.agent.Stat(ctx, p.Path, p.FollowLinks)
		return info, noAgent(err)
	case protocol.MethodProbe:
		var p protocol.Probe
		if err := decode(params, &p); err != nil {
			return nil, err
		}
		return r.probe(ctx, p)
	case protocol.MethodStats:
		return r.stats()
	case protocol.MethodPorts:
		return r.ports, nil
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
	return noAgent(r.agent.Shutdown(ctx, grace))
}

func (r *run) exec(ctx context.Context, req machine.ExecRequest) (execSession, error) {
	e, err := r.agent.Exec(ctx, req)
	if err != nil {
		return nil, noAgent(err)
	}
	return e, nil
}

// probe asks the workload once.
func (r *run) probe(ctx context.Context, p protocol.Probe) (health.Result, error) {
	policy, err := r.policy(p.Policy)
	if err != nil {
		return health.Result{}, err
	}
	target := probe.Target{Dial: r.dial, Exec: r.execToEnd, NetworkUp: r.networkUp, Version: r.c.Build}
	return r.disk.probe(func() health.Result { return probe.Run(ctx, target, policy) }), nil
}

// policy decodes a policy, which is nearly always the one of the probe before.
func (r *run) policy(raw json.RawMessage) (health.Policy, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if string(raw) == r.policyText {
		return r.lastPolicy, nil
	}
	var p health.Policy
	if err := json.Unmarshal(raw, &p); err != nil {
		return p, fmt.Errorf("the policy: %v: %w", err, api.Invalid)
	}
	r.policyText, r.lastPolicy = string(raw), p
	return p, nil
}

func (r *run) dial(ctx context.Context, port uint16) (net.Conn, error) {
	if r.net == nil {
		return nil, errors.New("the instance has no network")
	}
	return r.net.Dial(ctx, port)
}

// networkUp reports whether the guest has a network by now. Its agent's HELLO says nothing of that: the network comes behind it, and what is sent
// too early is lost, and sent again a second later.
func (r *run) networkUp() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.started {
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

// execToEnd runs a check's command, whose output comes with its exit.
func (r *run) execToEnd(ctx context.Context, req machine.ExecRequest) (machine.ExecExit, error) {
	e, err := r.agent.Exec(ctx, req)
	if errors.Is(err, guest.ErrNotConnected) {
		return machine.ExecExit{}, probe.ErrNoAgent
	}
	if err != nil {
		return machine.ExecExit{}, err
	}
	defer e.Close()
	exit, err := e.Wait(ctx)
	if errors.Is(err, guest.ErrNotConnected) {
		return exit, probe.ErrNoAgent
	}
	return exit, err
}
