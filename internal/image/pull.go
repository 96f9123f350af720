package image

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/registry"
)

// PullOptions are what a pull may be told.
type PullOptions struct {
	Auth     registry.Auth     // for this pull, kept in memory until it ends; none: what the host has
	Platform string            // linux/amd64, which is the one there is
	Tags     map[string]string // the caller's own labels on the name
}

// Bounds of pulling.
const (
	maxPulls    = 100            // under way, those that wait included
	maxFailed   = 200            // that are remembered; the oldest go first
	failedStays = 24 * time.Hour // and then is forgotten
)

// A pull fetches what one name stands for. Its fields are guarded by Store.mu, but for what is set before it starts.
type pull struct {
	name   string
	auth   registry.Auth // that came with the pull, until it ends
	ctx    context.Context
	cancel context.CancelCauseFunc
	host   string // of the registry, once it is asked, as repo is
	repo   *registry.Repository
	life   life

	rec        pullRecord
	candidate  *candidate // once its manifest is known
	waiters    int        // who wait for the manifest
	progress   Progress
	fetched    int64
	queued     bool
	hasTurn    bool
	converting bool
	committing bool          // too late to join: what it brings may have been seen
	err        error         // once done is closed
	turn       chan struct{} // closed when its turn has come
	known      chan struct{} // closed once the manifest is known, or the pull has ended
	done       chan struct{} // closed when it has ended
}

func (p *pull) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// errDeleted ends a pull whose name is deleted.
var errDeleted = &api.Error{Kind: api.Conflict, Code: "conflict", Message: "the image was deleted while it was pulled", NoRetry: true}

// Pull fetches what ref stands for in its registry, in the background, and returns once its manifest is known or ctx is done.
// A pull of that name that is under way is joined. What the registry refuses by then is the error, and leaves nothing; later
// the image is Failed, with the reason. Where the name is here already, it stands for what is here until the pull has ended.
func (s *Store) Pull(ctx context.Context, ref string, o PullOptions) (Image, error) {
	name, err := Normalize(ref)
	if err != nil {
		return Image{}, err
	}
	if o.Platform != "" && o.Platform != amd64 {
		return Image{}, invalidPlatform("images are pulled for %s here, and not for %s", amd64, quote(o.Platform))
	}
	for {
		p, mine, err := s.begin(name, o)
		if err != nil {
			return Image{}, err
		}
		select {
		case <-p.known:
		case <-ctx.Done():
		}
		img, err := s.seen(p)
		if mine || !errors.Is(err, api.Denied) {
			return img, err
		}
		// It was refused to other credentials.
	}
}

// seen is what a waiter of a pull is told of it.
func (s *Store) seen(p *pull) (Image, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.waiters--
	switch {
	case p.ended() && p.err != nil && p.rec.Digest == "":
		return Image{}, p.err
	case p.ended() && p.err == nil:
		if _, ok := s.refs[p.name]; ok {
			return s.ready(p.name), nil
		}
		return Image{}, errDeleted
	}
	return s.inPull(p), nil
}

// begin joins the pull of a name, or starts one; mine reports whether that has the caller's credentials. The caller is one of
// its waiters.
func (s *Store) begin(name string, o PullOptions) (p *pull, mine bool, err error) {
	s.mu.Lock()
	if s.ctx.Err() != nil {
		s.mu.Unlock()
		return nil, false, errClosed
	}
	if p := s.pulls[name]; p != nil && !p.ended() && !p.committing {
		p.waiters++
		if len(o.Tags) > 0 {
			p.rec.Tags = maps.Clone(o.Tags)
		}
		mine = p.auth == o.Auth
		s.mu.Unlock()
		return p, mine, nil
	}
	under := 0
	for _, p := range s.pulls {
		if !p.ended() {
			under++
		}
	}
	if under >= maxPulls {
		s.mu.Unlock()
		return nil, false, &api.Error{Kind: api.Unavailable, Code: "unavailable", Message: fmt.Sprintf("%d images are being pulled, which is as many as are possible at a time", maxPulls)}
	}
	rec := pullRecord{CreatedAt: time.Now().UTC(), Tags: maps.Clone(o.Tags), Private: o.Auth != (registry.Auth{})}
	if last := s.pulls[name]; last != nil {
		rec.Layers = last.rec.Layers // what is here of them is not fetched again
	}
	p = s.newPull(name, o.Auth, rec)
	p.waiters = 1
	s.pulls[name] = p
	s.enqueue(p)
	s.prune(time.Now())
	s.mu.Unlock()

	// A daemon that ends from here on knows of it afterwards.
	if err := s.savePulls(); err != nil {
		err = refusal(fmt.Errorf("record the pull: %w", err))
		s.mu.Lock()
		s.close(p, err)
		delete(s.pulls, name)
		s.mu.Unlock()
		return nil, false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		s.close(p, errClosed)
		return nil, false, errClosed
	}
	s.wg.Go(func() { s.run(p) })
	return p, true, nil
}

