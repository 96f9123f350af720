package server

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/flow"
	"github.com/halevm/hale/internal/instance"
	"github.com/halevm/hale/internal/machine"
)

// The subprotocols in which every frame has one leading byte; the second has credit for input. Without them the compatible
// client's plain dialect is spoken: binary both ways with merged output, and a text at the end.
const (
	execFramed = "hale.exec.v1"
	execCredit = "hale.exec.v2"
)

// The leading bytes of a frame.
const (
	chanStdin   = 0
	chanStdout  = 1
	chanStderr  = 2
	chanControl = 3
)

// Bounds of an exec's conversation.
const (
	maxExecMessage = 64 << 10         // from the client; its first message may be as long as maxExecFirst
	maxExecFirst   = 1 << 20          // read of a request, so that one that is too long is told what it may be
	execStart      = 10 * time.Second // from the upgrade to the first message
	execWrite      = 10 * time.Minute // a client that takes no output for so long is gone; a person reads a page in that time
	stdinWindow    = 1 << 20          // bytes of input that wait for a program that does not read
	stdinStuck     = 10 * time.Minute // without credit: as long may nothing be read of a full window, behind which the client may have gone
	controlsAhead  = 16               // control messages that wait for the program's start
	execGoodbye    = time.Second      // from our closing the conversation to the client's
	execFarewell   = 5 * time.Second  // for the last words to a client of an exec that we end
	maxAgentWait   = 5 * time.Minute
	execChunk      = 32 << 10
)

// machineRequest checks what a client asked for. Times are in seconds.
func machineRequest(q api.ExecRequest) (machine.ExecRequest, error) {
	var f faults
	if len(q.Command) == 0 || q.Command[0] == "" {
		f.invalid("command", "must not be empty")
	}
	f.seconds("timeout", q.Timeout)
	f.seconds("wait_for_agent", q.WaitForAgent)
	f.env(q.Env)
	r := machine.ExecRequest{
		Argv: q.Command, TTY: q.TTY, Dir: q.Cwd, User: q.User, Rows: q.Rows, Cols: q.Cols,
		Timeout: seconds(q.Timeout), Stdin: true,
	}
	for k, v := range q.Env {
		r.Env = append(r.Env, k+"="+v)
	}
	slices.Sort(r.Env)
	if b, err := json.Marshal(r); err != nil || len(b) > machine.MaxProcess {
		f.invalid("command", fmt.Sprintf("at most %d KiB as JSON, with env, user and cwd", machine.MaxProcess>>10))
	}
	return r, f.err()
}

// maxSeconds bounds what a client says in seconds: a year.
const maxSeconds = 365 * 24 * 60 * 60

func (f *faults) seconds(field string, n int) {
	if n < 0 || n > maxSeconds {
		f.invalid(field, fmt.Sprintf("seconds, 0 to %d", maxSeconds))
	}
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
	line := &lineTaker{header: http.Header{}, w: w}
	ws, err := websocket.Accept(line, r, &websocket.AcceptOptions{
		Subprotocols:       []string{execCredit, execFramed},
		InsecureSkipVerify: true, // the token is what lets a client in; a browser's page has none to send
	})
	if err != nil {
		if v := line.header.Get("Sec-WebSocket-Version"); v != "" { // the one there is (RFC 6455, 4.4)
			w.Header().Set("Sec-WebSocket-Version", v)
		}
		s.fail(w, r, &api.Error{Kind: api.Invalid, Message: strings.TrimPrefix(err.Error(), "failed to accept WebSocket connection: ")})
		return
	}
	c := newExecConn(ws, line.conn)
	defer ws.CloseNow()
	s.converse(r.Context(), c, in.ID)
}

// Why an exec ends before its program.
var (
	errExecLeft = errors.New("the client has gone")
	// Unlike what else a stopping daemon had begun, an exec does not go on.
	errExecStopping = &api.Error{Kind: api.Unavailable, Message: "the daemon is stopping, and the program ends with it"}
	errExecStuck    = &api.Error{Kind: api.Unavailable, Code: "input_stuck",
		Message: fmt.Sprintf("the program has taken nothing of its input for %v; a client of %s may wait longer", stdinStuck, execCredit)}
)

