package health

import (
	"sync"
	"time"
)

// Timers ring loops at the times that they said. One timer of Go's serves them all: one for each would wake a goroutine of its own
// each time, and thousands of instances ring all the time.
type timers struct {
	mu     sync.Mutex
	timer  *time.Timer // nil: none was ever set
	next   time.Time   // when it rings; zero: it does not
	origin time.Time   // what alarms count from
	alarms alarms
	over   bool
}

// set has l rung at a time, zero for never, and no more at the one before it.
func (t *timers) set(l *loop, at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.origin.IsZero() {
		t.origin = at
	}
	switch {
	case t.over:
	case at.IsZero():
		t.alarms.drop(l)
	default:
		t.alarms.set(l, at.Sub(t.origin))
	}
	t.arm()
}

// arm sets the timer for the first of all, unless it rings sooner anyway.
func (t *timers) arm() {
	if len(t.alarms.heap) == 0 {
		return
	}
	first := t.origin.Add(t.alarms.heap[0].at)
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
	if t.over {
		return
	}
	t.next = time.Time{}
	for now := time.Since(t.origin); ; {
		l := t.alarms.due(now)
		if l == nil {
			break
		}
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
