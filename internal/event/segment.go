package event

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// A segment is what is known of one file of the log.
type segment struct {
	name  string
	epoch string
	first uint64 // number of its first record, there or yet to come
	count uint64
	size  int64     // of header and sound records; what lies behind is not part of the log
	begun time.Time // of its first record
}

// end is the number after its last record.
func (s segment) end() uint64 { return s.first + s.count }

func segmentName(first uint64) string { return fmt.Sprintf("%020d%s", first, fileSuffix) }

// scan reads a segment from its beginning as far as it is sound: the CRCs, and numbers that follow each other. An
// error means that not even its header is. torn says that something lies behind the last sound record.
func scan(fs files, name string, limit int64) (s segment, torn bool, err error) {
	data, err := readAll(fs, name, limit)
	if err != nil {
		return s, false, err
	}
	payload, rest, err := cutLine(data)
	if err != nil {
		return s, false, err
	}
	first, err := decodeHeader(payload)
	if err != nil {
		return s, false, err
	}
	s = segment{name: name, epoch: first.Epoch, first: first.Seq}
	for len(rest) > 0 {
		payload, after, err := cutLine(rest)
		if err != nil {
			torn = true
			break
		}
		id, _, err := recordID(payload)
		if err != nil || id != (ID{s.epoch, s.end()}) {
			torn = true
			break
		}
		if s.count == 0 {
			e, err := decodeRecord(payload)
			if err != nil {
				torn = true
				break
			}
			s.begun = e.Time
		}
		s.count++
		rest = after
	}
	s.size = int64(len(data) - len(rest))
	return s, torn, nil
}

func readAll(fs files, name string, limit int64) ([]byte, error) {
	var data bytes.Buffer
	chunk := make([]byte, 256<<10)
	for {
		n, err := fs.readAt(name, chunk, int64(data.Len()))
		data.Write(chunk[:n])
		switch {
		case errors.Is(err, io.EOF):
			return data.Bytes(), nil
		case err != nil:
			return nil, err
		case int64(data.Len()) > limit:
			return nil, fmt.Errorf("larger than %d bytes: %w", limit, errTorn)
		}
	}
}

// load reads events of s from number seq on, about as many as fit into 128 KiB, starting at offset off (0: unknown).
// It returns the offset behind them.
func load(fs files, s segment, seq uint64, off int64) (events []Event, next int64, err error) {
	skip := seq
	for len(events) == 0 {
		chunk := make([]byte, min(2*maxRecord, s.size-off))
		n, err := fs.readAt(s.name, chunk, off)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, off, err
		}
		rest := chunk[:n]
		for {
			payload, after, err := cutLine(rest)
			if err != nil {
				break // the rest of the chunk's last line comes with the next chunk
			}
			lineAt := off + int64(n-len(rest))
			rest = after
			if lineAt == 0 {
				continue // the header
			}
			id, _, err := recordID(payload)
			if err != nil {
				return events, off, err
			}
			if id.Seq < skip {
				continue
			}
			e, err := decodeRecord(payload)
			if err != nil {
				return events, off, err
			}
			if want := (ID{s.epoch, seq + uint64(len(events))}); e.ID != want {
				return events, off, fmt.Errorf("event %s stands where %s should: %w", e.ID, want, errTorn)
			}
			events = append(events, e)
		}
		if len(rest) == n {
			return events, off, fmt.Errorf("%s at offset %d: %w", s.name, off, errTorn)
		}
		off += int64(n - len(rest))
	}
	return events, off, nil
}

// isSegment reports whether a file name is that of a segment.
func isSegment(name string) bool {
	digits, ok := strings.CutSuffix(name, fileSuffix)
	return ok && len(digits) == 20 && strings.Trim(digits, "0123456789") == ""
}
