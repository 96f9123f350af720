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

// An alarm is one loop's place among the timers, whose lock is held for it.
type alarm struct {
	at    time.Time
	place int // in the heap, from 1; 0: it is not there
}

// set has l rung at a time, zero for never, and no more at the one before it.
func (t *timers) set(l *loop, at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	a := &l.alarm
	switch {
	case t.over || a.place > 0 && a.at.Equal(at):
		return
	case at.IsZero():
		if a.place > 0 {
			heap.Remove(&t.heap, a.place-1)
		}
		return
	case a.place > 0:
		a.at = at
		heap.Fix(&t.heap, a.place-1)
	default:
		a.at = at
		heap.Push(&t.heap, l)
	}
	t.arm()
}

// arm sets the timer for the first of all, unless it rings sooner anyway.
func (t *timers) arm() {
	if len(t.heap) == 0 {
		return
	}
	first := t.heap[0].alarm.at
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
	for now := time.Now(); len(t.heap) > 0 && !t.heap[0].alarm.at.After(now); {
		heap.Pop(&t.heap).(*loop).mail.bring(bell)
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

// Alarms are a heap, by time, of the loops that are to be rung.
type alarms []*loop

func (h alarms) Len() int           { return len(h) }
func (h alarms) Less(i, j int) bool { return h[i].alarm.at.Before(h[j].alarm.at) }

func (h alarms) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].alarm.place, h[j].alarm.place = i+1, j+1
}

// Push is heap.Push's.
func (h *alarms) Push(v any) {
	l := v.(*loop)
	*h = append(*h, l)
	l.alarm.place = len(*h)
}

// Pop is heap.Pop's.
func (h *alarms) Pop() any {
	last := len(*h) - 1
	l := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	l.alarm.place = 0
	return l
}
