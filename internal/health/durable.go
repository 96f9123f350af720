package health

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"time"
)

// load reads what an earlier daemon left, and what the log knows beyond it.
func (l *loop) load() {
	blob, err := l.set.config.Journal.Load(l.id)
	switch {
	case err != nil:
		l.log.Error("the health record cannot be read; its instance starts without history", "error", err)
	case blob != nil:
		p, s, h, err := decode(l.set.clock, blob)
		if err != nil {
			l.setAside(err)
			break
		}
		l.p, l.s = p, s
		l.mu.Lock()
		l.history = h
		l.mu.Unlock()
	}
	if r, ok := l.set.config.Journal.(Replayer); ok {
		log, err := r.Replay(l.id)
		if err != nil {
			l.log.Error("the event log cannot be read for transitions that the health record has not seen", "error", err)
		}
		l.replay(log)
	}
	if l.s.Status != "" {
		in := Input{Kind: Restarted, Hash: l.hash}
		l.next(time.Now(), in)
		l.publish(nil, &in) // also where nothing follows from the restart: what was known is shown
	}
}

func (l *loop) replay(log []Transition) {
	seen := l.s.N
	l.s = l.s.replay(log)
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, t := range log {
		if t.N > seen {
			l.history.addTransition(t)
		}
	}
}

func (l *loop) setAside(cause error) {
	q, ok := l.set.config.Journal.(Quarantine)
	if !ok {
		l.log.Error("the health record makes no sense and will be replaced; its instance starts without history", "error", cause)
		return
	}
	if err := q.SetAside(l.id); err != nil {
		l.log.Error("the health record makes no sense and cannot be set aside", "error", cause, "set_aside", err)
		return
	}
	l.log.Error("the health record makes no sense and was set aside; its instance starts without history", "error", cause)
}

// commit appends t to the log. A log that refuses, or takes too long, is told and does not keep t from being announced.
func (l *loop) commit(t *Transition) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(l.ctx), commitPatient)
	defer cancel()
	err := l.append(ctx, *t)
	if err == nil {
		return
	}
	t.Persisted = lost
	l.log.Error("a health transition is announced though it is not on disk", "from", t.From, "to", t.To, "error", err)
}

func (l *loop) append(ctx context.Context, t Transition) error {
	if l.committing != nil {
		select {
		case <-l.committing:
			l.committing = nil
		case <-ctx.Done():
			return fmt.Errorf("the log has not answered since an earlier transition")
		}
	}
	done := make(chan error, 1)
	go func() {
		err := fmt.Errorf("the log panicked")
		defer func() {
			if v := recover(); v != nil {
				l.log.Error("the event log panicked", "panic", v, "stack", string(debug.Stack()))
				l.set.hooks.Panicked()
			}
			done <- err
		}()
		err = l.set.config.Journal.Commit(ctx, l.id, t)
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		l.committing = done
		return fmt.Errorf("the log took more than %s", commitPatient)
	}
}

// A saver writes one instance's record, from a goroutine of its own: never two writes at once, soon after a transition, every few
// seconds for what else changed.
type saver struct {
	done   chan error // of the write under way; nil: none
	stale  bool       // something changed since the last write began
	urgent bool       // a transition among it
	last   time.Time  // when the last write began
	failed bool       // the last one did
}

func (s *saver) dirty(urgent bool) {
	s.stale = true
	s.urgent = s.urgent || urgent
}

// at returns when the next write of counters is due; zero for never. One that is urgent does not wait for a time.
func (s *saver) at() time.Time {
	if !s.stale || s.done != nil {
		return time.Time{}
	}
	return s.last.Add(saveEvery)
}

// save begins to write the record if that is due.
func (l *loop) save() {
	now := time.Now()
	if s := &l.saver; !s.stale || s.done != nil || !s.urgent && now.Before(s.last.Add(saveEvery)) {
		return
	}
	l.write(now)
}

// write encodes the record, and leaves it to be written. Both are done on a stack that is not the loop's, which would keep what
// encoding/json makes of it.
func (l *loop) write(now time.Time) {
	done, encoded := make(chan error, 1), make(chan struct{})
	l.saver = saver{done: done, last: now, failed: l.saver.failed}
	l.set.crew.do(func() {
		done <- l.put(encoded)
	})
	<-encoded
}

// put writes the record. It closes encoded when it needs the loop's own no longer.
func (l *loop) put(encoded chan struct{}) (err error) {
	needed := true
	defer func() {
		if v := recover(); v != nil {
			l.log.Error("writing the health record panicked", "panic", v, "stack", string(debug.Stack()))
			l.set.hooks.Panicked()
			err = fmt.Errorf("writing panicked")
		}
		if needed {
			close(encoded)
		}
	}()
	room := blobs.Get().(*[]byte)
	blob, err := encode((*room)[:0], l.set.clock, l.p, l.s, &l.history)
	if err != nil {
		return err
	}
	needed = false
	close(encoded)
	if err := l.set.config.Journal.Save(l.id, blob); err != nil {
		return err
	}
	*room = blob
	blobs.Put(room)
	return nil
}

// blobs are records that were written, to be used again.
var blobs = sync.Pool{New: func() any { return new([]byte) }}

// saved takes the outcome of a write. A failure is told once, and tried again at the pace of counters.
func (l *loop) saved(err error) {
	l.saver.done = nil
	if err != nil {
		l.saver.stale = true
		l.set.hooks.SaveFailed()
		if !l.saver.failed {
			l.log.Error("the health record cannot be written; it will be tried again", "error", err)
		}
	} else if l.saver.failed {
		l.log.Info("the health record can be written again")
	}
	l.saver.failed = err != nil
}

// settle waits for the write under way.
func (l *loop) settle() {
	if l.saver.done != nil {
		l.saved(<-l.saver.done)
	}
}
