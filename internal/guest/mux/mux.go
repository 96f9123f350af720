// Package mux carries the streams of execs over the bulk port, each with a window of its own: a stream whose reader
// stalls has at most Window bytes under way and holds up no other.
//
// Both ends use it alike. A [Mux] is one session's; it belongs to nobody in particular, and its streams may be used from
// any goroutine (one reader and one writer each). It reads nothing from the port: the owner of the port's reader hands
// it frames with [Mux.Deliver], which never blocks. It does not know what the streams are for.
package mux

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"sync"

	"github.com/halevm/hale/internal/guest/protocol"
)

// Window is how many bytes of a stream may be under way: sent, and not yet taken by the reader on the other end.
const Window = 256 << 10

// chunk is the most that one frame carries, so that streams take turns. A virtio-serial port takes 32 KiB at a time.
const chunk = 30 << 10

// ErrOverrun is what a stream's reader gets when the other end sent more than it was allowed to.
var ErrOverrun = errors.New("the other end of the stream did not keep to its window")

// A Sender puts frames on the bulk port; it waits while the port is busy. A [protocol.Writer] is one.
type Sender interface {
	Send(context.Context, protocol.Frame) error
}

// A Mux is the set of one session's streams.
type Mux struct {
	session uint64
	sender  Sender
	ctx     context.Context // done when the Mux is closed
	cancel  context.CancelCauseFunc

	mu      sync.Mutex
	streams map[uint32]*Stream
}

// New returns the Mux of a session, which sends through to.
func New(session uint64, to Sender) *Mux {
	m := &Mux{session: session, sender: to, streams: map[uint32]*Stream{}}
	m.ctx, m.cancel = context.WithCancelCause(context.Background())
	return m
}

// Open makes a stream; the other end makes one of the same id. Frames for an id that was not opened are dropped.
func (m *Mux) Open(id uint32) *Stream {
	s := &Stream{mux: m, id: id, credit: Window, changed: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancelCause(m.ctx)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := context.Cause(m.ctx); err != nil {
		s.readErr, s.writeErr = err, err
		return s
	}
	m.streams[id] = s
	return s
}

// Deliver takes a frame that came for the session. It never blocks.
func (m *Mux) Deliver(f protocol.Frame) {
	if f.Session != m.session {
		return
	}
	m.mu.Lock()
	s := m.streams[f.Stream]
	m.mu.Unlock()
	if s == nil {
		return
	}
	switch f.Type {
	case protocol.TypeData:
		s.deliver(f.Payload)
	case protocol.TypeCredit:
		if len(f.Payload) == 4 {
			s.addCredit(binary.BigEndian.Uint32(f.Payload))
		}
	}
}

// Close ends every stream with err, for both directions; what a stream has received can still be read.
func (m *Mux) Close(err error) {
	m.cancel(err)
	m.mu.Lock()
	streams := m.streams
	m.streams = map[uint32]*Stream{}
	m.mu.Unlock()
	for _, s := range streams {
		s.fail(err)
	}
}

// A Stream is one stream, of which an end uses one direction: Read, or Write and CloseWrite.
type Stream struct {
	mux    *Mux
	id     uint32
	ctx    context.Context // done when the stream or its Mux is closed: nothing of it waits for the port then
	cancel context.CancelCauseFunc

	mu       sync.Mutex
	changed  chan struct{} // closed and replaced at each change of the below
	received []byte
	taken    int   // read since the last credit was given
	readErr  error // io.EOF: the other end closed it; given after what was received
	credit   int
	writeErr error
	ended    chan struct{} // made by Ended, closed with readErr
}

func (s *Stream) notify() {
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *Stream) deliver(b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.readErr != nil:
		return
	case len(b) == 0:
		s.endRead(io.EOF)
	case len(s.received)+s.taken+len(b) > Window:
		s.endRead(ErrOverrun)
	default:
		s.received = append(s.received, b...)
	}
	s.notify()
}

func (s *Stream) endRead(err error) {
	if s.readErr == nil {
		s.readErr = err
		if s.ended != nil {
			close(s.ended)
		}
	}
}

func (s *Stream) addCredit(n uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.credit = min(s.credit+int(min(n, math.MaxInt32)), Window)
	s.notify()
}

func (s *Stream) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endRead(err)
	if s.writeErr == nil {
		s.writeErr = err
	}
	s.notify()
}

// Ended is closed when no more will be received, by the stream's end or a failure.
func (s *Stream) Ended() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended == nil {
		s.ended = make(chan struct{})
		if s.readErr != nil {
			close(s.ended)
		}
	}
	return s.ended
}

// Read takes what has been received, and waits for something.
func (s *Stream) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		s.mu.Lock()
		if len(s.received) > 0 {
			n := copy(p, s.received)
			s.received = s.received[n:]
			if len(s.received) == 0 {
				s.received = nil // an idle stream keeps no memory
			}
			s.taken += n
			var grant int
			if s.taken >= Window/4 && s.readErr == nil {
				grant, s.taken = s.taken, 0
			}
			s.mu.Unlock()
			if grant > 0 {
				s.grant(grant)
			}
			return n, nil
		}
		if s.readErr != nil {
			defer s.mu.Unlock()
			return 0, s.readErr
		}
		changed := s.changed
		s.mu.Unlock()
		<-changed
	}
}

// grant tells the other end that it may send n bytes more. If that cannot be said, the port is at its end.
func (s *Stream) grant(n int) {
	s.mux.sender.Send(s.ctx, protocol.Frame{
		Type: protocol.TypeCredit, Stream: s.id, Session: s.mux.session,
		Payload: binary.BigEndian.AppendUint32(nil, uint32(n)),
	})
}

// Write sends p, as the other end takes it.
func (s *Stream) Write(p []byte) (int, error) {
	sent := 0
	for sent < len(p) {
		s.mu.Lock()
		err, n, changed := s.writeErr, min(s.credit, chunk, len(p)-sent), s.changed
		if err == nil {
			s.credit -= n
		}
		s.mu.Unlock()
		if err != nil {
			return sent, err
		}
		if n == 0 {
			<-changed
			continue
		}
		if err := s.send(p[sent : sent+n]); err != nil {
			return sent, err
		}
		sent += n
	}
	return sent, nil
}

func (s *Stream) send(b []byte) error {
	return s.mux.sender.Send(s.ctx, protocol.Frame{
		Type: protocol.TypeData, Stream: s.id, Session: s.mux.session, Payload: b,
	})
}

// CloseWrite tells the other end that nothing more comes. Writes fail from then on, one under way too.
func (s *Stream) CloseWrite() error {
	s.mu.Lock()
	if s.writeErr != nil {
		defer s.mu.Unlock()
		return s.writeErr
	}
	s.writeErr = io.ErrClosedPipe
	s.notify()
	s.mu.Unlock()
	return s.send(nil)
}

// Close forgets the stream on this end: calls under way and later ones fail with err. What was received can be read still.
func (s *Stream) Close(err error) {
	s.mux.mu.Lock()
	if s.mux.streams[s.id] == s {
		delete(s.mux.streams, s.id)
	}
	s.mux.mu.Unlock()
	s.fail(err)
	s.cancel(err)
}
