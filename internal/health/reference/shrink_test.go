package reference

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/halevm/hale/internal/health"
)

// replay puts steps to both, and returns how many it took until they differed and in what; "" where they do not, or where the steps
// are in no order in which a loop would take them.
func (d *pair) replay(steps []step) (int, string) {
	d.reset()
	var policy *health.Policy
	restarted := false
	for i := range steps {
		s := &steps[i]
		switch in := &s.in; {
		case s.logged != "":
			if i+1 == len(steps) || steps[i+1].in.Kind != health.Restarted || d.ref.Phase() != health.Initializing {
				return 0, ""
			}
			d.logged(s.policy, s.at, s.logged)
			continue
		case in.Kind == health.Seen:
			in.PolicyChanged = policy != nil && changed(policy, s.policy)
			restarted = false
		case policy == nil, changed(policy, s.policy), restarted:
			return 0, ""
		case in.Kind == health.Begun, in.Kind == health.Queued:
			if d.ref.Flying() || !d.ref.Probed() || in.Kind == health.Queued && d.ref.queuedAt() != never {
				return 0, ""
			}
		case in.Kind == health.Probed:
			if !d.ref.Flying() {
				return 0, ""
			}
			if straddled, inactive := d.ref.inactiveSinceBegun(); straddled && !inactive && in.Result.Cause != health.CauseCutShort {
				return 0, ""
			}
			for j := i - 1; ; j-- { // the probe that it ends is this one
				if k := steps[j].in.Kind; k == health.Probed || k == health.Begun && !in.Result.Start.Equal(d.base.Add(steps[j].at)) {
					return 0, ""
				} else if k == health.Begun {
					break
				}
			}
		}
		restarted = s.in.Kind == health.Restarted
		policy = s.policy
		if diff := d.take(s.policy, s.at, &s.in); diff != "" {
			return i + 1, diff
		}
	}
	return 0, ""
}

// shrink drops steps for as long as both still differ.
func (d *pair) shrink(steps []step) ([]step, string) {
	n, diff := d.replay(steps)
	if n == 0 {
		return steps, "  (replayed, they do not differ)\n"
	}
	steps = steps[:n]
	for size := len(steps) / 2; size > 0; {
		dropped := false
		for i := 0; i+size <= len(steps); {
			fewer := slices.Delete(slices.Clone(steps), i, i+size)
			if n, now := d.replay(fewer); n > 0 {
				steps, diff, dropped = fewer[:n], now, true
			} else {
				i++
			}
		}
		if !dropped {
			size /= 2
		}
	}
	return steps, diff
}

// print writes steps for a person.
func (d *pair) print(steps []step) string {
	var b strings.Builder
	var policy *health.Policy
	for _, s := range steps {
		if policy == nil || !policy.Equal(*s.policy) {
			policy = s.policy
			text, err := json.Marshal(policy)
			if err != nil {
				text = []byte(err.Error())
			}
			fmt.Fprintf(&b, "  policy %s\n", text)
		}
		fmt.Fprintf(&b, "  %15v  ", s.at)
		switch in := &s.in; {
		case s.logged != "":
			fmt.Fprintf(&b, "the log knew: %s", s.logged)
		case in.Kind == health.Tick:
			b.WriteString("Tick")
		case in.Kind == health.Seen:
			fmt.Fprintf(&b, "Seen run %d %v, entered %s", in.Run, in.Phase, d.instant(in.Entered))
			if !in.Restored.IsZero() {
				fmt.Fprintf(&b, ", restored %s", d.instant(in.Restored))
			}
			for _, f := range []struct {
				is   bool
				name string
			}{{in.Agent, "agent"}, {in.Network, "network"}, {in.PolicyChanged, "policy changed"}} {
				if f.is {
					b.WriteString(", " + f.name)
				}
			}
		case in.Kind == health.Asking:
			b.WriteString("Asking")
		case in.Kind == health.Hinted:
			fmt.Fprintf(&b, "Hinted port %d, listening %v", in.Port, in.Listening)
		case in.Kind == health.Queued:
			b.WriteString("Queued")
		case in.Kind == health.Begun:
			b.WriteString("Begun")
		case in.Kind == health.Probed:
			r := &in.Result
			fmt.Fprintf(&b, "Probed %s, start %s, took %v", r.Outcome, d.instant(r.Start), r.Duration)
			if r.Cause != "" {
				b.WriteString(", " + r.Cause)
			}
			if r.Definite {
				b.WriteString(", definite")
			}
			if in.Asked {
				b.WriteString(", asked for")
			}
			fmt.Fprintf(&b, ", hash %#x", in.Hash)
		case in.Kind == health.Restarted:
			fmt.Fprintf(&b, "Restarted, hash %#x (%v)", in.Hash, time.Duration(in.Hash%uint64(30*time.Second)))
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// A Next that is wrong in one small thing is found out, and the history is cut to what it takes.
func TestShrink(t *testing.T) {
	for _, test := range []struct {
		name  string
		wrong func(before, after *health.State, in *health.Input)
		most  int
		text  string
	}{
		{"an inconclusive result ends the streak", func(_, after *health.State, in *health.Input) {
			if in.Kind == health.Probed && in.Result.Outcome == health.Inconclusive {
				after.Successes = 0
			}
		}, 5, "Successes"},
		{"a pause is a new window", func(before, after *health.State, in *health.Input) {
			if before.Phase == health.Inactive && after.Phase == health.Running && after.Window == before.Window {
				after.Window++
			}
		}, 3, "Window"},
		{"a restart of the daemon clears a streak", func(_, after *health.State, in *health.Input) {
			if in.Kind == health.Restarted {
				after.Failures = 0
			}
		}, 4, "Failures"},
	} {
		w := newWorld(somePolicies(t, 64), time.Now())
		w.pair.next = func(s health.State, p health.Policy, now time.Time, in health.Input) (health.State, time.Time) {
			next, due := s.Next(p, now, in)
			test.wrong(&s, &next, &in)
			return next, due
		}
		found := false
		for i := uint64(0); i < 1000 && !found; i++ {
			var all []step
			if w.history(i, &all) == "" {
				continue
			}
			found = true
			few, diff := w.pair.shrink(all)
			if len(few) > test.most || !strings.Contains(diff, test.text) {
				t.Errorf("%s: at most %d steps and %s were to be told; got\n%s%s", test.name, test.most, test.text, w.pair.print(few), diff)
			}
		}
		if !found {
			t.Errorf("%s: nothing differed in 1000 histories", test.name)
		}
	}
}
