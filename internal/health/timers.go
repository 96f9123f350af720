package health

import (
	"sync"
	"time"
)

// A Timer rings at the time that it was told last.
type Timer interface {
	// Start says what is called when it rings, on a goroutine of the timer's. It comes once at most, before Reset.
	Start(ring func())
	// Reset has it ring once, after d, and not when it would have.
	Reset(d time.Duration)
	// Stop ends it for good.
	Stop()
}

// Timers ring loops at the times that they said. One timer serves them all: one for each would wake a goroutine of its own
// each time, and thousands of instances ring all the time.
type timers struct {
	timer Timer // Config's; nil: one of Go's, made when it is needed

	mu      sync.Mutex
	started bool
	next    time.Time // when it rings; zero: it does not
	origin  time.Time // what alarms count from
	alarms  alarms
	over    bool
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
	if !t.started {
		t.started = true
		if t.timer == nil {
			t.timer = new(goTimer)
		}
		t.timer.Start(t.ring)
	}
	t.timer.Reset(time.Until(first))
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
	t.over = true
	t.mu.Unlock()
	if t.timer != nil { // nobody sets it any more
		t.timer.Stop()
	}
}

// A goTimer is one of Go's.
type goTimer struct{ *time.Timer }

func (g *goTimer) Start(ring func())     { g.Timer = time.AfterFunc(time.Hour, ring) }
func (g *goTimer) Reset(d time.Duration) { g.Timer.Reset(d) }
func (g *goTimer) Stop()                 { g.Timer.Stop() }
