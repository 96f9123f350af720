package reference

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/halevm/hale/internal/health"
)

// A step is one input of a history. PolicyChanged follows from the steps before it.
type step struct {
	policy *health.Policy
	at     time.Duration // since the history began
	in     health.Input
	logged health.Status // instead of an input: the event log knew this verdict
}

// A world makes up what happens to one instance, in the orders in which the loop tells it: a probe begins when it is due, or
// somewhat later, none while another one is in flight, and what lands is what has begun. The rest is chance.
type world struct {
	pcg      *rand.PCG
	rng      *rand.Rand
	policies []health.Policy
	pair     *pair
	record   *[]step // nil: none is kept

	policy *health.Policy
	now    time.Duration
	// What is really so, told or not.
	run      uint64
	phase    health.Phase
	entered  time.Duration // into phase
	restored time.Time
	agent    bool
	network  bool
	// The probe in the queue or in flight.
	began time.Duration
	asked bool

	success, failure int // in a hundred
	hints            int // the weight of hints
	calm             int // how many changes in a hundred do not come to pass
	quick            bool
	asking           int // the weight of those who ask, and of daemons that restart
	turns            []time.Time
}

func newWorld(policies []health.Policy, base time.Time) *world {
	pcg := rand.NewPCG(0, 0)
	return &world{pcg: pcg, rng: rand.New(pcg), policies: policies, pair: newPair(base)}
}

// history puts the history with this number to both, and returns what differed after its last step.
func (w *world) history(number uint64, record *[]step) string {
	w.pcg.Seed(0x68616c65, number)
	w.pair.reset()
	*w = world{pcg: w.pcg, rng: w.rng, policies: w.policies, pair: w.pair, record: record, turns: w.turns}
	w.policy = w.somePolicy()
	w.success = [...]int{90, 45, 10, 30}[w.rng.IntN(4)]
	w.failure = (100 - w.success) * [...]int{95, 60, 15}[w.rng.IntN(3)] / 100
	w.hints, w.calm = 4, [...]int{0, 50, 95}[w.rng.IntN(3)]
	if w.rng.IntN(8) == 0 {
		w.hints, w.calm, w.quick = 70, 97, true
	}
	if w.rng.IntN(8) == 0 {
		w.calm, w.asking = 97, 60
		if w.chance(50) {
			w.success, w.failure = 5, 90
		}
	}
	if w.rng.IntN(4) > 0 {
		w.start()
	}
	if d := w.tell(false); d != "" {
		return d
	}
	for range 12 + w.rng.IntN(50) {
		if d := w.step(); d != "" {
			return d
		}
	}
	return ""
}

func (w *world) somePolicy() *health.Policy { return &w.policies[w.rng.IntN(len(w.policies))] }

func (w *world) chance(percent int) bool { return w.rng.IntN(100) < percent }

// take gives one input to both.
func (w *world) take(in health.Input) string {
	if w.record != nil {
		*w.record = append(*w.record, step{policy: w.policy, at: w.now, in: in})
	}
	return w.pair.take(w.policy, w.now, &in)
}

func (w *world) step() string {
	x := w.rng.IntN(100 + w.hints + w.asking)
	if w.asking > 0 && x >= 100+w.hints {
		if x = 66; w.chance(20) {
			x = 99
		}
	} else if x >= 71 && x < 100 && w.chance(w.calm) {
		x = 0
	}
	if !w.restored.IsZero() && !w.agent && w.phase == health.Running &&
		(w.chance(4) || w.pair.ref.Verdict() == health.StatusHealthy && w.chance(25)) {
		w.passShortly()
		w.agent = true
		return w.tell(false)
	}
	switch {
	case x < 58:
		return w.probe()
	case x < 66:
		w.pass()
		return w.take(health.Input{Kind: health.Tick})
	case x < 71:
		if w.passShortly(); w.asking > 0 && w.chance(50) {
			w.pass()
		}
		return w.take(health.Input{Kind: health.Asking})
	case x < 91:
		w.passShortly()
		w.change()
		return w.tell(false)
	case x < 95:
		w.pass()
		if w.chance(20) {
			w.change()
		}
		old := w.policy
		w.policy = w.somePolicy()
		return w.tell(changed(old, w.policy))
	case x < 100:
		return w.restart()
	default:
		return w.hint()
	}
}

