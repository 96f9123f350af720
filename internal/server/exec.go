package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/instance"
	"github.com/halevm/hale/internal/machine"
)

// execProtocol is the subprotocol in which every frame has one leading byte. Without it the compatible client's plain
// dialect is spoken: binary both ways with merged output, and a text at the end.
const execProtocol = "hale.exec.v1"

// The leading bytes of execProtocol.
const (
	chanStdin   = 0
	chanStdout  = 1
	chanStderr  = 2
	chanControl = 3
)

// Bounds of an exec's conversation.
const (
	maxExecMessage = 64 << 10         // from the client; its first message may be as long as maxExecRequest
	maxExecRequest = 256 << 10        // argv and environment
	execStart      = 10 * time.Second // from the upgrade to the first message
	execWrite      = 10 * time.Minute // a client that takes no output for so long is gone; a person reads a page in that time
	stdinAhead     = 16               // messages of input that wait for a program that does not read
	execGoodbye    = time.Second      // from our closing the conversation to the client's
	maxAgentWait   = 5 * time.Minute
	execChunk      = 32 << 10
)

// machineRequest checks what a client asked for. Times are in seconds.
func machineRequest(q api.ExecRequest) (machine.ExecRequest, error) {
	var f faults
	if len(q.Command) == 0 || q.Command[0] == "" {
		f.invalid("command", "must not be empty")
	}
	if q.Timeout < 0 {
		f.invalid("timeout", "seconds, 0 or more")
	}
	if q.WaitForAgent < 0 {
		f.invalid("wait_for_agent", "seconds, 0 or more")
	}
	r := machine.ExecRequest{
		Argv: q.Command, TTY: q.TTY, Dir: q.Cwd, User: q.User, Rows: q.Rows, Cols: q.Cols,
		Timeout: seconds(q.Timeout), Stdin: true,
	}
	for k, v := range q.Env {
		r.Env = append(r.Env, k+"="+v)
	}
	slices.Sort(r.Env)
	return r, f.err()
}

func seconds(n int) time.Duration { return time.Duration(n) * time.Second }

// exec runs a program in the guest over a WebSocket.
func (s *Server) exec(w http.ResponseWriter, r *http.Request, id string) {
	in, err := s.config.Instances.Find(id)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	if in.State != instance.Running && in.State != instance.Initializing {
		s.fail(w, r, fmt.Errorf("instance %q is %s; a program runs in one that is Running: %w", in.Spec.Name, in.State, api.InvalidState))
		return
	}
	if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		s.fail(w, r, &api.Error{Kind: api.Invalid, Message: "this route is a WebSocket: ask for an upgrade, or use `hale exec`"})
		return
	}
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{
		Subprotocols:       []string{execProtocol},
		InsecureSkipVerify: true, // the token is what lets a client in; a browser's page has none to send
	})
	if err != nil {
		return // Accept has answered
	}
	c := &execConn{ws: ws, framed: ws.Subprotocol() == execProtocol}
	defer ws.CloseNow()
	s.converse(r.Context(), c, in.ID)
}

// converse reads the request, runs the program, carries its streams, and tells how it ended.
func (s *Server) converse(ctx context.Context, c *execConn, id string) {
	e, err := s.beginExec(ctx, c, id)
	if err != nil {
		s.finishExec(ctx, func() {}, c, machine.ExecExit{}, err)
		return
	}
	// To cancel a read closes the connection, so that comes after the last word.
	ctx, cancel := context.WithCancel(ctx)
	input := make(chan []byte, stdinAhead)
	var in, out sync.WaitGroup
	defer in.Wait()
	defer e.Close()
	defer cancel()
	in.Go(func() {
		defer cancel() // a client that has gone ends its program
		defer close(input)
		c.feed(ctx, e, input)
	})
	in.Go(func() { pour(e.Stdin(), input) })
	out.Go(func() { c.spill(ctx, cancel, chanStdout, e.Stdout()) })
	out.Go(func() { c.spill(ctx, cancel, chanStderr, e.Stderr()) })
	exit, err := e.Wait(ctx)
	if ctx.Err() != nil {
		e.Close() // the streams end with it
	}
	out.Wait()
	if ctx.Err() == nil {
		s.finishExec(ctx, cancel, c, exit, err)
	}
}

// beginExec reads what is to be run, and starts it.
func (s *Server) beginExec(ctx context.Context, c *execConn, id string) (instance.Exec, error) {
	first, err := c.request(ctx)
	if err != nil {
		return nil, err
	}
	request, err := machineRequest(first)
	if err != nil {
		return nil, err
	}
	return s.startExec(ctx, id, request, seconds(first.WaitForAgent))
}

// startExec waits for the agent as long as the client wants to.
func (s *Server) startExec(ctx context.Context, id string, r machine.ExecRequest, patience time.Duration) (instance.Exec, error) {
	deadline := time.Now().Add(min(patience, maxAgentWait))
	for {
		changed := s.config.Instances.Changed(id)
		in, err := s.config.Instances.Find(id)
		if err != nil {
			return nil, err
		}
		m, err := s.config.Instances.Machine(id)
		if err == nil {
			x, ok := m.(instance.Execer)
			if !ok {
				return nil, fmt.Errorf("this machine runs no further programs: %w", api.Unsupported)
			}
			var e instance.Exec
			if e, err = x.Exec(ctx, r); err == nil {
				return e, nil
			}
		}
		if !errors.Is(err, api.InvalidState) || in.State != instance.Initializing || !time.Now().Before(deadline) {
			return nil, err
		}
		timer := time.NewTimer(min(time.Until(deadline), time.Second))
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, context.Cause(ctx)
		}
		timer.Stop()
	}
}

