package shim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/machine"
	"github.com/halevm/hale/internal/sandbox"
	"github.com/halevm/hale/internal/shim/protocol"
	"github.com/halevm/hale/internal/slack"
)

// Boot deadlines, from the machine's start to the agent's HELLO, and from there to the program's start, unless a machine.Config has its own.
const (
	bootDeadlineKVM = 20 * time.Second
	bootDeadlineTCG = 60 * time.Second
)

// readyTimeout is how long a shim may take to start its hypervisor.
const readyTimeout = 15 * time.Second

// A Platform is what machines are started with on this host.
type Platform struct {
	QEMU   string // path of the binary
	Accel  string // "kvm" or "tcg"
	Kernel string // path of the guest's kernel
	Initrd string // path of the initrd that holds the guest agent

	Sandbox sandbox.Support // what machines are shut in with
	Whole   bool            // all of it, or no machine
	UIDs    sandbox.Range   // where root's machines have their uids from
	Groups  []uint32        // gids that open what the accelerator needs
}

// A Launcher starts shims and finds those that run.
type Launcher struct {
	// Platform tells what to start machines with; it is asked at every start, so that a host that is set up while the daemon
	// runs serves at once. An error of kind api.Unavailable says what is missing.
	platform func(context.Context) (Platform, error)
	build    string
	log      *slog.Logger
	silent   silences
}

// NewLauncher returns a Launcher. build is the version of this binary, for the records.
func NewLauncher(platform func(context.Context) (Platform, error), build string, log *slog.Logger) *Launcher {
	return &Launcher{platform: platform, build: build, log: log}
}

// Start starts the machine's shim and returns when the hypervisor has a process. An error leaves no process, socket or port behind.
func (l *Launcher) Start(ctx context.Context, c machine.Config) (*Machine, error) {
	platform, err := l.platform(ctx)
	if err != nil {
		return nil, err
	}
	if err := checkDir(c.Dir); err != nil {
		return nil, err
	}
	dir := &runDir{path: c.Dir}
	s := starting{launcher: l, dir: dir, platform: platform, machine: c}
	defer s.closeFiles()
	if err := s.identify(); err != nil {
		return nil, err
	}
	if s.vm, err = dir.make(); err != nil {
		return nil, fmt.Errorf("prepare the machine's directory: %w", err)
	}
	if err := s.open(ctx); err != nil {
		return nil, err
	}
	m, err := s.run(ctx)
	if err != nil {
		dir.clean()
		return nil, err
	}
	return m, nil
}

// Recover takes back the machine of a shim that an earlier daemon started. An error of kind api.NotFound: it is gone;
// the *Ended that it wraps says how it ended. Without that none was started since the last Start began. A shim that runs and does not
// answer is an error of another kind, and worth another try: one that stays silent is killed with its machine. One that answers, and
// speaks no version of the protocol that this daemon does, is an error of kind api.Unsupported and left alone: another daemon may take it back.
func (l *Launcher) Recover(ctx context.Context, c machine.Config) (*Machine, error) {
	dir := &runDir{path: c.Dir}
	r, proc, err := dir.find(c.ID)
	if err != nil {
		return nil, err
	}
	m, err := l.takeBack(ctx, c.ID, dir, r, proc)
	if err != nil {
		proc.close()
	}
	return m, err
}

// takeBack attaches to the process that is the shim of instance id.
func (l *Launcher) takeBack(ctx context.Context, id string, dir *runDir, r record, proc process) (*Machine, error) {
	m, err := attach(ctx, l.log.With("instance", id), dir, r, proc)
	if err == nil || errors.Is(err, errVersion) {
		l.silent.over(id)
	}
	switch {
	case err == nil:
		return m, nil
	case errors.Is(err, errVersion):
		return nil, fmt.Errorf("its shim (pid %d, of hale %s) cannot be spoken to by this daemon (hale %s): %w", r.PID, r.Build, l.build, err)
	case ours(ctx, err) || l.silent.of(id) < silencePatience:
		return nil, fmt.Errorf("the shim (pid %d) does not let the daemon in: %w", r.PID, err)
	}
	l.log.Warn("a shim has not let the daemon in for long enough: killing it, and its machine with it", "instance", id, "pid", r.PID, "err", err)
	if err := dir.kill(ctx, r, proc); err != nil {
		return nil, err
	}
	l.silent.over(id)
	return nil, &Ended{Exit: dir.silenced(r)}
}

// Kill ends the machine of a shim that an earlier daemon started, by what was recorded of it: it is for one that Recover does not take
// back. It returns how the machine ended; an error of kind api.NotFound is Recover's.
func (l *Launcher) Kill(ctx context.Context, c machine.Config) (machine.Exit, error) {
	dir := &runDir{path: c.Dir}
	r, proc, err := dir.find(c.ID)
	if err != nil {
		return machine.Exit{}, err
	}
	defer proc.close()
	if err := dir.kill(ctx, r, proc); err != nil {
		return machine.Exit{}, err
	}
	l.silent.over(c.ID)
	return machine.Exit{Reason: machine.Killed, Message: "killed", Time: time.Now()}, nil
}

