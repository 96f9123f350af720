package shim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/guest"
	guestprotocol "github.com/halevm/hale/internal/guest/protocol"
	"github.com/halevm/hale/internal/health"
	"github.com/halevm/hale/internal/hypervisor"
	"github.com/halevm/hale/internal/logfile"
	"github.com/halevm/hale/internal/machine"
	"github.com/halevm/hale/internal/network"
	"github.com/halevm/hale/internal/sandbox"
	"github.com/halevm/hale/internal/shim/protocol"
	"github.com/halevm/hale/internal/store"
)

// How long the shim waits for things that should follow by themselves.
const (
	powerOffTimeout = 10 * time.Second // from the program's end to the machine's
	stopMargin      = 5 * time.Second  // beyond the grace of an orderly stop
	drainTimeout    = 2 * time.Second  // for the last output after the hypervisor's end
)

// A Hypervisor starts virtual machines; internal/hypervisor/qemu is the real one.
type Hypervisor interface {
	Start(ctx context.Context, c hypervisor.Config, f hypervisor.Files) (hypervisor.VM, error)
}

// Main is the shim's process. It reads its configuration from stdin, runs one machine to its end, and returns the
// process's exit code. The working directory is the machine's.
func Main(stdin io.Reader, newHypervisor func(protocol.Config, *slog.Logger) Hypervisor) int {
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGPIPE)
	if err := errors.Join(sandbox.Undumpable(), sandbox.KeepFromChildren(3)); err != nil {
		fmt.Fprintln(os.Stderr, "hale shim:", err)
		return 1
	}
	var c protocol.Config
	if err := json.NewDecoder(stdin).Decode(&c); err != nil {
		fmt.Fprintln(os.Stderr, "hale shim: this command is run by the daemon, which configures it on standard input:", err)
		return 2
	}
	ready := os.NewFile(uintptr(c.ReadyFD), "ready")
	r, err := start(c, newHypervisor)
	if err != nil {
		json.NewEncoder(ready).Encode(protocol.Ready{Error: protocol.ErrorOf(err)})
		return 1
	}
	json.NewEncoder(ready).Encode(protocol.Ready{VMM: r.vm.PID()})
	ready.Close()
	r.toTheEnd()
	return 0
}

// run is one machine as its shim sees it.
type run struct {
	c      protocol.Config
	log    *slog.Logger
	root   *os.Root // the machine's directory
	server *server
	vm     hypervisor.VM
	net    *network.Stack // nil without a network
	agent  *guest.Conn
	disk   *diskFull
	vcpus  vcpus
	ports  []machine.Port

	app     *logfile.Writer
	vmm     *logfile.Writer
	output  meter
	console tail
	copies  sync.WaitGroup // of output and console

	asks chan ask // stop and kill, to toTheEnd

	mu         sync.Mutex
	said       bool   // the agent said HELLO, so the guest has its network
	booted     bool   // the program was started, so the agent runs commands
	openPort   uint16 // the watched port, while it is listened on; 0: it is not
	answered   bool   // the guest has answered a connection of ours
	program    programLife
	policyText string // the params of the last probe; "": there was none
	lastPolicy health.Policy
}

// ask is what a client wants of the machine's life.
type ask struct {
	kill  bool
	grace time.Duration
}

