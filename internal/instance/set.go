package instance

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/event"
	"github.com/halevm/hale/internal/store"
)

// A Config is what a Set is built from. Dir, Driver, Images and Events are required; the rest has useful zero values.
type Config struct {
	Dir     string // the directory of all instances (DIR/instances), absolute; made when missing
	Driver  Driver
	Images  Images
	Events  *event.Log
	Log     *slog.Logger // nil: nothing is logged
	Network netip.Prefix // where instances get their addresses; zero: 10.77.0.0/16. Its first address is the gateway.
	// AllowNets are private ranges that every instance may reach whose machine is started with them in force; beside its own.
	AllowNets []netip.Prefix
	Memory    int64         // bytes of memory that all active instances may have together; 0: no bound
	Grace     time.Duration // from the stop signal to the kill; 0: 10 s
	Boot      time.Duration // machine.Config.BootDeadline
	// BootRetries is how often a start boots its machine again that ended before its guest agent said HELLO. BootRetried is told of
	// each; it may be nil.
	BootRetries int
	BootRetried func()
	Panicked    func(loop string, value any) // told of each contained panic, for a metric; may be nil
	// SaveFailed is told each time that the disk refused a record or an event, for a metric; may be nil.
	SaveFailed func()
	// AgentReady is told when Instance.Agent has turned true, of which there is no event. It must not wait; may be nil.
	AgentReady func(id string)
	// NetworkUp is told likewise of Instance.Network.
	NetworkUp func(id string)
	// Unwritten is told when an instance changed, or went, without an event because the disk refused it. It must not wait; may be nil.
	Unwritten func(id string)
	// Leaving is called before the deletion of an instance is committed, from the instance's own goroutine, and waited for: whoever tells
	// of the instance is to have told all by its return, which must not wait for the instance. stays is called when it was not deleted
	// after all. May be nil.
	Leaving func(id string) (stays func())
	// Hinted is told that the guest's agent says that a port began, or ceased, to be listened on. It must not wait; may be nil.
	Hinted func(id string, port uint16, listening bool)
}

// A Set is all instances of one host. Its methods may be called from any goroutine.
type Set struct {
	c       Config
	log     *slog.Logger
	store   *store.Root
	ctx     context.Context // of what is done in the owners' goroutines; never cancelled
	closing chan struct{}
	wg      sync.WaitGroup // the owners

	mu     sync.Mutex
	closed bool
	owners map[string]*owner // by id, also those being created
	names  map[string]string // name to id
	pool   *pool
	gone   chan struct{} // closed: what Changed answers for an instance that is not there
}

// Open loads the instances. What an interrupted operation left is finished or undone, what cannot be read is set aside
// and reported to Config.Log, and machines that outlived the last daemon are taken back where the driver can.
func Open(ctx context.Context, c Config) (*Set, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Grace <= 0 {
		c.Grace = 10 * time.Second
	}
	addresses, err := newPool(c.Network)
	if err != nil {
		return nil, err
	}
	if err := addresses.allowable(c.AllowNets); err != nil {
		return nil, fmt.Errorf("the ranges that all instances may reach: %w", err)
	}
	root, err := store.Open(c.Dir)
	if err != nil {
		return nil, fmt.Errorf("open instances: %w", err)
	}
	if c.SaveFailed == nil {
		c.SaveFailed = func() {}
	}
	if c.Unwritten == nil {
		c.Unwritten = func(string) {}
	}
	if c.Leaving == nil {
		c.Leaving = func(string) func() { return func() {} }
	}
	s := &Set{
		c: c, log: c.Log, store: root, ctx: context.WithoutCancel(ctx), closing: make(chan struct{}),
		owners: map[string]*owner{}, names: map[string]string{}, pool: addresses, gone: make(chan struct{}),
	}
	close(s.gone)
	if err := s.loadAll(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open instances: %w", err), root.Close())
	}
	return s, nil
}

