package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/creack/pty"

	"github.com/halevm/hale/internal/guest/mux"
	"github.com/halevm/hale/internal/guest/protocol"
	"github.com/halevm/hale/internal/machine"
)

// An execution is one exec, from its request until the host has all of its output or wants no more of it.
type execution struct {
	a      *Agent
	s      *session
	id     uint32
	asked  uint64 // the request that it answers
	r      machine.ExecRequest
	ctx    context.Context // done when the host wants no more of it
	cancel context.CancelCauseFunc

	stdin, stdout, stderr *mux.Stream // nil with Capture

	answer sync.Once
	killed chan struct{} // closed when the host has asked for SIGKILL

	mu       sync.Mutex
	process  *process         // nil: not started
	early    []syscall.Signal // asked for before it was started, at most maxEarly
	group    *group
	terminal *os.File // the agent's end; nil: none, or closed
	rows     uint16   // as asked for last
	cols     uint16
}

var errHostClosed = errors.New("the host closed the exec")

// exec accepts a command. From then on a frame of its streams, a signal or its close finds it. The request is answered when the command
// runs, or does not.
func (a *Agent) exec(s *session, asked uint64, m protocol.ExecStart) error {
	a.mu.Lock()
	im, booted := a.image, a.state.Booted && a.image.passwd != ""
	a.mu.Unlock()
	if !booted {
		return errors.New("the machine is not booted yet")
	}
	m.Request.Capture = min(m.Request.Capture, protocol.MaxCapture)
	e := &execution{a: a, s: s, id: m.Exec, asked: asked, r: m.Request, killed: make(chan struct{}), rows: m.Request.Rows, cols: m.Request.Cols}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.execs) >= protocol.MaxExecs {
		return fmt.Errorf("%d commands run already", len(s.execs))
	}
	if s.execs[m.Exec] != nil || m.Exec > protocol.MaxExecID {
		return fmt.Errorf("exec %d cannot be its number", m.Exec)
	}
	e.ctx, e.cancel = context.WithCancelCause(s.ctx)
	if m.Request.Capture <= 0 {
		e.stdin = s.mux.Open(protocol.StreamID(e.id, protocol.Stdin))
		e.stdout = s.mux.Open(protocol.StreamID(e.id, protocol.Stdout))
		e.stderr = s.mux.Open(protocol.StreamID(e.id, protocol.Stderr))
	}
	s.execs[m.Exec] = e
	a.start("exec", func() { e.run(im) })
	return nil
}

// close is the host's word that it wants no more of an exec.
func (s *session) close(id uint32) {
	s.mu.Lock()
	e := s.execs[id]
	s.mu.Unlock()
	if e == nil {
		return
	}
	e.cancel(errHostClosed)
	for _, stream := range e.streams() {
		stream.Close(errHostClosed)
	}
}

func (e *execution) streams() []*mux.Stream {
	if e.stdin == nil {
		return nil
	}
	return []*mux.Stream{e.stdin, e.stdout, e.stderr}
}

// run lives the exec's life.
func (e *execution) run(im image) {
	defer func() {
		e.cancel(nil)
		for _, stream := range e.streams() {
			stream.Close(errHostClosed)
		}
		e.s.mu.Lock()
		delete(e.s.execs, e.id)
		e.s.mu.Unlock()
	}()
	exit, flushed := e.perform(im)
	e.accepted() // where it could not be started, its exit says why
	e.a.send(e.s, protocol.TypeExecExited, protocol.ExecExited{Exec: e.id, Exit: exit})
	flushed.Wait()
	if e.stdin == nil {
		return
	}
	// Those that no copier has ended. The streams stay until the host is through with them.
	e.stdout.CloseWrite()
	e.stderr.CloseWrite()
	<-e.ctx.Done()
}

// accepted answers the request.
func (e *execution) accepted() {
	e.answer.Do(func() { e.a.send(e.s, protocol.TypeReply, protocol.Reply{ID: e.asked}) })
}

// perform runs the command until everything that it started is gone. What copies its output to the streams goes on, at
// the host's pace, until flushed.
func (e *execution) perform(im image) (exit machine.ExecExit, flushed *sync.WaitGroup) {
	flushed = new(sync.WaitGroup)
	failed := func(f *startError) (machine.ExecExit, *sync.WaitGroup) {
		return machine.ExecExit{Code: f.code, Error: f.Error()}, flushed
	}
	if e.r.Capture > 0 {
		if !e.a.enter(e.ctx) {
			x, f := failed(cannotRun(errors.New("what an earlier check started is still there after it was killed, so no other is begun")))
			x.Lingering = true
			return x, f
		}
		defer e.a.leave()
	}
	cmd, fault := im.command(e.r)
	if fault != nil {
		return failed(fault)
	}
	wires, err := e.wire(cmd)
	if err != nil {
		return failed(cannotRun(err))
	}
	defer wires.closeOurs()
	group := e.a.groups.open("exec-" + strconv.FormatUint(e.s.id, 36) + "-" + strconv.FormatUint(uint64(e.id), 10))
	sys := group.attr(cmd.id.credential())
	if e.r.TTY {
		sys.Setctty = true // the terminal is the child's descriptor 0
	}
	began := time.Now()
	p, err := e.a.children.start(cmd.path, cmd.argv, cmd.dir, cmd.env, wires.child, sys)
	wires.closeTheirs()
	group.led(p)
	if err != nil {
		group.end()
		return failed(cmd.failedStart(err))
	}
	e.started(p, group, wires.terminal)
	e.accepted()
	wires.copy(e, flushed)

	exit.TimedOut = e.await(p, group)
	exit.Duration = time.Since(began)
	if !group.end() {
		exit.Lingering = true
		e.a.leftBehind(e, group)
	}
	exit.Code, exit.Signal = 128+9, "SIGKILL"
	select {
	case <-p.done:
		exit.Code, exit.Signal = p.code()
	default: // it cannot be killed: it hangs in the kernel
	}
	if exit.TimedOut {
		exit.Code = codeTimedOut
	}
	wires.endOutput()
	if wires.tail != nil {
		flushed.Wait()
		exit.Output = wires.tail.bytes()
	}
	return exit, flushed
}

