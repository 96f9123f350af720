package slack

import (
	"context"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// A process of Go's that has little to do does it on one of the host's processors. With more, each goroutine that becomes ready wakes a
// thread, which looks for something to do, finds as a rule that another has done it, and sleeps again: a fifth of what a probe costs the daemon.
const (
	lookEvery = time.Second
	busy      = 0.5 // of one processor, in use: all are given
	calm      = 0.3 // less than this in calmLooks looks in a row: one is enough
	calmLooks = 10
)

// A load is what was seen of what a process has to do.
type load struct {
	few  bool // it has one processor
	calm int  // looks in a row that saw little
}

// see takes in how much of one processor was in use since the last look, and whether there is work.
func (l *load) see(used float64, works bool) {
	switch {
	case works || used > busy:
		*l = load{}
	case used > calm:
		l.calm = 0
	case l.calm < calmLooks:
		l.calm++
		l.few = l.few || l.calm == calmLooks
	}
}

// Processors gives this process the processors that it needs until ctx is done: one while it has little to do, all while it is busy, or
// there is work (Work). Where a person has said how many (GOMAXPROCS) it does nothing.
func Processors(ctx context.Context) {
	if os.Getenv("GOMAXPROCS") != "" {
		return
	}
	defer give(false)
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	var l load
	for at, used := time.Now(), usedTime(); ; {
		select {
		case <-look.C:
		case <-ctx.Done():
			return
		}
		now, sum := time.Now(), usedTime()
		mu.Lock()
		l.see(float64(sum-used)/float64(max(now.Sub(at), 1)), works > 0)
		giveLocked(l.few)
		mu.Unlock()
		at, used = now, sum
	}
}

var few bool // as given; under mu

func give(one bool) {
	mu.Lock()
	defer mu.Unlock()
	giveLocked(one)
}

func giveLocked(one bool) {
	if one == few {
		return
	}
	if few = one; one {
		runtime.GOMAXPROCS(1)
	} else {
		runtime.SetDefaultGOMAXPROCS()
	}
}

// usedTime is what this process has used of the processors.
func usedTime() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &ts) != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}