// Ended is the error of a Recover whose machine has ended meanwhile.
type Ended struct{ Exit machine.Exit }

func (e *Ended) Error() string { return "the machine has ended: " + string(e.Exit.Reason) }

// Unwrap makes it a thing that is not there.
func (e *Ended) Unwrap() error { return api.NotFound }

// starting is one start under way: what it has opened, to be closed when the shim has its copies.
type starting struct {
	launcher *Launcher
	dir      *runDir
	platform Platform
	machine  machine.Config
	id       sandbox.Identity // of the shim and its hypervisor
	vm       *os.Root         // the machine's directory

	files     []*os.File // inherited by the shim, from descriptor 3 on
	config    protocol.Config
	ready     *os.File // our end
	listeners []net.Listener
}

func (s *starting) closeFiles() {
	for _, f := range s.files {
		f.Close()
	}
	for _, l := range s.listeners {
		l.Close()
	}
	if s.ready != nil {
		s.ready.Close()
	}
	if s.vm != nil {
		s.vm.Close()
	}
}

// inherit has the shim inherit f and returns the number it will have there.
func (s *starting) inherit(f *os.File) int {
	s.files = append(s.files, f)
	return 2 + len(s.files)
}

// open opens everything that the shim is given: disks, ports, and a pipe to say that it is ready.
func (s *starting) open(ctx context.Context) error {
	c := s.machine
	s.config = protocol.Config{
		Machine: c, Secret: newSecret(), Build: s.launcher.build,
		QEMU: s.platform.QEMU, Accel: s.platform.Accel, BootDeadline: c.BootDeadline,
		Sandbox: s.box(),
	}
	if s.config.BootDeadline == 0 {
		s.config.BootDeadline = bootDeadlineTCG
		if s.platform.Accel == "kvm" {
			s.config.BootDeadline = bootDeadlineKVM
		}
	}
	for _, f := range []struct {
		what, path string
		fd         *int
	}{
		{"the image's disk", c.RootDisk, &s.config.LowerFD},
		{"the guest's kernel", s.platform.Kernel, &s.config.KernelFD},
		{"the guest's initrd", s.platform.Initrd, &s.config.InitrdFD},
	} {
		file, err := os.Open(f.path)
		if err != nil {
			return fmt.Errorf("open %s: %w", f.what, err)
		}
		*f.fd = s.inherit(file)
	}
	upper, err := openUpper(ctx, s.vm, c.Overlay)
	if err != nil {
		return fmt.Errorf("the writable layer: %w", err)
	}
	s.config.UpperFD = s.inherit(upper)
	if err := s.listen(ctx); err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	s.ready = r
	s.config.ReadyFD = s.inherit(w)
	return nil
}

// listen binds the published ports here, so that a shim of no privilege can have port 80.
func (s *starting) listen(ctx context.Context) error {
	if s.machine.Network == nil {
		return nil
	}
	ports := make([]machine.Port, 0, len(s.machine.Network.Ports))
	for i, p := range s.machine.Network.Ports {
		ln, err := listenAt(ctx, netip.AddrPortFrom(p.HostAddr, p.HostPort))
		if err != nil {
			return portError(i, p, err)
		}
		s.listeners = append(s.listeners, ln)
		f, err := ln.(*net.TCPListener).File()
		if err != nil {
			return fmt.Errorf("publish port %d: %w", p.HostPort, err)
		}
		p.HostPort = uint16(ln.Addr().(*net.TCPAddr).Port)
		ports = append(ports, p)
		s.config.Listeners = append(s.config.Listeners, protocol.Listener{FD: s.inherit(f), Port: p})
	}
	network := *s.machine.Network
	network.Ports = ports
	s.config.Machine.Network = &network
	return nil
}

// listenAt binds one address, or all of IPv4 or of both for 0.0.0.0 and ::, which package net takes for the same.
func listenAt(ctx context.Context, at netip.AddrPort) (net.Listener, error) {
	network := "tcp"
	if at.Addr().Unmap().Is4() {
		network = "tcp4"
	}
	return new(net.ListenConfig).Listen(ctx, network, at.String())
}

func portError(i int, p machine.Port, err error) error {
	part := "host_port"
	at := netip.AddrPortFrom(p.HostAddr, p.HostPort)
	e := &api.Error{Kind: api.Invalid, Code: "invalid_request", Message: fmt.Sprintf("port %v cannot be published: %v", at, errors.Unwrap(err)), NoRetry: true}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		e.Kind, e.Code = api.Conflict, "port_in_use"
		e.Message = fmt.Sprintf("port %v of the host is in use", at)
	case errors.Is(err, syscall.EACCES):
		e.Message = fmt.Sprintf("port %v of the host may not be bound by this user: choose one above 1023", at)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		part = "host_addr"
		e.Message = fmt.Sprintf("%v is no address of this host: name one that it has, or 0.0.0.0 for all of IPv4", p.HostAddr)
	}
	e.Details = []api.Detail{{Code: e.Code, Message: e.Message, Field: fmt.Sprintf("network.ports[%d].%s", i, part)}}
	return e
}

