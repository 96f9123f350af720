package slack

import (
	"context"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

// One processor is enough after a while of little to do; the first busy second, and work, has all of them.
func TestLoad(t *testing.T) {
	var l load
	see := func(times int, used float64, works, few bool) {
		t.Helper()
		for range times {
			l.see(used, works)
		}
		if l.few != few {
			t.Errorf("after %d times %v, work: %v: one processor: %v", times, used, works, l.few)
		}
	}
	see(calmLooks-1, 0.1, false, false)
	see(1, 0.4, false, false) // neither: it begins anew
	see(calmLooks-1, 0.29, false, false)
	see(1, 0.1, false, true)
	see(100, 0.4, false, true)
	see(1, 0.6, false, false)
	see(calmLooks-1, 0, false, false)
	see(1, 0, true, false)
	see(calmLooks, 0, false, true)
	see(1, 0, true, false)
}

// The processors are taken and given back, for work at once, and at the end.
func TestProcessors(t *testing.T) {
	t.Setenv("GOMAXPROCS", "")
	all := runtime.GOMAXPROCS(0)
	if all == 1 {
		t.Skip("there is one")
	}
	is := func(want int, when string) {
		t.Helper()
		if got := runtime.GOMAXPROCS(0); got != want {
			t.Errorf("%s it has %d processors, not %d", when, got, want)
		}
	}
	synctest.Test(t, func(t *testing.T) { // the clock of the processors is the host's: in no time at all nothing is used
		ctx, cancel := context.WithCancel(t.Context())
		over := make(chan struct{})
		go func() { defer close(over); Processors(ctx) }()
		time.Sleep((calmLooks-1)*lookEvery + lookEvery/2)
		is(all, "at first")
		time.Sleep(lookEvery)
		is(1, "after a calm while")
		end := Work()
		is(all, "for work")
		time.Sleep(2 * calmLooks * lookEvery)
		is(all, "for work that lasts")
		end()
		time.Sleep((calmLooks + 1) * lookEvery)
		is(1, "after work")
		cancel()
		<-over
		is(all, "in the end")
	})
	t.Setenv("GOMAXPROCS", "3")
	Processors(t.Context()) // returns
}
