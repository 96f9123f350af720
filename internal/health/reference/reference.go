package reference

import (
	"time"

	"github.com/halevm/hale/internal/health"
)

// guestTime is how long the agent and the network of a restored machine are waited for, and a missing agent after a daemon's start.
const guestTime = 10 * time.Second

// A Reference is one instance, as the rules see it. New makes one, Reset another in its place.
type Reference struct {
	Hits [Branches]uint64 // how often each branch was gone, since New

	base   time.Time
	now    instant
	policy *health.Policy
	facts  []fact // of this window, oldest first

	// What outlives a window.
	run     uint64
	number  uint64  // of the window
	daemon  instant // the daemon's last restart
	restore instant // the last one of the instance
	status  health.Status
	since   instant
	last    health.Status
	changes uint64
}

// New returns an instance that nothing is known of. Its moments are counted from base.
func New(base time.Time) *Reference {
	r := &Reference{base: base}
	r.Reset()
	return r
}

// Reset forgets all but Hits.
func (r *Reference) Reset() {
	*r = Reference{Hits: r.Hits, base: r.base, facts: r.facts[:0], since: never, daemon: never, restore: never}
}

func (r *Reference) hit(b Branch) { r.Hits[b]++ }

func (r *Reference) instant(t time.Time) instant {
	if t.IsZero() {
		return never
	}
	return t.Sub(r.base)
}

func (r *Reference) add(f fact) *fact {
	f.at = r.now
	r.facts = append(r.facts, f)
	return &r.facts[len(r.facts)-1]
}

// Take is told what happened at now, under p.
func (r *Reference) Take(p *health.Policy, now time.Time, in *health.Input) {
	r.policy, r.now = p, r.instant(now)
	status, why := r.status, r.shownStale()
	switch in.Kind {
	case health.Seen:
		r.takeSeen(in)
	case health.Asking:
		if r.Probed() {
			r.hit(AskedFor)
			r.add(fact{kind: asked})
		} else {
			r.hit(AskedUnprobed)
		}
	case health.Hinted:
		r.takeHint(in)
	case health.Queued:
		r.hit(QueueJoined)
		r.add(fact{kind: queued})
	case health.Begun:
		r.takeBegun()
	case health.Probed:
		r.takeResult(in)
	case health.Restarted:
		r.takeRestart(in.Hash)
		return
	}
	r.turnStale()
	r.show()
	r.judge()
	if now := r.shownStale(); status != "" && (r.status != status || now != why && now != health.StaleRestarted) {
		r.changes++
	}
}

// Logged is told that the event log knew of a verdict that the record did not: a daemon that starts applies it before Restarted.
func (r *Reference) Logged(p *health.Policy, now time.Time, to health.Status) {
	r.policy, r.now = p, r.instant(now)
	r.add(fact{kind: logged, turn: to})
	r.status, r.since, r.last = to, r.now, ""
	r.changes++
}

func (r *Reference) takeSeen(in *health.Input) {
	before, onItsWay, hello := r.Phase(), r.onItsWay(), r.hello()
	active := in.Phase != health.Inactive
	again := active && in.Phase == health.Initializing && r.entered() != nil
	first, run := active && r.number == 0, active && in.Run != r.run
	if active {
		r.run = in.Run
	}
	f := fact{kind: seen, phase: in.Phase, agent: in.Agent, network: in.Network}
	begins := in.PolicyChanged || first || run || again
	switch {
	case begins && r.policy.Disabled():
		r.hit(WindowNoPolicy)
		r.facts = r.facts[:0]
		r.add(f)
	case begins:
		switch {
		case in.PolicyChanged && !active:
			r.hit(WindowPolicyInactive)
		case in.PolicyChanged:
			r.hit(WindowPolicy)
		case first:
			r.hit(WindowFirst)
		case run:
			r.hit(WindowRun)
		default:
			r.hit(WindowInitializingAgain)
		}
		if r.Stale() != "" {
			r.hit(WindowEndedStale)
		}
		r.number++
		r.facts = r.facts[:0]
		f.kind = window
		r.add(f)
	default:
		f.resumed = active && before == health.Inactive
		if !r.probed(in.Phase) && r.queuedAt() != never {
			r.hit(QueueInactive)
		}
		r.add(f)
	}
	if !r.Probed() {
		r.hit(SeenUnprobed)
		return
	}
	switch {
	case in.Phase == health.Running && r.entered() == nil:
		r.enter(in)
		if hello = never; !in.Restored.IsZero() {
			hello = r.entered().restored + guestTime
		}
	case begins:
		hello = never
		r.add(fact{kind: asked})
	case before == health.Inactive:
		r.hit(SeenResumed)
		r.add(fact{kind: asked})
	case onItsWay && r.there() && r.waits():
		r.hit(GuestAwaited)
		r.add(fact{kind: asked})
	case onItsWay && r.there() && r.schedule() == never:
		r.hit(GuestUnscheduled)
		r.add(fact{kind: asked})
	default:
		r.hit(SeenSame)
	}
	if hello != never && r.hello() < hello {
		if r.Verdict() == health.StatusHealthy {
			r.hit(HelloHealthyAlready)
		} else {
			r.hit(HelloShortens)
		}
	}
}

