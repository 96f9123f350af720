package agent

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/halevm/hale/internal/guest/protocol"
)

const (
	// ackTimeout is how long the end waits for the host to take note of it.
	ackTimeout = 10 * time.Second
	// reopenPause is from the loss of a port, or a try to open it, to the next try.
	reopenPause = 250 * time.Millisecond
)

// A Machine is what the agent runs on.
type Machine interface {
	// Boot makes the machine what b says. After it, paths are those of the image.
	Boot(b protocol.Boot) error
	// SetClock sets the time of day.
	SetClock(t time.Time) error
	// PowerOff kills everything, brings what was written to the disks and ends the machine. In a guest it does not return.
	PowerOff()
}

// A Settler is a Machine with something left to do that its program need not wait for.
type Settler interface{ Settle() }

// A Config is what an Agent is made of. Open and Machine are required.
type Config struct {
	// Open opens a port by its name; it is called again when a port has failed.
	Open    func(name string) (io.ReadWriteCloser, error)
	Machine Machine
	Cgroups string       // where cgroup v2 is mounted once the machine is booted; "": process groups instead
	Init    bool         // this is PID 1: orphans are its to reap
	Build   string       // told to the host
	Log     *slog.Logger // nil: nothing is logged
}

// An Agent is the server.
type Agent struct {
	c        Config
	log      *slog.Logger
	ctx      context.Context
	cancel   context.CancelFunc
	wg       sync.WaitGroup
	control  *link
	bulk     *link
	children *children
	groups   *groups
	checking chan struct{} // capacity 1: held by the check that runs

	boots chan protocol.Boot // capacity 1
	stops chan time.Duration // capacity 1: the newest grace
	acks  chan struct{}      // capacity 1

	mu      sync.Mutex
	session *session // nil: none yet
	state   protocol.State
	changed chan struct{} // closed and replaced with each change of state
	image   image         // of the program, once booted
	program *process      // nil: not started
	dying   bool          // a panic is being reported
	checks  []*group      // of captured execs that were still there after they were killed
}

// New returns an agent that does nothing yet.
func New(c Config) *Agent {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	a := &Agent{
		c: c, log: c.Log,
		control: newLink(), bulk: newLink(),
		children: newChildren(c.Init), groups: newGroups(c.Log),
		boots: make(chan protocol.Boot, 1), stops: make(chan time.Duration, 1), acks: make(chan struct{}, 1),
		changed: make(chan struct{}), checking: make(chan struct{}, 1),
	}
	a.ctx, a.cancel = context.WithCancel(context.Background())
	return a
}

// Run serves until the machine has been powered off, or ctx is done: then everything that the agent started is killed.
func (a *Agent) Run(ctx context.Context) {
	stop := context.AfterFunc(ctx, a.cancel)
	defer stop()
	defer a.wg.Wait()
	defer a.cancel()
	if a.c.Init {
		a.start("reaper", func() { a.children.reapAll(a.ctx) })
	}
	a.start("control port", func() { a.serve(protocol.ControlPort, a.control, a.handle) })
	a.start("bulk port", func() { a.serve(protocol.BulkPort, a.bulk, a.deliver) })
	over := make(chan struct{})
	a.start("program", func() { defer close(over); a.live() })
	select {
	case <-over:
	case <-a.ctx.Done():
	}
	a.mu.Lock()
	s := a.session
	a.mu.Unlock()
	if s != nil {
		s.end()
	}
}

// start runs f on a goroutine that Run waits for, and ends the machine if it panics.
func (a *Agent) start(what string, f func()) {
	a.wg.Go(func() {
		defer a.guard(what)
		f()
	})
}

// guard is deferred by every goroutine.
func (a *Agent) guard(what string) {
	v := recover()
	if v == nil {
		return
	}
	a.log.Error("panic", "in", what, "value", v, "stack", string(debug.Stack()))
	a.mu.Lock()
	first := !a.dying
	a.dying = true
	ended := a.state.Ended()
	a.mu.Unlock()
	if !first {
		return
	}
	if !ended {
		a.setState(func(s *protocol.State) {
			s.Exited = &protocol.Exited{Code: 125, Message: fmt.Sprintf("the guest agent panicked (%s): %v", what, v)}
		})
	}
	a.awaitAck()
	a.c.Machine.PowerOff()
	a.cancel()
}

// Shutdown asks for the machine's orderly end. A later call may shorten the grace.
func (a *Agent) Shutdown(grace time.Duration) {
	select {
	case <-a.stops: // replaced by this one
	default:
	}
	select {
	case a.stops <- grace:
	default:
	}
}

// setState changes the state and tells the host.
func (a *Agent) setState(change func(*protocol.State)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	change(&a.state)
	close(a.changed)
	a.changed = make(chan struct{})
}

// awaitAck gives the host time to take note of the end.
func (a *Agent) awaitAck() {
	limit := time.NewTimer(ackTimeout)
	defer limit.Stop()
	select {
	case <-a.acks:
	case <-limit.C:
		a.log.Warn("nobody took note of the program's end")
	case <-a.ctx.Done():
	}
}
