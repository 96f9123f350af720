// Package daemon reads a configuration, builds the parts, runs them and shuts them down: it is the one place that sees
// everything. The parts meet here only, in small adapters: the domain does not know its drivers, and health does not
// know the event log.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/event"
	"github.com/halevm/hale/internal/health"
	"github.com/halevm/hale/internal/host"
	"github.com/halevm/hale/internal/image"
	"github.com/halevm/hale/internal/instance"
	"github.com/halevm/hale/internal/instance/fake"
	"github.com/halevm/hale/internal/registry"
	"github.com/halevm/hale/internal/sandbox"
	"github.com/halevm/hale/internal/server"
	"github.com/halevm/hale/internal/shim"
	"github.com/halevm/hale/internal/slack"
	"github.com/halevm/hale/internal/store"
	"github.com/halevm/hale/internal/token"
	"github.com/halevm/hale/internal/version"
)

// The drivers that a daemon can be told to use.
const (
	DriverQEMU = "qemu"
	DriverFake = "fake" // machines in this process, for tests of what surrounds them
)

// What a daemon can be told of the sandbox.
const (
	SandboxAuto    = "auto"    // what this host has of it
	SandboxRequire = "require" // all of it, or no machine is started
)

// A Config says what to run. Zero values are defaults.
type Config struct {
	DataDir string
	Listen  string // host:port; port 0 asks for a free one
	Driver  string // DriverQEMU
	Accel   string // "auto"
	Kernel  string // a directory with a kernel; the one that hale setup fetched
	Sandbox string // SandboxAuto
	UIDs    string // FIRST-LAST, where root's machines have their uids from; sandbox.DefaultRange
	// AllowNets are private ranges that all instances may reach, beside their own; see egress.ParseRange.
	AllowNets []netip.Prefix
	// BootRetries is how often a machine is booted again that ended before its agent said a word.
	BootRetries int
	// Registries is where the host's own credentials for registries are.
	Registries registry.DockerConfig
	Log        *slog.Logger
	// Ready is told, once the daemon answers, where.
	Ready func(url string)

	machines instance.Driver // in tests: these, whatever Driver says
}

// shutdownTimeout bounds the end: requests under way, then loops, then records.
const shutdownTimeout = 10 * time.Second

// probesEnd bounds the wait for the probes in flight, which is a part of that.
const probesEnd = 3 * time.Second

// A Daemon is the parts.
type Daemon struct {
	config    Config
	log       *slog.Logger
	metrics   *metrics
	events    *event.Log
	images    *image.Store
	instances *instance.Set
	health    *health.Set
	journal   *journal
	mail      *mailboxes // to health
	loops     *loops
	platform  *platform // nil with the fake driver
	started   time.Time
}

