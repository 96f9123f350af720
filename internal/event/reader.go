package event

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/halevm/hale/api"
)

// A Reader reads a log in order. One goroutine calls Next; the other methods may be called from any.
type Reader struct {
	l        *Log
	consumer string

	// Guarded by l.mu.
	next    uint64 // number of the next event
	acked   ID     // everything up to it was handled
	lost    bool   // the next answer is a resync
	resyncs uint64

	done chan struct{} // closed by Close

	// Next's own: what was read ahead from a file, and where that ended.
	ahead []Event
	file  string
	off   int64
}

// A Consumer is what is known of one reader.
type Consumer struct {
	Name         string
	Last         ID            // the last event that it handled, or the place where it began
	Lag          uint64        // events that it has not handled
	OldestUnread time.Duration // age of the oldest of them, where it is known, else of one that is a little older; 0 without lag
	Resyncs      uint64        // how often it was told to list again
}

// Follow reads what comes after a place; the zero ID is now. Where events after that place are not kept any more, or its epoch is not
// one that the log knows up to there, the first answer is a resync. The reader counts as consumer in the metrics until it is closed.
func (l *Log) Follow(after ID, consumer string) *Reader {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := &Reader{l: l, consumer: consumer, next: l.last.Seq + 1, acked: l.last, done: make(chan struct{})}
	switch {
	case after.IsZero():
	case l.knows(after):
		r.next, r.acked = after.Seq+1, after
	default:
		r.lost = true
		r.acked = ID{l.kept[0].epoch, l.kept[0].first - 1}
	}
	l.readers[r] = struct{}{}
	l.resyncs[consumer] += 0 // it is known from now on
	return r
}

// Place is the last event that was handled, or where the reader began.
func (r *Reader) Place() ID {
	r.l.mu.Lock()
	defer r.l.mu.Unlock()
	return r.acked
}

// Oldest is the place just before the oldest event that is kept: a reader that follows it reads everything there is.
func (l *Log) Oldest() ID {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.kept) == 0 {
		return l.last
	}
	return ID{l.kept[0].epoch, l.kept[0].first - 1}
}

// knows reports whether id is a place in what is kept, or the one just before it.
func (l *Log) knows(id ID) bool {
	if id == l.last {
		return true
	}
	for _, s := range l.kept {
		if s.epoch == id.Epoch && id.Seq+1 >= s.first && id.Seq < s.end() {
			return true
		}
	}
	return false
}

// Next waits for the next event. It is of TypeResync when events between the last one and what follows cannot be read: its reader
// lists what there is, and goes on calling Next. To call Next says that what it returned before was handled. Errors:
// ctx's cause, ErrClosed.
func (r *Reader) Next(ctx context.Context) (Event, error) {
	r.l.mu.Lock()
	if !r.lost {
		r.ack(r.next - 1)
	}
	r.l.mu.Unlock()
	for {
		e, ok, wait, err := r.poll()
		if ok || err != nil {
			return e, err
		}
		if wait == nil {
			continue
		}
		select {
		case <-wait:
		case <-r.done:
		case <-ctx.Done():
			return Event{}, context.Cause(ctx)
		}
	}
}

// poll returns an event when there is one; else what to wait for, nil to ask again at once.
func (r *Reader) poll() (Event, bool, <-chan struct{}, error) {
	l := r.l
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-r.done:
		return Event{}, false, nil, ErrClosed
	default:
	}
	switch {
	case r.lost:
		return r.resync(), true, nil, nil
	case r.next > l.last.Seq:
		if l.closed {
			return Event{}, false, nil, ErrClosed
		}
		return Event{}, false, l.news, nil
	case len(r.ahead) > 0:
		e := r.ahead[0]
		r.ahead = r.ahead[1:]
		r.next++
		return e, true, nil, nil
	}
	if behind := l.last.Seq + 1 - r.next; behind <= uint64(len(l.tail)) {
		e := l.tail[uint64(len(l.tail))-behind]
		r.next++
		r.file = ""
		return e, true, nil, nil
	}
	i := slices.IndexFunc(l.kept, func(s segment) bool { return s.first <= r.next && r.next < s.end() })
	if i < 0 {
		r.lost = true
		return Event{}, false, nil, nil
	}
	s, seq, off := l.kept[i], r.next, r.off
	if r.file != s.name {
		off = 0
	}
	l.mu.Unlock() // a slow disk is this reader's own trouble
	events, next, err := load(l.fs, s, seq, off)
	l.mu.Lock()
	if err != nil {
		l.log.Warn("a reader of the event log was told to list again", "consumer", r.consumer, "err", err)
		r.lost = true
		return Event{}, false, nil, nil
	}
	r.ahead, r.file, r.off = events[:min(uint64(len(events)), s.end()-seq)], s.name, next
	return Event{}, false, nil, nil
}

