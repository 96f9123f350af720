package event

import (
	"context"
	"log/slog"
	"time"

	"github.com/halevm/hale/api"
)

// Options has useful zero values.
type Options struct {
	MaxBytes  int64        // what is kept on disk, at least; 0: 64 MiB
	MaxEvents int          // what is kept, at least; 0: 100,000
	Log       *slog.Logger // nil: nothing is logged
}

// A Log is an ordered log of events.
type Log struct{}

// A Reader reads a log in order.
type Reader struct{}

// A Consumer is what is known of one reader.
type Consumer struct {
	Name         string
	Last         ID            // the last event that it acknowledged, or where it began
	Lag          uint64        // events that it has not acknowledged
	OldestUnread time.Duration // age of the oldest of them; 0 without lag
	Resyncs      uint64        // how often it was told to list again
}

// Open opens the log in dir; "" keeps it in memory.
func Open(dir string, o Options) (*Log, error) { return nil, api.Unimplemented }

// Append adds an event, and returns when it is on disk.
func (l *Log) Append(ctx context.Context, t Type, instance, name string, data any) (Event, error) {
	return Event{}, api.Unimplemented
}

// Last is the place of the newest event.
func (l *Log) Last() ID { return ID{} }

// Follow reads what comes after a place; the zero ID is now.
func (l *Log) Follow(after ID, consumer string) *Reader { return &Reader{} }

// Consumers describes the open readers.
func (l *Log) Consumers() []Consumer { return nil }

// WaitConsumed returns when every open reader of that name has acknowledged everything up to id.
func (l *Log) WaitConsumed(ctx context.Context, consumer string, id ID) error {
	return api.Unimplemented
}

// Close ends the log and its readers.
func (l *Log) Close() error { return nil }

// Next returns the next event.
func (r *Reader) Next(ctx context.Context) (Event, error) { return Event{}, api.Unimplemented }

// Ack says that everything up to id was handled.
func (r *Reader) Ack(id ID) {}

// Close frees the reader.
func (r *Reader) Close() {}
