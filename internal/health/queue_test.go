package health

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A ticket is a turn, and whether it has come.
type ticket struct {
	*turn
	granted chan struct{}
}

func (q *queue) ticket(slow bool) *ticket {
	granted := make(chan struct{})
	return &ticket{q.join(slow, func() { close(granted) }), granted}
}

func (t *ticket) came() bool {
	select {
	case <-t.granted:
		return true
	default:
		return false
	}
}

// First come first served, one turn for each slot, held until it ends or 50 ms.
func TestQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(2)
		came := func(turns ...*ticket) (list []int) {
			synctest.Wait()
			for i, t := range turns {
				if t.came() {
					list = append(list, i)
				}
			}
			return list
		}
		var turns []*ticket
		expect := func(waiting int, want ...int) {
			t.Helper()
			if got := came(turns...); !slices.Equal(got, want) || q.len() != waiting {
				t.Fatalf("at turn are %v and %d wait, want %v and %d", got, q.len(), want, waiting)
			}
		}
		for range 5 {
			turns = append(turns, q.ticket(false))
		}
		expect(3, 0, 1)
		turns[1].end(false)
		expect(2, 0, 1, 2)
		turns[1].end(false) // again: it gives nothing up
		expect(2, 0, 1, 2)
		time.Sleep(49 * time.Millisecond)
		expect(2, 0, 1, 2)
		turns[4].end(false) // gives up waiting
		expect(1, 0, 1, 2)
		time.Sleep(time.Millisecond)
		expect(0, 0, 1, 2, 3)
		turns[0].end(false) // its time was up, whatever it says later
		if !turns[0].usedUp() || turns[1].usedUp() || !turns[2].usedUp() || turns[4].usedUp() {
			t.Error("used up")
		}
		turns[3].end(false)
		if turns[3].usedUp() {
			t.Error("used up though it ended")
		}
		// Both slots are free again, and no more than both.
		turns = nil
		for range 3 {
			turns = append(turns, q.ticket(false))
		}
		expect(1, 0, 1)
		time.Sleep(time.Second)
		expect(0, 0, 1, 2)
	})
}

// Whose last start used up its turn stands behind those whose did not.
func TestQueueOfTheSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(1)
		first := q.ticket(true) // nobody is there: at once
		slow := []*ticket{q.ticket(true), q.ticket(true)}
		quick := []*ticket{q.ticket(false), q.ticket(false)}
		if q.len() != 4 {
			t.Errorf("%d wait", q.len())
		}
		var order []string
		var wg sync.WaitGroup
		var mu sync.Mutex
		for name, t := range map[string]*ticket{"first": first, "slow 0": slow[0], "slow 1": slow[1], "quick 0": quick[0], "quick 1": quick[1]} {
			wg.Go(func() {
				<-t.granted
				mu.Lock()
				order = append(order, name)
				mu.Unlock()
				time.Sleep(10 * time.Millisecond)
				t.end(false)
			})
		}
		wg.Wait()
		if want := []string{"first", "quick 0", "quick 1", "slow 0", "slow 1"}; !slices.Equal(order, want) {
			t.Errorf("%v, want %v", order, want)
		}
	})
}

func TestQueueHasASlot(t *testing.T) {
	if q := newQueue(0); !q.ticket(false).came() {
		t.Error("nobody's turn will ever come")
	}
}

// A crowd is a Set of many instances, with one slot in its queue.
type crowd struct {
	*testing.T
	*Set
	start time.Time

	mu    sync.Mutex
	began map[string][]time.Duration
}

const (
	crowdPolicy = `{"interval":"10s","timeout":"1s","start_period":"1h","start_interval":"10s","exec":{"command":["x"]}}`
	overTLS     = `{"interval":"10s","timeout":"1s","start_period":"1h","start_interval":"10s","http":{"port":443,"scheme":"https"}}`
)

func newCrowd(t *testing.T, probe func(ctx context.Context, id string, started func()) Result) *crowd {
	c := &crowd{T: t, start: time.Now(), began: make(map[string][]time.Duration)}
	c.Set = NewSet(Config{
		Journal: archive(nil), Boot: Boot{ID: "boot", Uptime: func() time.Duration { return time.Hour }},
		Probe: func(ctx context.Context, id string, p Policy, started func()) Result {
			c.mu.Lock()
			c.began[id] = append(c.began[id], time.Since(c.start))
			c.mu.Unlock()
			return probe(ctx, id, started)
		},
	})
	c.queue = newQueue(1)
	return c
}

// seen is a Sync, and what follows from it at once: the next one's stands behind it in the queue.
func (c *crowd) seen(id string, run uint64, phase Phase, policy string) {
	c.Sync(Observed{ID: id, Run: run, Phase: phase, Policy: mustParse(c, policy), Entered: time.Now(), Agent: true})
	synctest.Wait()
}

// probed checks when the probes of one instance began so far.
func (c *crowd) probed(id string, want ...time.Duration) {
	c.Helper()
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !slices.Equal(c.began[id], want) {
		c.Errorf("%s: probes at %v, want %v", id, c.began[id], want)
	}
}

