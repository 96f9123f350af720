package health

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// An idler is a loop that has nothing to do, and whose runners are those of its mailbox.
func idler(b *bench) *loop {
	l := newLoop(b.Set, "idler")
	l.loaded = true
	return l
}

// ran is how many of the crew were needed so far, one at a time.
func (b *bench) ran() int {
	synctest.Wait()
	b.crew.mu.Lock()
	defer b.crew.mu.Unlock()
	return len(b.crew.idle)
}

// Who runs a loop: one of the crew, unless somebody does already, or it rests; and who asks to run it may where one of the crew would.
func TestWhoRunsTheLoop(t *testing.T) {
	bring := func(k kind) func(*mailbox) bool { return func(m *mailbox) bool { m.bring(k); return false } }
	send := func(m *mailbox) bool { m.send(message{hint: new(heard), taken: make(chan struct{})}); return false }
	keep := func(m *mailbox) bool { return m.keep(granted) }
	for _, c := range []struct {
		name          string
		busy, resting bool
		do            func(*mailbox) bool
		left          bool // what was brought, for who runs the loop, or for later
		own           bool // the one who asked runs it
	}{
		{"a kind for one that is free", false, false, bring(granted), false, false},
		{"the bell for one that is free", false, false, bring(bell), false, false},
		{"a letter for one that is free", false, false, send, false, false},
		{"one that is free is run by who asks", false, false, keep, true, true},
		{"a kind for one that is run", true, false, bring(granted), true, false},
		{"the bell for one that is run", true, false, bring(bell), true, false},
		{"a letter for one that is run", true, false, send, true, false},
		{"one that is run is not run by who asks", true, false, keep, true, false},
		{"a kind for one that rests", false, true, bring(granted), true, false},
		{"the bell for one that rests", false, true, bring(bell), false, false},
		{"a letter for one that rests", false, true, send, true, false},
		{"one that rests is not run by who asks", false, true, keep, true, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t)
			l := idler(b)
			m := &l.mail
			m.busy, m.resting = c.busy, c.resting
			own := c.do(m)
			ran := b.ran() > 0
			if left := m.kinds != 0 || len(m.letters) > 0; left != c.left || own != c.own || ran == c.left {
				t.Errorf("%s: left %v, run by who asked %v, by one of the crew %v", c.name, left, own, ran)
			}
			if busy := c.busy || c.own; m.busy != busy || m.resting != (c.resting && c.left) {
				t.Errorf("%s: busy %v, resting %v", c.name, m.busy, m.resting)
			}
			m.busy = false
			l.forget() // which ends the rest, too
		})
	}
}

// What is left when one who ran the loop has something else to do, another goes on with; with nothing left there is none.
func TestLeavingTheLoop(t *testing.T) {
	for name, c := range map[string]struct {
		bring func(*mailbox)
		on    int
	}{
		"nothing":  {func(*mailbox) {}, 0},
		"a kind":   {func(m *mailbox) { m.bring(granted) }, 1},
		"a letter": {func(m *mailbox) { m.send(message{hint: new(heard), taken: make(chan struct{})}) }, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t)
			l := idler(b)
			m := &l.mail
			m.busy = true
			c.bring(m)
			m.leave()
			if n := b.ran(); n != c.on || m.busy || m.kinds != 0 || m.letters != nil {
				t.Errorf("%s is left: %d went on, busy %v, kinds %b, %d letters", name, n, m.busy, m.kinds, len(m.letters))
			}
			l.forget()
		})
	}
}

// What was brought is taken kind by kind, and then letter by letter, as they came; while the loop rests, and after its end, nothing is.
func TestTake(t *testing.T) {
	full := errors.New("disk full")
	letters := []message{{hint: &heard{port: 1}, taken: make(chan struct{})}, {hint: &heard{port: 2}, taken: make(chan struct{})}}
	m := mailbox{busy: true, kinds: granted | bell | saved, letters: slices.Clone(letters), written: full}
	for _, want := range []kind{saved, granted, bell} {
		if k, letter, written := m.take(); k != want || letter != (message{}) || written != full || !m.busy {
			t.Errorf("%b, %v, %v, busy %v, want %b", k, letter, written, m.busy, want)
		}
	}
	m.resting = true
	if k, letter, written := m.take(); k != 0 || letter != (message{}) || written != nil || m.busy {
		t.Errorf("while it rests: %b, %v, %v, busy %v", k, letter, written, m.busy)
	}
	m.resting, m.busy = false, true
	for i, want := range letters {
		if k, letter, written := m.take(); k != 0 || letter != want || written != nil || !m.busy || (m.letters == nil) != (i == 1) {
			t.Errorf("%b, %v, %v, busy %v, want %v", k, letter, written, m.busy, want)
		}
	}
	if k, letter, _ := m.take(); k != 0 || letter != (message{}) || m.busy {
		t.Errorf("of nothing: %b, %v, busy %v", k, letter, m.busy)
	}
	m = mailbox{busy: true, kinds: granted, letters: letters, over: true}
	if k, letter, _ := m.take(); k != 0 || letter != (message{}) || m.busy {
		t.Errorf("after the end: %b, %v, busy %v", k, letter, m.busy)
	}
}

// After a panic a loop rests, unless it is to end.
func TestRest(t *testing.T) {
	for kinds, want := range map[kind]bool{0: true, granted | saved: true, ending: false, ending | granted: false} {
		m := mailbox{busy: true, kinds: kinds}
		if m.rest(); m.resting != want {
			t.Errorf("with %b brought it rests: %v", kinds, m.resting)
		}
	}
}

// A loop that has ended takes nothing, lets those go who wait, and is run no more.
func TestMailAfterTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		l := idler(b)
		waits := message{taken: make(chan struct{})}
		l.mail.busy = true
		if !l.mail.send(waits) {
			t.Error("refused before its end")
		}
		l.mail.close()
		<-waits.taken
		l.mail.busy = false
		if l.mail.send(message{taken: make(chan struct{})}) {
			t.Error("a letter is taken")
		}
		l.mail.bring(bell)
		l.mail.bringWritten(nil)
		if n := b.ran(); n != 0 || l.mail.kinds != 0 || l.mail.letters != nil {
			t.Errorf("run by %d, kinds %b, %d letters", n, l.mail.kinds, len(l.mail.letters))
		}
		b.loopWG.Done() // it ended without its last steps
	})
}

// An answer that comes while somebody runs the loop is taken when that has done its step, by nobody else and not before.
func TestAnswerWhileTheLoopIsRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		var landed []time.Duration
		b.hooks.Probed = func(Type, Outcome, string, time.Duration) { landed = append(landed, time.Since(b.start)) }
		b.seen(0, Inactive, pacedPolicy)
		b.answers(good, 100*ms)
		b.seen(1, Running, pacedPolicy)
		time.Sleep(50 * ms)
		b.journal.breaks(800*ms, nil)
		b.seen(1, Inactive, pacedPolicy) // which is committed at 850 ms
		synctest.Wait()
		if !slices.Equal(landed, []time.Duration{850 * ms}) {
			t.Errorf("answers were taken at %v", landed)
		}
	})
}
