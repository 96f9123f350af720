package hale

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"

	"github.com/coder/websocket"

	"github.com/halevm/hale/api"
)

// The subprotocols in which the first byte of each message says what the rest is. In the second, which is preferred, input has
// credit.
const (
	execProtocol = "hale.exec.v1"
	execCredit   = "hale.exec.v2"
)

// The first bytes of execProtocol.
const (
	execStdin   = 0
	execStdout  = 1
	execStderr  = 2
	execControl = 3
)

// Bounds of a message, in bytes: what the server takes, and what a client takes.
const (
	maxExecWrite = 32 << 10
	maxExecRead  = 4 << 20
	// maxExecRequest is what a server reads of a request, to say how long one may be.
	maxExecRequest = 1 << 20
)

var errRequestTooLong = &Error{Kind: api.TooLarge, Code: "too_large", Message: "the command and its environment are longer than the server takes"}

// An Exec is a program that runs in the guest. Copy has one caller; the others may be called from any goroutine, at the
// same time too, until Close. Write waits for a program that does not read, once a megabyte or so is on its way; a signal
// does not.
type Exec struct {
	c        *Client
	ctx      context.Context
	ws       *websocket.Conn
	stdin    sync.Mutex // pieces of one Write stay together
	credit   *credit
	arrivals *arrivals
	received chan struct{} // closed when nothing is received any more
	stop     func() bool   // what closes it when ctx ends
}

// An ExecExit is how a program ended.
type ExecExit struct {
	Code     int    // 128+n for signal n, 124 where it took too long, 126 or 127 where it could not be run
	Signal   string // that ended it; "" where none did
	TimedOut bool
	Message  string // why it could not be run
}

// Exec runs a program in an instance, beside the image's own. It ends when ctx does, and when it is closed. An
// instance in which no program can run is an error of kind api.InvalidState, here or from Copy.
func (c *Client) Exec(ctx context.Context, ref string, r api.ExecRequest) (*Exec, error) {
	req, err := c.execInstance(ctx, ref)
	if err != nil {
		return nil, err
	}
	first, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode the request: %w", err)
	}
	if len(first) > maxExecRequest {
		return nil, errRequestTooLong
	}
	refusal := &refusal{next: c.http.Transport}
	ws, _, err := websocket.Dial(ctx, req.URL.String(), &websocket.DialOptions{
		HTTPClient:   &http.Client{Transport: refusal, CheckRedirect: c.http.CheckRedirect},
		HTTPHeader:   req.Header,
		Subprotocols: []string{execCredit, execProtocol},
	})
	if err != nil {
		if refusal.err != nil {
			return nil, refusal.err
		}
		return nil, c.transportError(ctx, err)
	}
	ws.SetReadLimit(maxExecRead)
	e := &Exec{
		c: c, ctx: ctx, ws: ws, credit: newCredit(ws.Subprotocol() == execProtocol), arrivals: newArrivals(), received: make(chan struct{}),
	}
	if ws.Subprotocol() == "" {
		ws.Close(websocket.StatusPolicyViolation, "want "+execProtocol)
		return nil, fmt.Errorf("the server at %s does not speak %s: %w", c.URL(), execProtocol, api.Unsupported)
	}
	if err := e.send(websocket.MessageText, first); err != nil {
		ws.CloseNow()
		return nil, err
	}
	e.stop = context.AfterFunc(ctx, func() { ws.CloseNow() })
	go e.receive()
	return e, nil
}

// receive takes in what the server sends, ahead of Copy, until the connection ends.
func (e *Exec) receive() {
	defer close(e.received)
	for {
		_, b, err := e.ws.Read(e.ctx)
		if err != nil {
			err = e.broke(err)
			e.credit.close(err)
			e.arrivals.end(err)
			return
		}
		if len(b) == 0 {
			continue
		}
		if b[0] == execControl {
			var m api.ExecControl
			json.Unmarshal(b[1:], &m) // what is none is for Copy to say
			switch m.Type {
			case api.ExecControlTypeCredit:
				e.credit.add(m.Bytes)
				continue
			case api.ExecControlTypeExit, api.ExecControlTypeError:
				e.credit.close(io.ErrClosedPipe)
			}
		}
		if !e.arrivals.put(b) {
			return
		}
	}
}

// broke says why a connection ended before the program did.
func (e *Exec) broke(err error) error {
	if websocket.CloseStatus(err) == websocket.StatusMessageTooBig {
		return errRequestTooLong // a server that takes less than this client sends
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF // and which part of a frame was awaited is no matter
	}
	return e.c.transportError(e.ctx, fmt.Errorf("the connection broke before the program ended: %w", err))
}