// start brings up everything that belongs to the machine. An error leaves nothing behind.
func start(c protocol.Config, newHypervisor func(protocol.Config, *slog.Logger) Hypervisor) (_ *run, err error) {
	var undo undo
	defer func() {
		if err != nil {
			undo.run()
		}
	}()
	r := &run{c: c, console: tail{keep: 2 * maxConsole}, asks: make(chan ask)}
	if r.root, err = os.OpenRoot("."); err != nil {
		return nil, err
	}
	undo.add(r.root.Close)
	if r.vmm, err = logfile.Create(r.root, filepath.Join(logDirName, "vmm.log"), 0, 0); err != nil {
		return nil, fmt.Errorf("the console's log: %w", err)
	}
	undo.add(r.vmm.Close)
	if r.app, err = logfile.Create(r.root, filepath.Join(logDirName, "app.log"), 0, 0); err != nil {
		return nil, fmt.Errorf("the program's log: %w", err)
	}
	undo.add(r.app.Close)
	r.log = slog.New(slog.NewTextHandler(r.vmm, nil)).With("shim", os.Getpid())
	vmm := newHypervisor(c, r.log)
	if err := shutIn(c, vmm, r.log); err != nil {
		return nil, err
	}
	if r.server, err = listen(socketName, c.Secret, daemonUID(c.Sandbox)); err != nil {
		return nil, fmt.Errorf("the shim's socket: %w", err)
	}
	undo.add(func() error { r.server.close(); return os.Remove(socketName) })

	ends, err := connect(c.Machine.Network != nil)
	if err != nil {
		return nil, err
	}
	undo.add(ends.close)
	ends.theirs.Lower = os.NewFile(uintptr(c.LowerFD), "lower")
	ends.theirs.Upper = os.NewFile(uintptr(c.UpperFD), "upper")
	ends.theirs.Kernel = os.NewFile(uintptr(c.KernelFD), "kernel")
	ends.theirs.Initrd = os.NewFile(uintptr(c.InitrdFD), "initrd")
	defer ends.theirs.Close()
	if r.vm, err = vmm.Start(context.Background(), vmConfig(c), ends.theirs); err != nil {
		return nil, err
	}
	undo.add(r.vm.Kill)
	r.vcpus.pid = r.vm.PID()
	r.disk = newDiskFull(r.vm.Resume, r.server.voice().say)
	if c.Machine.Network != nil {
		if err := r.startNetwork(ends.net); err != nil {
			return nil, err
		}
		undo.add(r.net.Close)
	}
	r.copies.Go(func() { r.drain(ends.output, r.app, &r.output) })
	r.copies.Go(func() { r.drain(ends.console, r.vmm, &r.console) })
	r.agent = guest.Open(ends.control, ends.bulk, guest.Options{Boot: bootConfig(c), Log: r.log, Drained: r.output.await, Listening: r.listening})
	r.server.serve(r, protocol.Welcome{Build: c.Build, PID: os.Getpid(), VMM: r.vm.PID()})
	return r, nil
}

// drain takes everything that the guest writes, so that it never waits for us: what the disk refuses is dropped.
func (r *run) drain(from io.Reader, file *logfile.Writer, beside io.Writer) {
	buf := make([]byte, 32<<10)
	refused := false
	for {
		n, err := from.Read(buf)
		if n > 0 {
			_, werr := file.Write(buf[:n])
			if werr != nil && !refused {
				fmt.Fprintln(os.Stderr, "hale shim: output is dropped:", werr)
			}
			refused = werr != nil
			beside.Write(buf[:n])
		}
		if err != nil {
			return
		}
	}
}

// undo is a stack of what to take back when a start fails half-way.
type undo []func() error

func (u *undo) add(f func() error) { *u = append(*u, f) }

func (u undo) run() {
	for i := len(u) - 1; i >= 0; i-- {
		u[i]()
	}
}

func (r *run) startNetwork(link net.Conn) error {
	n := r.c.Machine.Network
	mac, err := net.ParseMAC(n.MAC)
	if err != nil {
		return err
	}
	refused := r.server.voiceOfRefusals()
	r.net, err = network.New(link, network.Config{
		Guest: n.Addr, GuestMAC: mac, Log: r.log, Policy: n.Outbound, Limits: relayLimits(), Refused: func(f network.Refusal) { refused.say(slog.LevelWarn, f.String()) },
	})
	if err != nil {
		return fmt.Errorf("the machine's network: %w", err)
	}
	for _, l := range r.c.Listeners {
		ln, err := net.FileListener(os.NewFile(uintptr(l.FD), "listener"))
		if err == nil {
			err = r.net.Publish(ln, l.Port.GuestPort)
		}
		if err != nil {
			r.net.Close()
			return fmt.Errorf("publish port %d: %w", l.Port.HostPort, err)
		}
		r.ports = append(r.ports, l.Port)
	}
	return nil
}

