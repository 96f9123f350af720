package guest

import (
	"context"
	"io"
	"sync"
	"time"

	"github.com/halevm/hale/internal/guest/mux"
	"github.com/halevm/hale/internal/guest/protocol"
	"github.com/halevm/hale/internal/machine"
)

// An Exec is a command that runs in the guest.
type Exec struct {
	session               *session
	id                    uint32
	capture               bool
	stdin, stdout, stderr *mux.Stream // nil with capture

	exitOnce sync.Once
	exited   chan struct{} // closed with exit and late set
	exit     machine.ExecExit
	late     bool        // the agent did not end it in its time
	overdue  *time.Timer // nil: it has no time

	closeOnce sync.Once
	closed    chan struct{}
}

// Exec starts a command in the guest; ctx bounds the start only. A command that could not be started is no error here:
// its exit says why. An Exec must be closed.
func (c *Conn) Exec(ctx context.Context, r machine.ExecRequest) (*Exec, error) {
	c.mu.Lock()
	s := c.session
	c.mu.Unlock()
	if s == nil {
		return nil, ErrNotConnected
	}
	e, err := s.newExec(r.Capture > 0)
	if err != nil {
		return nil, err
	}
	if err := s.request(ctx, protocol.OpExec, protocol.ExecStart{Exec: e.id, Request: r}, nil); err != nil {
		e.Close()
		return nil, err
	}
	if r.Timeout > 0 {
		e.overdue = time.AfterFunc(r.Timeout+lateExit, e.giveUp)
	}
	return e, nil
}

// lateExit is how much longer than its time a command's exit is waited for. The agent kills what takes longer, and waits up to 5 s for
// that; a guest that hangs does not.
const lateExit = 15 * time.Second

// giveUp ends the exec on this side, unless it has ended: then its output comes as fast as it is read.
func (e *Exec) giveUp() {
	select {
	case <-e.exited:
		return
	default:
	}
	e.end(machine.ExecExit{Code: 124, TimedOut: true, Error: "it had its time, and the guest agent has not ended it"}, true)
	for _, s := range []*mux.Stream{e.stdout, e.stderr} {
		if s != nil {
			s.Close(io.EOF)
		}
	}
}

// end takes how the command ended, once.
func (e *Exec) end(exit machine.ExecExit, late bool) {
	e.exitOnce.Do(func() {
		e.exit, e.late = exit, late
		if e.stdin != nil {
			e.stdin.Close(io.ErrClosedPipe)
		}
		close(e.exited)
	})
}

func (s *session) newExec(capture bool) (*Exec, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.execs) >= protocol.MaxExecs || s.lastExec >= protocol.MaxExecID {
		return nil, ErrTooMany
	}
	s.lastExec++
	e := &Exec{session: s, id: s.lastExec, capture: capture, exited: make(chan struct{}), closed: make(chan struct{})}
	if !capture {
		e.stdin = s.mux.Open(protocol.StreamID(e.id, protocol.Stdin))
		e.stdout = s.mux.Open(protocol.StreamID(e.id, protocol.Stdout))
		e.stderr = s.mux.Open(protocol.StreamID(e.id, protocol.Stderr))
	}
	s.execs[e.id] = e
	return e, nil
}

// execExited takes an exit, the first of each exec.
func (s *session) execExited(m protocol.ExecExited) {
	s.mu.Lock()
	e := s.execs[m.Exec]
	s.mu.Unlock()
	if e == nil {
		return
	}
	exit := m.Exit
	exit.Code = min(max(exit.Code, 0), 255)
	exit.Signal = clip(exit.Signal, 32)
	exit.Error = clip(exit.Error, 1024)
	exit.Output = exit.Output[max(0, len(exit.Output)-protocol.MaxCapture):]
	e.end(exit, false)
}

// Stdin is the command's input; Close is end of file. A write waits for a command that does not read, and fails once the
// command has ended.
func (e *Exec) Stdin() io.WriteCloser {
	if e.capture {
		return noInput{}
	}
	return input{e.stdin}
}

// Stdout is the command's output; with a terminal, everything.
func (e *Exec) Stdout() io.Reader { return e.output(e.stdout) }

// Stderr is the command's error output.
func (e *Exec) Stderr() io.Reader { return e.output(e.stderr) }

func (e *Exec) output(s *mux.Stream) io.Reader {
	if e.capture {
		return noOutput{}
	}
	return s
}

// Resize sets the size of the terminal.
func (e *Exec) Resize(ctx context.Context, rows, cols uint16) error {
	return e.session.request(ctx, protocol.OpResize, protocol.ExecResize{Exec: e.id, Rows: rows, Cols: cols}, nil)
}

// Signal sends a signal to the command's process group; SIGKILL kills its cgroup.
func (e *Exec) Signal(ctx context.Context, name string) error {
	return e.session.request(ctx, protocol.OpSignal, protocol.ExecSignal{Exec: e.id, Signal: name}, nil)
}

// Wait returns how the command ended, once it has and its output has arrived: up to [mux.Window] of each stream waits for
// its reader, so somebody must read what is more. It fails when the agent is lost, the Exec closed or ctx done.
func (e *Exec) Wait(ctx context.Context) (machine.ExecExit, error) {
	done := []<-chan struct{}{e.exited}
	if !e.capture {
		done = append(done, e.stdout.Ended(), e.stderr.Ended())
	}
	for _, d := range done {
		select {
		case <-d:
			continue
		default:
		}
		select {
		case <-d:
		case <-e.closed:
			return e.afterClose()
		case <-e.session.ctx.Done():
			return machine.ExecExit{}, context.Cause(e.session.ctx)
		case <-ctx.Done():
			return machine.ExecExit{}, context.Cause(ctx)
		}
	}
	return e.afterClose()
}

// afterClose returns the exit if it came, whatever became of the streams.
func (e *Exec) afterClose() (machine.ExecExit, error) {
	select {
	case <-e.exited:
		return e.exit, nil
	default:
		return machine.ExecExit{}, ErrClosed
	}
}

// Close kills the command if it still runs, and frees everything. It does not wait for the guest.
func (e *Exec) Close() error {
	e.closeOnce.Do(func() {
		close(e.closed)
		if e.overdue != nil {
			e.overdue.Stop()
		}
		s := e.session
		s.mu.Lock()
		delete(s.execs, e.id)
		s.mu.Unlock()
		for _, stream := range []*mux.Stream{e.stdin, e.stdout, e.stderr} {
			if stream != nil {
				stream.Close(ErrClosed)
			}
		}
		// The guest forgets a captured command by itself when it has ended.
		select {
		case <-e.exited:
			if e.capture && !e.late {
				return
			}
		default:
		}
		s.tell(protocol.OpClose, protocol.ExecClose{Exec: e.id})
	})
	return nil
}

// input is a stream that is only written to.
type input struct{ s *mux.Stream }

func (i input) Write(p []byte) (int, error) { return i.s.Write(p) }
func (i input) Close() error                { return i.s.CloseWrite() }

// noInput is the stdin of a command whose input is empty.
type noInput struct{}

func (noInput) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }
func (noInput) Close() error              { return nil }

// noOutput is a stream of a command that has none.
type noOutput struct{}

func (noOutput) Read([]byte) (int, error) { return 0, io.EOF }
