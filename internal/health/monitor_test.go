package health

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// A guest is one instance of a monitor, and what its probes are to be.
type guest struct {
	o       Observed
	answer  Result
	takes   time.Duration // of a probe
	ignores bool          // it goes on though nobody wants it any more
	late    bool          // it never says that it has started

	flying bool
	begun  time.Time // the probe in flight
	last   time.Time // when it was last probed, or became one to be probed
}

// A monitor is the whole: a Set over a few instances, in a bubble, driven through any history.
type monitor struct {
	*Set
	journal journals
	start   time.Time
	slots   int

	mu     sync.Mutex
	guests map[string]*guest
	faults []string
}

// newMonitor draws outside the bubble what the bubble starts from.
func newMonitor(t *rapid.T) *monitor {
	m := &monitor{guests: make(map[string]*guest), slots: rapid.IntRange(1, 2).Draw(t, "slots"), journal: journals{new(sync.Map)}}
	for _, id := range []string{"a", "b"} {
		m.guests[id] = &guest{answer: good, o: Observed{ID: id, Run: 1, Policy: monitored(t)}}
	}
	return m
}

func (m *monitor) open() {
	m.Set = NewSet(Config{
		Probe: m.probe, Journal: m.journal,
		Boot: Boot{ID: "boot", Uptime: func() time.Duration { return time.Hour + time.Since(m.start) }},
	})
	m.queue = newQueue(m.slots)
}

// journals keeps the records of many.
type journals struct{ records *sync.Map }

func (j journals) Commit(context.Context, string, Transition) error { return nil }

func (j journals) Save(id string, blob []byte) error {
	j.records.Store(id, bytes.Clone(blob))
	return nil
}

func (j journals) Load(id string) ([]byte, error) {
	blob, _ := j.records.Load(id)
	b, _ := blob.([]byte)
	return b, nil
}

func (m *monitor) fault(format string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.faults = append(m.faults, fmt.Sprintf("at %v: ", time.Since(m.start))+fmt.Sprintf(format, args...))
}

func (m *monitor) probe(ctx context.Context, id string, p Policy, started func()) Result {
	m.mu.Lock()
	g := m.guests[id]
	twice := g.flying
	g.flying, g.begun = true, time.Now()
	r, takes, ignores, late := g.answer, g.takes, g.ignores, g.late
	m.mu.Unlock()
	if twice {
		m.fault("two probes at once of %s", id)
	}
	b, _ := json.Marshal(p)
	r.Reason = string(b)
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		g.flying, g.last = false, time.Now()
	}()
	if !late {
		started()
	}
	if ignores {
		time.Sleep(takes)
		return r
	}
	select {
	case <-after(min(takes, p.Timeout)): // a Prober keeps the timeout
		return r
	case <-ctx.Done():
		return Result{Outcome: Inconclusive, Cause: CauseCutShort, Reason: r.Reason}
	}
}

func monitored(t *rapid.T) Policy {
	p := brisk(t)
	p.Interval = min(max(p.Interval, time.Second), 20*time.Second)
	p.Timeout = min(p.Timeout, p.Interval)
	p.StartInterval, p.ConfirmInterval = min(p.StartInterval, p.Interval), min(p.ConfirmInterval, p.Interval)
	p.StartPeriod = min(p.StartPeriod, 2*p.Interval)
	return p
}

// Never two probes at once of an instance; never a result across windows; and every watched Running instance is probed again within
// interval + timeout + jitter + the time it was queued, whatever happened before.
func TestMonitor(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := newMonitor(rt)
		var script []func(*monitor)
		for range rapid.IntRange(5, 60).Draw(rt, "steps") {
			script = append(script, drawStep(rt))
		}
		synctest.Test(t, func(t *testing.T) {
			m.start = time.Now()
			m.open()
			m.syncAll()
			for _, step := range script {
				step(m)
				synctest.Wait()
				m.check()
			}
			for range 2 { // undisturbed, so that what was lost would show
				time.Sleep(31 * time.Second)
				synctest.Wait()
				m.check()
			}
			if err := m.Close(t.Context()); err != nil {
				m.fault("%v", err)
			}
		})
		for _, f := range m.faults {
			rt.Error(f)
		}
	})
}

func (m *monitor) syncAll() {
	for _, id := range slices.Sorted(maps.Keys(m.guests)) {
		m.sync(id, func(*Observed) {})
	}
}

// sync changes what the controller knows, and hands it on.
func (m *monitor) sync(id string, change func(*Observed)) {
	m.mu.Lock()
	g := m.guests[id]
	before := g.o
	change(&g.o)
	if g.o.Phase != before.Phase {
		g.o.Entered = time.Now()
	}
	if g.o.Phase != before.Phase || g.o.Run != before.Run || !g.o.Policy.Equal(before.Policy) {
		g.last = time.Now() // from now on it is to be probed, in this way
	}
	o := g.o
	m.mu.Unlock()
	m.Sync(o)
}

