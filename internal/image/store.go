package image

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/registry"
	"github.com/halevm/hale/internal/store"
)

// Options are what a Store may be told; the zero value is useful.
type Options struct {
	Log    *slog.Logger
	Limits Limits
	// Parallel is how many conversions run at a time (2); the others wait for their turn.
	Parallel int
	// Pulls is how many images are fetched at a time (3); the others wait for their turn.
	Pulls int
	// Registry reads from registries; one with its defaults unless given. Close closes it.
	Registry *registry.Client
	// Credentials returns what this host has for a repository of a registry. It is asked where a pull brings none.
	Credentials func(ctx context.Context, host, repository string) (registry.Auth, error)
	// Pulled is told of every pull that ended, with "ok" or the code of its refusal, and how many bytes it fetched.
	Pulled func(outcome string, bytes int64, took time.Duration)
	// Working is told of every archive that begins to be read and every conversion that begins; what it returns is called at the end.
	Working func() (end func())
	// Converted is told of every conversion that ended.
	Converted func(err error, took time.Duration)
	// InUse reports whether an instance needs the image with this digest, which keeps its disk when no name stands for
	// it any more. It is asked again at the next Open, Sweep, Delete and Import. While it is asked no image comes or goes: it may look at the
	// Store (Find, List), and may neither change it nor wait for who does.
	InUse func(digest string) bool
}

// A Store holds the images of one directory.
type Store struct {
	dir   string
	files *store.Root
	log   *slog.Logger
	o     Options
	most  bounds

	ctx    context.Context // ends with Close
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup // the running conversions

	writing sync.Mutex // held while refs.json, blobs and disks change; taken before mu

	mu      sync.Mutex
	changed chan struct{}     // closed and replaced at every change
	refs    map[string]record // as in refs.json; never written to, only replaced
	images  map[string]stored // whose disks are here, by digest
	claims  map[string]int    // digests that an Import is about to name
	orphans map[string]bool   // digests whose names may be in a list that was set aside; they stay
	imports []*importing      // in the order of their beginning
	jobs    map[string]*job   // by digest
	queue   []*job            // those of them that wait for their turn
	running int

	pulls     map[string]*pull  // by name: those under way and those that failed
	pullQueue []*pull           // those that wait for their turn
	pulling   int               // those that have it
	fetches   map[string]*fetch // the blobs that are being fetched, by their digests in hexadecimal
}

// stored is what a digest stands for, read from its blobs and its disk.
type stored struct {
	config Config
	size   int64
}

const (
	blobsDir   = "blobs/sha256"
	disksDir   = "disks"
	partialDir = "partial"
	stagingDir = "staging"
	diskSuffix = ".ext4"
)

var errClosed = fmt.Errorf("the image store is closed: %w", api.Unavailable)

// Open opens the images in dir, makes it when it is missing, and removes what a crash left and what nothing names or
// uses any more. A name whose disk is gone or unreadable is forgotten, with a warning.
func Open(dir string, o Options) (*Store, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.InUse == nil {
		o.InUse = func(string) bool { return false }
	}
	if o.Parallel <= 0 {
		o.Parallel = 2
	}
	if o.Pulls <= 0 {
		o.Pulls = 3
	}
	if o.Registry == nil {
		o.Registry = registry.New(registry.Config{})
	}
	if o.Credentials == nil {
		o.Credentials = func(context.Context, string, string) (registry.Auth, error) { return registry.Auth{}, nil }
	}
	if o.Pulled == nil {
		o.Pulled = func(string, int64, time.Duration) {}
	}
	if o.Working == nil {
		o.Working = func() func() { return func() {} }
	}
	if o.Converted == nil {
		o.Converted = func(error, time.Duration) {}
	}
	o.Limits = o.Limits.withDefaults()
	files, err := store.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("open images: %w", err)
	}
	s := &Store{
		dir: files.Path(""), files: files, log: o.Log, o: o, most: bounds{maxNames, refsLimit, pullsLimit},
		changed: make(chan struct{}), refs: map[string]record{}, images: map[string]stored{},
		claims: map[string]int{}, orphans: map[string]bool{}, jobs: map[string]*job{}, pulls: map[string]*pull{}, fetches: map[string]*fetch{},
	}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	if err := s.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("open images: %w", err), files.Close())
	}
	resumed := s.loadPulls()
	s.sweep()
	s.resume(resumed)
	return s, nil
}

