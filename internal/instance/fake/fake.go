// Package fake is a driver whose machines live in this process: no QEMU, no kernel, no time to speak of. It is
// for tests of what stands above a driver, and passes the same conformance test as the real one (internal/instance/drivertest).
//
// What a machine runs follows from its argv, whose first word may be a path:
//
//	sleep [SECONDS]   runs, for ever or so long; ends with 143 when it is asked to stop
//	serve PORT…       answers HTTP on these ports: / greets, /healthz says ok, /break makes that a 503, /mend mends it; ends with 0 when asked
//	                  to stop
//	exit CODE         ends at once
//	crash             runs, and then its machine is killed as if by the kernel
//	panic             its guest's kernel panics while it boots
//	hang              runs, and ignores being asked to stop: the guest kills it after the grace period
//	stuck             as hang, and the guest does nothing about it either: only Kill helps
//
// Another is not found, and ends the machine as that does. SIGTERM's 128+15 is what a program without a handler gives.
//
// A machine writes what a real one writes, and only below machine.Config.Dir: log/app.log and log/vmm.log. Published ports listen on
// the host, for TCP; nothing else leaves the process.
//
// Drivers and machines may be used from any goroutine.
package fake

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/instance"
	"github.com/halevm/hale/internal/logfile"
	"github.com/halevm/hale/internal/machine"
)

// Config has useful zero values.
type Config struct {
	Boot    time.Duration // from the start to the agent's HELLO; 0: 5 ms
	Version string        // of hale, for the User-Agent of probes
}

// A Driver starts machines in this process.
type Driver struct {
	o  Config
	mu sync.Mutex
	on map[string]*guest // by id: those that run
}

// New returns a driver without machines.
func New(o Config) *Driver {
	if o.Boot <= 0 {
		o.Boot = 5 * time.Millisecond
	}
	return &Driver{o: o, on: map[string]*guest{}}
}

// Start starts a machine.
func (d *Driver) Start(ctx context.Context, c machine.Config) (instance.Machine, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	if len(c.Process.Argv) == 0 {
		return nil, fmt.Errorf("start machine %s: nothing to run", c.ID)
	}
	g := &guest{d: d, c: c, born: time.Now(), files: newFiles(c.Hostname), state: booting, changed: make(chan struct{}), kill: make(chan struct{}), stop: make(chan time.Duration, 1)}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.on[c.ID] != nil {
		return nil, fmt.Errorf("start machine %s: it runs already", c.ID)
	}
	if err := g.open(ctx); err != nil {
		g.close()
		return nil, fmt.Errorf("start machine %s: %w", c.ID, err)
	}
	d.on[c.ID] = g
	go g.live()
	return g.handle(), nil
}

// Running is the number of machines that run.
func (d *Driver) Running() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.on)
}

// Crash ends the machine of that id as if by itself, for tests; it reports whether there was one.
func (d *Driver) Crash(id string, e machine.Exit) bool {
	d.mu.Lock()
	g := d.on[id]
	d.mu.Unlock()
	return g != nil && g.end(e)
}

// Tell has the machine of that id say a line for its instance's log; it reports whether there was one that could.
func (d *Driver) Tell(id string, level slog.Level, message string) bool {
	return d.Say(id, machine.Notice{Kind: machine.Told, Level: level, Message: message})
}

// Say has it say a notice that it does not say by itself, and not twice: a machine that is taken back does not repeat it.
func (d *Driver) Say(id string, n machine.Notice) bool {
	d.mu.Lock()
	g := d.on[id]
	d.mu.Unlock()
	if g == nil {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.told++; g.told > maxTold || g.state == dead {
		return false
	}
	for _, m := range g.handles {
		n.Time = time.Now()
		m.tell(n)
	}
	return true
}

// Watched are the ports that the machine of that id was told to watch, one after the other, by all who held it.
func (d *Driver) Watched(id string) []uint16 {
	d.mu.Lock()
	g := d.on[id]
	d.mu.Unlock()
	if g == nil {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.watches)
}

// Surviving is a Driver whose machines outlive the instance.Set that started them, and are found again by the next.
type Surviving struct{ *Driver }

// Recover finds a machine that runs.
func (s Surviving) Recover(ctx context.Context, c machine.Config) (instance.Machine, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.on[c.ID]
	if g == nil {
		return nil, fmt.Errorf("machine %s: %w", c.ID, api.NotFound)
	}
	return g.handle(), nil
}

// Kill ends a machine that runs.
func (s Surviving) Kill(ctx context.Context, c machine.Config) (machine.Exit, error) {
	m, err := s.Recover(ctx, c)
	if err != nil {
		return machine.Exit{}, err
	}
	if err := m.Kill(ctx); err != nil {
		return machine.Exit{}, err
	}
	var e machine.Exit
	for n := range m.Notices() {
		e = n.Exit
	}
	return e, nil
}

// open makes what the machine has on the host.
func (g *guest) open(ctx context.Context) error {
	if err := os.MkdirAll(filepath.Join(g.c.Dir, "log"), 0o700); err != nil {
		return err
	}
	root, err := os.OpenRoot(g.c.Dir)
	if err != nil {
		return err
	}
	g.root = root
	if g.app, err = logfile.Create(root, "log/app.log", 0, 0); err != nil {
		return err
	}
	if g.vmm, err = logfile.Create(root, "log/vmm.log", 0, 0); err != nil {
		return err
	}
	if g.c.Network == nil {
		return nil
	}
	for i, p := range g.c.Network.Ports {
		l, err := listen(ctx, i, p)
		if err != nil {
			return err
		}
		p.HostPort = uint16(l.Addr().(*net.TCPAddr).Port)
		g.listeners = append(g.listeners, l)
		g.ports = append(g.ports, p)
	}
	return nil
}

func listen(ctx context.Context, i int, p machine.Port) (net.Listener, error) {
	at := net.JoinHostPort(p.HostAddr.String(), fmt.Sprint(p.HostPort))
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", at)
	if err == nil {
		return l, nil
	}
	e := &api.Error{Kind: api.Invalid, Code: "invalid_request", Message: fmt.Sprintf("port %s cannot be published: %v", at, err), NoRetry: true}
	if errors.Is(err, syscall.EADDRINUSE) {
		e.Kind, e.Code, e.Message = api.Conflict, "port_in_use", fmt.Sprintf("port %s of the host is in use", at)
	}
	e.Details = []api.Detail{{Code: e.Code, Message: e.Message, Field: fmt.Sprintf("network.ports[%d].host_port", i)}}
	return nil, e
}

// program splits an argv into the program's name and its arguments.
func program(argv []string) (string, []string) {
	return filepath.Base(strings.TrimSpace(argv[0])), argv[1:]
}
