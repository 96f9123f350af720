package guest

import (
	"context"
	"io"
	"time"

	"github.com/halevm/hale/internal/machine"
)

// A Conn is the host's end of one machine's agent channel.
type Conn struct {
	events chan Event
}

// An Exec is a command that runs in the guest.
type Exec struct{}

// Open speaks to the agent over its two ports, which the Conn owns from then on. It returns at once; HELLO is said until it
// is answered, and again after each loss.
func Open(control, bulk io.ReadWriteCloser, o Options) *Conn {
	return &Conn{events: make(chan Event)}
}

// Events delivers what happens, in order. It never blocks the channel and drops nothing; it is closed after Close, or
// when the control port is gone.
func (c *Conn) Events() <-chan Event { return c.events }

// Connected reports whether there is a session.
func (c *Conn) Connected() bool { return false }

// Exec starts a command in the guest. ctx bounds the start only.
func (c *Conn) Exec(ctx context.Context, r machine.ExecRequest) (*Exec, error) {
	return nil, ErrNotConnected
}

// Stat looks at a path in the guest.
func (c *Conn) Stat(ctx context.Context, path string, followLinks bool) (machine.FileInfo, error) {
	return machine.FileInfo{}, ErrNotConnected
}

// Shutdown asks the guest to end in an orderly way; it returns when the agent has accepted.
func (c *Conn) Shutdown(ctx context.Context, grace time.Duration) error { return ErrNotConnected }

// Close ends the session and waits for everything that the Conn started.
func (c *Conn) Close() error { return nil }

// Stdin is the command's input; Close is end of file.
func (e *Exec) Stdin() io.WriteCloser { return nil }

// Stdout is the command's output; with a terminal, everything.
func (e *Exec) Stdout() io.Reader { return nil }

// Stderr is the command's error output.
func (e *Exec) Stderr() io.Reader { return nil }

// Resize sets the size of the terminal.
func (e *Exec) Resize(ctx context.Context, rows, cols uint16) error { return ErrNotConnected }

// Signal sends a signal to the command's process group; SIGKILL kills its cgroup.
func (e *Exec) Signal(ctx context.Context, name string) error { return ErrNotConnected }

// Wait returns how the command ended, once it has and its output has arrived.
func (e *Exec) Wait(ctx context.Context) (machine.ExecExit, error) {
	return machine.ExecExit{}, ErrNotConnected
}

// Close kills the command if it still runs, and frees everything.
func (e *Exec) Close() error { return nil }