// await waits for the command's end, and kills it when its time is over or the host wants no more of it. It reports
// whether its time was over.
func (e *execution) await(p *process, g *group) (timedOut bool) {
	var limit <-chan time.Time
	if e.r.Timeout > 0 {
		t := time.NewTimer(e.r.Timeout)
		defer t.Stop()
		limit = t.C
	}
	select {
	case <-p.done:
		return false
	case <-limit:
		timedOut = true
	case <-e.killed:
	case <-e.ctx.Done():
	}
	g.kill()
	patience := time.NewTimer(killPatience)
	defer patience.Stop()
	select {
	case <-p.done:
	case <-patience.C:
	}
	return timedOut
}

func (e *execution) started(p *process, g *group, terminal *os.File) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.process, e.group, e.terminal = p, g, terminal
	e.size(terminal)
	for _, sig := range e.early {
		if err := e.deliver(sig); err != nil {
			e.a.log.Debug("deliver an early signal", "signal", sig, "err", err)
		}
	}
	e.early = nil
}

// size gives a terminal, if there is one, the size that was asked for last. e.mu is held.
func (e *execution) size(terminal *os.File) {
	if terminal != nil && e.rows > 0 && e.cols > 0 {
		pty.Setsize(terminal, &pty.Winsize{Rows: e.rows, Cols: e.cols})
	}
}

// resize sets the terminal's size, or what it will be.
func (e *execution) resize(m protocol.ExecResize) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.r.TTY {
		return errors.New("the command has no terminal")
	}
	if m.Rows == 0 || m.Cols == 0 {
		return errors.New("a terminal has at least one row and one column")
	}
	e.rows, e.cols = m.Rows, m.Cols
	if e.terminal == nil {
		return nil
	}
	return pty.Setsize(e.terminal, &pty.Winsize{Rows: m.Rows, Cols: m.Cols})
}

// signal sends a signal as a terminal would, to the process group; SIGKILL is for everything.
func (e *execution) signal(m protocol.ExecSignal) error {
	sig, err := parseSignal(m.Signal)
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if signalName(sig) == "SIGKILL" {
		select {
		case <-e.killed:
		default:
			close(e.killed)
		}
	}
	if e.process == nil {
		if len(e.early) >= maxEarly {
			return errors.New("the command has not been started")
		}
		e.early = append(e.early, sig) // it is on its way: it gets the signal as soon as it is there
		return nil
	}
	return e.deliver(sig)
}

const maxEarly = 8

// deliver sends a signal to a command that has been started. e.mu is held.
func (e *execution) deliver(sig syscall.Signal) error {
	if signalName(sig) == "SIGKILL" {
		e.group.kill()
		return nil
	}
	return e.process.signal(sig, true)
}

// enterPatience is how long a check waits for the one before it, which was killed a moment ago.
const enterPatience = time.Second

// enter lets one check at a time begin: not before everything of the one before is gone. It reports whether it may.
func (a *Agent) enter(ctx context.Context) bool {
	patience := time.NewTimer(enterPatience)
	defer patience.Stop()
	select {
	case a.checking <- struct{}{}:
	case <-patience.C:
		return false
	case <-ctx.Done():
		return false
	}
	if a.lingering() {
		a.leave()
		return false
	}
	return true
}

func (a *Agent) leave() { <-a.checking }

// leftBehind remembers a group that could not be killed. While that of a check is there, no next check is begun.
func (a *Agent) leftBehind(e *execution, g *group) {
	a.log.Warn("something is still there after it was killed", "command", e.r.Argv[0])
	a.mu.Lock()
	defer a.mu.Unlock()
	if e.r.Capture > 0 {
		a.checks = append(a.checks, g)
	}
}

func (a *Agent) lingering() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for len(a.checks) > 0 && a.checks[0].empty() {
		a.checks[0].remove()
		a.checks = a.checks[1:]
	}
	return len(a.checks) > 0
}

// feed copies the host's input to the command. What the command does not take is dropped, so that the host never waits
// for a command that has closed its input.
func feed(w io.WriteCloser, from *mux.Stream, end func()) {
	io.Copy(w, from)
	end()
	io.Copy(io.Discard, from)
}
