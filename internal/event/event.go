// Package event is the ordered log of what happened to the instances of this host.
//
// Order. Every event has an ID, EPOCH-SEQ. Seq grows by one with each event; all readers see the same events in that
// order, none twice and none left out.
//
// Durability. Append returns when the event is on disk, and no reader sees it before: the append is the commit of what it
// tells. Appends that come together share one fsync. An append that the disk refuses is an error and leaves no trace, and its number
// goes to the next one. After a crash a torn end is cut off at the last sound record; since what stood there may
// have been read, a new epoch begins behind it. The log knows up to where each epoch that it keeps was sound, so a reader
// that comes back from before the loss goes on without one, and one that had seen what was lost is told.
//
// Back-pressure. There is none: a reader never delays an append. The log keeps the last Options.MaxEvents events or
// Options.MaxBytes, whichever is less; a reader that fell behind that, or that comes from an epoch that the log does not know, gets an
// event of TypeResync and lists again. Nothing is left out in silence.
//
// What it does not know: what events mean, who may read them, and how they go over a wire.
package event

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// An ID names a place in the log: EPOCH-SEQ. Seq grows by one with each event, for ever; a new epoch begins when the
// log's tail was lost, so that a place that was lost is never mistaken for the one that took its number.
type ID struct {
	Epoch string // 1 to 32 of a-z and 0-9
	Seq   uint64
}

// ErrID is what ParseID says of text that is no ID.
var ErrID = errors.New(`not an event id (want EPOCH-SEQ, as in "k3v9x2mp-42")`)

// ParseID reads what String wrote.
func ParseID(s string) (ID, error) {
	epoch, seq, _ := strings.Cut(s, "-")
	n, err := strconv.ParseUint(seq, 10, 64)
	id := ID{Epoch: epoch, Seq: n}
	if err != nil || !validEpoch(epoch) || id.String() != s {
		return ID{}, fmt.Errorf("%.64q: %w", s, ErrID)
	}
	return id, nil
}

func validEpoch(s string) bool {
	if len(s) == 0 || len(s) > 32 {
		return false
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}

// String is EPOCH-SEQ, and "" for the zero ID.
func (id ID) String() string {
	if id.IsZero() {
		return ""
	}
	return id.Epoch + "-" + strconv.FormatUint(id.Seq, 10)
}

// IsZero reports whether the ID names no place.
func (id ID) IsZero() bool { return id == ID{} }

// MarshalText is String, so that an ID is one string in JSON.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText is ParseID; empty text is the zero ID.
func (id *ID) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*id = ID{}
		return nil
	}
	parsed, err := ParseID(string(b))
	if err != nil {
		return err
	}
	*id = parsed
	return nil
}

// A Type says what an event is about.
type Type string

// The types.
const (
	TypeCreated   Type = "created"    // Data: Created
	TypeState     Type = "state"      // Data: StateChange
	TypeUpdated   Type = "updated"    // Data: Updated
	TypeHealth    Type = "health"     // Data: a health.Transition
	TypeDeleted   Type = "deleted"    // Data: Deleted
	TypeHost      Type = "host"       // of no instance; Data: a health.Suspicion
	TypeBootRetry Type = "boot_retry" // Data: BootRetry
	TypeResync    Type = "resync"     // never in the log: tells a reader to list again
)

// An Event is one entry.
type Event struct {
	ID       ID              `json:"id"`
	Time     time.Time       `json:"time"`
	Type     Type            `json:"type"`
	Instance string          `json:"instance,omitempty"` // id
	Name     string          `json:"name,omitempty"`
	Data     json.RawMessage `json:"data,omitempty"`
}

// A StateChange is the data of a TypeState event.
type StateChange struct {
	From   string `json:"from"`
	To     string `json:"to"`
	Reason string `json:"reason,omitempty"` // why, for Stopped: the machine.Reason and its message
	Code   *int   `json:"exit_code,omitempty"`
}

// BootRetry is the data of a TypeBootRetry event: a machine did not come up, and is booted once more.
type BootRetry struct {
	Boot   int    `json:"boot"`   // which of this start is about to be: 2 or more
	Reason string `json:"reason"` // how the one before ended: the machine.Reason and its message
}

// Created is the data of a TypeCreated event.
type Created struct {
	Image string `json:"image"`
}

// Updated is the data of a TypeUpdated event.
type Updated struct {
	Fields []string `json:"fields"` // the API's names of what changed, sorted: "env", "expires_at", "health_check"
}

// Deleted is the data of a TypeDeleted event.
type Deleted struct {
	Reason string `json:"reason,omitempty"` // "requested", "expired"
}
