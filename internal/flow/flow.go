// Package flow bounds what is under way in one direction of a stream that shares its connection with other things.
//
// A connection that stops being read because of one stream holds up everything behind it: a signal, the news that the other
// end has gone. So the receiving end grants credit, the sending end sends no more than that, and the receiver always has room:
// [Queue] is what it puts into, and [Credit] what the sender takes from. Who reads and writes the connection is the
// caller's; any goroutine may call any method.
package flow

import (
	"context"
	"errors"
	"sync"
	"time"
)

// ErrStuck is what Put returns when nothing was read for too long.
var ErrStuck = errors.New("nothing is taken of what was sent")

// A Queue holds what has come and has not been read yet. One goroutine reads.
type Queue struct {
	limit int
	grant func(n int)

	mu      sync.Mutex
	changed chan struct{} // closed and replaced at each change of the below
	held    []byte
	taken   int   // read since the last grant
	err     error // of reads, once what is held was read
}

// NewQueue returns a queue that holds up to limit bytes. It calls grant in the reader's goroutine when so many more bytes
// may be sent, in steps of a quarter of the limit; at first the whole limit may be. A nil grant is a sender that knows no credit.
func NewQueue(limit int, grant func(n int)) *Queue {
	return &Queue{limit: limit, grant: grant, changed: make(chan struct{})}
}

func (q *Queue) notify() {
	close(q.changed)
	q.changed = make(chan struct{})
}

// Put adds p. A sender that keeps to its credit never waits here; another one does, until there is room: with ErrStuck once
// nothing was read for as long as patience, if that is not 0. What comes after the end is dropped.
func (q *Queue) Put(ctx context.Context, p []byte, patience time.Duration) error {
	for {
		q.mu.Lock()
		if q.err != nil {
			q.mu.Unlock()
			return nil
		}
		if len(q.held) == 0 || len(q.held)+len(p) <= q.limit {
			q.held = append(q.held, p...)
			q.notify()
			q.mu.Unlock()
			return nil
		}
		changed := q.changed
		q.mu.Unlock()
		var stuck <-chan time.Time
		if patience > 0 {
			stuck = time.After(patience)
		}
		select {
		case <-changed:
		case <-stuck:
			return ErrStuck
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// End is the end of what comes, with err for who reads beyond it (io.EOF); the first counts. What is held can be read still.
func (q *Queue) End(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err == nil {
		q.err = err
		q.notify()
	}
}

// Drop is End, and forgets what is held.
func (q *Queue) Drop(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.held, q.err = nil, err
	q.notify()
}

// Read takes what is held, and waits for something.
func (q *Queue) Read(p []byte) (int, error) {
	for {
		q.mu.Lock()
		if len(q.held) > 0 || len(p) == 0 {
			n := copy(p, q.held)
			if q.held = q.held[n:]; len(q.held) == 0 {
				q.held = nil // an idle stream keeps no memory
			}
			grant := 0
			if q.taken += n; q.taken >= q.limit/4 {
				grant, q.taken = q.taken, 0
			}
			q.notify()
			q.mu.Unlock()
			if grant > 0 && q.grant != nil {
				q.grant(grant)
			}
			return n, nil
		}
		if q.err != nil {
			defer q.mu.Unlock()
			return 0, q.err
		}
		changed := q.changed
		q.mu.Unlock()
		<-changed
	}
}

// A Credit is how much may be sent.
type Credit struct {
	mu      sync.Mutex
	changed chan struct{} // closed and replaced at each change of the below
	n       int
	err     error
}

// maxCredit is the most that is believed to have been granted.
const maxCredit = 1 << 30

// NewCredit returns one of nothing.
func NewCredit() *Credit { return &Credit{changed: make(chan struct{})} }

// Add is a grant of the receiver.
func (c *Credit) Add(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n = min(c.n+min(max(n, 0), maxCredit), maxCredit)
	close(c.changed)
	c.changed = make(chan struct{})
}

// Take waits until something may be sent, and takes up to most bytes of it.
func (c *Credit) Take(most int) (int, error) {
	for {
		c.mu.Lock()
		n, err, changed := min(c.n, most), c.err, c.changed
		if err == nil {
			c.n -= n
		}
		c.mu.Unlock()
		switch {
		case err != nil:
			return 0, err
		case n > 0:
			return n, nil
		}
		<-changed
	}
}

// Close ends every Take with err.
func (c *Credit) Close(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
		close(c.changed)
		c.changed = make(chan struct{})
	}
}
