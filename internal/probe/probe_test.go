package probe

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/halevm/hale/internal/health"
)

// loopback is a target whose guest is this host's loopback.
var loopback = Target{
	Dial: func(ctx context.Context, port uint16) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))))
	},
	Version: "1.2.3",
}

func policy(t testing.TB, format string, args ...any) health.Policy {
	t.Helper()
	p, err := health.Parse(json.RawMessage(fmt.Sprintf(format, args...)))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// raw is a server that does what it likes with each connection; it returns the port.
func raw(t *testing.T, serve func(net.Conn)) int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serve(c)
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().(*net.TCPAddr).Port
}

// says is a server that reads a request, answers with these bytes and closes.
func says(t *testing.T, answer string) int {
	return raw(t, func(c net.Conn) {
		http.ReadRequest(bufio.NewReader(c))
		io.WriteString(c, answer)
	})
}

// closedPort is one that nobody listens on.
func closedPort(t *testing.T) int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// timeoutFor is the timeout of a probe that is to end for this reason: no longer than it takes where that is the timeout itself, and as long as a
// busy host takes where it is not.
func timeoutFor(reason string) string {
	if strings.HasPrefix(reason, "timeout after ") {
		return "300ms"
	}
	return "1m"
}

// found checks a result; a failure whose reason ends in "!" is to be definite.
func found(t *testing.T, r health.Result, outcome health.Outcome, reason string) {
	t.Helper()
	reason, sure := strings.CutSuffix(reason, "!")
	if r.Outcome != outcome || !strings.Contains(r.Reason, reason) || r.Definite != sure {
		t.Errorf("%s, %q, definite %v; want %s, %q, %v", r.Outcome, r.Reason, r.Definite, outcome, reason, sure)
	}
	if r.Start.IsZero() || r.Duration <= 0 {
		t.Errorf("start %v, duration %v", r.Start, r.Duration)
	}
}

func TestTCP(t *testing.T) {
	port := raw(t, func(net.Conn) {})
	found(t, Run(t.Context(), loopback, policy(t, `{"tcp":{"port":%d}}`, port)), health.Success, "is open")
	port = closedPort(t)
	found(t, Run(t.Context(), loopback, policy(t, `{"tcp":{"port":%d}}`, port)), health.Failure, fmt.Sprintf("connection refused (port %d)!", port))
}

// What Dial can say, also in the words of a user-mode stack.
func TestDialErrors(t *testing.T) {
	stack := func(text string) error {
		return &net.OpError{Op: "connect", Net: "tcp", Err: errors.New(text)}
	}
	for _, c := range []struct {
		err     error
		outcome health.Outcome
		reason  string
	}{
		{stack("connection was refused"), health.Failure, "connection refused (port 80)!"},
		{fmt.Errorf("dial: %w", syscall.ECONNREFUSED), health.Failure, "connection refused (port 80)!"},
		{stack("connection reset by peer"), health.Failure, "connection reset (port 80)!"},
		{stack("no route to host"), health.Failure, "no connection to port 80: connect tcp: no route to host"},
		{context.DeadlineExceeded, health.Failure, "timeout after 1s: no connection to port 80"},
		{os.NewSyscallError("socket", syscall.EMFILE), health.Inconclusive, "too many open files"},
		{syscall.ENOBUFS, health.Inconclusive, "out of resources"},
		{syscall.EADDRNOTAVAIL, health.Inconclusive, "out of resources"},
	} {
		target := Target{Dial: func(context.Context, uint16) (net.Conn, error) { return nil, c.err }}
		r := Run(t.Context(), target, policy(t, `{"timeout":"1s","tcp":{"port":80}}`))
		found(t, r, c.outcome, c.reason)
		if (r.Cause == health.CauseResources) != (c.outcome == health.Inconclusive) {
			t.Errorf("%v: cause %q", c.err, r.Cause)
		}
	}
}

// A dial that hangs ends with the policy's timeout, or with the caller.
func TestDialHangs(t *testing.T) {
	target := Target{Dial: func(ctx context.Context, _ uint16) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	found(t, Run(t.Context(), target, policy(t, `{"timeout":"100ms","tcp":{"port":80}}`)), health.Failure, "timeout after 100ms: no connection to port 80")

	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("the window ended"))
	r := Run(ctx, target, policy(t, `{"http":{"port":80}}`))
	found(t, r, health.Inconclusive, "cut short: the window ended")
	if r.Cause != health.CauseCutShort {
		t.Error(r.Cause)
	}
}

func TestNoNetworkYet(t *testing.T) {
	up := false
	target := loopback
	target.NetworkUp = func() bool { return up }
	p := policy(t, `{"tcp":{"port":%d}}`, raw(t, func(net.Conn) {}))
	if r := Run(t.Context(), target, p); r.Cause != health.CauseNoNetwork {
		t.Errorf("%+v", r)
	}
	up = true
	found(t, Run(t.Context(), target, p), health.Success, "open")
	if r := Run(t.Context(), Target{}, p); r.Cause != health.CauseNoNetwork {
		t.Errorf("without a network: %+v", r)
	}
}

// A bug here must not take the machine down that the process holds.
func TestPanic(t *testing.T) {
	target := Target{Dial: func(context.Context, uint16) (net.Conn, error) { panic("a bug") }}
	r := Run(t.Context(), target, policy(t, `{"tcp":{"port":80}}`))
	found(t, r, health.Inconclusive, "a bug")
	if r.Cause != health.CausePanic {
		t.Error(r.Cause)
	}
}

// A probe that is cut short comes back at once.
func TestCutShort(t *testing.T) {
	asked := make(chan struct{})
	port := raw(t, func(c net.Conn) {
		http.ReadRequest(bufio.NewReader(c))
		close(asked)
		io.Copy(io.Discard, c)
	})
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() { <-asked; cancel(errors.New("the instance stopped")) }()
	r := Run(ctx, loopback, policy(t, `{"timeout":"1h","http":{"port":%d}}`, port))
	found(t, r, health.Inconclusive, "cut short: the instance stopped")
	if r.Cause != health.CauseCutShort {
		t.Error(r.Cause)
	}
}

func TestUnsupportedType(t *testing.T) {
	if r := Run(t.Context(), loopback, policy(t, `{"type":"none"}`)); r.Outcome != health.Inconclusive || r.Cause != health.CauseUnsupported {
		t.Errorf("%+v", r)
	}
}