func (s *Set) loadAll(ctx context.Context) error {
	if err := s.store.Sweep("."); err != nil {
		s.log.Warn("what was deleted before stays on disk until the next start", "err", err)
	}
	entries, err := s.store.ReadDir(".")
	if err != nil {
		return err
	}
	var loaded []*owner
	for _, e := range entries {
		id := e.Name()
		if !e.IsDir() || !idPattern.MatchString(id) {
			if !store.IsAside(id) {
				s.log.Warn("something in the instances' directory is no instance; it is left alone", "path", s.store.Path(id))
			}
			continue
		}
		r, err := s.load(ctx, id)
		switch bad, unreadable := errors.AsType[*store.Unreadable](err); {
		case errors.Is(err, errHalfMade), errors.Is(err, errDeleted):
			s.undo(ctx, id, r, err)
		case unreadable:
			s.setAside(id, bad)
		case err != nil:
			return err
		default:
			loaded = append(loaded, s.adopt(r))
		}
	}
	var taken sync.WaitGroup
	for _, o := range loaded {
		taken.Add(1)
		s.wg.Go(func() {
			o.faulty = o.contained(o.takeBack)
			taken.Done()
			o.run()
		})
	}
	all := make(chan struct{})
	go func() { taken.Wait(); close(all) }() // ends with them, for which Close waits
	patience := time.NewTimer(openTime)
	defer patience.Stop()
	select {
	case <-all:
	case <-patience.C: // one that is slow holds up no other
	}
	return nil
}

// undo removes an instance that was never committed, or whose deletion was.
func (s *Set) undo(ctx context.Context, id string, r record, why error) {
	if r.Instance.ID == id { // else no machine was ever asked for
		if err := s.endLeftover(ctx, r); err != nil {
			s.log.Error("a machine of an instance that is not there may run", "instance", id, "err", err)
			return
		}
	}
	if err := s.store.RemoveDir(id); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Error("what is left of an instance cannot be removed", "instance", id, "err", err)
		return
	}
	s.log.Info("removed what an interrupted operation left of an instance", "instance", id, "because", why)
}

// endLeftover ends the machine of an instance that is not to be, if one runs.
func (s *Set) endLeftover(ctx context.Context, r record) error {
	rec, ok := s.c.Driver.(Recoverer)
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, recoverTime+killTime, errSlow)
	defer cancel()
	c := s.machineConfig(r)
	m, err := rec.Recover(ctx, c)
	if err == nil {
		return m.Kill(ctx)
	}
	if k, ok := s.c.Driver.(Killer); ok && !errors.Is(err, api.NotFound) {
		_, err = k.Kill(ctx, c)
	}
	if errors.Is(err, api.NotFound) {
		return nil
	}
	return err
}

func (s *Set) setAside(id string, bad *store.Unreadable) {
	aside, err := s.store.SetAside(id)
	if err != nil {
		s.log.Error("an instance's record is unreadable, and it cannot be set aside", "instance", id, "err", bad, "and", err)
		return
	}
	s.log.Error("an instance's record is unreadable; its directory was set aside", "instance", id, "aside", s.store.Path(aside), "err", bad)
}

