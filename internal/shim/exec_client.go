package shim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/halevm/hale/internal/flow"
	"github.com/halevm/hale/internal/machine"
	"github.com/halevm/hale/internal/shim/protocol"
)

// Exec runs a program in the guest, over a connection of its own: a reader that stalls stalls only this program.
func (m *Machine) Exec(ctx context.Context, r machine.ExecRequest) (*Exec, error) {
	conn, w, err := m.dir.dial(ctx, m.record, protocol.Hello{Role: protocol.RoleExec, Exec: &r})
	if err != nil {
		return nil, err
	}
	e := &Exec{conn: conn, credit: flow.NewCredit(), done: make(chan struct{})}
	if w.Version < protocol.VersionCredit {
		e.credit = nil
	}
	e.stdoutR, e.stdoutW = io.Pipe()
	e.stderrR, e.stderrW = io.Pipe()
	go e.read()
	return e, nil
}

// An Exec is a program that runs in the guest, as instance.Exec describes it.
type Exec struct {
	conn    net.Conn
	writeMu sync.Mutex
	credit  *flow.Credit // how much of stdin the shim has room for; nil: an older shim does not say

	stdoutR, stderrR *io.PipeReader
	stdoutW, stderrW *io.PipeWriter

	done chan struct{} // closed when end and err are set
	end  machine.ExecExit
	err  error
}

// Stdin is the program's standard input; Close is its end.
func (e *Exec) Stdin() io.WriteCloser { return (*execStdin)(e) }

// Stdout is the program's output; with a TTY, all of it.
func (e *Exec) Stdout() io.Reader { return e.stdoutR }

// Stderr is the program's error output.
func (e *Exec) Stderr() io.Reader { return e.stderrR }

// Resize changes the terminal's size.
func (e *Exec) Resize(_ context.Context, rows, cols uint16) error {
	return e.sendControl(protocol.ExecControl{Rows: rows, Cols: cols})
}

// Signal sends a signal to the program, by name ("SIGTERM").
func (e *Exec) Signal(_ context.Context, name string) error {
	return e.sendControl(protocol.ExecControl{Signal: name})
}

// Wait returns when the program has ended and its output was read, or Close was called.
func (e *Exec) Wait(ctx context.Context) (machine.ExecExit, error) {
	select {
	case <-e.done:
		return e.end, e.err
	case <-ctx.Done():
		return machine.ExecExit{}, context.Cause(ctx)
	}
}

// Close ends the connection, upon which the shim kills the program if it still runs.
func (e *Exec) Close() error {
	err := e.conn.Close()
	e.stdoutR.Close()
	e.stderrR.Close()
	<-e.done
	return err
}

func (e *Exec) read() {
	defer close(e.done)
	e.end, e.err = e.readFrames()
	if e.credit != nil {
		e.credit.Close(io.ErrClosedPipe)
	}
	e.stdoutW.Close()
	e.stderrW.Close()
	e.conn.Close()
}

func (e *Exec) readFrames() (machine.ExecExit, error) {
	for {
		kind, payload, err := protocol.Read(e.conn)
		if err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
				err = errGone
			}
			return machine.ExecExit{}, fmt.Errorf("exec: %w", err)
		}
		switch kind {
		case protocol.KindStdout:
			e.stdoutW.Write(payload) // an error is a reader that has gone: the rest is dropped
		case protocol.KindStderr:
			e.stderrW.Write(payload)
		case protocol.KindExit:
			var end protocol.ExecEnd
			if err := json.Unmarshal(payload, &end); err != nil {
				return machine.ExecExit{}, protocol.FrameError(err.Error())
			}
			if end.Error != nil {
				return end.Exit, end.Error
			}
			return end.Exit, nil
		case protocol.KindCredit:
			var c protocol.ExecCredit
			if err := json.Unmarshal(payload, &c); err != nil || e.credit == nil {
				return machine.ExecExit{}, protocol.FrameError("credit that was not to come")
			}
			e.credit.Add(c.Bytes)
		default:
			return machine.ExecExit{}, protocol.FrameError(fmt.Sprintf("kind %d in an exec", kind))
		}
	}
}

func (e *Exec) sendControl(c protocol.ExecControl) error {
	e.writeMu.Lock()
	defer e.writeMu.Unlock()
	e.conn.SetWriteDeadline(time.Now().Add(requestTimeout))
	defer e.conn.SetWriteDeadline(time.Time{})
	return protocol.WriteJSON(e.conn, protocol.KindControl, c)
}

// execStdin is the way in: a write waits, as long as it takes, for a program that does not read.
type execStdin Exec

func (s *execStdin) Write(p []byte) (int, error) {
	for sent := 0; sent < len(p); {
		n := min(protocol.MaxChunk, len(p)-sent)
		if s.credit != nil {
			var err error
			if n, err = s.credit.Take(n); err != nil {
				return sent, err
			}
		}
		if err := s.frame(p[sent : sent+n]); err != nil {
			return sent, err
		}
		sent += n
	}
	return len(p), nil
}

func (s *execStdin) Close() error { return s.frame(nil) }

func (s *execStdin) frame(p []byte) error {
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	return protocol.Write(s.conn, protocol.KindStdin, p)
}
