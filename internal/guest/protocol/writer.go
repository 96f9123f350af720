package protocol

import (
	"context"
	"errors"
	"io"
	"sync"
)

// ErrWriterClosed is returned by sends after Close.
var ErrWriterClosed = errors.New("the port's writer is closed")

// maxPending is how much may wait for a port; what comes beyond it waits with its sender.
const maxPending = 256 << 10

// A Writer sends frames, each whole, from any number of goroutines. Frames that come while the port is busy go out
// together in one write.
type Writer struct {
	w    io.Writer
	done chan struct{} // closed when the goroutine has ended

	mu      sync.Mutex
	pending []byte
	busy    bool          // a write is under way
	err     error         // set once: the port's, or ErrWriterClosed
	wake    chan struct{} // capacity 1: there is something to write, or err was set
	room    chan struct{} // closed and replaced when pending was taken, or err was set
}

// NewWriter returns a Writer to w, with a goroutine that lives until Close or an error of w.
func NewWriter(w io.Writer) *Writer {
	wr := &Writer{w: w, done: make(chan struct{}), wake: make(chan struct{}, 1), room: make(chan struct{})}
	go wr.run()
	return wr
}

// Send queues a frame; it waits while too much is queued. An error is ctx's cause, or why nothing can be sent any more.
func (w *Writer) Send(ctx context.Context, f Frame) error {
	if len(f.Payload) > MaxPayload {
		return errors.New("a frame that is too long")
	}
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		w.mu.Lock()
		if w.err != nil {
			defer w.mu.Unlock()
			return w.err
		}
		if len(w.pending) < maxPending {
			w.pending = AppendFrame(w.pending, f)
			w.mu.Unlock()
			w.signal()
			return nil
		}
		room := w.room
		w.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// SendIfIdle queues a frame unless something still waits for the port, and reports whether it did. What is repeated
// until it is answered is sent like this, so that it does not pile up in front of a port that nobody reads.
func (w *Writer) SendIfIdle(f Frame) bool {
	w.mu.Lock()
	ok := w.err == nil && !w.busy && len(w.pending) == 0
	if ok {
		w.pending = AppendFrame(w.pending, f)
	}
	w.mu.Unlock()
	if ok {
		w.signal()
	}
	return ok
}

// Close ends all sends. It does not wait for a write under way, which only closing the port ends; Done does.
func (w *Writer) Close() { w.fail(ErrWriterClosed) }

// Done is closed when nothing is written any more.
func (w *Writer) Done() <-chan struct{} { return w.done }

func (w *Writer) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *Writer) fail(err error) {
	w.mu.Lock()
	if w.err == nil {
		w.err = err
		w.pending = nil
		close(w.room)
	}
	w.mu.Unlock()
	w.signal()
}

func (w *Writer) run() {
	defer close(w.done)
	var spare []byte
	for range w.wake {
		w.mu.Lock()
		if w.err != nil {
			w.mu.Unlock()
			return
		}
		out := w.pending
		w.pending, w.busy = spare[:0], true
		close(w.room)
		w.room = make(chan struct{})
		w.mu.Unlock()
		var err error
		if len(out) > 0 {
			_, err = w.w.Write(out)
		}
		if spare = out; cap(spare) > keep {
			spare = nil
		}
		w.mu.Lock()
		w.busy = false
		w.mu.Unlock()
		if err != nil {
			w.fail(err)
			return
		}
	}
}
