package health

import (
	"context"
	"errors"
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
		l.setAside(err)
	case blob != nil:
		p, s, h, err := decode(l.set.clock, blob)
		if err != nil {
			l.setAside(err)
			break
		}
		l.adopt(p)
		l.s = s
		if s.Phase == Initializing {
			l.notYet = s.Fresh
		}
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
	if l.s.Status != "" && l.logged == "" {
		l.restart()
	}
}

// restart goes on from what was read.
func (l *loop) restart() {
	in := Input{Kind: Restarted, Hash: l.hash}
	l.next(time.Now(), in)
	l.publish(nil, &in) // also where nothing follows from the restart: what was known is shown
}

// replay applies what the log holds and the record has not seen. Of the policy the log has a sum: where it is not the record's, the
// controller's first word says whether the policy is still that one.
func (l *loop) replay(log []Transition) {
	seen, unknown := l.s.N, 0
	before, last := Transition{Window: l.s.Window, Policy: l.p.sum()}, Transition{}
	l.mu.Lock()
	for _, t := range log {
		switch {
		case t.N <= seen:
			continue
		case !t.known():
			unknown++
		default:
			l.history.addTransition(t)
			if before.Window != 0 && before.Window != t.Window && before.Policy != t.Policy {
				l.given = past(time.Now(), l.set.clock.fromBoot(t.Uptime))
			}
			before, last = t, t
		}
		seen = t.N
	}
	l.mu.Unlock()
	l.s = l.s.replay(log)
	switch {
	case last.To == StatusDisabled:
		l.adopt(Policy{})
	case last.Policy != "" && last.Policy != l.p.sum():
		l.adopt(Policy{})
		l.logged = last.Policy
	}
	if unknown > 0 {
		l.log.Error("the event log holds health transitions that this version does not know; they are left out", "transitions", unknown)
	}
}

// setAside puts a record that cannot be read out of the way of the next. Where that fails nothing is written: it is never replaced.
func (l *loop) setAside(cause error) {
	err := errors.New("the journal knows no other place")
	if q, ok := l.set.config.Journal.(Quarantine); ok {
		err = q.SetAside(l.id)
	}
	if err != nil {
		l.saver.off = true
		l.set.hooks.SaveFailed()
		l.log.Error("the health record cannot be read, nor set aside: it is left as it is, and no other is written until the daemon's next start", "error", cause, "set_aside", err)
		return
	}
	l.log.Error("the health record cannot be read and was set aside; its instance starts without history", "error", cause)
}

// commit appends t to the log. A log that refuses, or takes too long, is told and does not keep t from being announced.
func (l *loop) commit(t *Transition) {
	t.Uptime = l.set.clock.sinceBoot(time.Now())
	ctx, cancel := context.WithTimeout(context.Background(), commitPatient)
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

// A saver writes one instance's record, beside the loop: never two writes at once, soon after a transition and when a window opens, every few
// seconds for what else changed.
type saver struct {
	writing bool      // a write is under way
	stale   bool      // something changed since the last write began
	urgent  bool      // a transition among it, or a window
	last    time.Time // when the last write began
	failed  bool      // the last one did
	off     bool      // nothing is written: a record that cannot be read is in the way
}

func (s *saver) dirty(urgent bool) {
	if s.off {
		return
	}
	s.stale = true
	s.urgent = s.urgent || urgent
}

// at returns when the next write of counters is due; zero for never. One that is urgent does not wait for a time.
func (s *saver) at() time.Time {
	if !s.stale || s.writing {
		return time.Time{}
	}
	return s.last.Add(saveEvery)
}

// save begins to write the record if that is due.
func (l *loop) save() {
	now := time.Now()
	if s := &l.saver; !s.stale || s.writing || !s.urgent && now.Before(s.last.Add(saveEvery)) {
		return
	}
	l.write(now)
}

// write encodes the record, and leaves it to another goroutine to be written.
func (l *loop) write(now time.Time) {
	l.saver = saver{last: now, failed: l.saver.failed}
	room := blobs.Get().(*[]byte)
	blob, err := l.encode((*room)[:0])
	if err != nil {
		l.saved(err)
		return
	}
	l.saver.writing = true
	*room = blob
	l.set.crew.do(jobFunc(func() {
		err := l.put(blob)
		if err == nil { // else somebody may still read it
			blobs.Put(room)
		}
		l.mail.bringWritten(err)
	}))
}

func (l *loop) encode(b []byte) (blob []byte, err error) {
	defer l.panicked("encoding the health record", &err)
	return encode(b, l.set.clock, l.check.json, &l.s, &l.history), nil
}

func (l *loop) put(blob []byte) (err error) {
	defer l.panicked("writing the health record", &err)
	return l.set.config.Journal.Save(l.id, blob)
}

// panicked makes an error of a panic in something, and tells it to the log.
func (l *loop) panicked(what string, err *error) {
	if v := recover(); v != nil {
		l.log.Error(what+" panicked", "panic", v, "stack", string(debug.Stack()))
		l.set.hooks.Panicked()
		*err = fmt.Errorf("%s panicked", what)
	}
}

// blobs are records that were written, to be used again.
var blobs = sync.Pool{New: func() any { return new([]byte) }}

// saved takes the outcome of a write. A failure is told once, and tried again at the pace of counters.
func (l *loop) saved(err error) {
	l.saver.writing = false
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
