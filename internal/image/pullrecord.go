package image

import (
	"errors"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/registry"
	"github.com/halevm/hale/internal/store"
)

const (
	pullsFile    = "pulls.json"
	pullsVersion = 1
	pullsLimit   = 16 << 20
)

// A pullRecord is what pulls.json says of a name that is being pulled, or whose pull failed. No credentials are in it.
type pullRecord struct {
	CreatedAt time.Time         `json:"created_at"`
	Tags      map[string]string `json:"tags,omitempty"`
	Digest    string            `json:"digest,omitempty"`  // once it is known
	Layers    []string          `json:"layers,omitempty"`  // the blobs, in hexadecimal, of which what is here is kept
	Private   bool              `json:"private,omitempty"` // it was given credentials, which are not kept
	Error     string            `json:"error,omitempty"`   // why it failed; empty while it is under way
	FailedAt  time.Time         `json:"failed_at,omitzero"`
}

// savePulls writes pulls.json. Where it became larger than what is read again, what failed is forgotten, the oldest first.
func (s *Store) savePulls() error {
	s.writing.Lock()
	defer s.writing.Unlock()
	if s.ctx.Err() != nil {
		return errClosed
	}
	for {
		s.mu.Lock()
		recs := make(map[string]pullRecord, len(s.pulls))
		for name, p := range s.pulls {
			recs[name] = p.rec
		}
		s.mu.Unlock()
		data, err := store.EncodeJSON(pullsVersion, recs)
		if err != nil {
			return err
		}
		if len(data) <= s.most.pulls {
			return s.files.WriteFile(pullsFile, data)
		}
		s.mu.Lock()
		failed := s.failed()
		for _, p := range failed[:(len(failed)+1)/2] {
			delete(s.pulls, p.name)
		}
		s.notify()
		s.mu.Unlock()
		if len(failed) == 0 {
			return full("what is known of the pulls and their tags would take %d bytes here; %d are possible", len(data), s.most.pulls)
		}
	}
}

// loadPulls reads pulls.json, remembers what failed, and returns what was under way, the oldest first.
func (s *Store) loadPulls() []*pull {
	recs, err := store.ReadJSON[map[string]pullRecord](s.files, pullsFile, pullsVersion, pullsLimit)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			s.log.Warn("the pulls that were under way are lost; pull them again", "error", err)
		}
		return nil
	}
	now := time.Now()
	var under []*pull
	for name, rec := range recs {
		if again, err := Normalize(name); err != nil || again != name {
			continue
		}
		if r, ok := s.refs[name]; ok && rec.Error == "" && rec.Digest != "" && r.Digest == rec.Digest {
			continue // it had ended, and only that was not written
		}
		p := s.newPull(name, registry.Auth{}, rec)
		switch {
		case rec.Error == "" && rec.Private:
			p.rec.Error, p.rec.FailedAt = "the daemon ended in the middle of the pull, and the credentials that it was given are not kept; pull it again", now.UTC()
			fallthrough
		case rec.Error != "":
			p.err = &api.Error{Kind: api.Invalid, Code: "image_failed", Message: p.rec.Error, NoRetry: true}
			p.cancel(nil)
			close(p.known)
			close(p.done)
		default:
			p.rec.Private = false
			under = append(under, p)
		}
		s.pulls[name] = p
	}
	s.prune(now)
	slices.SortFunc(under, func(a, b *pull) int {
		if c := a.rec.CreatedAt.Compare(b.rec.CreatedAt); c != 0 {
			return c
		}
		return strings.Compare(a.name, b.name)
	})
	return under
}

// resume goes on with what an earlier daemon left under way.
func (s *Store) resume(pulls []*pull) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range pulls {
		s.log.Info("a pull goes on", "image", p.name)
		s.enqueue(p)
		s.wg.Go(func() { s.run(p) })
	}
}

// prune forgets what failed long ago, and the oldest of more than is kept. s.mu is held.
func (s *Store) prune(now time.Time) {
	maps.DeleteFunc(s.pulls, func(_ string, p *pull) bool { return p.stale(now) })
	failed := s.failed()
	for _, p := range failed[:max(0, len(failed)-maxFailed)] {
		delete(s.pulls, p.name)
	}
}

// failed are the pulls that are remembered though they have ended, the oldest first. s.mu is held.
func (s *Store) failed() []*pull {
	var failed []*pull
	for _, p := range s.pulls {
		if p.ended() && p.rec.Error != "" {
			failed = append(failed, p)
		}
	}
	slices.SortFunc(failed, func(a, b *pull) int { return a.rec.FailedAt.Compare(b.rec.FailedAt) })
	return failed
}

// stale reports whether a pull failed so long ago that it is forgotten. Store.mu is held.
func (p *pull) stale(now time.Time) bool {
	return p.ended() && p.rec.Error != "" && now.Sub(p.rec.FailedAt) > failedStays
}

// credentials are the pull's own, or what the host has.
func (s *Store) credentials(p *pull, host, repository string) (registry.Auth, error) {
	if p.auth != (registry.Auth{}) {
		return p.auth, nil
	}
	auth, err := s.o.Credentials(p.ctx, host, repository)
	if err != nil {
		err = &api.Error{Kind: api.Invalid, Code: "registry_credentials", Message: err.Error(), NoRetry: true}
	}
	return auth, err
}
