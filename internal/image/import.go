package image

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/halevm/hale/api"
)

// ImportOptions are what an import may be told; the zero value takes the names that the archive says.
type ImportOptions struct {
	Name string            // what the image is to be called; needed where the archive names none
	Tags map[string]string // the caller's own labels on the names that result
	Size int64             // of the archive in bytes, for Progress; 0 where it is not known
	// Progress is told how far the import is, from several goroutines but one call at a time, and must not block.
	Progress func(Progress)
}

// An importing is one Import between the moment its images are known and its end.
type importing struct {
	candidates []*candidate
	createdAt  time.Time
	tags       map[string]string
	progress   Progress // guarded by Store.mu
}

// A candidate is one image of an archive.
type candidate struct {
	names    []string // normalised
	digest   string   // known from the start for an OCI layout, once the layers are inflated for a docker-archive
	config   []byte
	manifest []byte
	layers   []*layer
	urls     map[string]bool // the layers, by their digests in hexadecimal, of which a manifest says that they are elsewhere
	last     bool            // nobody needs what is staged after it
	job      *job            // while one works for it; guarded by Store.mu
}

// Import reads an archive, a docker-archive (what docker save writes) or an OCI layout, as a tar, perhaps compressed,
// and returns the images in it once they are ready. What is wrong with it is an *api.Error: invalid_image,
// image_too_large, invalid_platform, insufficient_resources. An import that fails or is cancelled leaves nothing.
func (s *Store) Import(ctx context.Context, r io.Reader, o ImportOptions) ([]Image, error) {
	defer s.o.Working()()
	var images []Image
	err := caught(func() (err error) {
		images, err = s.importAll(ctx, r, o)
		return err
	})
	if err = s.logPanic(err, "the import of the image"); err != nil {
		s.sweep()
		return nil, refusal(err)
	}
	return images, nil
}

func (s *Store) importAll(ctx context.Context, r io.Reader, o ImportOptions) ([]Image, error) {
	var name string
	if o.Name != "" {
		var err error
		if name, err = Normalize(o.Name); err != nil {
			return nil, err
		}
		if _, _, ok := cutDigest(name); ok {
			return nil, invalid("an image is imported under a name with a tag, not under a digest: %s", quote(o.Name))
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(s.ctx, func() { cancel(errClosed) })()

	st, err := newStaging(s.path(stagingDir))
	if err != nil {
		return nil, err
	}
	defer st.release()
	imp := &importing{createdAt: time.Now().UTC(), tags: maps.Clone(o.Tags)}
	tell := o.Progress
	if tell == nil {
		tell = func(Progress) {}
	}
	report := func(p Progress) {
		s.mu.Lock()
		imp.progress = p
		if imp.candidates != nil {
			s.notify()
		}
		s.mu.Unlock()
		tell(p)
	}
	a, err := receive(ctx, r, st, s.o.Limits, newMeter(Receiving, o.Size, report))
	if err != nil {
		return nil, err
	}
	found, err := a.images(ctx)
	if err != nil {
		return nil, err
	}
	if err := nameThem(found, name); err != nil {
		return nil, err
	}
	s.enter(imp, found)
	defer s.leave(imp)
	found[len(found)-1].last = true
	for _, c := range found {
		if c.digest == "" {
			if err := s.identify(ctx, c, st, report); err != nil {
				return nil, err
			}
		}
		if err := s.convertOnce(ctx, c, st, tell); err != nil {
			return nil, err
		}
		defer s.unclaim(c.digest)
	}
	return s.name(ctx, imp)
}

// nameThem gives the candidates the name that the caller chose, and sees that each has one.
func nameThem(found []*candidate, name string) error {
	if name != "" {
		if len(found) > 1 {
			return invalid("the archive holds %d images, which cannot all be called %s; import it without a name", len(found), name)
		}
		found[0].names = []string{name}
	}
	for _, c := range found {
		if len(c.names) == 0 {
			return invalid("the archive does not say what the image is called; give it a name")
		}
	}
	return nil
}

func (s *Store) enter(imp *importing, found []*candidate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	imp.candidates = found
	s.imports = append(s.imports, imp)
	s.notify()
}

func (s *Store) leave(imp *importing) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.imports = slices.DeleteFunc(s.imports, func(i *importing) bool { return i == imp })
	s.notify()
}

// identify inflates the layers of an image of a docker-archive, for without their sizes it has no manifest and no digest.
func (s *Store) identify(ctx context.Context, c *candidate, st *staging, report func(Progress)) error {
	if err := inflateAll(ctx, c.layers, st, s.o.Limits, report); err != nil {
		return err
	}
	manifest, digest, err := synthesize(c.config, c.layers)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c.manifest, c.digest = manifest, digest
	return nil
}

// name commits the import's names, all of them or none. What is deleted or cancelled is not named after that.
func (s *Store) name(ctx context.Context, imp *importing) ([]Image, error) {
	var names []string
	err := s.update(func(refs map[string]record) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		for _, c := range imp.candidates {
			for _, name := range c.names {
				refs[name] = record{Digest: c.digest, CreatedAt: imp.createdAt, Tags: imp.tags}
				names = append(names, name)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("record the image: %w", err)
	}
	s.sweep() // a name that moved may have been the last one of what it stood for
	s.mu.Lock()
	defer s.mu.Unlock()
	images := make([]Image, 0, len(names))
	for _, name := range names {
		if _, ok := s.refs[name]; ok { // else it was deleted at once
			images = append(images, s.ready(name))
		}
	}
	if len(images) == 0 {
		return nil, &api.Error{Kind: api.Conflict, Code: "conflict", Message: "the image was deleted while it was imported", NoRetry: true}
	}
	return images, nil
}

// inWork describes the images of an import in progress. s.mu is held.
func (s *Store) inWork(imp *importing) []Image {
	var list []Image
	for _, c := range imp.candidates {
		img := Image{Digest: c.digest, Status: Converting, Progress: imp.progress, Platform: amd64, CreatedAt: imp.createdAt, Tags: imp.tags}
		if c.job != nil {
			img.Progress = c.job.progress
			if n := slices.Index(s.queue, c.job); n >= 0 {
				n++
				img.Status, img.QueuePosition = Pending, &n
			}
		}
		for _, name := range c.names {
			img.Ref = name
			list = append(list, img)
		}
	}
	return list
}
