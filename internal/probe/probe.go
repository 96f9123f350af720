// Package probe asks a workload once whether it is well.
package probe

import (
	"context"
	"errors"
	"net"

	"github.com/halevm/hale/internal/health"
	"github.com/halevm/hale/internal/machine"
)

// ErrNoAgent is what Target.Exec's error wraps while no guest agent is connected.
var ErrNoAgent = errors.New("the guest agent is not connected")

// A Target is one machine, as the process beside it reaches it.
type Target struct {
	// Dial opens a TCP connection to a port of the guest's own address. A refusal is ECONNREFUSED.
	Dial func(ctx context.Context, port uint16) (net.Conn, error)
	// Exec runs a program in the guest and returns when it has ended, or when ctx is done.
	Exec func(ctx context.Context, r machine.ExecRequest) (machine.ExecExit, error)
	// NetworkUp reports whether the guest can have a network by now: a frame came from it, the agent said HELLO, or its program
	// was started. nil: yes.
	NetworkUp func() bool
	Version   string // of hale, for the User-Agent
}

// Run asks once, as p says. It returns when it knows, at p.Timeout at the latest, or when ctx is done.
func Run(ctx context.Context, t Target, p health.Policy) health.Result {
	return health.Result{Outcome: health.Inconclusive}
}
