package fake

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/halevm/hale/internal/logfile"
	"github.com/halevm/hale/internal/machine"
)

type phase int

const (
	booting phase = iota
	ready         // the agent said HELLO
	started       // the program runs
	dead
)

// A guest is a machine that runs.
type guest struct {
	d         *Driver
	c         machine.Config
	born      time.Time
	root      *os.Root
	app, vmm  *logfile.Writer
	listeners []net.Listener
	ports     []machine.Port
	files     files
	wg        sync.WaitGroup // what live began: it waits for that before its last word

	kill chan struct{}      // closed by end
	stop chan time.Duration // a grace period, once

	mu       sync.Mutex
	state    phase
	changed  chan struct{}    // closed and replaced when state changes
	said     []machine.Notice // all of them
	handles  []*Machine
	exit     machine.Exit // set before kill is closed
	ended    bool
	site     *site // of serve
	conns    map[net.Conn]struct{}
	rx, tx   int64
	told     int // by Say
	watches  []uint16
	stopping bool
}

// live is the machine's life, from its boot to its last notice. Whoever holds the machine waits for that one.
func (g *guest) live() {
	ctx, cancel := context.WithCancel(context.Background())
	e := g.boot(ctx)
	cancel()
	g.bury(e)
}

// boot returns how the machine ended.
func (g *guest) boot(ctx context.Context) machine.Exit {
	g.console("booting")
	if e, over := g.pause(g.d.o.Boot); over {
		return e
	}
	name, args := program(g.c.Process.Argv)
	if name == "panic" {
		const line = "Kernel panic - not syncing: attempted to run the program panic"
		g.console(line)
		return machine.Exit{Reason: machine.GuestPanic, Message: line, Console: "booting\n" + line, Silent: true}
	}
	g.say(machine.Notice{Kind: machine.AgentReady}, ready)
	g.console("agent ready")
	run, err := g.find(name, args)
	if err != nil {
		code := 127
		return machine.Exit{Reason: machine.ProgramFailed, Code: &code, Message: err.Error()}
	}
	for _, l := range g.listeners {
		g.wg.Go(func() { g.publish(ctx, l) })
	}
	g.say(machine.Notice{Kind: machine.Started}, started)
	return run(ctx)
}

// pause lets time pass; it reports whether the machine's end came first.
func (g *guest) pause(d time.Duration) (machine.Exit, bool) {
	select {
	case <-time.After(d):
		return machine.Exit{}, false
	case <-g.kill:
		return g.exit, true
	}
}

// find returns what the program does, or that there is no such program.
func (g *guest) find(name string, args []string) (func(context.Context) machine.Exit, error) {
	switch name {
	case "exit":
		if code, err := strconv.ParseUint(first(args, "0"), 10, 8); err == nil {
			return func(context.Context) machine.Exit { return exited(int(code)) }, nil
		}
	case "crash":
		return func(context.Context) machine.Exit {
			return machine.Exit{Reason: machine.VMMKilled, Message: "the hypervisor was killed by SIGKILL"}
		}, nil
	case "sleep":
		d, err := seconds(first(args, "infinity"))
		if err == nil {
			return func(context.Context) machine.Exit { return g.run(d, 143, true) }, nil
		}
	case "hang":
		return func(context.Context) machine.Exit { return g.run(forever, 137, false) }, nil
	case "stuck":
		return func(context.Context) machine.Exit { <-g.kill; return g.exit }, nil
	case "serve":
		s, err := newSite(args, g.print)
		if err == nil {
			g.mu.Lock()
			g.site = s // it listens from its start on: whoever was told of that may ask
			g.mu.Unlock()
			return func(ctx context.Context) machine.Exit {
				g.wg.Go(func() { s.serve(ctx) })
				g.print("serving")
				return g.run(forever, 0, true)
			}, nil
		}
	}
	return nil, fmt.Errorf("%s: no such program, or not with these arguments", g.c.Process.Argv[0])
}

const forever time.Duration = 1<<63 - 1

func seconds(s string) (time.Duration, error) {
	if s == "infinity" {
		return forever, nil
	}
	n, err := strconv.ParseFloat(s, 64)
	return time.Duration(n * float64(time.Second)), err
}

func first(args []string, otherwise string) string {
	if len(args) > 0 {
		return args[0]
	}
	return otherwise
}

func exited(code int) machine.Exit {
	return machine.Exit{Reason: machine.ProgramExited, Code: &code, Message: fmt.Sprintf("the program exited with code %d", code)}
}

// run is a program that runs for d. Asked to stop it ends with code, at once when it is polite, else when the guest
// kills it at the end of the grace period.
func (g *guest) run(d time.Duration, code int, polite bool) machine.Exit {
	over := time.NewTimer(d)
	defer over.Stop()
	select {
	case <-g.kill:
		return g.exit
	case <-over.C:
		return exited(0)
	case grace := <-g.stop:
		if !polite {
			if e, over := g.pause(grace); over {
				return e
			}
		}
	}
	return machine.Exit{Reason: machine.Stopped, Code: &code, Message: fmt.Sprintf("stopped, the program exited with code %d", code)}
}

// end makes the machine end with e, unless it ends already.
func (g *guest) end(e machine.Exit) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ended {
		return false
	}
	g.ended, g.exit = true, e
	close(g.kill)
	return true
}

// say tells a notice to all who hold the machine.
func (g *guest) say(n machine.Notice, to phase) {
	n.Time = time.Now()
	if n.Kind == machine.Exited {
		n.Exit.Time = n.Time
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.said = append(g.said, n)
	for _, m := range g.handles {
		m.tell(n)
	}
	g.state = to
	close(g.changed)
	g.changed = make(chan struct{})
}

// bury ends what the machine has on the host, and says the last word.
func (g *guest) bury(e machine.Exit) {
	g.end(e)
	for _, l := range g.listeners {
		l.Close()
	}
	g.mu.Lock()
	for c := range g.conns {
		c.Close()
	}
	g.mu.Unlock()
	g.wg.Wait()
	g.console("ended: " + e.Message)
	g.close()
	g.d.mu.Lock()
	delete(g.d.on, g.c.ID)
	g.d.mu.Unlock()
	g.say(machine.Notice{Kind: machine.Exited, Exit: e}, dead)
}

func (g *guest) close() {
	for _, l := range g.listeners {
		l.Close()
	}
	if g.app != nil {
		g.app.Close()
	}
	if g.vmm != nil {
		g.vmm.Close()
	}
	if g.root != nil {
		g.root.Close()
	}
}

// print is a line of the program's output.
func (g *guest) print(line string) { _, _ = g.app.Write([]byte(line + "\n")) }

func (g *guest) console(line string) { _, _ = g.vmm.Write([]byte(line + "\n")) }

// now returns the phase, and a channel that is closed when it changes.
func (g *guest) now() (phase, <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.state, g.changed
}
