package health

import (
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"
)

// rung reports whether the bell rang for a loop that nobody runs, and takes that.
func (l *loop) rung() bool {
	l.mail.mu.Lock()
	defer l.mail.mu.Unlock()
	rung := l.mail.kinds == bell
	l.mail.kinds = 0
	return rung
}

// Loops are rung at the times that were said last, all that are, no sooner and no more; and each knows its seat.
func TestTimers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ts timers
		loops := make([]*loop, 12)
		for i := range loops {
			loops[i] = new(loop)
			loops[i].mail.busy = true // so that a bell is left there
		}
		want := map[*loop]time.Time{}
		check := func(step int) {
			ts.mu.Lock()
			defer ts.mu.Unlock()
			a := &ts.alarms
			for i, l := range loops {
				rung := l.rung()
				if at, ok := want[l]; rung != (ok && !at.After(time.Now())) {
					t.Fatalf("step %d: loop %d is rung: %v, of %v at %v", step, i, rung, at, time.Now())
				}
				if rung {
					delete(want, l)
				}
				at, ok := want[l]
				if ok != (l.seat != 0) {
					t.Fatalf("step %d: loop %d has seat %d, with %v", step, i, l.seat, at)
				}
				if ok {
					s := a.seats[l.seat-1]
					if s.loop != l || a.heap[s.place] != (alarm{at.Sub(ts.origin), l.seat - 1}) {
						t.Fatalf("step %d: loop %d has %+v, with %v", step, i, s, at)
					}
				}
			}
			if len(a.heap) != len(want) || len(a.free)+len(want) != len(a.seats) || len(a.seats) > len(loops) {
				t.Fatalf("step %d: %d alarms and %d seats, %d of them free, for %d", step, len(a.heap), len(a.seats), len(a.free), len(want))
			}
			for _, n := range a.free {
				if a.seats[n].loop != nil {
					t.Fatalf("step %d: a loop is kept that is not rung", step)
				}
			}
		}
		random := rand.New(rand.NewPCG(1, 2))
		for step := range 1000 {
			switch l := loops[random.IntN(len(loops))]; random.IntN(6) {
			case 0:
				ts.set(l, time.Time{})
				delete(want, l)
			case 1: // as it is
				ts.set(l, want[l])
			case 2:
				time.Sleep(time.Duration(random.IntN(8)) * ms)
			default: // also now, and before
				at := time.Now().Add(time.Duration(random.IntN(20)-1) * ms)
				ts.set(l, at)
				want[l] = at
			}
			synctest.Wait()
			check(step)
		}
		ts.close()
	})
}

// One timer serves all: it rings for the first of them, and not again for those that were set later, or at the same time.
func TestTimersRingNoSoonerThanTheFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ts timers
		loops := [3]loop{}
		for i := range loops {
			loops[i].mail.busy = true
		}
		next := func() time.Time {
			ts.mu.Lock()
			defer ts.mu.Unlock()
			return ts.next
		}
		start := time.Now()
		for i, after := range []time.Duration{5, 3, 4} {
			ts.set(&loops[i], start.Add(after*time.Second))
		}
		for _, first := range []time.Duration{3, 4, 5} {
			if at := next(); !at.Equal(start.Add(first * time.Second)) {
				t.Errorf("the timer rings after %v, want %v s", at.Sub(start), int(first))
			}
			time.Sleep(time.Until(start.Add(first * time.Second)))
			synctest.Wait()
		}
		if at := next(); !at.IsZero() {
			t.Errorf("with nothing to ring the timer rings after %v", at.Sub(start))
		}

		// It is not set again for what is no sooner: it rings for nobody, and is set then.
		start = time.Now()
		ts.set(&loops[0], start.Add(time.Second))
		ts.set(&loops[1], start.Add(2*time.Second))
		ts.set(&loops[0], time.Time{})
		if at := next(); !at.Equal(start.Add(time.Second)) {
			t.Errorf("the timer was set again, and rings after %v", at.Sub(start))
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if at := next(); !at.Equal(start.Add(2 * time.Second)) {
			t.Errorf("the timer rings after %v", at.Sub(start))
		}
		ts.close()
	})
}

// After close none is rung, and none is set.
func TestTimersClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ts timers
		var l, late loop
		l.mail.busy, late.mail.busy = true, true
		ts.set(&l, time.Now().Add(time.Second))
		ts.close()
		if ts.timer.(*goTimer).Timer.Stop() {
			t.Error("its timer goes on")
		}
		ts.set(&late, time.Now().Add(ms))
		ts.set(&late, time.Now())
		time.Sleep(time.Minute)
		ts.ring() // which waited for the lock while it was closed
		synctest.Wait()
		if l.rung() || late.rung() || late.seat != 0 {
			t.Errorf("rung after the end; seat %d", late.seat)
		}
		var unused timers
		unused.close()
	})
}

// A Set that was given a timer has no other: it is started once, rings the probe that is due, and is stopped in the end.
func TestTimerGiven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.close()
		given := new(countedTimer)
		b.Set = NewSet(Config{Probe: b.probe, Journal: b.journal, Timer: given})
		b.Sync(Observed{ID: "a", Run: 1, Phase: Running, Network: true, Policy: mustParse(t, `{"http":{"port":80},"interval":"10s"}`)})
		time.Sleep(25 * time.Second)
		synctest.Wait()
		if n := len(b.probes); n < 3 || given.starts != 1 || given.stops != 0 {
			t.Errorf("%d probes; the timer was started %d times, and stopped %d times", n, given.starts, given.stops)
		}
		b.close()
		if given.stops != 1 {
			t.Errorf("in the end it was stopped %d times", given.stops)
		}
	})
}

type countedTimer struct {
	goTimer
	starts, stops int
}

func (c *countedTimer) Start(ring func()) { c.starts++; c.goTimer.Start(ring) }
func (c *countedTimer) Stop()             { c.stops++; c.goTimer.Stop() }
