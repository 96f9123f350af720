package event

import (
	"errors"
	"slices"
	"time"
)

// recover finds what is sound of the log: the longest run of records, without a gap, that ends the log. A torn or
// damaged end is cut off, and since someone may have read what was there, a new epoch begins behind it.
func (l *Log) recover() error {
	names, err := l.fs.list()
	if err != nil {
		return err
	}
	names = slices.DeleteFunc(names, func(n string) bool { return !isSegment(n) })
	slices.Sort(names)
	lost := false // the log's end is not what it was
	for i, name := range names {
		s, torn, err := scan(l.fs, name, l.o.MaxBytes+maxRecord)
		newest := i == len(names)-1
		switch {
		case errors.Is(err, errTorn) || errors.Is(err, ErrID) || err == nil && name != segmentName(s.first):
			l.setAside(name)
			lost = lost || newest
			continue
		case err != nil:
			return err
		}
		l.join(s)
		if newest {
			lost = torn
			if torn {
				l.log.Warn("the end of the event log was torn; it was cut off, and a new epoch begins", "file", name, "last", ID{s.epoch, s.end() - 1})
			}
		}
	}
	return l.resume(lost)
}

// join adds a segment behind those that are kept. Where it begins, the one before it ends: what that one holds beyond
// is a write that was never acknowledged. What lies before a gap cannot be reached any more.
func (l *Log) join(s segment) {
	if n := len(l.kept); n > 0 {
		before := &l.kept[n-1]
		switch {
		case s.first <= before.first:
			l.kept = l.kept[:n-1]
		case s.first <= before.end():
			before.count = s.first - before.first
		default:
			l.log.Warn("events are missing in the log; those before the gap are set aside", "from", before.end(), "to", s.first-1)
			for _, k := range l.kept {
				l.setAside(k.name)
			}
			l.kept = nil
		}
	}
	l.kept = append(l.kept, s)
}

// resume goes on behind what is kept.
func (l *Log) resume(lost bool) error {
	if len(l.kept) == 0 {
		l.epoch = newEpoch()
		l.last = ID{Epoch: l.epoch}
		// A log that lost everything begins anew, in another epoch and so for every reader.
		return l.rotate(ID{l.epoch, 1})
	}
	cur := l.kept[len(l.kept)-1]
	l.epoch = cur.epoch
	l.last = ID{cur.epoch, cur.end() - 1}
	if cur.count == 0 && len(l.kept) > 1 {
		before := l.kept[len(l.kept)-2]
		l.last = ID{before.epoch, before.end() - 1}
	}
	if err := l.warm(); err != nil {
		l.log.Warn("the newest events could not be read; a new epoch begins", "err", err)
		lost = true
	}
	if lost {
		l.epoch = newEpoch()
		if err := l.rotate(ID{l.epoch, l.last.Seq + 1}); err != nil {
			// A full disk: the first append that succeeds begins the segment of the new epoch.
			l.log.Error("the event log cannot be written", "err", err)
		}
		return nil
	}
	out, err := l.fs.openAppend(cur.name)
	if err != nil {
		return err
	}
	l.out = out
	return nil
}

// warm fills the memory's part with the newest events.
func (l *Log) warm() error {
	for _, s := range l.kept {
		if s.end()+recent <= l.last.Seq+1 {
			continue
		}
		seq, off := s.first, int64(0)
		for seq < s.end() {
			events, next, err := load(l.fs, s, seq, off)
			if err != nil {
				l.tail = nil
				return err
			}
			events = events[:min(uint64(len(events)), s.end()-seq)]
			l.tail = append(l.tail, events...)
			seq, off = seq+uint64(len(events)), next
		}
	}
	if len(l.tail) > 2*recent {
		l.tail = slices.Clone(l.tail[len(l.tail)-recent:])
	}
	return nil
}

// setAside keeps a file that is no sound part of the log from being taken for one, and loses nothing of it.
func (l *Log) setAside(name string) {
	aside := name + ".unreadable-" + time.Now().UTC().Format("20060102T150405.000000Z")
	if err := l.fs.rename(name, aside); err != nil {
		l.log.Error("a damaged segment of the event log could not be set aside", "file", name, "err", err)
		return
	}
	l.log.Error("a segment of the event log is damaged; it was set aside", "file", name, "aside", aside)
}
