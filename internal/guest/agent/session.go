package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/halevm/hale/internal/guest/mux"
	"github.com/halevm/hale/internal/guest/protocol"
)

const maxStats = 16 // looks at paths at one time: one on a dead file system may hang

var errSessionOver = errors.New("another session has begun")

// A session is what one HELLO began.
type session struct {
	id     uint64
	ctx    context.Context
	cancel context.CancelCauseFunc
	mux    *mux.Mux
	stats  chan struct{} // capacity maxStats

	watches  chan protocol.Watch // capacity 1: the newest
	watching bool                // there is a goroutine that takes them; the control port's reader's

	mu    sync.Mutex
	execs map[uint32]*execution
}

// end kills what was asked for in the session.
func (s *session) end() {
	s.cancel(errSessionOver)
	s.mux.Close(errSessionOver)
}

// handle takes a frame of the control port.
func (a *Agent) handle(f protocol.Frame) {
	if f.Type == protocol.TypeHello && f.Session != 0 {
		a.hello(f)
		return
	}
	a.mu.Lock()
	s := a.session
	a.mu.Unlock()
	if s == nil || f.Session != s.id {
		return
	}
	switch f.Type {
	case protocol.TypeClock:
		var m protocol.Clock
		if json.Unmarshal(f.Payload, &m) == nil && !m.Time.IsZero() {
			if err := a.c.Machine.SetClock(m.Time); err != nil {
				a.log.Warn("the clock cannot be set", "err", err)
			}
		}
	case protocol.TypeEndAck:
		select {
		case a.acks <- struct{}{}:
		default:
		}
	case protocol.TypeWatch:
		a.watch(s, f.Payload)
	case protocol.TypeRequest:
		var m protocol.Request
		if err := json.Unmarshal(f.Payload, &m); err != nil {
			a.log.Warn("a request that makes no sense", "err", err)
			return
		}
		a.request(s, m)
	}
}

// hello begins a session, or says once more that the one in force goes on.
func (a *Agent) hello(f protocol.Frame) {
	var m protocol.Hello
	if err := json.Unmarshal(f.Payload, &m); err != nil || m.Version < 1 {
		a.log.Warn("a HELLO that makes no sense", "err", err)
		return
	}
	a.mu.Lock()
	old := a.session
	s := old
	if old == nil || old.id != f.Session {
		if m.Again {
			a.mu.Unlock()
			return
		}
		s = &session{
			id: f.Session, mux: mux.New(f.Session, a.bulk),
			stats: make(chan struct{}, maxStats), execs: map[uint32]*execution{},
			watches: make(chan protocol.Watch, 1),
		}
		s.ctx, s.cancel = context.WithCancelCause(a.ctx)
		a.session = s
	}
	w := protocol.Welcome{Version: protocol.Version, Agent: a.c.Build, State: a.state}
	changed := a.changed
	a.mu.Unlock()
	a.send(s, protocol.TypeWelcome, w)
	if s == old {
		return
	}
	if old != nil {
		old.end()
	}
	a.start("state", func() { a.tellState(s, changed) })
}

// tellState sends the state whenever it changes.
func (a *Agent) tellState(s *session, changed <-chan struct{}) {
	for {
		select {
		case <-changed:
		case <-s.ctx.Done():
			return
		}
		a.mu.Lock()
		state := a.state
		changed = a.changed
		a.mu.Unlock()
		a.send(s, protocol.TypeState, state)
	}
}

// send waits for the port; a session that is over waits for nothing.
func (a *Agent) send(s *session, t protocol.Type, message any) {
	f, err := protocol.JSON(t, s.id, message)
	if err != nil {
		a.log.Error("a message does not fit", "type", t, "err", err)
		return
	}
	a.control.Send(s.ctx, f)
}

// deliver takes a frame of the bulk port.
func (a *Agent) deliver(f protocol.Frame) {
	a.mu.Lock()
	s := a.session
	a.mu.Unlock()
	if s != nil {
		s.mux.Deliver(f)
	}
}

// portLost ends the session: what was under way on the port is gone, and neither end could tell what. The host, which may
// have noticed nothing, is told once there is a port again, and says HELLO anew.
func (a *Agent) portLost() {
	a.mu.Lock()
	s := a.session
	a.session = nil
	a.mu.Unlock()
	if s == nil {
		return
	}
	s.end()
	a.start("session's end", func() {
		a.control.Send(a.ctx, protocol.Frame{Type: protocol.TypeOver, Session: s.id})
	})
}

// request answers a request. What may take long goes on on a goroutine of its own; what was accepted is in place before
// the next request is read.
func (a *Agent) request(s *session, m protocol.Request) {
	var err error
	switch m.Op {
	case protocol.OpBoot:
		err = with(m, a.boot)
	case protocol.OpExec:
		if err = with(m, func(b protocol.ExecStart) error { return a.exec(s, m.ID, b) }); err == nil {
			return // it answers by itself
		}
	case protocol.OpResize:
		err = with(m, func(b protocol.ExecResize) error {
			return s.withExec(b.Exec, func(e *execution) error { return e.resize(b) })
		})
	case protocol.OpSignal:
		err = with(m, func(b protocol.ExecSignal) error {
			return s.withExec(b.Exec, func(e *execution) error { return e.signal(b) })
		})
	case protocol.OpClose:
		err = with(m, func(b protocol.ExecClose) error { s.close(b.Exec); return nil })
	case protocol.OpShutdown:
		err = with(m, func(b protocol.Shutdown) error { a.Shutdown(b.Grace); return nil })
	case protocol.OpStat:
		if err = with(m, func(b protocol.Stat) error { return a.stat(s, m.ID, b) }); err == nil {
			return // it answers by itself
		}
	case protocol.OpEnding:
		body, err := json.Marshal(protocol.Ending{Ending: a.ending()})
		r := protocol.Reply{ID: m.ID, Body: body}
		if err != nil {
			r.Error = err.Error()
		}
		a.send(s, protocol.TypeReply, r)
		return
	default:
		err = fmt.Errorf("this agent knows no %q", m.Op)
	}
	r := protocol.Reply{ID: m.ID}
	if err != nil {
		r.Error = err.Error()
	}
	a.send(s, protocol.TypeReply, r)
}

// with decodes the body of a request for f.
func with[T any](m protocol.Request, f func(T) error) error {
	var body T
	if err := json.Unmarshal(m.Body, &body); err != nil {
		return err
	}
	return f(body)
}

func (s *session) withExec(id uint32, f func(*execution) error) error {
	s.mu.Lock()
	e := s.execs[id]
	s.mu.Unlock()
	if e == nil {
		return errors.New("the command has ended")
	}
	return f(e)
}

// boot takes the machine's configuration, once.
func (a *Agent) boot(b protocol.Boot) error {
	a.mu.Lock()
	again := a.state.Booted
	a.mu.Unlock()
	if again {
		return nil
	}
	a.boots <- b // has room: the first is the only one
	a.setState(func(s *protocol.State) { s.Booted = true })
	return nil
}

// stat looks at a path and answers.
func (a *Agent) stat(s *session, id uint64, b protocol.Stat) error {
	select {
	case s.stats <- struct{}{}:
	default:
		return errors.New("too many looks at paths are under way")
	}
	a.start("stat", func() {
		defer func() { <-s.stats }()
		body, err := json.Marshal(fileInfo(b.Path, b.FollowLinks))
		r := protocol.Reply{ID: id, Body: body}
		if err != nil {
			r.Error = err.Error()
		}
		a.send(s, protocol.TypeReply, r)
	})
	return nil
}
