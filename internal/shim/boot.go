package shim

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/halevm/hale/internal/hypervisor"
)

// A guest is not charged for the time in which the host had no processor for it, up to this many times what it is given: a boot does not
// fail because the host is busy, and does not last for ever.
const bootStretch = 5

const (
	lookTimeout  = 5 * time.Second        // of looking at a machine that does not come up
	leastRespite = 100 * time.Millisecond // between two looks at what is left of a boot's time
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
	before turns
}

func newBoot(each time.Duration, turns func() turns) *boot {
	return &boot{each: each, turns: turns, timer: time.NewTimer(each), since: time.Now(), before: turns()}
}

// said takes in a HELLO, and reports whether it was the first, in time.
func (b *boot) said() bool {
	if b.hello || b.over || !b.timer.Stop() {
		return false
	}
	b.hello = true
	b.since, b.before = time.Now(), b.turns()
	b.timer.Reset(b.each)
	return true
}

// done takes in that the program was started, or will not be.
func (b *boot) done() {
	b.over = true
	b.timer.Stop()
}

// respite is called when the timer has run out, and reports whether there is time left: what the machine waited for the host is given back.
func (b *boot) respite() bool {
	took := time.Since(b.since)
	left := min(b.each-took+b.waited(), bootStretch*b.each-took)
	if left <= 0 {
		return false
	}
	b.timer.Reset(max(left, leastRespite))
	return true
}

// waited is how long the machine has been kept waiting by the host in this part of its boot.
func (b *boot) waited() time.Duration { return b.turns().longestWait(b.before) }

// failed takes down that the time is over, and what the machine was found doing.
func (b *boot) failed(f *facts, vm hypervisor.VM) (seen string) {
	b.over = true
	f.bootTimeout, f.bootHello = b.each, b.hello
	took, now := time.Since(b.since), b.turns()
	if len(now) > 0 {
		f.bootSeen = fmt.Sprintf("in %v it worked for %v and waited %v for a processor of the host", rounded(took), rounded(now.ran(b.before)), rounded(now.longestWait(b.before)))
	}
	l, ok := vm.(hypervisor.Looker)
	if !ok {
		return ""
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookTimeout)
	defer cancel()
	line, all := l.Look(ctx)
	f.bootSeen = strings.TrimPrefix(f.bootSeen+"; "+line, "; ")
	return all
}

func rounded(d time.Duration) time.Duration { return d.Round(10 * time.Millisecond) }
