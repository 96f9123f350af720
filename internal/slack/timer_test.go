package slack

import (
	"testing"
	"time"
)

// A timer rings once for each time that it is told to, not before its time, and not at the time that another took the place of.
func TestTimer(t *testing.T) {
	timer, err := NewTimer()
	if err != nil {
		t.Fatal(err)
	}
	rang := make(chan time.Time, 10)
	timer.Start(func() { rang <- time.Now() })
	defer timer.Stop()
	next := func(not time.Time) {
		t.Helper()
		select {
		case at := <-rang:
			if at.Before(not) {
				t.Errorf("it rang %v early", not.Sub(at))
			}
		case <-time.After(time.Minute):
			t.Fatal("it does not ring")
		}
	}
	for _, d := range []time.Duration{-time.Second, 0, time.Microsecond, 20 * time.Millisecond} {
		began := time.Now()
		timer.Reset(d)
		next(began.Add(d))
	}
	timer.Reset(time.Hour)
	timer.Reset(time.Millisecond) // sooner
	next(time.Time{})
	began := time.Now()
	timer.Reset(5 * time.Millisecond)
	timer.Reset(100 * time.Millisecond)         // later
	if time.Since(began) < 5*time.Millisecond { // else it may have rung before
		next(began.Add(100 * time.Millisecond))
	}
	if n := len(rang); n != 0 {
		t.Errorf("it rang %d times more", n)
	}
}

// Once Stop has returned nobody is called, whether the timer was started, or rang, or was stopped already; and to set it does nothing.
func TestTimerStopped(t *testing.T) {
	for _, started := range []bool{true, false} {
		timer, err := NewTimer()
		if err != nil {
			t.Fatal(err)
		}
		calls := 0 // the race detector sees whoever counts after Stop
		if started {
			timer.Start(func() { calls++ })
		}
		timer.Reset(time.Microsecond)
		timer.Stop()
		was := calls
		timer.Reset(time.Microsecond)
		timer.Stop()
		time.Sleep(5 * time.Millisecond)
		if calls != was {
			t.Error("it rang after its end")
		}
	}
}

// One who is called while it is stopped may set it.
func TestTimerSetWhileStopped(t *testing.T) {
	for range 100 {
		timer, err := NewTimer()
		if err != nil {
			t.Fatal(err)
		}
		timer.Start(func() { timer.Reset(time.Microsecond) })
		timer.Reset(time.Microsecond)
		time.Sleep(100 * time.Microsecond)
		timer.Stop()
	}
}

// It rings at multiples of what it may be late, never early and never later than that.
func TestTogether(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct{ now, d, late, want time.Duration }{
		{3 * ms, 4 * ms, 0, 4 * ms},
		{3 * ms, -ms, 0, 1},
		{3 * ms, 4 * ms, 10 * ms, 7 * ms},
		{13 * ms, 4 * ms, 10 * ms, 7 * ms},
		{3 * ms, 7 * ms, 10 * ms, 7 * ms},
		{3 * ms, 7*ms + 1, 10 * ms, 17 * ms},
		{10 * ms, 0, 10 * ms, 10 * ms},
	} {
		if got := together(c.now, c.d, c.late); got != c.want {
			t.Errorf("at %v, in %v, late by %v: %v, not %v", c.now, c.d, c.late, got, c.want)
		}
	}
}
