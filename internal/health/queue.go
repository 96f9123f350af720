package health

import (
	"container/list"
	"sync"
	"time"
)

// turnTime is how long a start may hold its turn.
const turnTime = 50 * time.Millisecond

// A queue gives turns to what costs CPU to begin (a TLS handshake, a program's start), first come first served, as many at once as there
// are cores. A turn is over when the start is, and after turnTime in any case. Who used that up the last time stands behind those who
// did not: a few that hang cost the others nothing.
type queue struct {
	mu    sync.Mutex
	free  int
	quick list.List // of *turn
	slow  list.List
}

// A turn is one start's.
type turn struct {
	queue *queue
	call  func()        // when it comes, with the queue locked
	line  *list.List    // it waits in
	place *list.Element // in line; nil: it does not wait
	timer *time.Timer   // ends it; nil: it is over, or did not come
	spent bool          // it used up turnTime
}

func newQueue(slots int) *queue { return &queue{free: max(slots, 1)} }

// join queues for a turn; came is called when it comes, which may be at once. It must not wait, nor call the queue. slow: the last one
// of the same instance was used up. end it in every case.
func (q *queue) join(slow bool, came func()) *turn {
	q.mu.Lock()
	defer q.mu.Unlock()
	t := &turn{queue: q, call: came, line: &q.quick}
	if slow {
		t.line = &q.slow
	}
	t.place = t.line.PushBack(t)
	q.serve()
	return t
}

// serve gives free slots to who is first. The queue is locked.
func (q *queue) serve() {
	for q.free > 0 {
		first := q.quick.Front()
		if first == nil {
			first = q.slow.Front()
		}
		if first == nil {
			return
		}
		t := first.Value.(*turn)
		t.line.Remove(first)
		t.place = nil
		q.free--
		t.timer = time.AfterFunc(turnTime, func() { t.end(true) })
		t.call()
	}
}

// end ends a turn, or gives up the wait for it. Again it does nothing.
func (t *turn) end(spent bool) {
	t.queue.mu.Lock()
	defer t.queue.mu.Unlock()
	switch {
	case t.place != nil:
		t.line.Remove(t.place)
		t.place = nil
	case t.timer != nil:
		t.timer.Stop()
		t.timer, t.spent = nil, spent
		t.queue.free++
		t.queue.serve()
	}
}

// usedUp reports whether the turn ended because its time was up.
func (t *turn) usedUp() bool {
	t.queue.mu.Lock()
	defer t.queue.mu.Unlock()
	return t.spent
}

// len returns how many wait.
func (q *queue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.quick.Len() + q.slow.Len()
}
