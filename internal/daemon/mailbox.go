package daemon

import (
	"context"
	"sync"
	"time"
)

// mailboxes hold what health has not heard of the instances: one for each instance that there is something of. Each is emptied by a
// goroutine of its own, which lives as long as there is mail, so that what takes long for one instance (its disk) holds up no other;
// and one instance's mail is handed on one after the other. What waits is the newest only.
type mailboxes struct {
	hand   func(id string, m mail)
	failed func(id string, panicked any) // and it is tried again

	mu      sync.Mutex
	of      map[string]*mailbox
	open    bool          // until then it is only collected
	closing chan struct{} // closed: nothing is handed on any more
	wg      sync.WaitGroup
}

type mailbox struct {
	next *mail // nil: none
	now  *mail // is being handed on
}

// A mail asks that health sees an instance as it is by then, that its guest is told which port to tell of, or both.
type mail struct {
	look  bool
	fate  fate
	hint  *hint         // the newest; nil: none
	since time.Time     // the oldest part of it
	over  chan struct{} // closed when it was handed on
}

// A fate is what becomes of an instance that is about to be deleted.
type fate int

const (
	asBefore fate = iota
	leaves        // health tells the last of it
	stays         // it was not deleted after all
)

func newMailboxes(hand func(string, mail), failed func(string, any)) *mailboxes {
	return &mailboxes{hand: hand, failed: failed, of: make(map[string]*mailbox), closing: make(chan struct{})}
}

// look asks that health sees the instance. It never waits.
func (m *mailboxes) look(id string) { m.add(id, func(next *mail) { next.look = true }) }

// hint is what the guest says. It never waits.
func (m *mailboxes) hint(id string, port uint16, listening bool) {
	m.add(id, func(next *mail) { next.hint = &hint{port, listening} })
}

// leaves has health tell the last of an instance, and returns when it has: false if that was not so before ctx is done, or nothing is handed
// on any more.
func (m *mailboxes) leaves(ctx context.Context, id string) bool {
	m.add(id, func(next *mail) { next.fate = leaves })
	return m.heard(ctx, id)
}

// stays takes that back. It never waits.
func (m *mailboxes) stays(id string) {
	m.add(id, func(next *mail) { next.fate, next.look = stays, true })
}

// watch asks that the guest is told once more which port to tell of. It never waits.
func (m *mailboxes) watch(id string) { m.add(id, func(*mail) {}) }

func (m *mailboxes) add(id string, write func(*mail)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed() {
		return
	}
	box := m.of[id]
	if box == nil {
		box = &mailbox{}
		m.of[id] = box
		m.empty(id, box)
	}
	if box.next == nil {
		box.next = &mail{since: time.Now(), over: make(chan struct{})}
	}
	write(box.next)
}

// start begins to hand on what was collected.
func (m *mailboxes) start() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.open = true
	for id, box := range m.of {
		m.empty(id, box)
	}
}

// empty hands on the mail of an instance until there is none. The caller holds m.mu.
func (m *mailboxes) empty(id string, box *mailbox) {
	if !m.open || m.closed() {
		return
	}
	m.wg.Go(func() {
		for m.take(id, box) {
			for !m.contained(id, *box.now) {
				select {
				case <-time.After(loopPause):
					continue
				case <-m.closing:
				}
				break
			}
			close(box.now.over)
		}
	})
}

// take makes the next mail the present one; false: there is none, and the mailbox is gone.
func (m *mailboxes) take(id string, box *mailbox) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if box.next == nil || m.closed() {
		delete(m.of, id)
		return false
	}
	box.now, box.next = box.next, nil
	return true
}

func (m *mailboxes) contained(id string, mail mail) (done bool) {
	defer func() {
		if v := recover(); v != nil {
			m.failed(id, v)
		}
	}()
	m.hand(id, mail)
	return true
}

// heard returns when what there is of an instance now was handed on; false if something else came first.
func (m *mailboxes) heard(ctx context.Context, id string) bool {
	m.mu.Lock()
	last := (*mail)(nil)
	if box := m.of[id]; box != nil {
		if last = box.next; last == nil {
			last = box.now
		}
	}
	m.mu.Unlock()
	if last == nil {
		return !m.closed()
	}
	select {
	case <-last.over:
		return !m.closed() // else it was given up
	case <-m.closing:
	case <-ctx.Done():
	}
	return false
}

// oldest is the age of the oldest mail that is not handed on yet.
func (m *mailboxes) oldest() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	now, age := time.Now(), time.Duration(0)
	for _, box := range m.of {
		first := box.next
		if box.now != nil {
			first = box.now
		}
		age = max(age, now.Sub(first.since))
	}
	return age
}

func (m *mailboxes) closed() bool {
	select {
	case <-m.closing:
		return true
	default:
		return false
	}
}

// stop has nothing more handed on: the next daemon looks at every instance.
func (m *mailboxes) stop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.closed() {
		close(m.closing)
	}
}

// wait returns when nothing is being handed on any more, or with ctx's cause. It is for after stop.
func (m *mailboxes) wait(ctx context.Context) error {
	done := make(chan struct{})
	go func() { m.wg.Wait(); close(done) }() // ends with them
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
