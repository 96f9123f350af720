package event

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/halevm/hale/api"
)

// Options has useful zero values.
type Options struct {
	// MaxBytes and MaxEvents bound what is kept: above either, the oldest eighth goes. 0: 64 MiB, 100,000 events.
	MaxBytes  int64
	MaxEvents int
	Log       *slog.Logger // nil: nothing is logged
}

// recent is how many of the newest events are kept in memory too, where a reader that is up to date finds them.
const recent = 1024

// segments is into how many files the log is cut.
const segments = 8

// ErrClosed is what a closed log or reader answers.
var ErrClosed = fmt.Errorf("the event log is closed: %w", api.Unavailable)

// A Log is an ordered log of events. Its methods may be called from any goroutine.
type Log struct {
	o    Options
	log  *slog.Logger
	fs   files
	wake chan struct{} // tells the writer that something is pending
	done chan struct{} // closed when the writer has ended

	// The writer's own.
	out   file // the last segment; nil: the next batch begins a new one
	dirty bool // behind the last sound record lies what a failed write left

	mu      sync.Mutex
	epoch   string
	last    ID        // of the newest event
	kept    []segment // oldest first, contiguous
	tail    []Event   // the newest, oldest first
	pending []*entry
	readers map[*Reader]struct{}
	resyncs map[string]uint64 // by consumer: how often its readers were told to list again, those that are closed included
	news    chan struct{}     // closed and replaced at each publication
	acks    chan struct{}     // closed and replaced at each acknowledgement
	closed  bool
}

// An entry is an event on its way to the disk.
type entry struct {
	e    Event
	then func(Event) // nil, or what happens between the disk and the readers
	done chan error  // buffered
}

// Open opens the log in dir, which is made when missing; "" keeps it in memory, for tests. What is unsound in it is
// cut off or left out and reported to Options.Log; it never keeps a daemon from starting.
func Open(dir string, o Options) (*Log, error) {
	if dir == "" {
		return openFiles(newMemory(), o)
	}
	d, err := openDirectory(dir)
	if err != nil {
		return nil, fmt.Errorf("open event log: %w", err)
	}
	l, err := openFiles(d, o)
	if err != nil {
		d.close()
		return nil, fmt.Errorf("open event log %s: %w", dir, err)
	}
	return l, nil
}

func openFiles(fs files, o Options) (*Log, error) {
	if o.MaxBytes <= 0 {
		o.MaxBytes = 64 << 20
	}
	if o.MaxEvents <= 0 {
		o.MaxEvents = 100_000
	}
	l := &Log{
		o: o, log: o.Log, fs: fs,
		wake: make(chan struct{}, 1), done: make(chan struct{}),
		readers: map[*Reader]struct{}{}, resyncs: map[string]uint64{},
		news: make(chan struct{}), acks: make(chan struct{}),
	}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	if err := l.recover(); err != nil {
		return nil, err
	}
	go l.run()
	return l, nil
}

// Append adds an event, and returns when it is on disk and readers can see it. data is encoded as JSON (nil: none) and is at
// most 63 KiB. On an error the event is not in the log, with two exceptions: when ctx ends while it is being written it may come all
// the same, and what a disk took but neither confirmed nor gave back may be there after a restart. An error of a full disk unwraps to ENOSPC, and the log goes on when there is room again.
func (l *Log) Append(ctx context.Context, t Type, instance, name string, data any) (Event, error) {
	return l.Commit(ctx, t, instance, name, data, nil)
}

// Commit is Append that calls then once the event is on disk and before any reader sees it, so that whoever reads the
// event finds what it tells. Calls come in the order of the events; then must be quick and must not use the log.
func (l *Log) Commit(ctx context.Context, t Type, instance, name string, data any, then func(Event)) (Event, error) {
	en := &entry{e: Event{Type: t, Instance: instance, Name: name}, then: then, done: make(chan error, 1)}
	if data != nil {
		b, err := json.Marshal(data)
		if err != nil {
			return Event{}, fmt.Errorf("append %s event: %w", t, err)
		}
		en.e.Data = b
	}
	if err := context.Cause(ctx); err != nil {
		return Event{}, fmt.Errorf("append %s event: %w", t, err)
	}
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return Event{}, ErrClosed
	}
	l.pending = append(l.pending, en)
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
	select {
	case err := <-en.done:
		if err != nil {
			return Event{}, fmt.Errorf("append %s event: %w", t, err)
		}
		return en.e, nil
	case <-ctx.Done():
		l.mu.Lock()
		l.pending = slices.DeleteFunc(l.pending, func(p *entry) bool { return p == en })
		l.mu.Unlock()
		return Event{}, fmt.Errorf("append %s event: %w", t, context.Cause(ctx))
	}
}

// Last is the place of the newest event; before the first, the place just before it.
func (l *Log) Last() ID {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

// Close writes what is pending, ends the log and wakes its readers.
func (l *Log) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		<-l.done
		return nil
	}
	l.closed = true
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
	<-l.done
	l.mu.Lock()
	close(l.news) // for good: a reader that asks again is told that the log is closed
	l.told()
	l.mu.Unlock()
	var err error
	if l.out != nil {
		err = l.out.Close()
	}
	return errors.Join(err, l.fs.close())
}

