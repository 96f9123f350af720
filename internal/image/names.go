package image

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/store"
)

// The names of images: which stands for what, and how many there may be.

const (
	refsFile    = "refs.json"
	refsVersion = 1
	refsLimit   = 64 << 20
	maxNames    = 10_000
)

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