// Run runs a daemon until ctx is done and everything is put away. Machines go on without it.
func Run(ctx context.Context, c Config) (err error) {
	d := &Daemon{config: c, log: c.Log, started: time.Now()}
	dir, err := filepath.Abs(c.DataDir)
	if err != nil {
		return err
	}
	d.config.DataDir = dir
	root, err := store.Open(dir)
	if err != nil {
		return fmt.Errorf("the data directory: %w", err)
	}
	defer root.Close()
	lock, err := lockDir(ctx, root, dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	// The end of what was begun must not be cut short by what ended the rest.
	build, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	if err := d.build(build, dir); err != nil {
		return errors.Join(err, d.close(build))
	}
	err = d.serve(ctx, dir)
	return errors.Join(err, d.close(build))
}

// build makes the parts, each from those before it.
func (d *Daemon) build(ctx context.Context, dir string) (err error) {
	d.metrics = newMetrics(d)
	d.loops = newLoops(d.log, d.metrics.panics)
	if d.events, err = event.Open(filepath.Join(dir, "events"), event.Options{Log: d.log}); err != nil {
		return err
	}
	// Pulls go on from the first moment, and may ask before the instances are known: until then every image is in use.
	var known atomic.Pointer[instance.Set]
	inUse := func(digest string) bool {
		set := known.Load()
		return set == nil || set.ImageUser(digest, "") != ""
	}
	if d.images, err = image.Open(filepath.Join(dir, "images"), image.Options{
		Log: d.log, InUse: inUse, Credentials: d.config.Registries.Find, Pulled: d.metrics.pulled, Working: slack.Work, Converted: d.metrics.convertedImage,
		Registry: registry.New(registry.Config{UserAgent: "hale/" + version.String()}),
	}); err != nil {
		return err
	}
	driver, err := d.driver(ctx)
	if err != nil {
		return err
	}
	memory, _, err := host.Memory()
	if err != nil {
		return err
	}
	instancesDir := filepath.Join(dir, "instances")
	records, err := store.Open(instancesDir)
	if err != nil {
		return err
	}
	d.journal = &journal{events: d.events, instances: records, name: d.instanceName} // a deletion may ask for it before there is health
	d.mail = newMailboxes(d.hand, d.handFailed)
	d.instances, err = instance.Open(ctx, instance.Config{
		Dir: instancesDir, Driver: driver, Images: imageFinder{d.images}, Events: d.events, Log: d.log,
		AllowNets:   d.config.AllowNets,
		Memory:      memory - min(memory/10, 1<<30), // the host itself needs some
		Panicked:    func(loop string, _ any) { d.metrics.panics.WithLabelValues(loop).Inc() },
		BootRetries: d.config.BootRetries, BootRetried: d.metrics.bootRetries.Inc,
		AgentReady: d.mail.look, NetworkUp: d.mail.look, Unwritten: d.mail.look, Hinted: d.mail.hint, Leaving: d.leaving,
		SaveFailed: d.metrics.notWritten.Inc,
	})
	if err != nil {
		return err
	}
	known.Store(d.instances)
	d.images.Sweep() // now that it is known what they need
	return d.buildHealth(ctx)
}

func (d *Daemon) buildHealth(ctx context.Context) error {
	replay, host, err := readTransitions(ctx, d.events, d.instances.List(), d.log)
	if err != nil {
		return fmt.Errorf("read the event log: %w", err)
	}
	d.journal.replay = replay
	d.unsuspected(ctx, host)
	timer, err := slack.NewTimer()
	if err != nil {
		return fmt.Errorf("a timer for health: %w", err)
	}
	d.health = health.NewSet(health.Config{
		Probe:   d.probe,
		Journal: d.journal,
		Log:     d.log,
		Logger:  d.instances.Logger,
		Hooks:   d.healthHooks(),
		Timer:   timer,
	})
	return nil
}

func (d *Daemon) instanceName(id string) string {
	in, err := d.instances.Find(id)
	if err != nil {
		return ""
	}
	return in.Spec.Name
}

func (d *Daemon) driver(ctx context.Context) (instance.Driver, error) {
	if d.config.machines != nil {
		return d.config.machines, nil
	}
	if s := d.config.Sandbox; s != "" && s != SandboxAuto && s != SandboxRequire {
		return nil, fmt.Errorf("sandbox %q: one of %s, %s: %w", s, SandboxAuto, SandboxRequire, api.Invalid)
	}
	switch d.config.Driver {
	case DriverFake:
		return fake.New(fake.Config{Version: version.String()}), nil
	case DriverQEMU, "":
		uids, err := sandbox.ParseRange(d.config.UIDs)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", err, api.Invalid)
		}
		p := &platform{dataDir: d.config.DataDir, kernel: d.config.Kernel, accel: d.config.Accel, uids: uids, require: d.config.Sandbox == SandboxRequire}
		d.platform = p
		if lacks := p.sandbox(ctx).Lacks(); len(lacks) > 0 {
			d.log.Warn("machines run in less than the whole sandbox (docs/security.md)", "lacks", strings.Join(lacks, "; "))
		}
		switch accel, why := p.accelerator(ctx); {
		case why != "":
			d.log.Warn("machines run under software emulation, several times slower than with KVM", "why", why)
		default:
			d.log.Debug("accelerator", "accel", accel)
		}
		if _, err := p.find(ctx); err != nil {
			d.log.Warn("no machine can be started yet", "err", err)
		}
		return shimDriver{shim.NewLauncher(p.find, version.String(), d.log)}, nil
	}
	return nil, fmt.Errorf("driver %q: one of %s, %s: %w", d.config.Driver, DriverQEMU, DriverFake, api.Invalid)
}

