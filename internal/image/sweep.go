package image

import (
	"maps"
	"os"
	"strings"
	"time"
)

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
			stays := keep[e.Name()]
			if d == partialDir {
				stays = s.mayGoOn(e.Name(), keep)
			}
			if stays {
				continue
			}
			if err := os.RemoveAll(s.path(d, e.Name())); err != nil {
				s.log.Warn("an unused image is not removed", "error", err)
			}
		}
	}
}

// mayGoOn reports whether a partial blob is being fetched, or may be: it is needed and not here.
func (s *Store) mayGoOn(partial string, keep map[string]bool) bool {
	hex, _, _ := strings.Cut(partial, ".")
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fetches[partial] != nil {
		return true
	}
	_, err := os.Lstat(s.path(blobsDir, hex))
	return keep[hex] && err != nil
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
	var making []*candidate
	for _, j := range s.jobs {
		making = append(making, j.candidate)
	}
	s.mu.Unlock()
	for _, c := range making {
		for _, blob := range [][]byte{c.config, c.manifest} {
			hash, _ := digestOf(blob)
			keep[hash.Hex] = true
		}
		for _, l := range c.layers {
			keep[l.blob.sha256] = true
		}
	}
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
