package reference

import (
	"time"

	"github.com/halevm/hale/internal/health"
)

// A View is all that can be seen of an instance. A time that is zero is none.
type View struct {
	Window        uint64
	Status        health.Status
	Since         time.Time
	Last          health.Status
	Verdict       health.Status // where there is a window
	N             uint64
	Successes     int
	Failures      int
	GraceFailures int
	CheckedAt     time.Time
	SuccessAt     time.Time
	FailureAt     time.Time
	WindowAt      time.Time
	Error         string
	NoAgent       bool // Error is the reason for which an agent is gone, in words that are not ours
	Stale         string
	StaleAt       time.Time
	Asked         bool
	Due           time.Time
	Kept          health.Hint
	Hints         int
	Token         time.Time // when the limiter of hints has one; zero: it is full since long
}

func (r *Reference) time(at instant) time.Time {
	if at == never {
		return time.Time{}
	}
	return r.base.Add(at)
}

// See writes what can be seen now to v.
func (r *Reference) See(v *View) {
	*v = View{
		Window: r.number, Status: r.status, Since: r.time(r.since), Last: r.last, N: r.changes,
		Successes: r.Successes(), Failures: r.Failures(), GraceFailures: r.GraceFailures(),
		Stale: r.Stale(), StaleAt: r.time(r.staleAt()), Asked: r.Asked(), Due: r.time(r.Due()),
		Kept: r.hint(), Hints: r.hints(), Token: r.time(r.token()),
	}
	if len(r.facts) > 0 && r.facts[0].kind == window {
		v.Verdict, v.WindowAt = r.Verdict(), r.time(r.facts[0].at)
	}
	if f := r.newest(""); f != nil {
		v.CheckedAt = r.time(f.when)
	}
	if f := r.newest(health.Success); f != nil {
		v.SuccessAt = r.time(f.when)
	}
	if f := r.newest(health.Failure); f != nil {
		v.FailureAt, v.Error, v.NoAgent = r.time(f.when), f.reason, f.noAgent
	}
}

// Due is when the next probe is: as scheduled, now if one was asked for, or when a hint that is kept may ask.
func (r *Reference) Due() instant {
	if !r.Probed() {
		return never
	}
	due := r.schedule()
	hit := DueScheduled
	if r.Asked() && (due == never || r.now < due) {
		due, hit = r.now, DueAsked
	}
	if r.hint() != health.NoHint && !r.Flying() {
		if at := r.token(); due == never || at < due {
			due, hit = at, DueHint
		}
	}
	if due == never {
		hit = DueNever
	}
	r.hit(hit)
	return due
}

// Turns lists the moments near which a decision turns, for those who choose what happens next: the ends of the grace, of the times
// that a guest and its agent have, of the gap that the last counted failure set. Those that are past or none are left out.
func (r *Reference) Turns(at []time.Time) []time.Time {
	add := func(i instant) {
		if i != never && i > r.now {
			at = append(at, r.time(i))
		}
	}
	add(r.graceEnd())
	add(r.hello())
	if e := r.entered(); e != nil && e.restored != never {
		add(e.restored + guestTime)
	}
	if r.daemon != never {
		add(r.daemon + guestTime)
	}
	if f := r.newest(health.Failure); f != nil && f.counts {
		add(f.at + f.gap)
	}
	return at
}
