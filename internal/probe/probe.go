// Package probe asks a workload once whether it is well, and says in words a person can act on what it found. It runs in the process
// beside the machine, which reaches the guest's network and its agent; when to ask and what a result means is decided elsewhere
// (package health).
//
// # What is asked
//
//   - tcp succeeds when the connection opens, and closes it.
//   - http sends one HTTP/1.1 request on a connection of its own, with Connection: close, and compares the answer's status, and its
//     body if the check says so. A redirect is an answer like any other; it is never followed. There is no proxy, no cookie, no
//     connection that is used again, and no TLS setting that another check could see.
//   - grpc makes one call of grpc.health.v1.Health/Check, over HTTP/2 in plain text; SERVING succeeds.
//   - exec runs a command through the guest's agent, with its last 4 KiB of output.
//
// A check of another type would be another case in Run and another file beside these.
//
// # What the outcomes mean
//
// Success and failure say something of the workload; inconclusive says that the host could not ask, and why, in Result.Cause. A
// failure is definite where it is no matter of slowness: refused, reset or closed before the first byte of an answer, or a command
// that does not exist. A timeout never is.
//
// # A starved host
//
// What the host keeps from a probe is measured and not charged (starve.go): the lateness of a tick of 50 ms in this process, beyond what
// the process lets its timers be late, summed over the probe, and the run delay of the machine's virtual processors, whichever is
// larger. A probe goes on until its time less its wait reaches its timeout, and to four timeouts in all; an answer counts as it comes.
// It is a failure if it had its time, else inconclusive. So the time of an exec is measured here, too, and not by the agent, whose own
// limit is for a host that is lost. A timer that was late itself does not decide at once: what came meanwhile is looked at first.
//
// # The guest is hostile
//
// Whatever it sends is bounded: 64 KiB of headers, interim answers included, 64 KiB of body, 64 KiB or 100 ms after the verdict, and
// the policy's timeout over all of it. A gRPC answer has 128 KiB in all, frames of 16 KiB, and 16 PINGs and SETTINGS that are answered.
// Nothing it sends is interpreted beyond that.
//
// # Concurrency
//
// Run may be called from any number of goroutines at once, and shares nothing between calls. It starts no goroutine that outlives
// it. It never panics: the process that it runs in holds a machine.
package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/halevm/hale/internal/health"
	"github.com/halevm/hale/internal/machine"
)

// ErrNoAgent is what the error of Target.Exec wraps while no guest agent is connected.
var ErrNoAgent = errors.New("the guest agent is not connected")

// ErrNotBooted is what that error wraps while the agent is there, and the machine not as far as to run a command.
var ErrNotBooted = errors.New("the guest is still booting")

// ErrTooMany is what that error wraps while as many commands run in the guest as may at one time. They are people's: a machine runs one
// check at a time, and whatever they are at says nothing of the workload.
var ErrTooMany = errors.New("as many commands as may run in the guest at one time do already")

// A Target is one machine, as the process beside it reaches it.
type Target struct {
	// Dial opens a TCP connection to a port of the guest's own address. nil: the instance has no network.
	Dial func(ctx context.Context, port uint16) (net.Conn, error)
	// Exec starts a program in the guest, and returns once the agent says that it runs, or why not. ctx bounds that.
	Exec func(ctx context.Context, r machine.ExecRequest) (Execution, error)
	// NetworkUp reports whether the guest can have a network by now: a frame came from it, its agent said HELLO, or its program
	// was started. Until then a check over the network would only hang, so nothing is sent. nil: it can.
	NetworkUp func() bool
	// Loopback reports whether the guest listens on a port at its own loopback address only, as far as is known. nil: nobody knows.
	Loopback func(port uint16) bool
	// RunDelay appends how long each of the machine's virtual processors has waited for the host's, since it began, in the same order
	// each time. nil: unknown.
	RunDelay func([]time.Duration) []time.Duration
	// Begun is called when what costs CPU to begin is over: the TLS handshake is done, or the agent says that the command runs. It is not
	// called for what costs nothing, or does not come so far. nil: nobody asks.
	Begun   func()
	Version string // of hale, for the User-Agent
}

// An Execution is a program that runs in the guest.
type Execution interface {
	// Kill kills the program and whatever it started. Its exit is still to come.
	Kill(ctx context.Context) error
	// Wait returns when the program has ended and nothing of it is left, or ctx is done.
	Wait(ctx context.Context) (machine.ExecExit, error)
	// Close kills it if it still runs, and waits for nothing.
	Close() error
}

func (t Target) begun() {
	if t.Begun != nil {
		t.Begun()
	}
}