// probe is what the loop does by itself.
func (w *world) probe() string {
	r := w.pair.ref
	switch due := w.pair.due; {
	case r.Flying():
		return w.land()
	case r.queuedAt() != never:
		w.pass()
		return w.begin()
	case !due.IsZero():
		if at := due.Sub(w.pair.base); at > w.now {
			w.now = at
		}
		switch w.rng.IntN(4) {
		case 0:
			w.passShortly()
		case 1:
			w.now++
		}
		at := r.schedule()
		w.asked = at == never || at > w.now // one that is asked for when the scheduled one is due is that
		if t := w.policy; t.Type == health.TypeExec || t.Type == health.TypeHTTP && t.HTTP.Scheme == "https" {
			if d := w.take(health.Input{Kind: health.Queued}); d != "" || w.chance(40) {
				return d
			}
			if w.chance(40) {
				w.passShortly()
			}
		}
		return w.begin()
	default:
		w.pass()
		return w.take(health.Input{Kind: health.Tick})
	}
}

func (w *world) begin() string {
	w.began = w.now
	return w.take(health.Input{Kind: health.Begun})
}

// land ends the probe in flight.
func (w *world) land() string {
	switch x := w.rng.IntN(6); {
	case x == 0:
	case w.quick && x < 5:
		w.now += time.Duration(w.rng.Int64N(int64(10 * time.Millisecond)))
	case x == 1:
		w.now = max(w.now, w.began+w.policy.Timeout)
	case x == 2:
		w.pass()
	default:
		w.now += time.Duration(w.rng.Int64N(int64(min(w.policy.Timeout, 300*time.Millisecond))))
	}
	res := health.Result{Start: w.pair.base.Add(w.began), Duration: w.now - w.began}
	if w.chance(10) { // the verdict was there before the connection was gone
		res.Duration -= time.Duration(w.rng.Int64N(int64(res.Duration) + 1))
	}
	switch x := w.rng.IntN(100); {
	case x < w.success:
		res.Outcome = health.Success
	case x < w.success+w.failure:
		res.Outcome = health.Failure
		res.Reason = reasons[w.rng.IntN(len(reasons))]
		res.Definite = w.chance(50)
	default:
		res.Outcome = health.Inconclusive
		res.Cause = causes[w.rng.IntN(len(causes))]
		if w.chance(30) {
			res.Cause = health.CauseNoAgent
		}
		res.Reason = "could not ask"
	}
	if straddled, inactive := w.pair.ref.inactiveSinceBegun(); straddled && !inactive { // the loop cut it short
		res = health.Result{Start: res.Start, Duration: res.Duration, Outcome: health.Inconclusive, Cause: health.CauseCutShort, Reason: "cut short"}
	}
	return w.take(health.Input{Kind: health.Probed, Result: res, Asked: w.asked, Hash: w.hash()})
}

var (
	reasons = [...]string{"connection refused", "status 500, expected 200", "exit status 1", "timed out"}
	causes  = [...]string{
		health.CauseNoAgent, health.CauseNoNetwork, health.CauseNoMachine, health.CauseResources, health.CauseDiskFull,
		health.CauseCutShort, health.CauseNoAnswer, health.CauseStarved, health.CausePanic,
	}
)

func (w *world) hash() uint64 {
	switch w.rng.IntN(8) {
	case 0:
		return 0
	case 1:
		return 1<<64 - 1
	}
	return w.rng.Uint64()
}

func (w *world) hint() string {
	switch w.rng.IntN(8) {
	case 0, 1, 2, 3, 4:
	case 5:
		w.now += 100 * time.Millisecond
	default:
		w.passShortly()
	}
	in := health.Input{Kind: health.Hinted, Port: w.policy.Port(), Listening: w.chance(70)}
	switch w.rng.IntN(12) {
	case 0:
		in.Port++
	case 1:
		in.Port = 0
	}
	return w.take(in)
}

