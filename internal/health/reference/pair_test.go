package reference

import (
	"fmt"
	"strings"
	"time"

	"github.com/halevm/hale/internal/health"
)

// A pair is Next and its reference, told the same.
type pair struct {
	base  time.Time
	ref   *Reference
	state health.State
	due   time.Time
	view  View
	next  func(health.State, health.Policy, time.Time, health.Input) (health.State, time.Time)
	// What Next says of an agent that is gone: the words are its own, but always the same.
	noAgent string
	taken   uint64 // inputs, in all
}

func newPair(base time.Time) *pair { return &pair{base: base, ref: New(base), next: health.State.Next} }

func (d *pair) reset() {
	d.ref.Reset()
	*d = pair{base: d.base, ref: d.ref, next: d.next, noAgent: d.noAgent, taken: d.taken}
}

// take puts one input to both, and returns what differs then.
func (d *pair) take(p *health.Policy, at time.Duration, in *health.Input) string {
	d.taken++
	now := d.base.Add(at)
	before := d.state.Verdict
	d.state, d.due = d.next(d.state, *p, now, *in)
	d.ref.Take(p, now, in)
	d.ref.See(&d.view)
	if broken := d.promises(p, at, before); broken != "" {
		return broken
	}
	return d.compare(p)
}

// promises returns which of the rules' sentences about any history Next has broken: those need no second opinion.
func (d *pair) promises(p *health.Policy, at time.Duration, before health.Status) string {
	s, r := &d.state, d.ref
	for _, t := range [...]time.Time{s.Since, s.CheckedAt, s.SuccessAt, s.FailureAt, s.WindowAt} {
		if t != t.Round(0) {
			return "  what is shown is of the wall clock\n"
		}
	}
	for _, t := range [...]time.Time{s.Fresh, s.Entered, s.GraceEnd, s.AgentBy, s.Patience, s.Hello, s.Due, s.Queued, s.CountFrom, s.HintFree, d.due} {
		if !t.IsZero() && t == t.Round(0) {
			return "  what decides is monotonic\n"
		}
	}
	switch {
	case p.Disabled():
	case s.Phase == health.Initializing && s.Status != health.StatusStarting && !r.justRestarted():
		return "  always starting while Initializing\n"
	case s.Phase == health.Running && at < r.graceEnd() && s.Failures != 0:
		return "  failures that count are 0 during the grace\n"
	case s.Verdict == health.StatusUnhealthy && before == health.StatusStarting && s.SuccessAt.IsZero() &&
		at-r.graceEnd() < time.Duration(p.FailureThreshold-1)*(p.Interval-p.Interval/20):
		return "  unhealthy before any success never comes sooner than (failure_threshold - 1) x 0.95 x interval after the grace\n"
	}
	return ""
}

// justRestarted reports whether the daemon is back, and nothing has been seen since: what is shown stays until then.
func (r *Reference) justRestarted() bool {
	return len(r.facts) > 0 && r.facts[len(r.facts)-1].kind == restarted
}

// logged is what a daemon that starts does with a transition that its record has not seen.
func (d *pair) logged(p *health.Policy, at time.Duration, to health.Status) {
	now := d.base.Add(at)
	s := &d.state
	s.Status, s.Since, s.Last, s.Verdict = to, now.Round(0), "", to
	s.N++
	d.ref.Logged(p, now, to)
}

func (d *pair) compare(p *health.Policy) string {
	s, v := &d.state, &d.view
	errors := s.Error == v.Error
	if v.NoAgent {
		if d.noAgent == "" {
			d.noAgent = s.Error
		}
		errors = s.Error != "" && s.Error == d.noAgent
	}
	staleAt, token := s.StaleAt(p), s.HintFree
	if !token.IsZero() {
		token = token.Add(-(hintBurst - 1) * hintGap)
	}
	if s.Window == v.Window && s.Status == v.Status && s.Last == v.Last && s.N == v.N && (v.Verdict == "" || s.Verdict == v.Verdict) &&
		s.Successes == v.Successes && s.Failures == v.Failures && s.GraceFailures == v.GraceFailures && s.Stale == v.Stale &&
		s.Asked == v.Asked && s.Kept == v.Kept && s.Hints == v.Hints && token.Equal(v.Token) && errors && s.Since.Equal(v.Since) && s.CheckedAt.Equal(v.CheckedAt) && s.SuccessAt.Equal(v.SuccessAt) &&
		s.FailureAt.Equal(v.FailureAt) && s.WindowAt.Equal(v.WindowAt) && staleAt.Equal(v.StaleAt) && d.due.Equal(v.Due) {
		return ""
	}
	var b strings.Builder
	line := func(same bool, name string, next, ref any) {
		if !same {
			fmt.Fprintf(&b, "  %-14s Next: %-24v reference: %v\n", name, next, ref)
		}
	}
	times := func(name string, next, ref time.Time) {
		line(next.Equal(ref), name, d.instant(next), d.instant(ref))
	}
	line(s.Window == v.Window, "Window", s.Window, v.Window)
	line(s.Status == v.Status, "Status", s.Status, v.Status)
	line(s.Last == v.Last, "Last", s.Last, v.Last)
	line(s.N == v.N, "N", s.N, v.N)
	line(v.Verdict == "" || s.Verdict == v.Verdict, "Verdict", s.Verdict, v.Verdict)
	line(s.Successes == v.Successes, "Successes", s.Successes, v.Successes)
	line(s.Failures == v.Failures, "Failures", s.Failures, v.Failures)
	line(s.GraceFailures == v.GraceFailures, "GraceFailures", s.GraceFailures, v.GraceFailures)
	line(s.Stale == v.Stale, "Stale", s.Stale, v.Stale)
	line(s.Asked == v.Asked, "Asked", s.Asked, v.Asked)
	line(s.Kept == v.Kept, "Kept", s.Kept, v.Kept)
	line(s.Hints == v.Hints, "Hints", s.Hints, v.Hints)
	line(errors, "Error", s.Error, v.Error)
	times("Since", s.Since, v.Since)
	times("CheckedAt", s.CheckedAt, v.CheckedAt)
	times("SuccessAt", s.SuccessAt, v.SuccessAt)
	times("FailureAt", s.FailureAt, v.FailureAt)
	times("WindowAt", s.WindowAt, v.WindowAt)
	times("StaleAt", staleAt, v.StaleAt)
	times("HintFree-200ms", token, v.Token)
	times("due", d.due, v.Due)
	return b.String()
}

func (d *pair) instant(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.Sub(d.base).String()
}