// ownFiles are the descriptors that a shim needs for itself: those of the machine, and of the daemon and its execs (maxConns).
const ownFiles = 256

// relayLimits leave a shim its own descriptors, however few it may have: one that cannot let a daemon in is taken for broken, and killed.
func relayLimits() network.Limits {
	var files syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files) != nil {
		return network.Limits{}
	}
	return network.LimitsFor(files.Cur, ownFiles)
}

// toTheEnd follows the machine until the hypervisor is gone, and then tells and records how it ended.
func (r *run) toTheEnd() {
	var f facts
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	boot := newBoot(r.c.BootDeadline, func() turns { return turnsOf(r.vm.PID()) })
	// end is when the machine is killed if it has not gone by itself: after the program's end, or an orderly stop.
	end := time.NewTimer(0)
	<-end.C
	events, vmEvents := r.agent.Events(), r.vm.Events()
	var netSeen, netDone <-chan struct{} // nil, without a network: never
	if r.net != nil {
		netSeen, netDone = r.net.Seen(), r.net.Done()
	}
	ctx, cancel := context.WithCancel(context.Background())
	var beside sync.WaitGroup
	beside.Go(func() { r.disk.run(ctx) })
	var looked <-chan sight // not nil: the boot took too long, and the machine is killed once it was looked at
	for gone := false; !gone; {
		select {
		case e, ok := <-events:
			if !ok {
				events = nil
				continue
			}
			r.hear(e, &f)
			switch e.Kind {
			case guest.Hello:
				if boot.said() {
					r.notify(machine.AgentReady)
				}
			case guest.Started:
				if looked == nil { // else it is too late
					boot.done()
					r.notify(machine.Started)
				}
			case guest.ProgramFailed, guest.ProgramExited:
				boot.done()
				end.Reset(powerOffTimeout)
			}
		case e, ok := <-vmEvents:
			if !ok {
				vmEvents = nil
				continue
			}
			switch e.Kind {
			case hypervisor.ControlOpened, hypervisor.ControlClosed:
				r.agent.PortChanged(e.Kind == hypervisor.ControlOpened)
			case hypervisor.NoSpace:
				r.disk.found()
			default:
				f.guestDown = f.guestDown || e.Guest
			}
		case a := <-r.asks:
			if a.kill {
				f.killed = true
				r.vm.Kill()
				continue
			}
			if !f.stopping {
				f.stopping = true
				end.Reset(a.grace + stopMargin)
			}
		case <-netSeen:
			netSeen = nil
			r.server.notify(machine.Notice{Kind: machine.NetworkUp, Time: time.Now()})
		case <-netDone:
			netDone = nil
			// It ends with the hypervisor, or because the framing was broken: a machine without its network is of no use.
			f.linkFailed = fmt.Sprintf("the machine's network ended: %v", r.net.Err())
			end.Reset(drainTimeout)
		case <-term:
			f.killed = true
			r.vm.Kill()
		case <-boot.timer.C:
			if boot.respite() {
				continue
			}
			boot.failed(&f)
			f.diskFull, _ = r.disk.stands()
			seen := make(chan sight, 1)
			looked = seen
			beside.Go(func() { seen <- look(ctx, r.vm) }) // meanwhile a kill is obeyed
		case seen := <-looked:
			f.bootSeen = strings.TrimPrefix(f.bootSeen+"; "+seen.line, "; ")
			if seen.all != "" {
				r.log.Warn("the guest does not come up; what its processors do follows")
				r.vmm.Write([]byte(seen.all))
			}
			r.vm.Kill()
		case <-end.C:
			if f.stopping {
				f.killed = true
			}
			r.vm.Kill()
		case <-r.vm.Done():
			gone = true
		}
	}
	cancel()
	beside.Wait()
	r.vcpus.close()
	r.finish(f)
}

