package instance

import (
	"context"
	"log/slog"
	"net/netip"
	"time"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/event"
	"github.com/halevm/hale/internal/health"
)

// A Config is what a Set is built from. Dir, Driver, Images and Events are required; the rest has useful zero values.
type Config struct {
	Dir      string // the directory of all instances (DIR/instances), absolute; made when missing
	Driver   Driver
	Images   Images
	Events   *event.Log
	Log      *slog.Logger                 // nil: nothing is logged
	Network  netip.Prefix                 // where instances get their addresses; zero: 10.77.0.0/16. Its first address is the gateway.
	Memory   int64                        // bytes of memory that all active instances may have together; 0: no bound
	Grace    time.Duration                // from the stop signal to the kill; 0: 10 s
	Boot     time.Duration                // machine.Config.BootDeadline
	Panicked func(loop string, value any) // told of each contained panic, for a metric; may be nil
}

// A Set is all instances of one host.
type Set struct{}

// StartOptions change what runs, for this and for later runs. A nil field leaves what was.
type StartOptions struct {
	Entrypoint []string
	Cmd        []string
}

// An Update changes an instance in place. Zero fields leave what they name alone.
type Update struct {
	HealthCheck *HealthUpdate
	Env         map[string]*string // merged key by key for the next start: nil removes the key, "" sets it to nothing
	ExpiresAt   *time.Time         // the zero time: never
	Tags        map[string]string  // nil leaves them; else replaces them whole
}

// A HealthUpdate replaces the policy whole; with a nil Policy the request's is dropped, and the image's applies again.
type HealthUpdate struct{ Policy *health.Policy }

// An Allocation is what the active instances have together.
type Allocation struct {
	Instances int // all, active or not
	Active    int
	VCPUs     int
	Memory    int64 // bytes
	Overlay   int64 // bytes that the writable layers of all instances may grow to
	MemoryMax int64 // Config.Memory
}

// Open loads the instances.
func Open(ctx context.Context, c Config) (*Set, error) { return nil, api.Unimplemented }

// Create makes an instance and starts it.
func (s *Set) Create(ctx context.Context, spec Spec) (Instance, error) {
	return Instance{}, api.Unimplemented
}

// Find returns the instance that ref names: by id, then by name, then by a prefix of an id that only one has.
func (s *Set) Find(ref string) (Instance, error) { return Instance{}, api.Unimplemented }

// List returns all instances in the order of their creation.
func (s *Set) List() []Instance { return nil }

// Update changes an instance in place.
func (s *Set) Update(ctx context.Context, ref string, u Update) (Instance, error) {
	return Instance{}, api.Unimplemented
}

// Start starts a stopped instance.
func (s *Set) Start(ctx context.Context, ref string, o StartOptions) (Instance, error) {
	return Instance{}, api.Unimplemented
}

// Stop stops an instance, in an orderly way where it answers.
func (s *Set) Stop(ctx context.Context, ref string) (Instance, error) {
	return Instance{}, api.Unimplemented
}

// Delete ends an instance and removes everything that belongs to it.
func (s *Set) Delete(ctx context.Context, ref string, graceful bool) error { return api.Unimplemented }

// Machine is the present run of an instance.
func (s *Set) Machine(ref string) (Machine, error) { return nil, api.Unimplemented }

// Changed is closed at the next published change of the instance, or its deletion.
func (s *Set) Changed(id string) <-chan struct{} { return nil }

// Dir is where the instance keeps its files: hale.log, and the machine's own below vm/.
func (s *Set) Dir(id string) string { return "" }

// Allocated says what the instances have together.
func (s *Set) Allocated() Allocation { return Allocation{} }

// Close stops the goroutines. Machines that the driver can find again are left running; the others are killed.
func (s *Set) Close(ctx context.Context) error { return nil }