// restart is that of the daemon: what was in flight or in the queue is gone, the record is read, and the controller tells again.
func (w *world) restart() string {
	if w.passShortly(); w.chance(50) {
		w.pass()
	}
	r := w.pair.ref
	// It may have died after it had announced healthy, and before it had written more than Initializing.
	if w.chance(15) && r.Phase() == health.Initializing && w.policy != nil && !w.policy.Disabled() {
		if w.record != nil {
			*w.record = append(*w.record, step{policy: w.policy, at: w.now, logged: health.StatusHealthy})
		}
		w.pair.logged(w.policy, w.now, health.StatusHealthy)
	}
	if d := w.take(health.Input{Kind: health.Restarted, Hash: w.hash()}); d != "" {
		return d
	}
	if w.chance(50) {
		w.change()
	}
	old := w.policy
	if w.chance(10) {
		w.policy = w.somePolicy()
	}
	return w.tell(changed(old, w.policy))
}

func changed(old, now *health.Policy) bool {
	return !(old.Disabled() && now.Disabled()) && !old.Equal(*now)
}

// tell is the controller's word.
func (w *world) tell(changed bool) string {
	in := health.Input{
		Kind: health.Seen, Run: w.run, Phase: w.phase, Entered: w.pair.base.Add(w.entered), Agent: w.agent, Network: w.network,
		Restored: w.restored, PolicyChanged: changed,
	}
	switch w.rng.IntN(30) {
	case 0:
		in.Entered = time.Time{}
	case 1:
		in.Entered = w.pair.base.Add(w.now + time.Second)
	}
	if w.chance(50) { // as they come from a record
		in.Entered, in.Restored = in.Entered.Round(0), in.Restored.Round(0)
	}
	return w.take(in)
}

// change changes what is so.
func (w *world) change() {
	switch w.phase {
	case health.Inactive:
		switch {
		case w.run > 0 && w.chance(50): // a pause ends, or a standby that failed
			w.enter(health.Running)
		default:
			w.start()
		}
	case health.Initializing:
		switch x := w.rng.IntN(100); {
		case x < 55:
			w.enter(health.Running)
		case x < 65:
			w.enter(health.Inactive)
		case x < 70:
			w.start()
		default:
			w.guest()
		}
	case health.Running:
		switch x := w.rng.IntN(100); {
		case x < 30:
			w.enter(health.Inactive)
		case x < 38:
			w.start()
		case x < 42: // a run whose end nobody told
			w.enter(health.Initializing)
		default:
			w.guest()
		}
	}
}

// start begins another run: a boot, one that is told late, or a restore.
func (w *world) start() {
	w.run++
	w.agent, w.network, w.restored = false, false, time.Time{}
	switch w.rng.IntN(5) {
	case 0, 1:
		w.enter(health.Running)
		on := w.entered
		switch w.rng.IntN(4) {
		case 0:
			on -= time.Duration(w.rng.Int64N(int64(2 * time.Second)))
		case 1:
			on = w.now - min(10*time.Second, w.now) // long ago
		}
		w.restored = w.pair.base.Add(on)
	case 2:
		w.enter(health.Running)
	default:
		w.enter(health.Initializing)
	}
	if w.chance(30) {
		w.guest()
	}
}

// enter enters a phase, perhaps some time ago: but not before the phase that it left.
func (w *world) enter(p health.Phase) {
	left := w.entered
	w.phase, w.entered = p, w.now
	switch w.rng.IntN(4) {
	case 0:
		w.entered -= time.Duration(w.rng.Int64N(int64(100 * time.Millisecond)))
	case 1:
		w.entered -= time.Duration(w.rng.Int64N(int64(5 * time.Second)))
	}
	w.entered = max(w.entered, left)
}

func (w *world) guest() {
	switch w.rng.IntN(3) {
	case 0:
		w.agent = true
	case 1:
		w.network = true
	}
}

// passShortly lets no time pass, or little.
func (w *world) passShortly() {
	switch w.rng.IntN(4) {
	case 0:
		w.now++
	case 1, 2:
		w.now += time.Duration(w.rng.Int64N(int64(60 * time.Millisecond)))
	}
}

