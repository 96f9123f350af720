// Package guest is the host's side of the agent channel: it greets the agent in a machine, hands it the machine's
// configuration, hears what becomes of the program, and runs commands and looks at files there.
//
// A [Conn] is used from any number of goroutines. It outlives sessions: an agent that stops answering is Lost, what was
// under way fails with [ErrLost], and the Conn says HELLO until somebody answers again. It needs no traffic to stay
// connected; silence counts as loss only while an answer is due.
//
// Whatever comes from the guest is hostile until checked: frames, messages, pending replies, streams and what waits in
// them are bounded, and nothing the guest sends can block the control port. The package does not know QEMU, the daemon or
// what the domain makes of the events.
package guest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/halevm/hale/internal/guest/protocol"
)

// The errors that callers tell apart. Whoever only wants to know whether there is an agent asks for ErrNotConnected:
// ErrLost and ErrNoAnswer are that, too.
var (
	// ErrNotConnected: there is no session with an agent (yet, or any more).
	ErrNotConnected = errors.New("the guest agent is not connected")
	// ErrLost: the session ended while the call was under way.
	ErrLost = fmt.Errorf("the guest agent was lost meanwhile: %w", ErrNotConnected)
	// ErrNoAnswer: the agent did not answer the request in time.
	ErrNoAnswer = fmt.Errorf("the guest agent did not answer in time: %w", ErrNotConnected)
	// ErrTooMany: as many execs or requests as the channel allows are under way.
	ErrTooMany = errors.New("too many requests to the guest agent at one time")
	// ErrTooLarge: the request does not fit a frame.
	ErrTooLarge = fmt.Errorf("the request to the guest agent is too large: at most %d bytes fit", protocol.MaxPayload)
	// ErrClosed: the Conn or the Exec was closed.
	ErrClosed = errors.New("closed")
)

// A RequestError is the agent's refusal of a request.
type RequestError struct {
	Op      string
	Message string
}

func (e *RequestError) Error() string { return "guest agent: " + e.Op + ": " + e.Message }

// Options say what a Conn needs to know. Boot is what an agent is given that was not given it yet.
type Options struct {
	Boot protocol.Boot
	Log  *slog.Logger // nil: nothing is logged
	// Drained, when not nil, is called before the end of the program is reported and acknowledged, with the number of
	// bytes that the agent wrote to the output port. It returns once the host has read that many, or ctx is done (2 s);
	// the guest powers off after the acknowledgement, and what then still waits in the hypervisor is gone.
	Drained func(ctx context.Context, written uint64)
	// Listening, when not nil, hears what the agent tells of the port that Watch named: where it is listened on, whenever
	// that is another place than before. A guest says it as often as it likes, so it must not wait, and bounds what follows.
	Listening func(port uint16, where protocol.Where)
	Hello     time.Duration // from one unanswered HELLO to the next; 0: 250 ms
	Answer    time.Duration // longest silence while an answer is due, and longest wait of a request; 0: 10 s
}

// An EventKind says what happened.
type EventKind string

// Hello begins a session and Lost ends it. Started, and then one of ProgramFailed and ProgramExited, come once in the life
// of a Conn, whatever sessions it has; before ProgramFailed, Started is missing.
const (
	Hello         EventKind = "hello"
	Started       EventKind = "started"
	ProgramFailed EventKind = "program_failed"
	ProgramExited EventKind = "program_exited"
	Lost          EventKind = "lost"
)

// An Event is something that the agent said, or that became of it.
type Event struct {
	Kind    EventKind
	Time    time.Time
	Code    int    // of ProgramFailed and ProgramExited; 128+n for signal n
	Signal  string // "SIGKILL", where the program died of one
	OOM     bool   // the guest's kernel killed it for want of memory
	Message string // one line for a person; not checked for control characters
}
