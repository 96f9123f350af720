package shim

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/guest"
	"github.com/halevm/hale/internal/machine"
	"github.com/halevm/hale/internal/shim/protocol"
)

// sleeper is a program that does not read its input, until it is told to by a signal of that name; SIGKILL ends it.
type sleeper struct {
	read   chan struct{}
	ended  chan struct{}
	lost   chan struct{} // closed when the agent is
	closed chan struct{}
	once   sync.Once
	input  bytes.Buffer
	eof    chan struct{} // closed with the input at its end
}

func newSleeper() *sleeper {
	return &sleeper{read: make(chan struct{}), ended: make(chan struct{}), lost: make(chan struct{}), closed: make(chan struct{}), eof: make(chan struct{})}
}

type sleeperInput struct{ *sleeper }

func (s sleeperInput) Write(p []byte) (int, error) {
	select {
	case <-s.read:
		return s.input.Write(p)
	case <-s.closed:
		return 0, io.ErrClosedPipe
	}
}

func (s sleeperInput) Close() error { close(s.eof); return nil }

func (s *sleeper) Stdin() io.WriteCloser                        { return sleeperInput{s} }
func (s *sleeper) Stdout() io.Reader                            { return bytes.NewReader(nil) }
func (s *sleeper) Stderr() io.Reader                            { return bytes.NewReader(nil) }
func (s *sleeper) Resize(context.Context, uint16, uint16) error { return nil }

func (s *sleeper) Signal(_ context.Context, name string) error {
	switch name {
	case "SIGCONT":
		close(s.read)
	case "SIGKILL":
		close(s.ended)
	case "SIGPWR":
		close(s.lost)
	}
	return nil
}

func (s *sleeper) Wait(ctx context.Context) (machine.ExecExit, error) {
	select {
	case <-s.ended:
		return machine.ExecExit{Code: 137, Signal: "SIGKILL"}, nil
	case <-s.lost:
		return machine.ExecExit{}, guest.ErrLost
	case <-ctx.Done():
		return machine.ExecExit{}, context.Cause(ctx)
	}
}

func (s *sleeper) Close() error {
	s.once.Do(func() { close(s.closed) })
	return nil
}

// startExec runs a program through the daemon's side.
func startExec(t *testing.T, d *runDir, program string) *Exec {
	t.Helper()
	m := &Machine{dir: d, record: record{PID: os.Getpid(), Secret: secret}}
	e, err := m.Exec(t.Context(), machine.ExecRequest{Argv: []string{program}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

// TestSignalPassesInput: a signal reaches a program that has read nothing of the input before it, and what was sent comes to it
// in order when it reads, with its end.
func TestSignalPassesInput(t *testing.T) {
	p, _, d := play(t)
	e := startExec(t, d, "sleep")
	sent := bytes.Repeat([]byte("0123456789abcde\n"), 1<<16)
	if _, err := e.Stdin().Write(sent[:stdinWindow]); err != nil {
		t.Fatal(err)
	}
	wrote := make(chan error, 1)
	go func() {
		_, err := e.Stdin().Write(sent[stdinWindow:])
		e.Stdin().Close()
		wrote <- err
	}()
	if err := e.Signal(t.Context(), "SIGCONT"); err != nil {
		t.Fatal(err)
	}
	within(t, "the input's end", p.sleeper.eof)
	if err := <-wrote; err != nil || !bytes.Equal(p.sleeper.input.Bytes(), sent) {
		t.Errorf("%v; %d bytes came of %d", err, p.sleeper.input.Len(), len(sent))
	}
	if err := e.Signal(t.Context(), "SIGKILL"); err != nil {
		t.Fatal(err)
	}
	if exit, err := e.Wait(t.Context()); err != nil || exit.Signal != "SIGKILL" {
		t.Errorf("%+v, %v", exit, err)
	}
}

// A guest that hangs is told of as one, however long it was waited for; and nobody waits who does not want to.
func TestExecInAGuestThatHangs(t *testing.T) {
	t.Parallel()
	_, _, d := play(t)
	m := &Machine{dir: d, record: record{PID: os.Getpid(), Secret: secret}}
	hang := machine.ExecRequest{Argv: []string{"hang"}}
	if _, err := m.Exec(t.Context(), hang); !errors.Is(err, api.InvalidState) || !strings.Contains(err.Error(), "agent") {
		t.Errorf("it is told as: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	begun := time.Now()
	if _, err := m.Exec(ctx, hang); !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) > handshakeTimeout/2 {
		t.Errorf("after %v: %v", time.Since(begun), err)
	}
}

// TestCloseEndsWhatDoesNotRead: a write that waits for a program ends with the exec, and the program with its client.
func TestCloseEndsWhatDoesNotRead(t *testing.T) {
	p, s, d := play(t)
	e := startExec(t, d, "sleep")
	if _, err := e.Stdin().Write(make([]byte, stdinWindow)); err != nil {
		t.Fatal(err)
	}
	wrote := make(chan error, 1)
	go func() {
		_, err := e.Stdin().Write(make([]byte, 20<<20))
		wrote <- err
	}()
	e.Close()
	if err := <-wrote; err == nil {
		t.Error("20 MiB went to a program that reads nothing")
	}
	within(t, "the program's end", p.sleeper.closed)
	s.close() // waits for everything that serves the exec
}

// TestExecOfALostMachine: that a machine ends under a program is no fault of ours.
func TestExecOfALostMachine(t *testing.T) {
	_, _, d := play(t)
	e := startExec(t, d, "sleep")
	if err := e.Signal(t.Context(), "SIGPWR"); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Wait(t.Context()); !errors.Is(err, api.InvalidState) {
		t.Errorf("%v, want it to be of the state", err)
	}
}

// TestOlderDaemon: one that speaks version 1 sends without credit and is not told of any.
func TestOlderDaemon(t *testing.T) {
	_, _, d := play(t)
	conn, err := d.connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Minute))
	hello := protocol.Hello{MinVersion: 1, MaxVersion: 1, Secret: secret, Role: protocol.RoleExec, Exec: &machine.ExecRequest{Argv: []string{"cat"}}}
	var w protocol.Welcome
	if err := protocol.WriteJSON(conn, protocol.KindHello, hello); err != nil {
		t.Fatal(err)
	}
	if err := protocol.Expect(conn, protocol.KindWelcome, &w); err != nil || w.Version != 1 {
		t.Fatalf("%+v, %v: want version 1", w, err)
	}
	sent := make([]byte, 2*stdinWindow)
	go protocol.Write(conn, protocol.KindStdin, sent)
	for got := 0; got < len(sent); {
		kind, b, err := protocol.Read(conn)
		if err != nil || kind != protocol.KindStdout {
			t.Fatalf("after %d bytes: kind %d, %v", got, kind, err)
		}
		got += len(b)
	}
}

func within(t *testing.T, what string, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatalf("not after a minute: %s", what)
	}
}