func (s *Store) newPull(name string, auth registry.Auth, rec pullRecord) *pull {
	p := &pull{name: name, auth: auth, rec: rec, turn: make(chan struct{}), known: make(chan struct{}), done: make(chan struct{})}
	p.ctx, p.cancel = context.WithCancelCause(s.ctx)
	p.progress.Phase = Receiving
	return p
}

// enqueue puts a pull at the end of the line. s.mu is held, as it is for the next three.
func (s *Store) enqueue(p *pull) {
	p.queued = true
	s.pullQueue = append(s.pullQueue, p)
	s.takeTurns()
	s.notify()
}

// othersWait reports whether pulls wait for their turn. s.mu is not held.
func (s *Store) othersWait() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.pullQueue) > 0
}

// waitAgain gives the pull's turn to the next, and puts it at the end of the line. s.mu is not held.
func (s *Store) waitAgain(p *pull) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.turn = make(chan struct{})
	s.leaveLine(p)
	s.enqueue(p)
}

func (s *Store) takeTurns() {
	for s.pulling < s.o.Pulls && len(s.pullQueue) > 0 {
		p := s.pullQueue[0]
		s.pullQueue = s.pullQueue[1:]
		s.pulling++
		p.queued, p.hasTurn = false, true
		close(p.turn)
	}
}

// leaveLine gives the pull's turn, or its place in the line, to the next.
func (s *Store) leaveLine(p *pull) {
	switch {
	case p.hasTurn:
		p.hasTurn = false
		s.pulling--
	case p.queued:
		p.queued = false
		s.pullQueue = slices.DeleteFunc(s.pullQueue, func(q *pull) bool { return q == p })
	}
	s.takeTurns()
}

// close tells who waits that the pull has ended.
func (s *Store) close(p *pull, err error) {
	s.leaveLine(p)
	p.err = err
	p.auth, p.repo = registry.Auth{}, nil
	p.cancel(nil)
	if p.candidate == nil {
		close(p.known)
	}
	close(p.done)
	s.notify()
}

// run is a pull's goroutine. A panic fails the pull and nothing else.
func (s *Store) run(p *pull) {
	start := time.Now()
	err := caught(func() error { return s.pull(p) })
	err = s.logPanic(err, "the pull of the image", "image", p.name)
	s.settle(p, refusal(err), time.Since(start))
}

// pull does the work, in its order.
func (s *Store) pull(p *pull) error {
	c, err := s.resolve(p)
	if err != nil {
		return err
	}
	if err := s.know(p, c); err != nil {
		return err
	}
	st, err := newStaging(s.path(stagingDir))
	if err != nil {
		return err
	}
	defer st.release()
	here := s.claim(c.digest) // or it might go once its layers are not fetched
	defer s.unclaim(c.digest)
	for !here {
		select {
		case <-p.turn:
		case <-p.ctx.Done():
			return context.Cause(p.ctx)
		}
		err := s.fetchLayers(p, c)
		if here = err == nil; here {
			break
		}
		if !errors.Is(err, errTurnOver) {
			return err
		}
		s.waitAgain(p)
	}
	s.mu.Lock()
	s.leaveLine(p)
	p.converting, c.last = true, true
	s.notify()
	s.mu.Unlock()
	if err := s.convertOnce(p.ctx, c, st, func(Progress) {}); err != nil {
		return err
	}
	defer s.unclaim(c.digest)
	s.mu.Lock()
	p.committing = true
	imp := &importing{candidates: []*candidate{c}, createdAt: p.rec.CreatedAt, tags: p.rec.Tags}
	s.mu.Unlock()
	_, err = s.name(p.ctx, imp)
	return err
}

// know records what a pull is about to fetch, so that what is here of it stays, and tells who waits for it.
func (s *Store) know(p *pull, c *candidate) error {
	s.mu.Lock()
	p.rec.Digest, p.rec.Layers = c.digest, nil
	for _, l := range c.layers {
		p.rec.Layers = append(p.rec.Layers, l.blob.sha256)
	}
	p.candidate = c
	s.notify()
	s.mu.Unlock()
	err := s.savePulls()
	close(p.known)
	return err
}