// serve answers requests until ctx is done.
func (d *Daemon) serve(ctx context.Context, dir string) error {
	secret, err := token.Open(dir)
	if err != nil {
		return err
	}
	d.loops.start(healthConsumer, d.followHealth)
	d.loops.start(hintConsumer, d.keepWatching)
	d.mail.start()
	defer d.mail.stop()
	defer d.loops.stop()
	d.awaitHealth(ctx)
	crowd := newCrowd()
	handler := server.New(server.Config{
		Instances: d.instances, Images: d.images, Health: d.health, Events: d.events,
		Verify: secret.Verify, Admitted: crowd.admit, Settled: d.settled, Controllers: d.controllers, Resources: d.resources,
		Capabilities: d.capabilities, Metrics: d.metrics.registry, Panics: d.metrics.panics,
		Started: d.started, Version: version.String(), Log: d.log,
	})
	ln, err := net.Listen("tcp", d.config.Listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	// Requests end with base, so that a shutdown does not wait for them: what they asked for goes on in the instances' own time.
	base, endRequests := context.WithCancelCause(context.WithoutCancel(ctx))
	defer endRequests(nil)
	srv := &http.Server{
		Handler: handler, BaseContext: func(net.Listener) context.Context { return base },
		ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ConnState: crowd.changed, ConnContext: crowd.remember,
		ErrorLog: slog.NewLogLogger(d.log.Handler(), slog.LevelDebug),
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	url := "http://" + ln.Addr().String()
	forget, err := d.tell(ctx, filepath.Join(dir, WhereFile), func() error { return writeWhere(dir, url) })
	if err != nil {
		srv.Close()
		return err
	}
	defer forget()
	if d.config.Ready != nil {
		d.config.Ready(url)
	}
	select {
	case err := <-done:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	forget() // before somebody else can be found at that address
	endRequests(server.ErrStopping)
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if err := srv.Shutdown(end); err != nil {
		srv.Close()
	}
	return nil
}

// tell has the file at path written, which is there until forget is called. A full disk keeps no daemon from starting, for it is with one that a
// person makes room; the file is written when there is some.
func (d *Daemon) tell(ctx context.Context, path string, write func() error) (forget func(), err error) {
	err = write()
	if store.NoSpace(err) {
		os.Remove(path) // what a daemon that was killed left is not so any more, and takes room
		err = write()
	}
	if err != nil && !store.NoSpace(err) {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	if err != nil {
		d.log.Error("the disk is full: until there is room the command line finds this daemon by HALE_URL and HALE_TOKEN only", "err", err)
		wg.Go(func() {
			for ctx.Err() == nil && write() != nil {
				select {
				case <-time.After(loopPause):
				case <-ctx.Done():
				}
			}
		})
	}
	return func() {
		cancel()
		wg.Wait()
		os.Remove(path)
	}, nil
}

// close puts the parts away, the last built first.
func (d *Daemon) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, shutdownTimeout)
	defer cancel()
	var errs []error
	if d.health != nil {
		// A check in a guest that hangs is not waited for: it says nothing any more, and the rest needs its time.
		soon, cancel := context.WithTimeout(ctx, probesEnd)
		if err := d.health.Close(soon); err != nil {
			d.log.Warn("a health check in flight does not end, and is left", "err", err)
		}
		if err := d.mail.wait(soon); err != nil { // it is for health
			d.log.Warn("what was on its way to health is left", "err", err)
		}
		cancel()
	}
	if d.instances != nil {
		errs = append(errs, d.instances.Close(ctx))
	}
	if d.images != nil {
		errs = append(errs, d.images.Close())
	}
	if d.events != nil {
		errs = append(errs, d.events.Close())
	}
	return errors.Join(errs...)
}