// hear takes down what the agent said.
func (r *run) hear(e guest.Event, f *facts) {
	switch e.Kind {
	case guest.Hello:
		r.mu.Lock()
		r.said = true
		r.mu.Unlock()
		f.hello = true
	case guest.Started:
		r.mu.Lock()
		r.booted = true
		r.mu.Unlock()
		f.started = true
		r.lives(started)
	case guest.ProgramFailed:
		r.lives(over)
		f.failed = e.Message
		f.program = &program{code: e.Code, message: e.Message}
	case guest.ProgramExited:
		r.lives(over)
		f.program = &program{code: e.Code, signal: e.Signal, oom: e.OOM, message: e.Message}
	case guest.Lost:
		if f.program == nil { // else it goes as it should
			r.log.Warn("the guest agent does not answer any more")
		}
	}
}

func (r *run) notify(k machine.NoticeKind) {
	r.server.notify(machine.Notice{Kind: k, Time: time.Now()})
	debug.FreeOSMemory() // the boot's garbage is not kept for the machine's life
}

// finish records the end before it tells anyone.
func (r *run) finish(f facts) {
	drained := make(chan struct{})
	go func() { r.copies.Wait(); close(drained) }()
	select {
	case <-drained:
	case <-time.After(drainTimeout):
	}
	for e := range r.agent.Drain() { // what the agent said last: its Close would forget that
		r.hear(e, &f)
	}
	r.agent.Close()
	vm := r.vm.Wait()
	f.guestDown = f.guestDown || vm.Guest // its event may not have been read
	f.vmmError, f.vmmSignal, f.console = vm.Error, vm.Signal, r.console.String()
	exit := f.exit(time.Now())
	if b, err := json.Marshal(exit); err == nil {
		if err := store.WriteFile(exitName, b, 0o600); err != nil {
			r.log.Error("record the exit", "err", err)
		}
	}
	r.server.notify(machine.Notice{Kind: machine.Exited, Time: exit.Time, Exit: exit})
	if r.net != nil {
		r.net.Close()
	}
	r.server.close()
	os.Remove(socketName)
	r.app.Close()
	r.vmm.Close()
}

var (
	errNoAgent   = fmt.Errorf("the guest agent is not connected: %w", api.InvalidState)
	errNotBooted = fmt.Errorf("the guest is still booting: %w", api.InvalidState)
)

// asked gives what the agent did not do the kind of error that it is for whoever asked; none is a fault of ours.
func asked(err error) error {
	_, refused := errors.AsType[*guest.RequestError](err)
	switch {
	case errors.Is(err, guest.ErrNotConnected):
		return errNoAgent
	case refused, errors.Is(err, guest.ErrTooMany):
		return fmt.Errorf("%w: %w", err, api.Unavailable)
	case errors.Is(err, guest.ErrTooLarge):
		return fmt.Errorf("%w: %w", err, api.Invalid)
	}
	return err
}

// vmConfig is the virtual machine's part of a configuration.
func vmConfig(c protocol.Config) hypervisor.Config {
	v := hypervisor.Config{
		Name: c.Machine.ID, Accel: hypervisor.Accel(c.Accel), VCPUs: c.Machine.VCPUs, Memory: c.Machine.Memory,
	}
	if n := c.Machine.Network; n != nil {
		v.MAC, v.MTU = n.MAC, network.DefaultMTU
	}
	return v
}

// bootConfig is the agent's part.
func bootConfig(c protocol.Config) guestprotocol.Boot {
	b := guestprotocol.Boot{Process: c.Machine.Process, Hostname: c.Machine.Hostname}
	if n := c.Machine.Network; n != nil {
		b.Network = &guestprotocol.Network{Addr: n.Addr, Gateway: network.Gateway(n.Addr)}
	}
	return b
}