// converse reads the request, runs the program, carries its streams, and tells how it ended.
func (s *Server) converse(ctx context.Context, c *execConn, id string) {
	talk := context.WithoutCancel(ctx) // what ends the program leaves us the last word
	run, end := context.WithCancelCause(ctx)
	c.input = flow.NewQueue(stdinWindow, func(n int) { c.grant(run, n) })
	request, err := c.request(talk)
	var listening sync.WaitGroup
	defer listening.Wait()
	defer c.line.Close()
	defer end(errExecLeft)
	listening.Go(func() {
		err := c.listen(talk, run)
		c.input.Drop(err)
		end(err)
	})
	var exit machine.ExecExit
	if err == nil {
		exit, err = s.runExec(run, end, c, id, request)
	}
	if run.Err() == nil {
		s.finishExec(talk, c, exit, err)
		return
	}
	if err := context.Cause(run); !errors.Is(err, errExecLeft) {
		farewell, cancel := context.WithTimeout(talk, execFarewell)
		defer cancel()
		s.finishExec(farewell, c, exit, err)
	}
}

// runExec runs the program until it ends, or ctx does.
func (s *Server) runExec(ctx context.Context, end context.CancelCauseFunc, c *execConn, id string, q api.ExecRequest) (machine.ExecExit, error) {
	request, err := machineRequest(q)
	if err != nil {
		return machine.ExecExit{}, err
	}
	c.grant(ctx, stdinWindow)
	e, err := s.startExec(ctx, id, request, seconds(q.WaitForAgent))
	if err != nil {
		return machine.ExecExit{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var in, out sync.WaitGroup
	defer in.Wait()
	defer c.input.Drop(io.ErrClosedPipe)
	defer e.Close()
	defer cancel()
	in.Go(func() { c.steer(ctx, e) })
	in.Go(func() { pour(e.Stdin(), c.input) })
	gone := func() { end(errExecLeft) }
	out.Go(func() { c.spill(ctx, gone, chanStdout, e.Stdout()) })
	out.Go(func() { c.spill(ctx, gone, chanStderr, e.Stderr()) })
	exit, err := e.Wait(ctx)
	if ctx.Err() != nil {
		e.Close() // the streams end with it
	}
	out.Wait()
	return exit, err
}

// A lineTaker keeps the connection that a handler takes over, and answers nothing else: a refusal is ours to tell.
type lineTaker struct {
	header http.Header
	w      http.ResponseWriter
	conn   net.Conn
}

func (l *lineTaker) Header() http.Header { return l.header }

func (l *lineTaker) WriteHeader(status int) {
	if status == http.StatusSwitchingProtocols {
		maps.Copy(l.w.Header(), l.header)
		l.w.WriteHeader(status)
	}
}

func (l *lineTaker) Write(p []byte) (int, error) { return len(p), nil }

// Hijack is for who takes it over.
func (l *lineTaker) Hijack() (conn net.Conn, rw *bufio.ReadWriter, err error) {
	l.conn, rw, err = http.NewResponseController(l.w).Hijack()
	return l.conn, rw, err
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

// execConn is the client's end of an exec, in one of the dialects.
type execConn struct {
	ws       *websocket.Conn
	line     io.Closer // the connection below, to hang up
	framed   bool
	credit   bool
	input    *flow.Queue
	controls chan api.ExecControl
	mu       sync.Mutex // one message at a time
}

func newExecConn(ws *websocket.Conn, line io.Closer) *execConn {
	c := &execConn{ws: ws, line: line, credit: ws.Subprotocol() == execCredit, controls: make(chan api.ExecControl, controlsAhead)}
	c.framed = c.credit || ws.Subprotocol() == execFramed
	return c
}

func (c *execConn) request(ctx context.Context) (api.ExecRequest, error) {
	var q api.ExecRequest
	c.ws.SetReadLimit(maxExecFirst)
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

// listen takes in what the client sends, and returns why it does no more. Nothing that the program does or leaves undone stops
// it while the client keeps to its credit; one that knows none is waited for, up to a bound. To end a read is to close the
// connection, so that talk lasts longer than run.
func (c *execConn) listen(talk, run context.Context) error {
	for {
		_, b, err := c.ws.Read(talk)
		if err != nil {
			return errExecLeft
		}
		channel := byte(chanStdin)
		if c.framed && len(b) > 0 {
			channel, b = b[0], b[1:]
		}
		switch {
		case channel == chanControl:
			err = c.control(run, b)
		case channel != chanStdin:
		case len(b) == 0:
			c.input.End(io.EOF)
		default:
			err = c.input.Put(run, b, stdinStuck)
		}
		switch {
		case errors.Is(err, flow.ErrStuck):
			return errExecStuck
		case err != nil:
			return errExecLeft
		}
	}
}

// control takes in a control message. The end of the input comes behind the input; the rest goes past it.
func (c *execConn) control(ctx context.Context, b []byte) error {
	var m api.ExecControl
	if json.Unmarshal(b, &m) != nil {
		return nil
	}
	switch m.Type {
	case api.ExecControlTypeEOF:
		c.input.End(io.EOF)
	case api.ExecControlTypeResize, api.ExecControlTypeSignal:
		select {
		case c.controls <- m:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// steer passes resizes and signals on.
func (c *execConn) steer(ctx context.Context, e instance.Exec) {
	for {
		select {
		case m := <-c.controls:
			if m.Type == api.ExecControlTypeSignal {
				e.Signal(ctx, m.Signal)
			} else if m.Rows > 0 && m.Cols > 0 {
				e.Resize(ctx, m.Rows, m.Cols)
			}
		case <-ctx.Done():
			return
		}
	}
}

// grant tells a client that knows credit how much more it may send.
func (c *execConn) grant(ctx context.Context, n int) {
	if c.credit {
		c.tell(ctx, api.ExecControl{Type: api.ExecControlTypeCredit, Bytes: n}) // an error is a client that has gone
	}
}

func (c *execConn) tell(ctx context.Context, m api.ExecControl) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return c.write(ctx, websocket.MessageBinary, append([]byte{chanControl}, b...))
}

// pour passes the input on to the program, to its end. What a program does not read any more is lost, as in a closed pipe.
func pour(stdin io.WriteCloser, input io.Reader) {
	if _, err := io.Copy(stdin, input); err == nil {
		stdin.Close()
	}
	io.Copy(io.Discard, input)
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
	// A message that is cut in two ends the connection, and then nobody could say why: what ends the program leaves it a moment.
	whole, cancel := context.WithTimeout(context.WithoutCancel(ctx), execWrite)
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(execFarewell, cancel) })()
	return c.ws.Write(whole, t, b)
}

// execFailed is the exit code of a program that could not be run at all, in the plain dialect.
const execFailed = 127

// finishExec tells the end and closes the connection in order.
func (s *Server) finishExec(ctx context.Context, c *execConn, exit machine.ExecExit, err error) {
	message, code := exit.Error, ""
	if errors.Is(err, ErrStopping) {
		err = errExecStopping
	}
	if err != nil {
		a, body := describe(err, infoOf(ctx).id)
		if err != errExecStopping && (a.unsaid || a.status >= 500) {
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
		c.tell(ctx, m)
	default:
		if message != "" {
			c.write(ctx, websocket.MessageBinary, []byte(message+"\n"))
		}
		c.write(ctx, websocket.MessageText, fmt.Appendf(nil, `{"exitCode":%d}`, exit.Code))
	}
	// A client that says goodbye does so at once; one that never learnt it is not waited for.
	defer time.AfterFunc(execGoodbye, func() { c.line.Close() }).Stop()
	c.ws.Close(websocket.StatusNormalClosure, "")
}
