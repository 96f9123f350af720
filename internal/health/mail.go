package health

import (
	"runtime/debug"
	"slices"
	"sync"
	"time"
)

// A mailbox is what was brought to a loop and not yet taken, and who runs the loop. A loop has no goroutine of its own: whoever
// brings something has one of the crew run it, unless one does already. So ten thousand instances that wait for their next probe are
// ten thousand entries of a heap, and a probe's answer is taken by the goroutine that has it.
type mailbox struct {
	loop *loop

	mu      sync.Mutex
	letters []message
	kinds   kind // of what was brought beside letters
	written error
	busy    bool // somebody runs the loop, or is about to
	resting bool // after a panic, until the bell
	over    bool // the loop has ended: nothing is taken any more
}

// A kind is one that says everything by having come; several are one. They are handled in this order, and letters after them.
type kind uint8

const (
	answered kind = 1 << iota // the probe in flight has its answer: before the bell, which may say that it is overdue
	saved                     // the write under way is over, with mailbox.written
	ending                    // the set closes, or the instance is deleted: before what may begin a probe
	granted                   // the turn of the probe that waits for one has come
	bell                      // its alarm rang
)

// bring leaves something of a kind, and sees to it that the loop is run.
func (b *mailbox) bring(k kind) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.put(k)
}

func (b *mailbox) put(k kind) {
	if b.over {
		return
	}
	b.kinds |= k
	if k&(bell|ending) != 0 {
		b.resting = false
	}
	b.call()
}

// keep is bring for the goroutine that would run the loop itself: it reports whether that is to.
func (b *mailbox) keep(k kind) (run bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	run = !b.busy && !b.resting
	b.busy = b.busy || run
	b.put(k)
	return run
}

// bringWritten tells of the end of a write.
func (b *mailbox) bringWritten(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.written = err
	b.put(saved)
}

// send leaves a letter; false when the loop has ended.
func (b *mailbox) send(m message) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.over {
		return false
	}
	b.letters = append(b.letters, m)
	b.call()
	return true
}

// call has one of the crew run the loop, unless somebody does, or it rests.
func (b *mailbox) call() {
	if !b.busy && !b.resting {
		b.busy = true
		b.loop.set.crew.do(b.loop)
	}
}

// take returns what is to be handled next: a kind, or a letter. With neither the caller runs the loop no longer.
func (b *mailbox) take() (k kind, m message, written error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.resting || b.over:
	case b.kinds != 0:
		k = b.kinds & -b.kinds
		b.kinds &^= k
		return k, m, b.written
	case len(b.letters) > 0:
		m = b.letters[0]
		if b.letters = b.letters[1:]; len(b.letters) == 0 {
			b.letters = nil
		}
		return 0, m, nil
	}
	b.busy = false
	return 0, message{}, nil
}

// leave is for the one who ran the loop and has something else to do: another goes on if anything is left.
func (b *mailbox) leave() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.busy = false
	if b.kinds != 0 || len(b.letters) > 0 {
		b.call()
	}
}

// rest is what a loop does after a panic: what comes meanwhile waits for the bell, but for its end.
func (b *mailbox) rest() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.resting = b.kinds&ending == 0
}

// back leaves what was taken, and not handled, to be taken again.
func (b *mailbox) back(k kind, m message) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.kinds |= k
	if m.taken != nil {
		b.letters = slices.Insert(b.letters, 0, m)
	}
}

// close lets those go who wait for a letter to be taken.
func (b *mailbox) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.over = true
	for _, m := range b.letters {
		close(m.taken)
	}
	b.letters = nil
}

// do runs the loop until nothing is left to handle, on a goroutine of the crew. A probe that it begins is made by the same goroutine,
// which is not the loop's meanwhile, and runs it again with the answer.
func (l *loop) do() {
	for {
		f := l.attend()
		if f == nil {
			return
		}
		l.mail.leave()
		f.answer = l.probe(f)
		if !l.mail.keep(answered) {
			return
		}
	}
}

// attend handles what was brought until nothing is left, or until there is a probe to be made: its flight is returned.
func (l *loop) attend() *flight {
	for {
		k, m, written := l.mail.take()
		if k == 0 && m.taken == nil {
			return nil
		}
		l.contained(k, m, written)
		if f := l.leaving; f != nil {
			l.leaving = nil
			return f
		}
	}
}

// contained handles one thing. After a panic, which is told to the log, the loop rests for a while.
func (l *loop) contained(k kind, m message, written error) {
	prepared := false
	defer func() {
		if r := recover(); r != nil {
			if !prepared {
				l.mail.back(k, m)
			}
			l.log.Error("the health loop panicked; it is started again", "panic", r, "stack", string(debug.Stack()))
			l.set.hooks.Panicked()
			l.shaken = true
			l.mail.rest() // before its end is set, which may come at once
			l.set.timers.set(l, time.Now().Add(restartPause))
		}
	}()
	l.prepare(k)
	prepared = true
	l.handle(k, m, written)
	if !l.ending {
		l.set.timers.set(l, l.wake())
	}
}
