package fake

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/instance"
	"github.com/halevm/hale/internal/machine"
)

// An execution is a command that runs in the guest: echo [-n], true, false, exit, cat, sleep, env, pwd, hostname, or one of these in sh -c,
// where >&2 at the end sends what it prints to stderr.
type execution struct {
	cancel context.CancelCauseFunc
	in     *io.PipeWriter
	out    *io.PipeReader
	err    *io.PipeReader
	done   chan struct{}
	exit   machine.ExecExit // set before done is closed
}

// The causes of an execution's early end.
var (
	errTimedOut = errors.New("timed out")
	errKilled   = errors.New("killed")
)

// A signalled command ends with the signal.
type signalled struct {
	name   string
	number int
}

func (s signalled) Error() string { return s.name }

var signals = map[string]int{"SIGHUP": 1, "SIGINT": 2, "SIGQUIT": 3, "SIGKILL": 9, "SIGUSR1": 10, "SIGUSR2": 12, "SIGTERM": 15}

// Exec runs a command in the guest.
func (m *Machine) Exec(ctx context.Context, r machine.ExecRequest) (instance.Exec, error) {
	if err := m.g.awake(); err != nil {
		return nil, err
	}
	if len(r.Argv) == 0 {
		return nil, fmt.Errorf("exec: nothing to run: %w", api.Invalid)
	}
	run, cancel := context.WithCancelCause(context.Background())
	x := &execution{cancel: cancel, done: make(chan struct{})}
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	errR, errW := io.Pipe()
	x.in, x.out, x.err = inW, outR, errR
	c := command{g: m.g, r: r, in: inR, out: outW, err: errW}
	if !r.Stdin {
		inW.Close()
	}
	if r.TTY {
		c.err = outW
	}
	var captured *tail
	if r.Capture > 0 {
		captured = &tail{max: min(r.Capture, 64<<10)}
		c.out, c.err = captured, captured
	}
	m.g.mu.Lock()
	if m.g.ended {
		m.g.mu.Unlock()
		cancel(nil)
		return nil, errNoAgent
	}
	m.g.wg.Go(func() {
		defer close(x.done)
		begun := time.Now()
		x.exit = c.supervise(run, cancel, func() { inR.Close(); outW.Close(); errW.Close() })
		x.exit.Duration = time.Since(begun)
		if captured != nil {
			x.exit.Output = captured.bytes()
		}
		cancel(nil)
	})
	m.g.mu.Unlock()
	return x, nil
}

// Stdin is the command's.
func (x *execution) Stdin() io.WriteCloser { return x.in }

// Stdout is the command's; with a TTY, everything.
func (x *execution) Stdout() io.Reader { return x.out }

// Stderr is the command's.
func (x *execution) Stderr() io.Reader { return x.err }

// Resize has nothing to do: no command here draws.
func (x *execution) Resize(ctx context.Context, rows, cols uint16) error { return x.alive() }

// Signal ends the command; none here has a handler.
func (x *execution) Signal(ctx context.Context, name string) error {
	if err := x.alive(); err != nil {
		return err
	}
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	n, ok := signals[name]
	if !ok {
		return fmt.Errorf("signal %q: %w", name, api.Invalid)
	}
	x.cancel(signalled{name, n})
	return nil
}

func (x *execution) alive() error {
	select {
	case <-x.done:
		return fmt.Errorf("the command has ended: %w", api.InvalidState)
	default:
		return nil
	}
}

// Wait returns when the command has ended and its output was read.
func (x *execution) Wait(ctx context.Context) (machine.ExecExit, error) {
	select {
	case <-x.done:
		return x.exit, nil
	case <-ctx.Done():
		return machine.ExecExit{}, context.Cause(ctx)
	}
}

// Close kills the command.
func (x *execution) Close() error {
	x.cancel(signalled{"SIGKILL", 9})
	x.in.Close()
	x.out.Close()
	x.err.Close()
	<-x.done
	return nil
}

// A command is what runs.
type command struct {
	g        *guest
	r        machine.ExecRequest
	in       *io.PipeReader
	out, err io.Writer
}

// supervise runs the command until it ends, is cancelled, times out, or loses its machine, and closes its streams.
func (c command) supervise(ctx context.Context, cancel context.CancelCauseFunc, hangUp func()) machine.ExecExit {
	if c.r.Timeout > 0 {
		t := time.AfterFunc(c.r.Timeout, func() { cancel(errTimedOut) })
		defer t.Stop()
	}
	ended := make(chan machine.ExecExit, 1)
	go func() {
		e := c.run(ctx, c.r.Argv)
		hangUp()
		ended <- e
	}()
	select {
	case e := <-ended:
		return e
	case <-ctx.Done():
	case <-c.g.kill:
		cancel(errKilled)
	}
	hangUp()
	e := <-ended
	var s signalled
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, errTimedOut):
		e = machine.ExecExit{Code: 124, TimedOut: true}
	case errors.As(cause, &s):
		e = machine.ExecExit{Code: 128 + s.number, Signal: s.name}
	case errors.Is(cause, errKilled):
		e = machine.ExecExit{Code: 137, Signal: "SIGKILL", Error: "the machine ended"}
	}
	return e
}

func code(n int) machine.ExecExit { return machine.ExecExit{Code: n} }

// run is the command itself; it ends when ctx does, or its streams are closed.
func (c command) run(ctx context.Context, argv []string) machine.ExecExit {
	name, args := program(argv)
	switch name {
	case "true":
		return code(0)
	case "false":
		return code(1)
	case "exit":
		n, err := strconv.ParseUint(first(args, "0"), 10, 8)
		if err != nil {
			fmt.Fprintf(c.err, "exit: %s: not a number\n", args[0])
			return code(2)
		}
		return code(int(n))
	case "echo":
		end := "\n"
		if first(args, "") == "-n" {
			end, args = "", args[1:]
		}
		io.WriteString(c.out, strings.Join(args, " ")+end)
		return code(0)
	case "cat":
		if _, err := io.Copy(c.out, c.in); err != nil {
			return code(1)
		}
		return code(0)
	case "sleep":
		d, err := seconds(first(args, ""))
		if err != nil {
			fmt.Fprintln(c.err, "sleep: want a number of seconds")
			return code(1)
		}
		select {
		case <-time.After(d):
		case <-ctx.Done():
		}
		return code(0)
	case "env":
		for _, kv := range append(slices.Clone(c.g.c.Process.Env), c.r.Env...) {
			fmt.Fprintln(c.out, kv)
		}
		return code(0)
	case "pwd":
		dir := c.r.Dir
		if dir == "" {
			dir = c.g.c.Process.Dir
		}
		if dir == "" {
			dir = "/"
		}
		fmt.Fprintln(c.out, dir)
		return code(0)
	case "hostname":
		fmt.Fprintln(c.out, c.g.c.Hostname)
		return code(0)
	case "sh":
		if len(args) == 2 && args[0] == "-c" {
			line, toErr := strings.CutSuffix(strings.TrimSpace(args[1]), ">&2")
			if toErr {
				c.out = c.err
			}
			if words := strings.Fields(line); len(words) > 0 {
				return c.run(ctx, words)
			}
			return code(0)
		}
	}
	return machine.ExecExit{Code: 127, Error: fmt.Sprintf("%s: no such file or directory", argv[0])}
}

// A tail keeps the last bytes that were written.
type tail struct {
	mu  sync.Mutex
	max int
	b   []byte
}

// Write takes everything.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if over := len(t.b) - t.max; over > 0 {
		t.b = append(t.b[:0], t.b[over:]...)
	}
	return len(p), nil
}

func (t *tail) bytes() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b
}
