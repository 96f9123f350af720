// Package event is the ordered log of what happened to the instances of this host.
// (Its contract — ordering, durability, back-pressure — is to be written here.)
package event

import (
	"encoding/json"
	"time"
)

// An ID names a place in the log: EPOCH-SEQ. A new epoch begins when the log's tail was lost.
type ID struct {
	Epoch string
	Seq   uint64
}

// A Type says what an event is about.
type Type string

// The types.
const (
	TypeCreated Type = "created" // Data: the instance's name and image
	TypeState   Type = "state"   // Data: StateChange
	TypeUpdated Type = "updated" // Data: the fields that changed
	TypeHealth  Type = "health"  // Data: a health.Transition
	TypeDeleted Type = "deleted"
	TypeResync  Type = "resync" // never in the log: tells a reader to list again
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

// The API this package offers (signatures agreed; see the assignment):
//
//	func Open(dir string, o Options) (*Log, error)
//	func (l *Log) Append(ctx context.Context, t Type, instance, name string, data any) (Event, error) // durable on return
//	func (l *Log) Last() ID
//	func (l *Log) Follow(after ID, consumer string) *Reader     // zero ID: from now on
//	func (r *Reader) Next(ctx context.Context) (Event, error)    // an Event of TypeResync when it fell behind or its epoch was lost
//	func (r *Reader) Close()
//	func (l *Log) Consumers() []Consumer                         // lag in events, age of the oldest unread, resyncs
//	func (l *Log) Close() error