// settle records what became of a pull, and tells who waits.
func (s *Store) settle(p *pull, err error, took time.Duration) {
	outcome := "ok"
	if err != nil {
		outcome = "error"
		if e, ok := errors.AsType[*api.Error](err); ok {
			outcome = e.Code
		}
	}
	s.mu.Lock()
	forget := err == nil || errors.Is(err, errDeleted) || p.rec.Digest == "" && p.waiters > 0
	closing := errors.Is(err, errClosed)
	switch {
	case closing: // its record stays as it is: the next Open goes on with it
		outcome = "interrupted"
	case !forget:
		p.rec.Error, p.rec.FailedAt = reason(err), time.Now().UTC()
		if !worthKeeping(err) {
			p.rec.Layers = nil
		}
	case s.pulls[p.name] == p:
		delete(s.pulls, p.name)
	}
	fetched := p.fetched
	s.mu.Unlock()
	if !closing {
		s.clearUp(p, err)
	}
	s.o.Pulled(outcome, fetched, took)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.close(p, err)
}

// clearUp sees to it that whoever learns of a pull's end finds nothing of it that should not be there.
func (s *Store) clearUp(p *pull, err error) {
	if err != nil {
		s.sweep() // first, for the disk may be full
		if _, told := errors.AsType[*api.Error](err); !told {
			s.log.Error("an image cannot be pulled", "image", p.name, "error", err)
		} else {
			s.log.Info("an image is not pulled", "image", p.name, "error", err)
		}
	}
	if err := s.savePulls(); err != nil && !errors.Is(err, errClosed) {
		s.log.Warn("what became of a pull is not recorded; after a restart it is tried again", "image", p.name, "error", err)
	}
}

// reason is what a person is told. What is no refusal is our fault, and its detail is for the log.
func reason(err error) string {
	if e, ok := errors.AsType[*api.Error](err); ok {
		return e.Error()
	}
	return "something went wrong on our side; the daemon's log says what"
}

// worthKeeping reports whether what was fetched may serve another try. What is false is not kept, nor what fills the disk.
func worthKeeping(err error) bool {
	e, ok := errors.AsType[*api.Error](err)
	if !ok {
		return false
	}
	switch e.Kind {
	case api.Unavailable, api.RateLimited, api.Denied, api.NotFound:
		return true
	}
	return false
}

// endPull ends the pull of a name and forgets it, if there is one.
func (s *Store) endPull(ctx context.Context, name string) bool {
	s.mu.Lock()
	p := s.pulls[name]
	s.mu.Unlock()
	if p == nil {
		return false
	}
	p.cancel(errDeleted)
	select {
	case <-p.done:
	case <-ctx.Done():
	}
	s.mu.Lock()
	if s.pulls[name] == p {
		delete(s.pulls, name)
		s.notify()
	}
	s.mu.Unlock()
	if err := s.savePulls(); err != nil {
		s.log.Warn("a deleted pull is not forgotten on disk", "image", name, "error", err)
	}
	s.sweep()
	return true
}

// inPull describes a pull. s.mu is held.
func (s *Store) inPull(p *pull) Image {
	img := Image{
		Ref: p.name, Digest: p.rec.Digest, Platform: amd64, CreatedAt: p.rec.CreatedAt, Tags: p.rec.Tags, Status: Pulling, Progress: p.progress,
	}
	switch {
	case p.ended():
		img.Status, img.Error, img.Cause, img.FailedAt = Failed, p.rec.Error, p.err, p.rec.FailedAt
		if p.err != nil && img.Error == "" {
			img.Error = reason(p.err)
		}
	case p.converting:
		img.Status, img.Progress = Converting, Progress{Phase: Inflating}
		if p.candidate.job != nil {
			img.Progress = p.candidate.job.progress
		}
	case p.queued:
		n := slices.Index(s.pullQueue, p) + 1
		img.Status, img.QueuePosition = Pending, &n
	}
	return img
}

// parts are the registry, the repository and the tag or digest of a normalised reference.
func parts(ref string) (host, repository, tagOrDigest string, err error) {
	r, err := name.ParseReference(ref)
	if err != nil {
		return "", "", "", err
	}
	return r.Context().RegistryStr(), r.Context().RepositoryStr(), r.Identifier(), nil
}
