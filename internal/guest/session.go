package guest

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/halevm/hale/internal/guest/mux"
	"github.com/halevm/hale/internal/guest/protocol"
)

// A session is what began with one HELLO that was answered. Once ended it stays so; the Conn greets anew.
type session struct {
	id     uint64
	booted bool // the guest had its configuration before
	conn   *Conn
	mux    *mux.Mux
	ctx    context.Context // done at its end, with the cause
	cancel context.CancelCauseFunc
	due    chan struct{} // capacity 1: an answer has become due

	mu       sync.Mutex
	silent   time.Time // since when an answer is due and nothing was heard; zero: none is
	lastID   uint64
	pending  map[uint64]chan protocol.Reply
	lastExec uint32
	execs    map[uint32]*Exec
}

func newSession(c *Conn, id uint64, booted bool) *session {
	s := &session{
		id: id, booted: booted, conn: c, mux: mux.New(id, c.bulkOut), due: make(chan struct{}, 1),
		pending: map[uint64]chan protocol.Reply{}, execs: map[uint32]*Exec{},
	}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	return s
}

func (s *session) end(err error) {
	s.cancel(err)
	s.mux.Close(err)
}

// heard notes that the agent is there.
func (s *session) heard() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.silent = time.Time{}
}

// silence is for how long an answer has been due, with nothing heard.
func (s *session) silence() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.silent.IsZero() {
		return 0
	}
	return max(time.Since(s.silent), 1)
}

// request asks, and waits for the answer.
func (s *session) request(ctx context.Context, op protocol.Op, body, result any) error {
	ctx, cancel := context.WithTimeoutCause(ctx, s.conn.o.Answer, ErrNoAnswer)
	defer cancel()
	raw, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	id, reply, err := s.expect()
	if err != nil {
		return err
	}
	defer s.forget(id)
	f, err := protocol.JSON(protocol.TypeRequest, s.id, protocol.Request{ID: id, Op: op, Body: raw})
	if err != nil {
		return ErrTooLarge
	}
	if err := s.conn.out.Send(ctx, f); err != nil {
		return s.cause(err)
	}
	select {
	case r := <-reply:
		if r.Error != "" {
			return &RequestError{Op: string(op), Message: clip(r.Error, 1024)}
		}
		if result == nil {
			return nil
		}
		if err := json.Unmarshal(r.Body, result); err != nil {
			return &RequestError{Op: string(op), Message: "an answer that makes no sense"}
		}
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-s.ctx.Done():
		return context.Cause(s.ctx)
	}
}

// cause prefers the session's end to what followed from it.
func (s *session) cause(err error) error {
	if end := context.Cause(s.ctx); end != nil {
		return end
	}
	return err
}

func (s *session) expect() (uint64, chan protocol.Reply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.pending) >= maxPending {
		return 0, nil, ErrTooMany
	}
	s.lastID++
	reply := make(chan protocol.Reply, 1)
	s.pending[s.lastID] = reply
	if s.silent.IsZero() {
		s.silent = time.Now()
		select {
		case s.due <- struct{}{}:
		default:
		}
	}
	return s.lastID, reply, nil
}

func (s *session) forget(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.pending, id)
}

func (s *session) answered(r protocol.Reply) {
	s.mu.Lock()
	reply := s.pending[r.ID]
	delete(s.pending, r.ID)
	s.mu.Unlock()
	if reply != nil {
		reply <- r // has room: one answer each
	}
}

// tell asks for something and leaves the answer to nobody. It may wait for the port, so it does so on a goroutine that
// ends with the answer's time.
func (s *session) tell(op protocol.Op, body any) {
	s.conn.loops.start(func() { s.request(s.ctx, op, body, nil) })
}