func (c *crowd) close() {
	if err := c.Close(context.Background()); err != nil {
		c.Error(err)
	}
}

// What costs CPU to begin waits for its turn; the wait is measured and not charged; what costs nothing never waits.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// Each takes 30 ms to start and 100 ms in all; "hangs" never starts.
		c := newCrowd(t, func(ctx context.Context, id string, started func()) Result {
			if id == "hangs" {
				<-ctx.Done()
				return Result{Outcome: Failure, Reason: "timeout"}
			}
			time.Sleep(30 * ms)
			started()
			time.Sleep(70 * ms)
			return good
		})
		c.seen("hangs", 1, Running, crowdPolicy)
		c.seen("a", 1, Running, crowdPolicy)
		c.seen("b", 1, Running, overTLS)
		c.seen("c", 1, Running, crowdPolicy)
		c.seen("plain", 1, Running, `{"http":{"port":80}}`)
		c.seen("grpc", 1, Running, `{"grpc":{"port":80}}`)
		c.seen("tcp", 1, Running, `{"tcp":{"port":80}}`)
		for _, id := range []string{"plain", "grpc", "tcp"} {
			c.probed(id, 0)
		}
		if c.Queued() != 3 || c.InFlight() != 4 {
			t.Errorf("%d queued, %d in flight", c.Queued(), c.InFlight())
		}
		r, err := c.CheckNow(t.Context(), "b") // joins one that waits
		if err != nil || r.Queued != 80*ms || r.Duration != 100*ms || !r.Start.Equal(c.start.Add(80*ms)) {
			t.Errorf("%+v, %v", r, err)
		}
		time.Sleep(time.Second)
		c.probed("hangs", 0)
		c.probed("a", 50*ms)
		c.probed("b", 80*ms)
		c.probed("c", 110*ms)
		if c.Queued() != 0 || c.InFlight() != 1 {
			t.Errorf("%d queued, %d in flight", c.Queued(), c.InFlight())
		}
		c.close()
		if c.InFlight() != 0 {
			t.Errorf("%d in flight at the end", c.InFlight())
		}
	})
}

// One whose start used up its turn stands behind the others the next time.
func TestSlowStartsStandBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, func(ctx context.Context, id string, started func()) Result {
			if id != "slow" {
				time.Sleep(10 * ms)
				started()
			}
			time.Sleep(90 * ms)
			return good
		})
		const eager = `{"interval":"10s","timeout":"1s","start_period":"0s","exec":{"command":["x"]}}`
		c.seen("slow", 1, Running, eager)
		time.Sleep(time.Second)
		c.probed("slow", 0)
		c.seen("x", 1, Running, eager) // holds the turn while the others come
		for _, id := range []string{"slow", "y", "z"} {
			if id == "slow" {
				c.Ask(id)
				synctest.Wait()
			} else {
				c.seen(id, 1, Running, eager)
			}
		}
		synctest.Wait()
		time.Sleep(time.Second)
		c.probed("x", time.Second)
		c.probed("y", time.Second+10*ms)
		c.probed("z", time.Second+20*ms)
		c.probed("slow", 0, time.Second+30*ms)
		c.close()
	})
}

// One that waits for its turn and is no longer wanted leaves the queue, and no result.
func TestTurnsAreGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hold := make(chan struct{})
		c := newCrowd(t, func(ctx context.Context, id string, started func()) Result {
			if id == "holder" {
				select {
				case <-hold:
				case <-ctx.Done():
				}
			}
			return good
		})
		c.seen("holder", 1, Running, crowdPolicy)
		for _, id := range []string{"stops", "changes", "loses", "forgotten", "stays"} {
			c.seen(id, 1, Running, crowdPolicy)
		}
		errs := make(chan error, 1)
		go func() {
			_, err := c.CheckNow(t.Context(), "stops")
			errs <- err
		}()
		synctest.Wait()
		c.seen("stops", 1, Inactive, crowdPolicy)
		if err := <-errs; err != ErrInactive {
			t.Error(err)
		}
		c.seen("changes", 1, Running, `{"tcp":{"port":80}}`)
		c.seen("loses", 1, Running, `null`)
		c.Forget("forgotten")
		c.probed("changes", 0) // at once: it waits for nothing now
		if c.Queued() != 1 {
			t.Errorf("%d queued", c.Queued())
		}
		for _, id := range []string{"stops", "loses"} {
			if s, _ := c.Snapshot(id); len(s.Results) != 0 {
				t.Errorf("%s: %+v", id, s.Results)
			}
		}
		time.Sleep(50 * ms)
		c.probed("stays", 50*ms)
		c.probed("stops")
		c.probed("loses")
		c.seen("waits", 1, Running, crowdPolicy)
		close(hold)
		c.close()
	})
}