// enter is the entry into Running. One that is told after the policy came after it, whatever its moment: one record carries both.
func (r *Reference) enter(in *health.Input) {
	f := fact{kind: entry, when: r.instant(in.Entered), restored: never, agent: in.Agent}
	switch {
	case in.PolicyChanged || f.when == never || f.when >= r.now:
		if in.PolicyChanged {
			r.hit(EntryPolicy)
		} else {
			r.hit(EntryNow)
		}
		f.when = r.now
	default:
		r.hit(EntryEarlier)
	}
	if !in.Restored.IsZero() {
		r.hit(EntryRestored)
		f.restored = min(r.instant(in.Restored), r.now)
		r.restore = max(r.restore, f.restored)
	}
	switch {
	case r.Successes() >= r.policy.SuccessThreshold:
		r.hit(EntryHealthy)
		f.turn = health.StatusHealthy
	case r.Verdict() == health.StatusHealthy:
		r.hit(EntryFromLog)
		f.turn = health.StatusHealthy
	default:
		r.hit(EntryUndecided)
	}
	r.add(f)
}

func (r *Reference) takeBegun() {
	if r.queuedAt() != never {
		r.hit(QueueLeft)
	}
	h := r.hint()
	if r.judge() {
		r.hit(BeganAtHint)
	} else if h != health.NoHint && r.hint() != health.NoHint {
		r.hit(HintServed)
	}
	r.hit(Began)
	r.add(fact{kind: begun})
}

func (r *Reference) takeRestart(hash uint64) {
	r.daemon = r.now
	f := fact{kind: restarted, when: never}
	if !r.Probed() {
		r.hit(RestartedUnprobed)
		r.add(f)
		return
	}
	r.hit(RestartedProbed)
	if f.stales = r.Stale() == ""; !f.stales {
		r.hit(RestartedStaleAlready)
	}
	gap := r.lastGap()
	if gap == 0 {
		r.hit(RestartedNoGap)
		gap = r.policy.Interval
	}
	f.when = r.now + time.Duration(hash%uint64(min(gap, 30*time.Second)))
	switch due := r.schedule(); {
	case due == never:
		r.hit(RestartedUnscheduled)
	case due >= f.when:
		r.hit(RestartedScheduleLater)
	default:
		r.hit(RestartedShareLater)
	}
	r.add(f)
}

// turnStale is the moment at which the want of a conclusive result is seen.
func (r *Reference) turnStale() {
	at := r.staleAt()
	if at == never || at > r.now {
		if r.canTurnStale() {
			latest := never
			for i := range r.facts {
				latest = max(latest, r.measured(&r.facts[i]))
			}
			switch {
			case latest+r.limit() > r.now:
			case at == never:
				r.hit(StaleNotQueued)
			default:
				r.hit(StaleQueueNotCounted)
			}
		}
		return
	}
	r.hit(StaleTurns)
	if r.Stale() == health.StaleRestarted {
		r.hit(StaleTurnsRestarted)
	}
	if r.Successes() > 0 || r.Failures() > 0 {
		r.hit(StaleClearsStreak)
	}
	r.add(fact{kind: stale})
}

// show lets be seen what the phase does.
func (r *Reference) show() {
	var s health.Status
	switch phase := r.Phase(); {
	case r.policy.Disabled():
		s = health.StatusDisabled
	case phase == health.Inactive:
		s = health.StatusUnknown
	case phase == health.Initializing:
		s = health.StatusStarting
	default:
		s = r.Verdict()
	}
	if s == r.status {
		return
	}
	r.last = ""
	if s == health.StatusUnknown {
		if r.status == health.StatusDisabled {
			r.hit(ShownUnknownFromDisabled)
		} else {
			r.last = r.status
		}
	}
	switch s {
	case health.StatusDisabled:
		r.hit(ShownDisabled)
	case health.StatusUnknown:
		r.hit(ShownUnknown)
	case health.StatusStarting:
		r.hit(ShownStarting)
	case health.StatusHealthy:
		r.hit(ShownHealthy)
	case health.StatusUnhealthy:
		r.hit(ShownUnhealthy)
	}
	r.status, r.since = s, r.now
	r.add(fact{kind: shown})
}
