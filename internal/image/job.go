package image

import (
	"context"
	"errors"
	"runtime/debug"
	"slices"
	"time"
)

// errAbandoned ends a conversion that nobody waits for any more.
var errAbandoned = errors.New("nobody waits for the image any more")

// A job is one conversion. Its fields are guarded by Store.mu, but for what its goroutine alone uses.
type job struct {
	candidate *candidate
	staging   *staging // held until the job ends
	ctx       context.Context
	cancel    context.CancelCauseFunc
	waiters   int
	progress  Progress
	err       error         // set before done is closed
	done      chan struct{} // closed at the end
}

// convertOnce sees to it that the disk of c's digest is here: it is already, or it joins the conversion under way, or
// starts one. On success the digest is claimed.
func (s *Store) convertOnce(ctx context.Context, c *candidate, st *staging, tell func(Progress)) error {
	s.mu.Lock()
	s.claims[c.digest]++
	if _, ok := s.images[c.digest]; ok {
		s.mu.Unlock()
		return nil
	}
	j := s.jobs[c.digest]
	if j == nil {
		j = s.newJob(c, st)
	}
	j.waiters++
	c.job = j
	s.notify()
	s.mu.Unlock()

	err := s.await(ctx, j, tell)

	s.mu.Lock()
	c.job = nil
	s.mu.Unlock()
	if err != nil {
		s.unclaim(c.digest)
	}
	return err
}

// claim has what is here of a digest stay until unclaim, whoever deletes its names, and reports whether its disk is here.
func (s *Store) claim(digest string) (here bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.claims[digest]++
	_, here = s.images[digest]
	return here
}

func (s *Store) unclaim(digest string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.claims[digest]--; s.claims[digest] == 0 {
		delete(s.claims, digest)
	}
}

// newJob queues a conversion. s.mu is held.
func (s *Store) newJob(c *candidate, st *staging) *job {
	j := &job{candidate: c, staging: st, done: make(chan struct{})}
	j.ctx, j.cancel = context.WithCancelCause(s.ctx)
	st.hold()
	s.jobs[c.digest] = j
	s.queue = append(s.queue, j)
	s.dispatch()
	return j
}

// dispatch starts what may start. s.mu is held.
func (s *Store) dispatch() {
	for s.running < s.o.Parallel && len(s.queue) > 0 && s.ctx.Err() == nil {
		j := s.queue[0]
		s.queue = s.queue[1:]
		s.running++
		s.wg.Go(func() {
			start := time.Now()
			err := s.work(j)
			s.o.Converted(err, time.Since(start))
			s.mu.Lock()
			s.running--
			s.end(j, err)
			s.dispatch()
			s.mu.Unlock()
			debug.FreeOSMemory() // trees and garbage of many files, which a daemon at rest is not to keep
		})
	}
}

// work is a job's goroutine. A panic, here or in those that it starts, fails the import and nothing else.
func (s *Store) work(j *job) error {
	defer s.o.Working()()
	err := caught(func() error {
		return s.build(j.ctx, j.candidate, j.staging, func(p Progress) {
			s.mu.Lock()
			defer s.mu.Unlock()
			j.progress = p
			s.notify()
		})
	})
	return s.logPanic(err, "the conversion of the image", "digest", j.candidate.digest)
}

// end tells who waits. s.mu is held.
func (s *Store) end(j *job, err error) {
	j.err = err
	j.cancel(nil)
	if d := j.candidate.digest; s.jobs[d] == j {
		delete(s.jobs, d)
	}
	j.staging.release()
	close(j.done)
	s.notify()
}

// await returns the job's result, or, when ctx ends first, once the job goes on for others or has ended.
func (s *Store) await(ctx context.Context, j *job, tell func(Progress)) error {
	var last Progress
	for {
		s.mu.Lock()
		changed, p := s.changed, j.progress
		s.mu.Unlock()
		if p != last {
			last = p
			tell(p)
		}
		select {
		case <-j.done:
			return j.err
		case <-changed:
		case <-ctx.Done():
			s.abandon(j)
			return context.Cause(ctx)
		}
	}
}

func (s *Store) abandon(j *job) {
	s.mu.Lock()
	if j.waiters--; j.waiters > 0 {
		s.mu.Unlock()
		return
	}
	j.cancel(errAbandoned)
	if d := j.candidate.digest; s.jobs[d] == j {
		delete(s.jobs, d) // the next import of this digest begins anew
	}
	if n := slices.Index(s.queue, j); n >= 0 {
		s.queue = slices.Delete(s.queue, n, n+1)
		s.end(j, errAbandoned)
	}
	s.mu.Unlock()
	<-j.done
}
