package hale

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/halevm/hale/api"
)

// A played exec is the server's side of one, as a script.
type played struct {
	t   *testing.T
	ctx context.Context
	ws  *websocket.Conn
}

// play returns a client of a server whose execs go as script says.
func play(t *testing.T, script func(p played)) *Client {
	return serve(t, func(w http.ResponseWriter, r *http.Request) {
		ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{execProtocol}})
		if err != nil {
			t.Error(err)
			return
		}
		defer ws.CloseNow()
		ws.SetReadLimit(1 << 20)
		if r.Header.Get("Authorization") != "Bearer "+token {
			t.Errorf("the client does not say who it is: %v", r.Header)
		}
		script(played{t, r.Context(), ws})
	})
}

func (p played) read() (websocket.MessageType, []byte) {
	kind, b, err := p.ws.Read(p.ctx)
	if err != nil {
		p.t.Errorf("the server reads: %v", err)
	}
	return kind, b
}

func (p played) send(channel byte, s string) {
	if err := p.ws.Write(p.ctx, websocket.MessageBinary, append([]byte{channel}, s...)); err != nil {
		p.t.Errorf("the server sends: %v", err)
	}
}

func (p played) want(message string) {
	p.t.Helper()
	if _, got := p.read(); string(got) != message {
		p.t.Errorf("the client sent %q, want %q", got, message)
	}
}

