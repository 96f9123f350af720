package shim

import "time"

// boot is the time that a guest is given to come up: so much to the agent's HELLO, and as much again from there to the program's start,
// for the disks and the network are made ready in between.
type boot struct {
	each  time.Duration
	timer *time.Timer
	hello bool // was said
	over  bool
}

func newBoot(each time.Duration) *boot { return &boot{each: each, timer: time.NewTimer(each)} }

// said takes in a HELLO, and reports whether it was the first, in time.
func (b *boot) said() bool {
	if b.hello || b.over || !b.timer.Stop() {
		return false
	}
	b.hello = true
	b.timer.Reset(b.each)
	return true
}

// done takes in that the program was started, or will not be.
func (b *boot) done() {
	b.over = true
	b.timer.Stop()
}

// failed takes down that the time is over.
func (b *boot) failed(f *facts) {
	b.over = true
	f.bootTimeout, f.bootHello = b.each, b.hello
}