// drawStep draws something that happens.
func drawStep(t *rapid.T) func(*monitor) {
	id := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "id")
	edit := func(f func(*guest)) func(*monitor) {
		return func(m *monitor) { m.mu.Lock(); defer m.mu.Unlock(); f(m.guests[id]) }
	}
	d := time.Duration(rapid.Int64Range(0, int64(30*time.Second)).Draw(t, "time"))
	small := time.Duration(rapid.Int64Range(0, int64(2*time.Second)).Draw(t, "time"))
	yes := rapid.Bool().Draw(t, "yes")
	switch rapid.IntRange(0, 12).Draw(t, "step") {
	case 0:
		return func(m *monitor) { m.sync(id, func(o *Observed) { o.Phase = Inactive }) }
	case 1:
		return func(m *monitor) {
			m.sync(id, func(o *Observed) {
				o.Run++
				o.Phase, o.Agent, o.Network, o.Restored = Initializing, false, false, time.Time{}
			})
		}
	case 2, 3:
		return func(m *monitor) { m.sync(id, func(o *Observed) { o.Phase = Running }) }
	case 4:
		return func(m *monitor) {
			m.sync(id, func(o *Observed) { o.Agent, o.Network = true, o.Network || yes })
		}
	case 5:
		p := monitored(t)
		return func(m *monitor) { m.sync(id, func(o *Observed) { o.Policy = p }) }
	case 6:
		r := rapid.SampledFrom([]Result{good, bad, refusal, dunno, noAgent, noNetwork}).Draw(t, "result")
		return edit(func(g *guest) { g.answer, g.takes, g.late = r, small, yes })
	case 7:
		return edit(func(g *guest) { g.ignores = yes })
	case 8:
		return func(m *monitor) {
			m.mu.Lock()
			port := m.guests[id].o.Policy.Port()
			m.mu.Unlock()
			m.Hint(id, port, yes)
		}
	case 9:
		return func(m *monitor) { m.Ask(id) }
	case 10:
		return func(m *monitor) { // the daemon restarts, by a crash or in order
			if err := m.Close(context.Background()); err != nil {
				m.fault("%v", err)
			}
			time.Sleep(small)
			m.mu.Lock()
			for _, g := range m.guests {
				g.last = later(g.last, time.Now()).Add(min(g.o.Policy.Interval, 30*time.Second)) // the spread
			}
			m.mu.Unlock()
			m.open()
			m.syncAll()
		}
	case 11:
		return func(m *monitor) {
			m.sync(id, func(o *Observed) {
				o.Run++
				o.Phase, o.Agent, o.Network, o.Restored, o.Entered = Running, false, yes, time.Now(), time.Now()
			})
		}
	}
	return func(m *monitor) { time.Sleep(d) }
}

// check is what holds whenever everything stands still.
func (m *monitor) check() {
	now := time.Now()
	for id, g := range m.guests {
		m.mu.Lock()
		o, flying, begun, last, ignores := g.o, g.flying, g.begun, g.last, g.ignores
		m.mu.Unlock()
		s, ok := m.Snapshot(id)
		if !ok {
			m.fault("%s is unknown", id)
			continue
		}
		m.checkResults(id, s)
		switch {
		case o.Phase != Running || o.Policy.Disabled():
		case flying:
			if after := now.Sub(begun); after > o.Policy.Timeout && !ignores && after > 2*time.Second {
				m.fault("%s: a probe of %v", id, after)
			}
		case o.Policy.queues() && m.Queued() > 0: // the time queued is not counted
		default:
			if !o.Restored.IsZero() { // it may wait for the guest
				last = later(last, o.Restored.Add(patience))
			}
			bound := o.Policy.Interval + o.Policy.Interval/20 + o.Policy.Timeout
			if after := now.Sub(last); after > bound {
				m.fault("%s was not probed for %v, and is to be within %v: %+v", id, after, bound, s)
			}
		}
	}
}

// checkResults: no two overlap, and each belongs to its window: by its time, and by the policy that it was made with.
func (m *monitor) checkResults(id string, s Snapshot) {
	for i, r := range s.Results[min(1, len(s.Results)):] {
		before := s.Results[i]
		if r.Window < before.Window || r.Start.Before(before.Start.Add(before.Duration)) {
			m.fault("%s: %+v, then %+v", id, before, r)
		}
		if r.Window == before.Window && r.Reason != before.Reason && r.Cause != CauseCutShort && before.Cause != CauseCutShort && r.Reason != reasonNoAgent && before.Reason != reasonNoAgent {
			m.fault("%s: of one window are %+v and %+v", id, before, r)
		}
	}
	if s.LastCheckedAt.IsZero() { // nothing in this window
		return
	}
	last := s.Results[len(s.Results)-1]
	for _, r := range s.Results {
		if r.Window == last.Window && r.Start.Before(s.WindowStartedAt) {
			m.fault("%s: the window began at %v, and %+v before", id, s.WindowStartedAt, r)
		}
	}
}

// A policy as answered is accepted back, and equal; so is one that was changed by a machine that drew it.
func TestAnsweredPolicyIsAccepted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := brisk(t)
		b, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		q, err := Parse(b)
		if err != nil || !q.Equal(p) || !p.Equal(q) {
			t.Fatalf("%s is answered and not accepted back: %v", b, err)
		}
		again, err := json.Marshal(q)
		if err != nil || string(again) != string(b) {
			t.Fatalf("%s comes back as %s", b, again)
		}
	})
}
