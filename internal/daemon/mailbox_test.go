package daemon

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// opened are mailboxes that hand on to hand from now on, until the test's end.
func opened(t *testing.T, hand func(string, mail)) *mailboxes {
	m := newMailboxes(hand, func(string, any) {})
	m.start()
	t.Cleanup(func() {
		m.stop()
		if err := m.wait(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return m
}

// What takes long for one instance holds up no other; for that one the newest waits, and comes after it.
func TestAnInstancesMailHoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		free := make(chan struct{})
		var slow, quick []string
		m := opened(t, func(id string, m mail) {
			said := fmt.Sprint(m.look, m.hint)
			if m.hint != nil {
				said = fmt.Sprint(m.look, *m.hint)
			}
			if id == "slow" {
				slow = append(slow, said)
				<-free
				return
			}
			quick = append(quick, said)
		})
		m.look("slow")
		synctest.Wait()
		m.look("slow")
		for i := range 1000 {
			m.hint("slow", 80, i%2 == 0)
		}
		m.watch("slow")
		m.look("quick")
		m.heard(t.Context(), "quick")
		if fmt.Sprint(quick) != "[true <nil>]" || len(slow) != 1 {
			t.Errorf("handed on: %q and %q", quick, slow)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		m.heard(ctx, "slow")
		if ctx.Err() == nil {
			t.Error("what waits is taken for heard")
		}
		if age := m.oldest(); age != time.Second {
			t.Errorf("the oldest is of %v ago", age)
		}
		close(free)
		m.heard(t.Context(), "slow")
		if fmt.Sprint(slow) != "[true <nil> true {80 false}]" {
			t.Errorf("handed on: %q", slow)
		}
		synctest.Wait()
		if len(m.of) != 0 || m.oldest() != 0 {
			t.Errorf("%d mailboxes are kept that have nothing", len(m.of))
		}
	})
}

// What comes before there is anybody to hear it is kept, and what comes behind the end is not.
func TestMailWaitsForTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []string
		m := newMailboxes(func(id string, _ mail) { got = append(got, id) }, nil)
		for range 3 {
			m.look("a")
		}
		synctest.Wait()
		if len(got) != 0 {
			t.Errorf("handed on before the start: %v", got)
		}
		m.start()
		m.heard(t.Context(), "a")
		m.stop()
		m.look("b")
		if err := m.wait(t.Context()); err != nil || fmt.Sprint(got) != "[a]" {
			t.Errorf("handed on %v, %v", got, err)
		}
	})
}

// A panic is told and contained, and what was to be handed on is handed on a moment later; the end does not wait for that.
func TestMailOutlivesAPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries, told := 0, 0
		m := newMailboxes(func(id string, _ mail) {
			if tries++; id == "never" || tries == 1 {
				panic("oh")
			}
		}, func(string, any) { told++ })
		m.start()
		begun := time.Now()
		m.look("a")
		m.heard(t.Context(), "a")
		if took := time.Since(begun); tries != 2 || told != 1 || took != loopPause {
			t.Errorf("%d tries in %v, told of %d panics", tries, took, told)
		}
		m.look("never")
		synctest.Wait()
		begun = time.Now()
		m.stop()
		if err := m.wait(t.Context()); err != nil || time.Since(begun) > 0 {
			t.Errorf("it ended after %v, %v", time.Since(begun), err)
		}
	})
}

// The end waits for what is being handed on, and not for ever.
func TestMailIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		free := make(chan struct{})
		m := newMailboxes(func(string, mail) { <-free }, nil)
		m.start()
		m.look("a")
		synctest.Wait()
		m.stop()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if m.wait(ctx) == nil {
			t.Error("what is being handed on is not waited for")
		}
		close(free)
		if err := m.wait(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