func TestExec(t *testing.T) {
	c := play(t, func(p played) {
		kind, first := p.read()
		var r api.ExecRequest
		if err := json.Unmarshal(first, &r); err != nil || kind != websocket.MessageText || strings.Join(r.Command, " ") != "sh -c x" || r.Timeout != 5 || !r.TTY {
			t.Errorf("the first message is %q (%v), %v", first, kind, err)
		}
		p.want("\x00hello")
		p.want("\x03" + `{"cols":80,"rows":24,"type":"resize"}`)
		p.want("\x03" + `{"signal":"SIGINT","type":"signal"}`)
		p.want("\x03" + `{"type":"eof"}`)
		p.send(execStdout, "out ")
		p.send(execStderr, "err")
		p.send(execControl, `{"type":"something newer"}`)
		p.send(99, "something newer")
		p.ws.Write(p.ctx, websocket.MessageBinary, nil)
		p.send(execStdout, "more")
		p.send(execControl, `{"type":"exit","exitCode":130,"signal":"SIGINT"}`)
		p.ws.Close(websocket.StatusNormalClosure, "")
	})
	e, err := c.Exec(t.Context(), "web", api.ExecRequest{Command: []string{"sh", "-c", "x"}, Timeout: 5, TTY: true})
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.WriteString(e, "hello")
	if err = errors.Join(err, e.Resize(24, 80), e.Signal("SIGINT"), e.CloseWrite()); n != 5 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	var stdout, stderr bytes.Buffer
	exit, err := e.Copy(&stdout, &stderr)
	if err != nil || exit != (ExecExit{Code: 130, Signal: "SIGINT"}) || stdout.String() != "out more" || stderr.String() != "err" {
		t.Errorf("%+v, %v, stdout %q, stderr %q", exit, err, &stdout, &stderr)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
}

// TestExecLargeInput: input of any length arrives in order, in messages that the server takes.
func TestExecLargeInput(t *testing.T) {
	sent := bytes.Repeat([]byte("0123456789abcde\n"), 20<<10)
	c := play(t, func(p played) {
		p.read()
		var got []byte
		for len(got) < len(sent) {
			_, b := p.read()
			if len(b) == 0 || b[0] != execStdin || len(b) > 64<<10 {
				t.Errorf("a message of %d bytes", len(b))
				return
			}
			got = append(got, b[1:]...)
		}
		if !bytes.Equal(got, sent) {
			t.Error("the input arrived as something else")
		}
		p.send(execControl, `{"type":"exit","exitCode":0}`)
	})
	e, err := c.Exec(t.Context(), "web", api.ExecRequest{Command: []string{"cat"}})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if n, err := e.Write(sent); n != len(sent) || err != nil {
		t.Errorf("wrote %d, %v", n, err)
	}
	if exit, err := e.Copy(io.Discard, io.Discard); exit.Code != 0 || err != nil {
		t.Errorf("%+v, %v", exit, err)
	}
}

func TestExecEnds(t *testing.T) {
	for name, test := range map[string]struct {
		last string // the server's last control message; "": it goes away
		want ExecExit
		kind api.Kind // of the error
		away bool
	}{
		"timed out":         {last: `{"type":"exit","exitCode":124,"timedOut":true}`, want: ExecExit{Code: 124, TimedOut: true}},
		"no such program":   {last: `{"type":"exit","exitCode":127,"message":"no such file"}`, want: ExecExit{Code: 127, Message: "no such file"}},
		"error with a code": {last: `{"type":"error","code":"invalid_state","message":"m"}`, kind: api.InvalidState},
		"error without":     {last: `{"type":"error","message":"m"}`, kind: api.Internal},
		"no code":           {last: `{"type":"exit"}`},
		"no JSON":           {last: `exit 0`},
		"server goes away":  {away: true},
	} {
		t.Run(name, func(t *testing.T) {
			c := play(t, func(p played) {
				p.read()
				if test.last != "" {
					p.send(execControl, test.last)
				}
			})
			e, err := c.Exec(t.Context(), "web", api.ExecRequest{Command: []string{"x"}})
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close()
			exit, err := e.Copy(io.Discard, io.Discard)
			if exit != test.want || (err == nil) != (test.want != ExecExit{}) {
				t.Errorf("%+v, %v; want %+v", exit, err, test.want)
			}
			if test.kind != "" && !errors.Is(err, test.kind) {
				t.Errorf("%v, want an error of kind %s", err, test.kind)
			}
			if _, away := errors.AsType[*UnreachableError](err); away != test.away {
				t.Errorf("%v: is an UnreachableError: %v, want %v", err, away, test.away)
			}
		})
	}
}

func TestExecWriter(t *testing.T) {
	broken := errors.New("no space left")
	c := play(t, func(p played) {
		p.read()
		p.send(execStdout, "x")
		p.ws.Read(p.ctx) // until the client goes
	})
	e, err := c.Exec(t.Context(), "web", api.ExecRequest{Command: []string{"x"}})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if _, err := e.Copy(writerFunc(func([]byte) (int, error) { return 0, broken }), io.Discard); !errors.Is(err, broken) {
		t.Errorf("%v, want the writer's error", err)
	}
}

func TestExecEndsWithContext(t *testing.T) {
	gone := make(chan struct{})
	c := play(t, func(p played) {
		defer close(gone)
		p.read()
		p.send(execStdout, "x")
		p.ws.Read(p.ctx)
	})
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	e, err := c.Exec(ctx, "web", api.ExecRequest{Command: []string{"x"}})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	_, err = e.Copy(writerFunc(func(p []byte) (int, error) { cancel(cause); return len(p), nil }), io.Discard)
	if !errors.Is(err, cause) {
		t.Errorf("%v, want the context's cause", err)
	}
	if _, err := e.Write([]byte("x")); !errors.Is(err, cause) {
		t.Errorf("a write after it: %v, want the context's cause", err)
	}
	<-gone
}

// TestExecRefused: the server's words come through whole, though they are longer than a WebSocket library keeps.
func TestExecRefused(t *testing.T) {
	words := strings.Repeat("it is Stopped; ", 200)
	c := serve(t, answer(http.StatusConflict, `{"code":"invalid_state","message":"`+words+`"}`))
	_, err := c.Exec(t.Context(), "web", api.ExecRequest{Command: []string{"x"}})
	if e, ok := errors.AsType[*Error](err); !ok || !errors.Is(err, api.InvalidState) || e.Message != words {
		t.Errorf("%v, want the server's refusal", err)
	}
}

// TestExecOldServer: a server that speaks only the plain dialect is told from one that does not answer.
func TestExecOldServer(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		ws, err := websocket.Accept(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer ws.CloseNow()
		ws.Read(r.Context())
	})
	_, err := c.Exec(t.Context(), "web", api.ExecRequest{Command: []string{"x"}})
	if !errors.Is(err, api.Unsupported) {
		t.Errorf("%v, want an error of kind unsupported", err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
