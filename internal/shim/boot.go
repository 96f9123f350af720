package shim

import (
	"context"
	"fmt"
	"time"

	"github.com/halevm/hale/internal/hypervisor"
)

// A guest is not charged for the time in which the host had no processor for it, up to this many times what it is given: a boot does not
// fail because the host is busy, and does not last for ever.
const bootStretch = 5

const (
	lookTimeout = 5 * time.Second // of looking at a machine that does not come up
	countEvery  = time.Second     // how often a boot's waits are counted: now one thread waits and now another
)

// boot is the time that a guest is given to come up: so much to the agent's HELLO, and as much again from there to the program's start,
// for the disks and the network are made ready in between.
type boot struct {
	each  time.Duration
	turns func() turns // the hypervisor's
	timer *time.Timer
	hello bool // was said
	over  bool

	// Of the part that runs.
	since  time.Time
	first  turns         // as it began
	before turns         // as they were counted last
	waited time.Duration // for a processor of the host, up to then
}

func newBoot(each time.Duration, turns func() turns) *boot {
	b := &boot{each: each, turns: turns, timer: time.NewTimer(min(each, countEvery))}
	b.begin()
	return b
}

// begin begins a part.
func (b *boot) begin() {
	b.since, b.first, b.waited = time.Now(), b.turns(), 0
	b.before = b.first
	b.timer.Reset(min(b.each, countEvery))
}

// said takes in a HELLO, and reports whether it was the first, in time.
func (b *boot) said() bool {
	if b.hello || b.over {
		return false
	}
	b.hello = true
	b.begin()
	return true
}

// done takes in that the program was started, or will not be.
func (b *boot) done() {
	b.over = true
	b.timer.Stop()
}

// respite is called when the timer has run out, and reports whether there is time left: what the machine waited for the host is given back.
func (b *boot) respite() bool {
	took, now := time.Since(b.since), b.turns()
	// A wait is only counted by the kernel when it is over, so it may be longer than what has passed since the last count.
	b.waited = min(b.waited+now.longestWait(b.before), took)
	b.before = now
	left := min(b.each-took+b.waited, bootStretch*b.each-took)
	if left <= 0 {
		return false
	}
	b.timer.Reset(min(left, countEvery))
	return true
}

// failed takes down that the time is over.
func (b *boot) failed(f *facts) {
	b.over = true
	f.bootTimeout, f.bootHello = b.each, b.hello
	if len(b.before) > 0 {
		f.bootSeen = fmt.Sprintf("in %v it worked for %v and waited %v for a processor of the host", rounded(time.Since(b.since)), rounded(b.before.ran(b.first)), rounded(b.waited))
	}
}

// A sight is what a machine that does not come up was found doing: in a line for people, and all of it for the log.
type sight struct{ line, all string }

// look asks the hypervisor, which may not answer any more.
func look(ctx context.Context, vm hypervisor.VM) (s sight) {
	if l, ok := vm.(hypervisor.Looker); ok {
		ctx, cancel := context.WithTimeout(ctx, lookTimeout)
		defer cancel()
		s.line, s.all = l.Look(ctx)
	}
	return s
}

func rounded(d time.Duration) time.Duration { return d.Round(10 * time.Millisecond) }