// A panic while a probe waits for its turn gives that up, too.
func TestPanicWhileQueued(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, func(ctx context.Context, id string, started func()) Result {
			<-ctx.Done()
			return dunno
		})
		for i := range 40 { // each holds its turn for 50 ms
			c.seen(fmt.Sprint("hangs ", i), 1, Running, crowdPolicy)
		}
		c.seen("x", 1, Running, crowdPolicy)
		c.hooks.Transition = func(Status, Status, bool) { panic("a hook has a bug") }
		c.seen("x", 1, Inactive, crowdPolicy)
		time.Sleep(restartPause + 20*ms)
		synctest.Wait()
		if n := c.Queued(); n != 40-21 {
			t.Errorf("%d wait", n)
		}
		c.probed("x")
		c.close()
	})
}

// Time queued is no time without a result: nothing turns stale for it.
func TestStaleWithoutTimeQueued(t *testing.T) {
	m := healthySim(t, steady) // stale after 3 × 11 s
	m.pass(10 * time.Second)
	m.next(Input{Kind: Asking})
	m.next(Input{Kind: Queued})
	if m.s.Asked || !m.s.StaleAt(m.p).IsZero() {
		t.Fatalf("%+v", m.s)
	}
	m.pass(time.Hour)
	if m.s.Stale != "" {
		t.Fatal("stale while it is queued")
	}
	m.next(Input{Kind: Begun})
	if want := m.now.Add(23 * time.Second); !m.s.StaleAt(m.p).Equal(want) || !m.s.Queued.IsZero() {
		t.Fatalf("stale at %v, want %v", m.s.StaleAt(m.p), want)
	}
	m.next(Input{Kind: Probed, Result: dunno, Asked: true, Hash: half})
	m.pass(23*time.Second - 1)
	if m.s.Stale != "" {
		t.Fatal("too early")
	}
	m.pass(1)
	if m.s.Stale != StaleInconclusive {
		t.Fatal("too late")
	}

	// Time queued before staleness began to be measured anew takes nothing from it.
	m = newSim(t, steady)
	m.phase(Initializing)
	m.next(Input{Kind: Queued})
	m.pass(time.Hour)
	m.phase(Running)
	m.pass(time.Second)
	m.next(Input{Kind: Begun})
	if want := m.now.Add(33 * time.Second); !m.s.StaleAt(m.p).Equal(want) {
		t.Errorf("stale at %v, want %v", m.s.StaleAt(m.p), want)
	}
	if m.s.Asked {
		t.Error("the entry into Running asked for another one than that which begins after it")
	}
	// Given up by a pause.
	m = healthySim(t, steady)
	m.next(Input{Kind: Queued})
	m.phase(Inactive)
	if !m.s.Queued.IsZero() {
		t.Error("still queued")
	}
}

// A result that comes without its turn's end ends the wait as well.
func TestProbedEndsTheWait(t *testing.T) {
	m := healthySim(t, steady)
	m.next(Input{Kind: Queued})
	m.pass(time.Hour)
	m.next(Input{Kind: Probed, Result: dunno, Hash: half})
	if want := m.now.Add(33 * time.Second); !m.s.Queued.IsZero() || !m.s.StaleAt(m.p).Equal(want) {
		t.Errorf("stale at %v, want %v", m.s.StaleAt(m.p), want)
	}
}

// The same in the loop.
func TestNotStaleWhileQueued(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.queue = newQueue(1)
		b.seen(1, Running, `{"interval":"10s","timeout":"1s","start_period":"0s","exec":{"command":["x"]}}`)
		b.is(StatusHealthy)
		time.Sleep(time.Second)
		for range 1000 { // fifty seconds of others
			b.queue.join(false, idle)
		}
		b.answers(dunno, 0)
		b.Ask("a")
		time.Sleep(49 * time.Second)
		if b.is(StatusHealthy).Stale || b.count() != 1 {
			t.Error("stale while it is queued")
		}
		time.Sleep(33*time.Second - 1)
		if b.is(StatusHealthy).Stale || b.count() == 1 {
			t.Error("the time queued is counted")
		}
		time.Sleep(time.Nanosecond)
		if !b.is(StatusHealthy).Stale {
			t.Error("never stale")
		}
	})
}

// A turn that came while the one who waited for it gave up the wait is not its next probe's.
func TestTurnThatComesTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.queue = newQueue(1)
		b.seen(1, Running, execPolicy)
		b.is(StatusHealthy)
		time.Sleep(time.Second)
		b.probed(0)
		holder := b.queue.join(false, idle)
		b.Ask("a")
		synctest.Wait()
		b.journal.breaks(800*ms, nil)
		go b.seen(2, Running, execPolicy) // which is committed at 1.8 s, and ends the wait then
		synctest.Wait()
		holder.end(false) // the turn comes, and is over at 1.05 s
		for range 30 {    // these have theirs until 2.55 s
			b.queue.join(false, idle)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if b.Queued() == 0 {
			t.Error("nobody waits")
		}
		b.probed(0)
		time.Sleep(time.Second)
		b.probed(0, 2550*ms)
	})
}