// execConn is the client's end of an exec, in one of the two dialects.
type execConn struct {
	ws     *websocket.Conn
	framed bool
	mu     sync.Mutex // one message at a time
}

func (c *execConn) request(ctx context.Context) (api.ExecRequest, error) {
	var q api.ExecRequest
	c.ws.SetReadLimit(maxExecRequest)
	ctx, cancel := context.WithTimeout(ctx, execStart)
	defer cancel()
	_, b, err := c.ws.Read(ctx)
	if err != nil {
		return q, fmt.Errorf("the first message did not come: %v: %w", err, api.Invalid)
	}
	c.ws.SetReadLimit(maxExecMessage)
	if c.framed && len(b) > 0 && b[0] == chanControl {
		b = b[1:]
	}
	if err := json.Unmarshal(b, &q); err != nil {
		return q, fmt.Errorf("the first message is not an exec request: %v: %w", err, api.Invalid)
	}
	return q, nil
}

// feed carries what the client sends until it goes away. Input waits in a queue, so that a program that does not read
// delays neither a signal nor the news that its client has gone, before the queue is full.
func (c *execConn) feed(ctx context.Context, e instance.Exec, input chan<- []byte) {
	for {
		_, b, err := c.ws.Read(ctx)
		if err != nil {
			return
		}
		if c.framed && len(b) > 0 {
			if b[0] == chanControl {
				if !c.control(ctx, e, b[1:]) {
					continue
				}
				b = nil
			} else if b[0] != chanStdin {
				continue
			} else {
				b = b[1:]
			}
		}
		select {
		case input <- b:
		case <-ctx.Done():
			return
		}
	}
}

// pour writes what the client sent; nothing is the end. What a program does not read any more is lost, as in a closed pipe.
func pour(stdin io.WriteCloser, input <-chan []byte) {
	for b := range input {
		if len(b) == 0 {
			stdin.Close()
			continue
		}
		stdin.Write(b)
	}
}

// control does what the client says, and reports whether it said that its input is at its end.
func (c *execConn) control(ctx context.Context, e instance.Exec, b []byte) (eof bool) {
	var m api.ExecControl
	if json.Unmarshal(b, &m) != nil {
		return false
	}
	switch m.Type {
	case api.ExecControlTypeResize:
		if m.Rows > 0 && m.Cols > 0 {
			e.Resize(ctx, m.Rows, m.Cols)
		}
	case api.ExecControlTypeEOF:
		return true
	case api.ExecControlTypeSignal:
		e.Signal(ctx, m.Signal)
	}
	return false
}

// spill carries one of the program's streams to the client.
func (c *execConn) spill(ctx context.Context, gone func(), channel byte, r io.Reader) {
	buf := make([]byte, 1+execChunk)
	buf[0] = channel
	for {
		n, err := r.Read(buf[1:])
		if n > 0 {
			message := buf[1 : 1+n]
			if c.framed {
				message = buf[:1+n]
			}
			if c.write(ctx, websocket.MessageBinary, message) != nil {
				gone()
				io.Copy(io.Discard, r)
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (c *execConn) write(ctx context.Context, t websocket.MessageType, b []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, execWrite)
	defer cancel()
	return c.ws.Write(ctx, t, b)
}

// execFailed is the exit code of a program that could not be run at all, in the plain dialect.
const execFailed = 127

// finishExec tells the end and closes the connection in order; hangUp cuts it, by ending the read that is under way.
func (s *Server) finishExec(ctx context.Context, hangUp func(), c *execConn, exit machine.ExecExit, err error) {
	message, code := exit.Error, ""
	if err != nil {
		a, body := describe(err, infoOf(ctx).id)
		if a.status >= 500 {
			s.log.Error("exec failed", "request", infoOf(ctx).id, "err", err)
		}
		exit.Code, message, code = execFailed, body.Message, body.Code
	}
	switch {
	case c.framed:
		m := api.ExecControl{Type: api.ExecControlTypeExit, ExitCode: &exit.Code, Signal: exit.Signal, TimedOut: exit.TimedOut, Message: message}
		if err != nil {
			m.Type, m.Code = api.ExecControlTypeError, code
		}
		b, _ := json.Marshal(m) // cannot fail: strings and numbers
		c.write(ctx, websocket.MessageBinary, append([]byte{chanControl}, b...))
	default:
		if message != "" {
			c.write(ctx, websocket.MessageBinary, []byte(message+"\n"))
		}
		c.write(ctx, websocket.MessageText, fmt.Appendf(nil, `{"exitCode":%d}`, exit.Code))
	}
	// A client that says goodbye does so at once; one that never learnt it is not waited for.
	defer time.AfterFunc(execGoodbye, hangUp).Stop()
	c.ws.Close(websocket.StatusNormalClosure, "")
}
