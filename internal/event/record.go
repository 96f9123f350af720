package event

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"
	"time"
)

// A segment is a file of lines, each "CRC PAYLOAD": the CRC-32C of the payload in eight hex digits. The first
// payload is the header, "hale-events/1 EPOCH-SEQ", with the epoch of all its records and the number of the first; the others are
// records, "EPOCH-SEQ JSON". A person can read them, and grep.
const (
	magic      = "hale-events/1"
	fileSuffix = ".log"
	// maxRecord bounds a line, so that reading one needs no more than a buffer of known size.
	maxRecord = 64 << 10
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	errTorn    = errors.New("torn or damaged")
)

func appendLine(b []byte, payload []byte) []byte {
	b = fmt.Appendf(b, "%08x ", crc32.Checksum(payload, castagnoli))
	b = append(b, payload...)
	return append(b, '\n')
}

// cutLine takes the first line of b off, and returns its payload. Without a whole and sound line it is errTorn.
func cutLine(b []byte) (payload, rest []byte, err error) {
	line, rest, ok := bytes.Cut(b, []byte("\n"))
	if !ok || len(line) < 10 || line[8] != ' ' {
		return nil, b, errTorn
	}
	sum, err := strconv.ParseUint(string(line[:8]), 16, 32)
	if err != nil || uint32(sum) != crc32.Checksum(line[9:], castagnoli) {
		return nil, b, errTorn
	}
	return line[9:], rest, nil
}

func encodeHeader(first ID) []byte {
	return appendLine(nil, []byte(magic+" "+first.String()))
}

func decodeHeader(payload []byte) (first ID, err error) {
	text, ok := strings.CutPrefix(string(payload), magic+" ")
	if !ok {
		return ID{}, errTorn
	}
	return ParseID(text)
}

// body is the JSON of a record: an Event without its ID, which stands before it.
type body struct {
	Time     time.Time       `json:"time"`
	Type     Type            `json:"type"`
	Instance string          `json:"instance,omitempty"`
	Name     string          `json:"name,omitempty"`
	Data     json.RawMessage `json:"data,omitempty"`
}

func encodeRecord(b []byte, e Event) ([]byte, error) {
	j, err := json.Marshal(body{e.Time, e.Type, e.Instance, e.Name, e.Data})
	if err != nil {
		return b, err
	}
	payload := append([]byte(e.ID.String()+" "), j...)
	if len(payload) > maxRecord-16 {
		return b, fmt.Errorf("event of %d bytes: at most %d are taken", len(payload), maxRecord-16)
	}
	return appendLine(b, payload), nil
}

// recordID reads the place of a record and leaves its JSON alone.
func recordID(payload []byte) (ID, []byte, error) {
	text, rest, ok := bytes.Cut(payload, []byte(" "))
	if !ok {
		return ID{}, nil, errTorn
	}
	id, err := ParseID(string(text))
	return id, rest, err
}

func decodeRecord(payload []byte) (Event, error) {
	id, rest, err := recordID(payload)
	if err != nil {
		return Event{}, err
	}
	var b body
	if err := json.Unmarshal(rest, &b); err != nil {
		return Event{}, fmt.Errorf("event %s: %w", id, err)
	}
	return Event{ID: id, Time: b.Time, Type: b.Type, Instance: b.Instance, Name: b.Name, Data: b.Data}, nil
}