// Write sends input to the program.
func (e *Exec) Write(p []byte) (int, error) {
	e.stdin.Lock()
	defer e.stdin.Unlock()
	var sent int
	for sent < len(p) {
		n, err := e.credit.take(min(len(p)-sent, maxExecWrite))
		if err != nil {
			if cause := context.Cause(e.ctx); cause != nil {
				err = cause
			}
			return sent, err
		}
		message := append(make([]byte, 0, 1+n), execStdin)
		if err := e.send(websocket.MessageBinary, append(message, p[sent:sent+n]...)); err != nil {
			return sent, err
		}
		sent += n
	}
	return sent, nil
}

// CloseWrite tells the program that its input is at its end.
func (e *Exec) CloseWrite() error {
	e.stdin.Lock() // behind what is being written
	defer e.stdin.Unlock()
	return e.control(api.ExecControl{Type: api.ExecControlTypeEOF})
}

// Resize tells the program's terminal its size.
func (e *Exec) Resize(rows, cols uint16) error {
	return e.control(api.ExecControl{Type: api.ExecControlTypeResize, Rows: rows, Cols: cols})
}

// Signal sends a signal to the program, by its name: "SIGINT".
func (e *Exec) Signal(name string) error {
	return e.control(api.ExecControl{Type: api.ExecControlTypeSignal, Signal: name})
}

func (e *Exec) control(m api.ExecControl) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return e.send(websocket.MessageBinary, append([]byte{execControl}, b...))
}

func (e *Exec) send(t websocket.MessageType, b []byte) error {
	if e.ctx.Err() != nil { // the connection learns of it a little later
		return context.Cause(e.ctx)
	}
	if err := e.ws.Write(e.ctx, t, b); err != nil {
		return e.c.transportError(e.ctx, err)
	}
	return nil
}

// Copy writes the program's output to stdout and stderr until it ends; with a terminal all of it goes to stdout. An error of a
// writer is returned as it is. A program that could not be run has an exit too.
func (e *Exec) Copy(stdout, stderr io.Writer) (ExecExit, error) {
	for {
		b, err := e.arrivals.next()
		if err != nil {
			return ExecExit{}, err
		}
		switch b[0] {
		case execStdout:
			_, err = stdout.Write(b[1:])
		case execStderr:
			_, err = stderr.Write(b[1:])
		case execControl:
			exit, over, err := ended(b[1:])
			if over || err != nil {
				return exit, err
			}
		}
		if err != nil {
			return ExecExit{}, err
		}
	}
}

// ended reads a control message: how the program ended, or that it did not yet.
func ended(b []byte) (exit ExecExit, over bool, err error) {
	var m api.ExecControl
	if err := json.NewDecoder(bytes.NewReader(b)).Decode(&m); err != nil {
		return ExecExit{}, false, fmt.Errorf("a control message that is not what the API says: %w", err)
	}
	switch m.Type {
	case api.ExecControlTypeExit:
		if m.ExitCode == nil {
			return ExecExit{}, false, errors.New("the server tells an exit without its code")
		}
		return ExecExit{Code: *m.ExitCode, Signal: m.Signal, TimedOut: m.TimedOut, Message: m.Message}, true, nil
	case api.ExecControlTypeError:
		e := &Error{Code: m.Code, Message: m.Message}
		e.Kind = kindOfCode(m.Code)
		return ExecExit{}, false, e
	}
	return ExecExit{}, false, nil // a newer server's
}

// Close ends the connection, and the program with it if it still runs.
func (e *Exec) Close() error {
	e.stop()
	e.credit.close(io.ErrClosedPipe)
	e.arrivals.end(io.ErrClosedPipe)
	defer func() { <-e.received }()
	if err := e.ws.Close(websocket.StatusNormalClosure, ""); err != nil {
		e.ws.CloseNow()
	}
	return nil
}

// A refusal is a transport that reads what a server answered instead of opening a WebSocket.
type refusal struct {
	next http.RoundTripper
	err  *Error
}

func (r *refusal) RoundTrip(req *http.Request) (*http.Response, error) {
	next := r.next
	if next == nil {
		next = http.DefaultTransport
	}
	resp, err := next.RoundTrip(req)
	if err == nil && resp.StatusCode != http.StatusSwitchingProtocols {
		r.err = errorOf(resp)
	}
	return resp, err
}