// run starts the shim's process, writes it down, and only then tells it what to do.
func (s *starting) run(ctx context.Context) (*Machine, error) {
	stderr, err := s.vm.OpenFile(stderrName, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	defer stderr.Close()
	dir, err := s.vm.Open(".")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	if err := giveTo(s.vm, s.id.UID); err != nil {
		return nil, err
	}
	cmd, stdin, err := s.start(dir, stderr)
	if err != nil && s.config.Sandbox.Namespaces && !s.platform.Whole {
		// They worked when the daemon began: a limit was lowered, or reached.
		s.launcher.log.Warn("no namespaces can be made: the machine runs in the rest of the sandbox", "instance", s.machine.ID, "err", err)
		s.config.Sandbox.Namespaces = false
		cmd, stdin, err = s.start(dir, stderr)
	}
	if err != nil {
		return nil, fmt.Errorf("start the shim: %w", err)
	}
	proc, r, err := s.record(cmd.Process.Pid)
	if err != nil {
		stdin.Close() // a shim without a configuration does nothing and ends
		cmd.Wait()
		return nil, err
	}
	go cmd.Wait() // only reaps: proc is what the exit is awaited with
	for _, f := range s.files {
		f.Close()
	}
	s.files = nil
	m, err := s.configure(ctx, stdin, r, proc)
	if err != nil {
		proc.kill()
		wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), deathTimeout)
		defer cancel()
		proc.wait(wait)
		proc.close()
		return nil, err
	}
	return m, nil
}

// start starts the shim's process, which waits for its configuration.
func (s *starting) start(dir, stderr *os.File) (*exec.Cmd, io.WriteCloser, error) {
	cmd := exec.Command("/proc/self/exe", Command, s.machine.ID)
	cmd.Args[0] = "hale"
	// The child has another uid by the time it goes there, and its parents may be closed to that one.
	cmd.Dir = fmt.Sprintf("/proc/self/fd/%d", dir.Fd())
	cmd.Stderr = stderr
	cmd.ExtraFiles = s.files
	cmd.Env = shimEnv()
	cmd.SysProcAttr = s.id.SysProcAttr(s.config.Sandbox.Namespaces)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, nil, err
	}
	if err := slack.Start(slack.Probing, cmd.Start); err != nil { // a shim sleeps between probes; its hypervisor's timers are not to be late
		stdin.Close()
		return nil, nil, err
	}
	return cmd, stdin, nil
}

func (s *starting) record(pid int) (process, record, error) {
	proc, err := openProcess(pid, 0)
	if err != nil {
		return process{}, record{}, err
	}
	start, err := startTimeOf(pid)
	if err == nil {
		var boot string
		if boot, err = bootID(); err == nil {
			r := record{PID: pid, StartTime: start, BootID: boot, Secret: s.config.Secret, Build: s.launcher.build, UID: s.id.UID}
			if n := s.config.Machine.Network; n != nil {
				r.Ports = n.Ports
			}
			if err = s.dir.writeRecord(r); err == nil {
				return proc, r, nil
			}
		}
	}
	proc.close()
	return process{}, record{}, err
}

// configure hands the configuration over, waits until the hypervisor has a process, and connects.
func (s *starting) configure(ctx context.Context, stdin interface {
	Write([]byte) (int, error)
	Close() error
}, r record, proc process) (*Machine, error) {
	err := json.NewEncoder(stdin).Encode(s.config)
	if cerr := stdin.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, fmt.Errorf("configure the shim: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { s.ready.SetReadDeadline(aLongTimeAgo) })
	defer stop()
	s.ready.SetReadDeadline(time.Now().Add(readyTimeout))
	var ready protocol.Ready
	if err := json.NewDecoder(s.ready).Decode(&ready); err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, fmt.Errorf("the shim did not start: %s", s.dir.exit(r).Message)
	}
	if ready.Error != nil {
		return nil, ready.Error
	}
	return attach(ctx, s.launcher.log.With("instance", s.machine.ID), s.dir, r, proc)
}

// shimEnv is the environment of a shim: small, for its memory's sake (measured: 8 MB quiet, 16 MB after a storm), and
// with nothing of the daemon's in it but the path. With half of the garbage that Go would keep a probe finds its memory in the
// processor's caches more often, which is worth more than the cycles.
func shimEnv() []string {
	return []string{"PATH=" + os.Getenv("PATH"), "GOMAXPROCS=1", "GOMEMLIMIT=16MiB", "GOGC=50", "GOTRACEBACK=single"}
}