func (s *Store) load() error {
	if err := os.RemoveAll(s.path(stagingDir)); err != nil {
		return err
	}
	for _, d := range []string{blobsDir, disksDir, partialDir, stagingDir} {
		if err := os.MkdirAll(s.path(d), 0o700); err != nil {
			return err
		}
	}
	refs, err := store.ReadJSON[map[string]record](s.files, refsFile, refsVersion, refsLimit)
	if bad, ok := errors.AsType[*store.Unreadable](err); ok {
		s.log.Error("the names of the images are lost, and their disks are kept; import or pull them again", "error", bad)
	} else if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	disks, err := os.ReadDir(s.path(disksDir))
	if err != nil {
		return err
	}
	for _, d := range disks {
		hex, ok := strings.CutSuffix(d.Name(), diskSuffix)
		if !ok {
			continue // sweep removes it
		}
		img, err := s.read(hex)
		if err != nil {
			s.log.Warn("an image is unreadable and is forgotten", "digest", "sha256:"+hex, "error", err)
			continue
		}
		s.images["sha256:"+hex] = img
	}
	for name, r := range refs {
		if _, ok := s.images[r.Digest]; !ok {
			s.log.Warn("an image is gone and is forgotten", "image", name, "digest", r.Digest)
			continue
		}
		s.refs[name] = r
	}
	return s.adopt()
}

// read looks up a digest's configuration, by way of its manifest, and its disk.
func (s *Store) read(hex string) (stored, error) {
	raw, err := s.files.ReadFile(blobsDir+"/"+hex, s.o.Limits.JSON)
	if err != nil {
		return stored{}, err
	}
	m, err := parseManifest(raw)
	if err != nil {
		return stored{}, err
	}
	raw, err = s.files.ReadFile(blobsDir+"/"+m.Config.Digest.Hex, s.o.Limits.JSON)
	if err != nil {
		return stored{}, err
	}
	c, err := parseConfig(raw)
	if err != nil {
		return stored{}, err
	}
	size, err := diskUsage(s.path(disksDir, hex+diskSuffix))
	return stored{config: c.program(), size: size}, err
}

// diskUsage is what a file takes on the host, in bytes.
func diskUsage(path string) (int64, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return 0, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !info.Mode().IsRegular() || !ok {
		return 0, fmt.Errorf("%s is not a regular file", path)
	}
	return st.Blocks * 512, nil
}

// Close ends what is running and waits for the conversions and the pulls. Imports in progress fail; a pull goes on at the
// next Open, unless it needs credentials that came with it.
func (s *Store) Close() error {
	s.mu.Lock()
	s.cancel(errClosed) // no conversion or pull starts after
	s.mu.Unlock()
	s.wg.Wait()
	s.o.Registry.Close()
	s.writing.Lock() // whoever writes has finished, and nobody begins after
	defer s.writing.Unlock()
	return s.files.Close()
}

// Changed returns a channel that is closed at the next change of any image, its progress included. Ask for it first,
// then look, then wait.
func (s *Store) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// notify wakes who waits on Changed. s.mu is held.
func (s *Store) notify() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// List returns all images, those in work included, in the order of their names. Of a name that is here and is fetched or
// imported anew, it shows what is here.
func (s *Store) List() []Image {
	seen := make(map[string]bool)
	list := slices.DeleteFunc(s.all(), func(img Image) bool {
		again := seen[img.Ref]
		seen[img.Ref] = true
		return again
	})
	slices.SortFunc(list, func(a, b Image) int { return strings.Compare(a.Ref, b.Ref) })
	return list
}

// all are the images: first those that are ready, then those in work, then what failed.
func (s *Store) all() []Image {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list, failed []Image
	for _, name := range slices.Sorted(maps.Keys(s.refs)) {
		list = append(list, s.ready(name))
	}
	for _, i := range s.imports {
		list = append(list, s.inWork(i)...)
	}
	now := time.Now()
	for _, name := range slices.Sorted(maps.Keys(s.pulls)) {
		if s.pulls[name].stale(now) {
			continue // the next pull forgets it
		}
		if img := s.inPull(s.pulls[name]); img.Status == Failed {
			failed = append(failed, img)
		} else {
			list = append(list, img)
		}
	}
	return append(list, failed...)
}

func (s *Store) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

func (s *Store) diskPath(digest string) string {
	return s.path(disksDir, strings.TrimPrefix(digest, "sha256:")+diskSuffix)
}