// adopt makes the owner of an instance that was loaded.
func (s *Set) adopt(r record) *owner {
	refused := r.Instance.Spec.refused
	r.Instance.Spec.refused = nil
	o := s.newOwner(r)
	for _, err := range refused {
		o.log.Warn("its record has a health check that this version refuses; nothing is checked by it until another is given", "err", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	o.visible = true
	s.owners[o.id] = o
	if other, taken := s.names[o.now.Spec.Name]; taken {
		s.log.Error("two instances have one name; the second is found by its id only", "name", o.now.Spec.Name, "first", other, "second", o.id)
	} else {
		s.names[o.now.Spec.Name] = o.id
	}
	if r.Addr.IsValid() && !s.pool.reserve(r.Addr.Addr()) {
		s.log.Error("two instances have one address", "address", r.Addr.Addr(), "second", o.id)
	}
	return o
}

// Find returns the instance that ref names: by id, then by name, then by a prefix of an id that only one has. Errors:
// api.NotFound, and api.Invalid with the candidates where several have the prefix.
func (s *Set) Find(ref string) (Instance, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, err := s.resolve(ref)
	if err != nil {
		return Instance{}, err
	}
	return o.now, nil
}

// List returns all instances in the order of their creation.
func (s *Set) List() []Instance {
	s.mu.Lock()
	defer s.mu.Unlock()
	owners := make([]*owner, 0, len(s.owners))
	for _, o := range s.owners {
		if o.visible {
			owners = append(owners, o)
		}
	}
	sortOwners(owners)
	out := make([]Instance, len(owners))
	for i, o := range owners {
		out[i] = o.now
	}
	return out
}

func sortOwners(owners []*owner) {
	slices.SortFunc(owners, func(a, b *owner) int {
		if c := a.now.CreatedAt.Compare(b.now.CreatedAt); c != 0 {
			return c
		}
		return strings.Compare(a.id, b.id)
	})
}

// ImageUser returns the name of an instance whose disk is that of the image with this digest, under the name ref unless that is "";
// "" where there is none. One that is being created counts, though nobody sees it yet.
func (s *Set) ImageUser(digest, ref string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.owners {
		if spec := o.now.Spec; spec.ImageDigest == digest && (ref == "" || spec.Image == ref) {
			return spec.Name
		}
	}
	return ""
}

// Machine returns the present run of an instance, for exec, stat and probes. Errors: api.NotFound, api.InvalidState.
func (s *Set) Machine(ref string) (Machine, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, err := s.resolve(ref)
	if err != nil {
		return nil, err
	}
	if o.present == nil {
		return nil, invalidState(o.now, "it has no machine now")
	}
	return o.present, nil
}

// Changed is closed at the next published change of the instance with that id, or its deletion; for one that is not
// there it is closed. Ask for it first and look at the instance then, and nothing is missed.
func (s *Set) Changed(id string) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o := s.owners[id]; o != nil && o.visible {
		return o.changed
	}
	return s.gone
}

// Dir is where the instance keeps its files: hale.log, and the machine's own below vm/.
func (s *Set) Dir(id string) string { return s.store.Path(id) }

// Logger writes to the instance's own log, which people read as hale.log, and to the daemon's.
func (s *Set) Logger(id string) *slog.Logger { return newLogger(s.log, s.Dir(id), id) }

// An Allocation is what instances have together.
type Allocation struct {
	Instances int   // active or not
	Active    int   // with a machine
	VCPUs     int   // of the active ones
	Memory    int64 // of the active ones, in bytes
	MemoryMax int64 // Config.Memory
	Overlay   int64 // bytes that the writable layers of all may grow to
}

// Allocated says what the instances have together.
func (s *Set) Allocated() Allocation {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := Allocation{MemoryMax: s.c.Memory}
	for _, o := range s.owners {
		a.Instances++
		a.Overlay += o.now.Spec.Overlay.Bytes
		if o.holds {
			a.Active++
			a.VCPUs += o.now.Spec.VCPUs
			a.Memory += o.now.Spec.Memory.Bytes
		}
	}
	return a
}

// Close ends the goroutines; operations that have begun are finished or, where they wait for a machine that the driver will
// find again, left to the next Open. Machines that the driver can find again are left running, the others are
// killed. An error is ctx's cause: something did not end.
func (s *Set) Close(ctx context.Context) error {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.closing)
	}
	s.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		s.wg.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return s.store.Close()
	case <-ctx.Done():
		return fmt.Errorf("close instances: %w", context.Cause(ctx))
	}
}

// recovers reports whether machines may be left running.
func (s *Set) recovers() bool {
	_, ok := s.c.Driver.(Recoverer)
	return ok
}

func (s *Set) vmDir(id string) string { return filepath.Join(s.store.Path(id), machineDir) }

// The errors of this package that are not one of a kind.
var (
	errSlow    = errors.New("took too long")
	errClosing = fmt.Errorf("the daemon is stopping: %w", api.Unavailable)
)

func invalidState(i Instance, message string) error {
	return &api.Error{Kind: api.InvalidState, Code: "invalid_state", NoRetry: true,
		Message: fmt.Sprintf("instance %s is %s: %s", i.Spec.Name, i.State, message)}
}

func noRoom(format string, args ...any) error {
	return &api.Error{Kind: api.Exhausted, Code: "insufficient_resources", NoRetry: true, Message: fmt.Sprintf(format, args...)}
}