// resync goes on from now.
func (r *Reader) resync() Event {
	r.lost, r.ahead, r.file = false, nil, ""
	r.resyncs++
	r.l.resyncs[r.consumer]++
	r.next = r.l.last.Seq + 1
	return Event{ID: r.l.last, Time: time.Now().UTC().Round(0), Type: TypeResync}
}

// Ack says before the next call of Next that everything up to id was handled.
func (r *Reader) Ack(id ID) {
	r.l.mu.Lock()
	defer r.l.mu.Unlock()
	r.ack(min(id.Seq, r.next-1))
}

func (r *Reader) ack(seq uint64) {
	if seq <= r.acked.Seq {
		return
	}
	r.acked = ID{r.l.epochOf(seq), seq}
	r.l.told()
}

// told wakes those who wait for a consumer.
func (l *Log) told() {
	close(l.acks)
	l.acks = make(chan struct{})
}

// epochOf is the epoch of the event with that number, as far as it is kept.
func (l *Log) epochOf(seq uint64) string {
	for _, s := range l.kept {
		if s.first <= seq && seq < s.end() {
			return s.epoch
		}
	}
	return l.last.Epoch
}

// Close frees the reader; a Next that waits in another goroutine ends with ErrClosed.
func (r *Reader) Close() {
	r.l.mu.Lock()
	defer r.l.mu.Unlock()
	if _, open := r.l.readers[r]; !open {
		return
	}
	delete(r.l.readers, r)
	close(r.done)
	r.l.told()
}

// WaitConsumed returns when every open reader of that name has handled everything up to id: who changed something and
// waits for that will read what the consumer made of it. Without such a reader it is an error of kind api.NotFound.
func (l *Log) WaitConsumed(ctx context.Context, consumer string, id ID) error {
	for {
		found, behind := false, false
		l.mu.Lock()
		for r := range l.readers {
			if r.consumer == consumer {
				found = true
				behind = behind || r.acked.Seq < id.Seq
			}
		}
		acks, closed := l.acks, l.closed
		l.mu.Unlock()
		switch {
		case !found:
			return fmt.Errorf("event consumer %q: %w", consumer, api.NotFound)
		case !behind:
			return nil
		case closed:
			return ErrClosed
		}
		select {
		case <-acks:
		case <-ctx.Done():
			return fmt.Errorf("wait for %q to handle event %s: %w", consumer, id, context.Cause(ctx))
		}
	}
}

// Consumers describes the open readers, in the order of their names.
func (l *Log) Consumers() []Consumer {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	out := make([]Consumer, 0, len(l.readers))
	for r := range l.readers {
		c := Consumer{Name: r.consumer, Last: r.acked, Resyncs: r.resyncs}
		if l.last.Seq > r.acked.Seq {
			c.Lag = l.last.Seq - r.acked.Seq
			c.OldestUnread = max(now.Sub(l.timeOf(r.acked.Seq+1)), 0)
		}
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b Consumer) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// Resyncs tells how often the readers of each name were told to list again, those that were closed included.
func (l *Log) Resyncs() map[string]uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.resyncs)
}

// timeOf is when the event with that number was appended; for one that is not in memory, when its segment began.
func (l *Log) timeOf(seq uint64) time.Time {
	if behind := l.last.Seq + 1 - seq; behind <= uint64(len(l.tail)) {
		return l.tail[uint64(len(l.tail))-behind].Time
	}
	at := l.kept[0].begun
	for _, s := range l.kept {
		if s.first <= seq {
			at = s.begun
		}
	}
	return at
}
