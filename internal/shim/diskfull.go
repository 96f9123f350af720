package shim

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/halevm/hale/internal/health"
)

// Pace of trying to go on with a machine that stands still because the host's disk is full.
const (
	resumeEvery = time.Second            // from a write that found no space to the next try
	resumeHolds = 500 * time.Millisecond // from a try to the belief in it: a write that is tried again fails sooner
)

// diskFull goes on with a machine whose writes find no space on the host's disk. The hypervisor stops the guest in the middle of such a
// write, and tries it again when the guest is resumed: nothing is lost, and the guest learns of nothing but the time that has passed.
type diskFull struct {
	resume func() error // bounded in time
	say    func(level slog.Level, message string)
	failed chan struct{} // a buffer of one: a write found no space, and the guest stands still

	mu       sync.Mutex
	standing bool
	times    uint64 // that it came to a stand
}

func newDiskFull(resume func() error, say func(slog.Level, string)) *diskFull {
	return &diskFull{resume: resume, say: say, failed: make(chan struct{}, 1)}
}

// found is told of each write that found no space. It does not wait.
func (d *diskFull) found() {
	d.mu.Lock()
	if !d.standing {
		d.standing = true
		d.times++
	}
	d.mu.Unlock()
	select {
	case d.failed <- struct{}{}:
	default:
	}
}

// run tries to go on whenever the machine stands still, until ctx is done. A person is told twice: that it stands, and that it goes on.
func (d *diskFull) run(ctx context.Context) {
	for {
		select {
		case <-d.failed:
		case <-ctx.Done():
			return
		}
		d.say(slog.LevelWarn, "the host's disk is full: the machine stands still, and goes on when there is room")
		if !d.goOn(ctx) {
			return
		}
		d.say(slog.LevelInfo, "the host's disk has room again: the machine goes on")
	}
}

// goOn returns when the machine goes on, which it reports, or ctx is done.
func (d *diskFull) goOn(ctx context.Context) bool {
	wait := func(t time.Duration) bool {
		select {
		case <-time.After(t):
			return true
		case <-ctx.Done():
			return false
		}
	}
	for wait(resumeEvery) {
		select {
		case <-d.failed: // of before this try
		default:
		}
		if d.resume() != nil {
			continue
		}
		if !wait(resumeHolds) {
			break
		}
		if d.settled() {
			return true
		}
	}
	return false
}

// settled reports whether no write has failed since the last try, which then is over.
func (d *diskFull) settled() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	select {
	case <-d.failed:
		return false
	default:
	}
	d.standing = false
	return true
}

// stands reports whether the machine stands still, and how often it came to that so far.
func (d *diskFull) stands() (bool, uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.standing, d.times
}

// probe asks with ask, unless the machine stands still. What is no success while it stood still says nothing of the workload.
func (d *diskFull) probe(ask func() health.Result) health.Result {
	start := time.Now()
	stands, before := d.stands()
	var r health.Result
	if !stands {
		r = ask()
		if stands, after := d.stands(); r.Outcome == health.Success || !stands && after == before {
			return r
		}
	}
	return health.Result{
		Start: start, Duration: time.Since(start), Outcome: health.Inconclusive, Cause: health.CauseDiskFull,
		Reason: "the host's disk is full: the machine stands still",
	}
}
