package health

import (
	"context"
	"slices"
	"strings"
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

// A turn ends with its probe, also where nobody says that it has started.
func TestTurnEndsWithTheProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, func(ctx context.Context, id string, started func()) Result { time.Sleep(10 * ms); return good })
		c.seen("a", 1, Running, crowdPolicy)
		c.seen("b", 1, Running, crowdPolicy)
		time.Sleep(time.Second)
		c.probed("a", 0)
		c.probed("b", 10*ms)
	})
}

// A turn that comes for a probe that was given up meanwhile begins none.
func TestTurnOfOneGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.queue = newQueue(1)
		b.journal.slow.Store(true)
		b.answers(good, 20*ms)
		policy := strings.Replace(execPolicy, `"start_period":"1h"`, `"start_period":"0s"`, 1)
		b.seen(1, Running, policy)
		time.Sleep(2 * time.Second)
		b.is(StatusHealthy)
		probed := b.count()
		b.queue.join(false, idle) // holds the turn for 50 ms
		go b.CheckNow(context.Background(), "a")
		synctest.Wait() // it waits behind that
		for range 10 {
			b.queue.join(false, idle)
		}
		b.journal.breaks(100*ms, nil) // while a new run's starting is committed the turn comes
		go b.seen(2, Running, policy)
		time.Sleep(150 * ms)
		b.journal.breaks(0, nil)
		if b.count() > probed && b.Queued() > 0 {
			t.Errorf("a probe began though %d wait before it", b.Queued())
		}
		time.Sleep(time.Minute)
	})
}
