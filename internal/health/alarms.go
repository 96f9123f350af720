package health

import "time"

// Alarms are when loops are to be rung: a heap, the soonest first. What is in it is small, and knows its loop by a seat, which is small
// too: loops are large and far apart, and a heap of them would fetch one at each step that an alarm moves.
type alarms struct {
	heap  []alarm
	seats []seat
	free  []int // seats that nobody has
}

type alarm struct {
	at   time.Duration // since the timers' origin
	seat int
}

func (x alarm) before(y alarm) bool { return x.at < y.at }

// A seat is what a loop has here while it has an alarm.
type seat struct {
	loop  *loop
	place int // of its alarm in the heap
}

// set gives l an alarm, or another time to the one that it has.
func (a *alarms) set(l *loop, at time.Duration) {
	if l.seat == 0 {
		a.sit(l)
		a.heap = append(a.heap, alarm{})
		a.seats[l.seat-1].place = len(a.heap) - 1
	}
	a.settle(a.seats[l.seat-1].place, alarm{at, l.seat - 1})
}

// sit gives l a seat.
func (a *alarms) sit(l *loop) {
	if len(a.free) == 0 {
		a.free = append(a.free, len(a.seats))
		a.seats = append(a.seats, seat{})
	}
	last := len(a.free) - 1
	n := a.free[last]
	a.free = a.free[:last]
	a.seats[n].loop, l.seat = l, n+1
}

// drop takes its alarm from l, if it has one.
func (a *alarms) drop(l *loop) {
	if l.seat == 0 {
		return
	}
	n := l.seat - 1
	place, last := a.seats[n].place, len(a.heap)-1
	a.seats[n], l.seat = seat{}, 0
	a.free = append(a.free, n)
	moved := a.heap[last]
	a.heap = a.heap[:last]
	if place < last {
		a.settle(place, moved)
	}
}

// due takes its alarm from the loop that is to be rung first, if it is to be by now; else it returns nil.
func (a *alarms) due(now time.Duration) *loop {
	if len(a.heap) == 0 || a.heap[0].at > now {
		return nil
	}
	l := a.seats[a.heap[0].seat].loop
	a.drop(l)
	return l
}

// settle puts x where it belongs, beginning at a place that is free.
func (a *alarms) settle(at int, x alarm) {
	for at > 0 {
		above := (at - 1) / 2
		if !x.before(a.heap[above]) {
			break
		}
		a.put(at, a.heap[above])
		at = above
	}
	for {
		below := 2*at + 1
		if below+1 < len(a.heap) && a.heap[below+1].before(a.heap[below]) {
			below++
		}
		if below >= len(a.heap) || !a.heap[below].before(x) {
			break
		}
		a.put(at, a.heap[below])
		at = below
	}
	a.put(at, x)
}

func (a *alarms) put(place int, x alarm) {
	a.heap[place] = x
	a.seats[x.seat].place = place
}