// Run asks once, as p says, and returns as soon as it knows: within p.Timeout and what the host kept from it, at most four times that
// (for an exec a few seconds more, while what the command left behind is killed), or when ctx is done, which is inconclusive. Start and
// Duration of the result are those of the question, without what is done afterwards to end a connection in order.
func Run(ctx context.Context, t Target, p health.Policy) (r health.Result) {
	start := time.Now()
	defer func() {
		if v := recover(); v != nil {
			r = inconclusive(health.CausePanic, fmt.Sprintf("the probe panicked: %.200v", v))
		}
		r.Start = start
		if r.Duration == 0 {
			r.Duration = time.Since(start)
		}
	}()
	s := t.begin(ctx, start, p.Timeout)
	defer s.end()
	switch p.Type {
	case health.TypeTCP:
		r = t.tcp(s, p)
	case health.TypeHTTP:
		r = t.http(s, p)
	case health.TypeExec:
		r = t.exec(s, p)
	case health.TypeGRPC:
		r = t.grpc(s, p)
	default:
		r = inconclusive(health.CauseUnsupported, fmt.Sprintf("a check of type %.20q cannot be run", p.Type))
	}
	if r.Outcome != health.Success {
		r.Wait = s.wait(time.Now())
	}
	return r
}

func (t Target) tcp(s *span, p health.Policy) health.Result {
	conn, failed := t.dial(s, p.TCP.Port)
	if failed != nil {
		return *failed
	}
	conn.Close()
	return success(fmt.Sprintf("port %d is open", p.TCP.Port))
}

// errTimeout is the cause of a context whose probe had its time.
var errTimeout = errors.New("timeout")

// aLongTimeAgo is a deadline that has passed.
var aLongTimeAgo = time.Unix(1, 0)

// dial opens a connection, or returns what the attempt amounts to.
func (t Target) dial(s *span, port uint16) (net.Conn, *health.Result) {
	if t.Dial == nil || t.NetworkUp != nil && !t.NetworkUp() {
		r := inconclusive(health.CauseNoNetwork, "the guest has no network yet")
		return nil, &r
	}
	conn, err := t.Dial(patience{s}, port)
	if err == nil {
		return conn, nil
	}
	r := unreached(s, err, port)
	if r.Definite && refused(err) && t.Loopback != nil && t.Loopback(port) {
		r.Reason += ": the program listens on it only at the guest's own 127.0.0.1 or ::1, where nothing outside the guest reaches it; 0.0.0.0 is every address"
	}
	return nil, &r
}

// unreached says what a connection that did not open means.
func unreached(s *span, err error, port uint16) health.Result {
	if r, ok := hosts(s.ctx, err); ok {
		return r
	}
	switch {
	case s.over() || timedOut(err):
		return s.overdue("no connection to port %d", port)
	case refused(err):
		return definite(fmt.Sprintf("connection refused (port %d)", port))
	case reset(err):
		return definite(fmt.Sprintf("connection reset (port %d)", port))
	}
	return failure(fmt.Sprintf("no connection to port %d: %s", port, words(err)))
}

// hosts recognises what lies with the host rather than with the workload: the caller gave up, or the host is out of something.
func hosts(ctx context.Context, err error) (health.Result, bool) {
	if ctx.Err() != nil {
		return inconclusive(health.CauseCutShort, "cut short: "+words(context.Cause(ctx))), true
	}
	// EADDRNOTAVAIL: no ephemeral port is left.
	for _, no := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.ENOBUFS, syscall.EADDRNOTAVAIL} {
		if errors.Is(err, no) {
			return inconclusive(health.CauseResources, "the host is out of resources: "+no.Error()), true
		}
	}
	return health.Result{}, false
}

func timedOut(err error) bool {
	t, ok := errors.AsType[net.Error](err)
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, errTimeout) || ok && t.Timeout()
}

// The errors of a user-mode stack are texts: no errno is in them.
func refused(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || strings.Contains(err.Error(), "connection was refused")
}

// brokenOff recognises a connection that ended before the answer was whole; first says that nothing of it had come.
func brokenOff(err error, port uint16, first bool) (health.Result, bool) {
	closed := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
	switch {
	case reset(err) && first:
		return definite(fmt.Sprintf("connection reset before the first byte (port %d)", port)), true
	case closed && first:
		return definite(fmt.Sprintf("closed before the first byte (port %d)", port)), true
	case reset(err):
		return failure("connection reset in the middle of the answer"), true
	case closed:
		return failure("closed in the middle of the answer"), true
	}
	return health.Result{}, false
}

func reset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || strings.Contains(err.Error(), "connection reset by peer")
}

// words returns an error's text, or as much of it as a reason can hold.
func words(err error) string { return fmt.Sprintf("%.300s", err.Error()) }

func success(reason string) health.Result {
	return health.Result{Outcome: health.Success, Reason: reason}
}

func failure(reason string) health.Result {
	return health.Result{Outcome: health.Failure, Reason: reason}
}

func definite(reason string) health.Result {
	return health.Result{Outcome: health.Failure, Reason: reason, Definite: true}
}

func inconclusive(cause, reason string) health.Result {
	return health.Result{Outcome: health.Inconclusive, Cause: cause, Reason: reason}
}