// pass lets some time pass, often to a moment at which something turns, or to a nanosecond beside it.
func (w *world) pass() {
	switch w.rng.IntN(10) {
	case 0:
		w.passShortly()
	case 1, 2:
		w.now += time.Duration(w.rng.Int64N(int64(w.policy.Interval) + int64(100*time.Millisecond)))
	case 3:
		w.now += time.Duration(w.rng.Int64N(int64(15 * time.Second)))
	default:
		at := w.pair.ref.Turns(w.turns[:0])
		for _, t := range []time.Time{w.pair.due, w.pair.view.StaleAt} {
			if !t.IsZero() {
				at = append(at, t)
			}
		}
		w.turns = at
		if len(at) == 0 {
			w.passShortly()
			return
		}
		t := at[w.rng.IntN(len(at))].Sub(w.pair.base)
		switch w.rng.IntN(4) {
		case 0:
			t--
		case 1:
			t++
		}
		w.now = max(w.now, t)
	}
}

// somePolicies parses n policies, of all types, within the ranges and at their ends.
func somePolicies(t *testing.T, n int) []health.Policy {
	t.Helper()
	rng := rand.New(rand.NewPCG(1, 2))
	all := make([]health.Policy, 0, n)
	pick := func(of ...string) string { return of[rng.IntN(len(of))] }
	for len(all) < n {
		var b strings.Builder
		if rng.IntN(20) == 0 {
			b.WriteString(pick(`null`, `{"type":"none"}`))
		} else {
			interval, _ := time.ParseDuration(pick("100ms", "101ms", "250ms", "1s", "1s", "1.234567891s", "2s", "10s", "10s", "10s", "30s", "1m", "24h"))
			between := func(low, high time.Duration) time.Duration {
				if high <= low {
					return low
				}
				return low + time.Duration(rng.Int64N(int64(high-low)+1))
			}
			b.WriteString("{" + pick(
				`"http":{"port":80}`, `"http":{"port":443,"scheme":"https"}`, `"tcp":{"port":5432}`, `"exec":{"command":["true"]}`,
				`"exec":{"command":["true"]}`, `"grpc":{"port":65535}`))
			fmt.Fprintf(&b, `,"interval":%q`, interval)
			if rng.IntN(3) > 0 {
				fmt.Fprintf(&b, `,"timeout":%q`, between(time.Millisecond, min(2*interval, time.Hour)))
			}
			switch rng.IntN(6) {
			case 0, 1:
				b.WriteString(`,"start_period":"0s"`)
			case 2:
				fmt.Fprintf(&b, `,"start_period":%q`, between(1, min(3*interval, 24*time.Hour)))
			case 3:
				fmt.Fprintf(&b, `,"start_period":%q`, between(1, 5*time.Second))
			case 4:
				fmt.Fprintf(&b, `,"start_period":%q`, pick("1s", "1m", "24h"))
			}
			switch rng.IntN(5) {
			case 0:
				fmt.Fprintf(&b, `,"start_interval":%q`, between(50*time.Millisecond, interval))
			case 1:
				fmt.Fprintf(&b, `,"start_interval":%q`, pick("50ms", interval.String()))
			}
			switch rng.IntN(5) {
			case 0:
				fmt.Fprintf(&b, `,"confirm_interval":%q`, between(50*time.Millisecond, interval))
			case 1:
				fmt.Fprintf(&b, `,"confirm_interval":%q`, pick("50ms", interval.String()))
			}
			if rng.IntN(4) > 0 {
				fmt.Fprintf(&b, `,"failure_threshold":%d`, 1+rng.IntN(4))
			}
			if rng.IntN(2) > 0 {
				fmt.Fprintf(&b, `,"success_threshold":%d`, 1+rng.IntN(4))
			}
			b.WriteString("}")
		}
		p, err := health.Parse(json.RawMessage(b.String()))
		if err != nil {
			t.Fatalf("a policy of ours is refused: %s: %v", b.String(), err)
		}
		all = append(all, p)
	}
	return all
}
