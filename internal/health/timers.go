package health

import (
	"container/heap"
	"sync"
	"time"
)

// Timers ring loops at the times that they said. One timer of Go's serves them all: one for each would wake a goroutine of its own
// each time, and thousands of instances ring all the time.
type timers struct {
	mu    sync.Mutex
	timer *time.Timer // nil: none was ever set
	next  time.Time   // when it rings; zero: it does not
	heap  alarms
	over  bool
}

// An alarm is when a loop is to be rung.
type alarm struct {
	at   time.Time
	loop *loop
}

// set has l rung at a time, zero for never, and no more at the one before it.
func (t *timers) set(l *loop, at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	place := l.alarm - 1
	switch {
	case t.over:
		return
	case at.IsZero():
		if place >= 0 {
			heap.Remove(&t.heap, place)
		}
		return
	case place < 0:
		heap.Push(&t.heap, alarm{at, l})
	case t.heap[place].at.Equal(at):
		return
	default:
		t.heap[place].at = at
		heap.Fix(&t.heap, place)
	}
	t.arm()
}

// arm sets the timer for the first of all, unless it rings sooner anyway.
func (t *timers) arm() {
	if len(t.heap) == 0 {
		return
	}
	first := t.heap[0].at
	if !t.next.IsZero() && !first.Before(t.next) {
		return
	}
	t.next = first
	if t.timer == nil {
		t.timer = time.AfterFunc(time.Until(first), t.ring)
	} else {
		t.timer.Reset(time.Until(first))
	}
}

// ring rings all whose time has come.
func (t *timers) ring() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.next = time.Time{}
	for now := time.Now(); len(t.heap) > 0 && !t.heap[0].at.After(now); {
		l := t.heap[0].loop
		heap.Pop(&t.heap)
		l.mail.bring(bell)
	}
	t.arm()
}

func (t *timers) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.over = true
	if t.timer != nil {
		t.timer.Stop()
	}
}

// Alarms are a heap, the soonest first. Each loop knows its place, from 1; 0: it has none.
type alarms []alarm

func (h alarms) Len() int           { return len(h) }
func (h alarms) Less(i, j int) bool { return h[i].at.Before(h[j].at) }

func (h alarms) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].loop.alarm, h[j].loop.alarm = i+1, j+1
}

// Push is heap.Push's.
func (h *alarms) Push(v any) {
	a := v.(alarm)
	*h = append(*h, a)
	a.loop.alarm = len(*h)
}

// Pop is heap.Pop's; what it returns is nothing that anybody needs.
func (h *alarms) Pop() any {
	last := len(*h) - 1
	(*h)[last].loop.alarm = 0
	(*h)[last] = alarm{}
	*h = (*h)[:last]
	return nil
}