// run is the one writer: it takes everything that is pending, writes it at once, syncs once, and publishes.
func (l *Log) run() {
	defer close(l.done)
	for range l.wake {
		l.mu.Lock()
		batch, closed := l.pending, l.closed
		l.pending = nil
		l.mu.Unlock()
		if len(batch) > 0 {
			l.write(batch)
		}
		if closed {
			return
		}
	}
}

// write writes a batch, all of it or nothing, and answers everyone who waits for it.
func (l *Log) write(batch []*entry) {
	id := ID{l.epoch, l.last.Seq} // the writer alone changes them
	now := time.Now().UTC().Round(0)
	var buf []byte
	good := batch[:0]
	for _, en := range batch {
		e := en.e
		e.ID, e.Time = ID{id.Epoch, id.Seq + 1}, now
		grown, err := encodeRecord(buf, e)
		if err != nil {
			en.done <- err
			continue
		}
		buf, id, en.e = grown, e.ID, e
		good = append(good, en)
	}
	if len(good) == 0 {
		return
	}
	err := l.commit(buf)
	if err == nil {
		for _, en := range good {
			if en.then != nil {
				en.then(en.e)
			}
		}
		l.publish(good, int64(len(buf)))
		l.retain()
	}
	for _, en := range good {
		en.done <- err
	}
}

// commit brings buf to the end of the last segment and onto the disk.
func (l *Log) commit(buf []byte) error {
	cur := l.kept[len(l.kept)-1]
	if l.dirty && l.out != nil {
		if err := l.out.Truncate(cur.size); err != nil {
			l.abandon()
		} else {
			l.dirty = false
		}
	}
	full := cur.count > 0 && (cur.size+int64(len(buf)) > l.o.MaxBytes/segments || cur.count >= uint64(max(l.o.MaxEvents/segments, 1)))
	if l.out == nil || full {
		if err := l.rotate(ID{l.epoch, l.last.Seq + 1}); err != nil {
			return err
		}
		cur = l.kept[len(l.kept)-1]
	}
	_, err := l.out.Write(buf)
	if err != nil {
		l.dirty = l.out.Truncate(cur.size) != nil
		return err
	}
	if err := l.out.Sync(); err != nil {
		// After a failed fsync nobody knows what of these pages is on disk, and the next one would not say. So the file is
		// left where it was sound, and a new one is begun.
		_ = l.out.Truncate(cur.size)
		l.abandon()
		return err
	}
	return nil
}

func (l *Log) abandon() {
	_ = l.out.Close()
	l.out, l.dirty = nil, false
}

// rotate begins a new segment whose first record will be first. The segment before it ends there, whatever lies in
// its file: on a fault the log is as it was.
func (l *Log) rotate(first ID) error {
	name := segmentName(first.Seq)
	header := encodeHeader(first)
	// Under another name first: the segment that it may replace, one without a record, holds the epoch until then.
	const unborn = "next"
	f, err := l.fs.create(unborn)
	if err != nil {
		return err
	}
	if _, err = f.Write(header); err == nil {
		err = f.Sync()
	}
	if err == nil {
		if err = l.fs.rename(unborn, name); err != nil && l.out != nil {
			l.abandon() // the new one may be there all the same, and what went into this one would be behind its end
		}
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	if l.out != nil {
		l.abandon()
	}
	l.out, l.dirty = f, false
	l.mu.Lock()
	defer l.mu.Unlock()
	// A segment without a record gives way to the one that takes its name.
	if n := len(l.kept); n > 0 && l.kept[n-1].count == 0 {
		l.kept = l.kept[:n-1]
	}
	l.kept = append(l.kept, segment{name: name, epoch: first.Epoch, first: first.Seq, size: int64(len(header))})
	l.epoch = first.Epoch
	return nil
}

func (l *Log) publish(batch []*entry, size int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	cur := &l.kept[len(l.kept)-1]
	if cur.count == 0 {
		cur.begun = batch[0].e.Time
	}
	cur.count += uint64(len(batch))
	cur.size += size
	if len(l.tail) > recent { // twice what is promised, so that it is moved seldom
		l.tail = append(make([]Event, 0, 2*recent+len(batch)), l.tail[len(l.tail)-recent:]...)
	}
	for _, en := range batch {
		l.tail = append(l.tail, en.e)
	}
	l.last = batch[len(batch)-1].e.ID
	close(l.news)
	l.news = make(chan struct{})
}

// retain drops the oldest segments while more is kept than was asked for.
func (l *Log) retain() {
	for {
		l.mu.Lock()
		var size int64
		var count uint64
		for _, s := range l.kept {
			size += s.size
			count += s.count
		}
		if len(l.kept) < 2 || size <= l.o.MaxBytes && count <= uint64(l.o.MaxEvents) {
			l.mu.Unlock()
			return
		}
		oldest := l.kept[0]
		l.kept = slices.Clone(l.kept[1:])
		l.mu.Unlock()
		if err := l.fs.remove(oldest.name); err != nil {
			l.log.Warn("an old segment of the event log stays on disk until the next start", "file", oldest.name, "err", err)
		}
	}
}

// newEpoch is the name of an epoch: eight characters, two of which never met.
func newEpoch() string { return strings.ToLower(rand.Text()[:8]) }
