package fake

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/health"
	"github.com/halevm/hale/internal/instance"
	"github.com/halevm/hale/internal/machine"
	"github.com/halevm/hale/internal/probe"
)

// A Machine is a hold of a machine: its first owner has one, and whoever recovers it another.
type Machine struct {
	g       *guest
	notices chan machine.Notice
}

// handle returns a Machine that begins with what was said before.
func (g *guest) handle() *Machine {
	m := &Machine{g: g, notices: make(chan machine.Notice, 3+maxTold)}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, n := range g.said {
		m.tell(n)
	}
	g.handles = append(g.handles, m)
	return m
}

// maxTold is how many lines a fake machine may say in its life.
const maxTold = 16

// tell never blocks: there is room for all that a machine can say.
func (m *Machine) tell(n machine.Notice) {
	m.notices <- n
	if n.Kind == machine.Exited {
		close(m.notices)
	}
}

// Notices delivers what the machine says about itself.
func (m *Machine) Notices() <-chan machine.Notice { return m.notices }

// Stop asks the program to end.
func (m *Machine) Stop(ctx context.Context, grace time.Duration) error {
	g := m.g
	state, _ := g.now()
	switch state {
	case booting:
		return errNoAgent
	case dead:
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.stopping {
		g.stopping = true
		g.stop <- grace
	}
	return nil
}

// Kill ends the machine at once.
func (m *Machine) Kill(ctx context.Context) error {
	m.g.end(machine.Exit{Reason: machine.Killed, Message: "killed"})
	for {
		state, changed := m.g.now()
		if state == dead {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Watch remembers the port. A fake machine says nothing of it by itself: Driver.Say does.
func (m *Machine) Watch(port uint16) {
	m.g.mu.Lock()
	defer m.g.mu.Unlock()
	m.g.watches = append(m.g.watches, port)
}

// Ports returns the published ports with what the host gave for 0.
func (m *Machine) Ports() []machine.Port { return m.g.ports }

var errNoAgent = fmt.Errorf("the guest agent is not there: %w", api.InvalidState)

// awake is an error unless the agent answers.
func (g *guest) awake() error {
	if state, _ := g.now(); state != ready && state != started {
		return errNoAgent
	}
	return nil
}

// Stat looks at a path.
func (m *Machine) Stat(ctx context.Context, path string, followLinks bool) (machine.FileInfo, error) {
	if err := m.g.awake(); err != nil {
		return machine.FileInfo{}, err
	}
	return m.g.files.stat(path, followLinks), nil
}

// Stats tells what the machine uses; its processor time is the time that it has lived.
func (m *Machine) Stats(ctx context.Context) (machine.Stats, error) {
	if state, _ := m.g.now(); state == dead {
		return machine.Stats{}, fmt.Errorf("the machine is gone: %w", api.InvalidState)
	}
	m.g.mu.Lock()
	defer m.g.mu.Unlock()
	return machine.Stats{
		CPU: time.Since(m.g.born), RSS: m.g.c.Memory / 4, VMS: m.g.c.Memory,
		RxBytes: m.g.rx, TxBytes: m.g.tx, Connections: len(m.g.conns),
	}, nil
}

// checkExec is a command as package probe sees it.
type checkExec struct{ instance.Exec }

func (x checkExec) Kill(ctx context.Context) error { return x.Signal(ctx, "SIGKILL") }

// Probe asks as the real one does, through package probe.
func (m *Machine) Probe(ctx context.Context, p health.Policy, started func()) health.Result {
	g := m.g
	t := probe.Target{
		Exec: func(ctx context.Context, r machine.ExecRequest) (probe.Execution, error) {
			x, err := m.Exec(ctx, r)
			if errors.Is(err, errNoAgent) {
				return nil, probe.ErrNoAgent
			}
			if err != nil {
				return nil, err
			}
			return checkExec{x}, nil
		},
		NetworkUp: func() bool { return g.awake() == nil },
		Begun:     started,
		Version:   g.d.o.Version,
	}
	if g.c.Network != nil {
		t.Dial = g.dial
	}
	return probe.Run(ctx, t, p)
}
