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
	// Converted is told of every conversion that ended.
	Converted func(err error, took time.Duration)
	// InUse reports whether an instance needs the image with this digest, which keeps its disk when no name stands for
	// it any more. It is called with no lock held, and asked again at the next Open, Sweep, Delete and Import.
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

// A record is what refs.json says of a name.
type record struct {
	Digest    string            `json:"digest"`
	CreatedAt time.Time         `json:"created_at"`
	Tags      map[string]string `json:"tags,omitempty"`
}

// bounds are of what the lists hold: what is written can be read again.
type bounds struct {
	names       int
	refs, pulls int // bytes of refs.json and pulls.json
}

// stored is what a digest stands for, read from its blobs and its disk.
type stored struct {
	config Config
	size   int64
}

const (
	refsFile    = "refs.json"
	refsVersion = 1
	refsLimit   = 64 << 20
	maxNames    = 10_000
	blobsDir    = "blobs/sha256"
	disksDir    = "disks"
	partialDir  = "partial"
	stagingDir  = "staging"
	diskSuffix  = ".ext4"
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

// adopt keeps the images without a name for as long as a list of names that was set aside lies here: it may name them, and a
// person may mend it.
func (s *Store) adopt() error {
	files, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(files, func(f os.DirEntry) bool {
		return strings.HasPrefix(f.Name(), refsFile) && store.IsAside(f.Name())
	})
	if i < 0 {
		return nil
	}
	for digest := range s.images {
		s.orphans[digest] = true
	}
	for _, r := range s.refs {
		delete(s.orphans, r.Digest)
	}
	if n := len(s.orphans); n > 0 {
		s.log.Warn("images without a name are kept until the list that was set aside is removed", "images", n, "list", s.path(files[i].Name()))
	}
	return nil
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

// Find returns the image that ref names: a reference as Normalize takes it, one with a digest whose repository has an
// image of that digest, or a digest alone. What is ready comes before what is in work. The error is api.NotFound with code
// image_not_found.
func (s *Store) Find(ref string) (Image, error) {
	name, digest := "", ""
	if strings.HasPrefix(ref, "sha256:") {
		digest = ref
	} else {
		var err error
		if name, err = Normalize(ref); err != nil {
			return Image{}, err
		}
		_, digest, _ = cutDigest(name)
	}
	s.mu.Lock()
	if _, ok := s.refs[name]; ok { // which is asked for most often
		defer s.mu.Unlock()
		return s.ready(name), nil
	}
	s.mu.Unlock()
	all := s.all()
	for _, same := range []func(Image) bool{
		func(img Image) bool { return img.Ref == name },
		func(img Image) bool {
			return digest != "" && img.Digest == digest && (name == "" || repository(img.Ref) == repository(name))
		},
	} {
		if i := slices.IndexFunc(all, same); i >= 0 {
			return all[i], nil
		}
	}
	return Image{}, notFound(ref)
}

// ready describes a name in refs.json. s.mu is held.
func (s *Store) ready(name string) Image {
	r := s.refs[name]
	img := s.images[r.Digest]
	return Image{
		Ref: name, Digest: r.Digest, Status: Ready, Platform: amd64, CreatedAt: r.CreatedAt, Tags: r.Tags,
		Size: img.size, Disk: s.diskPath(r.Digest), Config: img.config,
	}
}

// Delete forgets the name ref. The disk goes with the last name, or later, when Options.InUse does not need it any
// more. A pull that is under way ends, and one that failed is forgotten. A name that is being imported is a conflict, and one
// that is not there is api.NotFound.
func (s *Store) Delete(ctx context.Context, ref string) error {
	img, err := s.Find(ref)
	if err != nil {
		return err
	}
	ended := s.endPull(ctx, img.Ref) // also where it would only bring a name back that is here
	if !ended && img.Status != Ready {
		return &api.Error{Kind: api.Conflict, Code: "image_not_ready", Message: fmt.Sprintf("image %s is being imported; it can be deleted once it is ready", img.Ref)}
	}
	err = s.update(func(refs map[string]record) error {
		if _, ok := refs[img.Ref]; !ok {
			return notFound(ref)
		}
		delete(refs, img.Ref)
		return nil
	})
	if ended && errors.Is(err, api.NotFound) { // else the pull brought it before it could be ended
		return nil
	}
	if err != nil {
		return err
	}
	s.sweep()
	return nil
}

// update changes refs.json, and what readers see once that is on disk.
func (s *Store) update(change func(map[string]record) error) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	if s.ctx.Err() != nil {
		return errClosed
	}
	s.mu.Lock()
	refs := maps.Clone(s.refs)
	s.mu.Unlock()
	before := len(refs)
	if err := change(refs); err != nil {
		return err
	}
	if n := len(refs); n > s.most.names && n > before {
		return full("images would have %d names here; %d are possible; delete some", n, s.most.names)
	}
	data, err := store.EncodeJSON(refsVersion, refs)
	if err != nil {
		return err
	}
	if len(data) > s.most.refs {
		return full("the names of images and their tags would take %d bytes here; %d are possible; delete some", len(data), s.most.refs)
	}
	if err := s.files.WriteFile(refsFile, data); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refs = refs
	if len(s.orphans) > 0 {
		for _, r := range refs { // it goes with its last name again
			delete(s.orphans, r.Digest)
		}
	}
	s.notify()
	return nil
}

// Sweep removes what nothing names or uses, as Open does: for who could not yet tell, at Open, what is in use.
func (s *Store) Sweep() { s.sweep() }

// sweep removes the files of images that no name stands for, no import or pull is about to name, and no instance uses. What
// cannot be removed is logged, and tried again the next time.
func (s *Store) sweep() {
	s.writing.Lock()
	defer s.writing.Unlock()
	if s.ctx.Err() != nil {
		return
	}
	keep := s.needed()
	for _, d := range []string{disksDir, blobsDir, partialDir} {
		entries, err := os.ReadDir(s.path(d))
		if err != nil {
			s.log.Warn("unused images are not removed", "error", err)
			return
		}
		for _, e := range entries {
			if keep[e.Name()] {
				continue
			}
			if err := os.RemoveAll(s.path(d, e.Name())); err != nil {
				s.log.Warn("an unused image is not removed", "error", err)
			}
		}
	}
}

// needed returns the names of the files in disks and blobs that must stay, and forgets the other images. s.writing is held.
func (s *Store) needed() map[string]bool {
	s.mu.Lock()
	named := make(map[string]bool)
	for _, r := range s.refs {
		named[r.Digest] = true
	}
	for d := range s.claims {
		named[d] = true
	}
	all := maps.Clone(s.images)
	s.mu.Unlock()
	if disks, err := os.ReadDir(s.path(disksDir)); err == nil { // one that is unreadable may be in use
		for _, d := range disks {
			if hex, ok := strings.CutSuffix(d.Name(), diskSuffix); ok {
				all["sha256:"+hex] = stored{}
			}
		}
	}

	keep := make(map[string]bool)
	s.mu.Lock()
	now := time.Now()
	for _, p := range s.pulls {
		if p.stale(now) {
			continue
		}
		for _, hex := range p.rec.Layers {
			keep[hex] = true
		}
	}
	for _, j := range s.jobs {
		for _, l := range j.candidate.layers {
			keep[l.blob.sha256] = true
		}
	}
	s.mu.Unlock()
	for digest := range all {
		s.mu.Lock()
		free := !named[digest] && s.claims[digest] == 0 && !s.orphans[digest]
		s.mu.Unlock()
		if free && !s.o.InUse(digest) {
			s.mu.Lock()
			if free = s.claims[digest] == 0; free { // or an Import wants it after all
				delete(s.images, digest)
			}
			s.mu.Unlock()
			if free {
				continue
			}
		}
		hex := strings.TrimPrefix(digest, "sha256:")
		keep[hex+diskSuffix] = true
		keep[hex] = true
		if raw, err := s.files.ReadFile(blobsDir+"/"+hex, s.o.Limits.JSON); err == nil {
			if m, err := parseManifest(raw); err == nil {
				keep[m.Config.Digest.Hex] = true
				for _, l := range m.Layers { // what else is pulled may share them
					keep[l.Digest.Hex] = true
				}
			}
		}
	}
	return keep
}

func (s *Store) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

func (s *Store) diskPath(digest string) string {
	return s.path(disksDir, strings.TrimPrefix(digest, "sha256:")+diskSuffix)
}
