package guest

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"sync"
	"time"

	"github.com/halevm/hale/internal/guest/protocol"
	"github.com/halevm/hale/internal/machine"
)

const (
	defaultHello  = 250 * time.Millisecond
	defaultAnswer = 10 * time.Second
	// slowHello is the pace of greeting an agent that did not answer for a while: not booting any more, but gone.
	slowHello    = 2 * time.Second
	helloPatient = 240 // HELLOs before the pace slows down: a minute at the default
	drainTimeout = 2 * time.Second
	maxPending   = 1024 // requests under way
)

// A Conn is the host's end of one machine's agent channel.
type Conn struct {
	o             Options
	log           *slog.Logger
	control, bulk io.ReadWriteCloser
	out, bulkOut  *protocol.Writer
	events        *queue
	ctx           context.Context // done when the Conn is closed, or the control port gone
	cancel        context.CancelCauseFunc
	loops         group // everything but the readers, which end only when their ports are closed
	readers       sync.WaitGroup
	port          watchedPort

	mu       sync.Mutex
	greeting uint64        // the session that HELLO is said for; 0: none
	welcomed chan *session // capacity 1
	session  *session      // nil: none
	started  bool          // what the machine has been seen to do
	ended    bool
	acked    bool // the end has been reported, so it may be acknowledged at once
}

// Open speaks to the agent over its two ports, which the Conn owns from then on. It returns at once; HELLO is said until it
// is answered, and again after each loss.
func Open(control, bulk io.ReadWriteCloser, o Options) *Conn {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Hello <= 0 {
		o.Hello = defaultHello
	}
	if o.Answer <= 0 {
		o.Answer = defaultAnswer
	}
	c := &Conn{
		o: o, log: o.Log, control: control, bulk: bulk,
		out: protocol.NewWriter(control), bulkOut: protocol.NewWriter(bulk),
		events: newQueue(), welcomed: make(chan *session, 1),
	}
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	c.readers.Go(c.readControl)
	c.readers.Go(c.readBulk)
	c.loops.start(c.greetAndWatch)
	go func() {
		<-c.ctx.Done()
		c.loops.wait()
		c.events.end()
	}()
	return c
}

// Events delivers what happens, in order. It never blocks the channel and drops nothing; it is closed after Close, or
// when the control port is gone.
func (c *Conn) Events() <-chan Event { return c.events.out }

// Drain yields the events that are left once the machine is gone: until the control port's end was read, and for two
// seconds at most. Nobody else may receive from Events meanwhile.
func (c *Conn) Drain() iter.Seq[Event] {
	return func(yield func(Event) bool) {
		limit := time.NewTimer(drainTimeout)
		defer limit.Stop()
		for {
			select {
			case e, ok := <-c.events.out:
				if !ok || !yield(e) {
					return
				}
			case <-limit.C:
				return
			}
		}
	}
}

// Connected reports whether there is a session.
func (c *Conn) Connected() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.session != nil
}

// PortChanged tells that the guest opened or closed its control port (QEMU's VSERPORT_CHANGE): a session whose port was
// closed is lost at once, instead of when the next answer is overdue.
func (c *Conn) PortChanged(open bool) {
	c.mu.Lock()
	s := c.session
	c.mu.Unlock()
	if !open && s != nil {
		c.endSession(s, ErrLost)
	}
}

// Stat looks at a path in the guest.
func (c *Conn) Stat(ctx context.Context, path string, followLinks bool) (machine.FileInfo, error) {
	var info machine.FileInfo
	err := c.request(ctx, protocol.OpStat, protocol.Stat{Path: path, FollowLinks: followLinks}, &info)
	info.LinkTarget, info.Error = clip(info.LinkTarget, maxTarget), clip(info.Error, 1024)
	return info, err
}

// maxTarget is the longest that a link leads to (PATH_MAX).
const maxTarget = 4096

// Ending asks whether the program has ended, or is about to.
func (c *Conn) Ending(ctx context.Context) (bool, error) {
	var e protocol.Ending
	err := c.request(ctx, protocol.OpEnding, nil, &e)
	return e.Ending, err
}

// Shutdown asks the guest to end in an orderly way; it returns when the agent has accepted.
func (c *Conn) Shutdown(ctx context.Context, grace time.Duration) error {
	return c.request(ctx, protocol.OpShutdown, protocol.Shutdown{Grace: grace}, nil)
}

func (c *Conn) request(ctx context.Context, op protocol.Op, body, result any) error {
	c.mu.Lock()
	s := c.session
	c.mu.Unlock()
	if s == nil {
		return ErrNotConnected
	}
	return s.request(ctx, op, body, result)
}

// Close ends the session and waits for everything that the Conn started.
func (c *Conn) Close() error {
	c.gone(ErrClosed)
	err := errors.Join(c.control.Close(), c.bulk.Close())
	c.readers.Wait()
	<-c.out.Done()
	<-c.bulkOut.Done()
	c.events.abandon()
	c.loops.wait()
	<-c.events.done
	return err
}

// gone ends the Conn: its control port is at its end, or it was closed.
func (c *Conn) gone(err error) {
	c.cancel(err)
	c.out.Close()
	c.bulkOut.Close()
	c.mu.Lock()
	s := c.session
	c.mu.Unlock()
	if s != nil {
		c.endSession(s, ErrLost)
	}
}

// greetAndWatch says HELLO until there is a session, gives it what a new one needs, and watches that it answers.
func (c *Conn) greetAndWatch() {
	for soonest := time.Now(); ; {
		s := c.greet(time.Until(soonest))
		if s == nil {
			return
		}
		soonest = time.Now().Add(c.o.Hello) // a guest may end each session as soon as it has begun
		c.loops.start(func() { c.introduce(s) })
		c.watch(s)
	}
}

// greet says HELLO, after wait for the first time, until there is a session; nil: the Conn has ended.
func (c *Conn) greet(wait time.Duration) *session {
	var nonce [8]byte
	rand.Read(nonce[:])
	id := binary.BigEndian.Uint64(nonce[:]) | 1 // never 0
	hello := helloFrame(id, false)
	c.mu.Lock()
	c.greeting = id
	c.mu.Unlock()
	pace := time.NewTimer(max(0, wait))
	defer pace.Stop()
	for said := 0; ; {
		select {
		case <-pace.C:
			// A HELLO that nobody has read yet is enough.
			c.out.SendIfIdle(hello)
			if said++; said < helloPatient {
				pace.Reset(c.o.Hello)
			} else {
				pace.Reset(max(c.o.Hello, slowHello))
			}
		case s := <-c.welcomed:
			return s
		case <-c.ctx.Done():
			return nil
		}
	}
}

func helloFrame(session uint64, again bool) protocol.Frame {
	f, err := protocol.JSON(protocol.TypeHello, session, protocol.Hello{Version: protocol.Version, Again: again})
	if err != nil {
		panic(err) // a constant
	}
	return f
}

// introduce gives the guest the time, and its configuration unless it has it.
func (c *Conn) introduce(s *session) {
	if f, err := protocol.JSON(protocol.TypeClock, s.id, protocol.Clock{Time: time.Now()}); err == nil {
		c.out.Send(s.ctx, f)
	}
	if c.watches() {
		c.sayWatch()
	}
	if s.booted {
		return
	}
	err := s.request(s.ctx, protocol.OpBoot, c.o.Boot, nil)
	if err == nil || errors.Is(err, ErrNotConnected) {
		return // lost meanwhile: the next session gives it
	}
	c.log.Error("the guest agent does not take the machine's configuration", "err", err)
	c.note(s, protocol.State{Failed: &protocol.Failed{Code: 126, Message: "the machine's configuration: " + err.Error()}})
}

// watch returns when s has ended. An agent that stays silent while an answer is due is greeted once more, and lost if it
// does not answer that either.
func (c *Conn) watch(s *session) {
	check := time.NewTimer(time.Hour)
	check.Stop()
	defer check.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-s.due:
			check.Reset(c.o.Answer / 2)
		case <-check.C:
			silent := s.silence()
			switch {
			case silent == 0:
			case silent >= c.o.Answer:
				c.log.Warn("the guest agent does not answer", "for", silent.Round(time.Millisecond))
				c.endSession(s, ErrLost)
			case silent >= c.o.Answer/2:
				c.out.SendIfIdle(helloFrame(s.id, true))
				check.Reset(c.o.Answer - silent)
			default:
				check.Reset(c.o.Answer/2 - silent)
			}
		}
	}
}

// endSession fails everything that is under way in s, once.
func (c *Conn) endSession(s *session, err error) {
	c.mu.Lock()
	mine := c.session == s
	if mine {
		c.session = nil
		c.events.add(Event{Kind: Lost, Time: time.Now(), Message: err.Error()})
	}
	c.mu.Unlock()
	if mine {
		s.end(err)
	}
}

func (c *Conn) readControl() {
	r := protocol.NewReader(c.control)
	for {
		f, err := r.Next()
		if err != nil {
			c.gone(fmt.Errorf("the control port: %w", err))
			return
		}
		c.handle(f)
	}
}

// handle takes a frame of the control port. It never waits for anything.
func (c *Conn) handle(f protocol.Frame) {
	c.mu.Lock()
	s, greeting := c.session, c.greeting
	c.mu.Unlock()
	if s == nil {
		if f.Type == protocol.TypeWelcome && f.Session == greeting && greeting != 0 {
			c.welcome(f)
		}
		return
	}
	if f.Session != s.id {
		return
	}
	s.heard()
	switch f.Type {
	case protocol.TypeOver:
		c.endSession(s, ErrLost)
	case protocol.TypeWelcome: // to a HELLO that was repeated
		var m protocol.Welcome
		if json.Unmarshal(f.Payload, &m) == nil {
			c.note(s, m.State)
		}
	case protocol.TypeReply:
		var m protocol.Reply
		if json.Unmarshal(f.Payload, &m) == nil {
			s.answered(m)
		}
	case protocol.TypeState:
		var m protocol.State
		if json.Unmarshal(f.Payload, &m) == nil {
			c.note(s, m)
		}
	case protocol.TypeExecExited:
		var m protocol.ExecExited
		if json.Unmarshal(f.Payload, &m) == nil {
			s.execExited(m)
		}
	case protocol.TypeListening:
		c.listening(f.Payload)
	}
}

func (c *Conn) welcome(f protocol.Frame) {
	var w protocol.Welcome
	if json.Unmarshal(f.Payload, &w) != nil || w.Version < 1 {
		return
	}
	s := newSession(c, f.Session, w.State.Booted)
	c.mu.Lock()
	if c.ctx.Err() != nil {
		c.mu.Unlock()
		s.end(ErrClosed)
		return
	}
	c.session, c.greeting = s, 0
	c.events.add(Event{Kind: Hello, Time: time.Now()})
	c.mu.Unlock()
	c.log.Debug("the guest agent said hello", "agent", clip(w.Agent, 64), "version", w.Version, "booted", w.State.Booted)
	c.note(s, w.State)
	c.welcomed <- s // has room: one greeting makes one session
}

// note takes down where the guest says that its machine is.
func (c *Conn) note(s *session, st protocol.State) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if st.Started && !c.started && !c.ended {
		c.started = true
		c.events.add(Event{Kind: Started, Time: time.Now()})
	}
	if !st.Ended() {
		return
	}
	if c.ended {
		if c.acked { // it did not hear that, it seems
			c.out.SendIfIdle(protocol.Frame{Type: protocol.TypeEndAck, Session: s.id})
		}
		return
	}
	c.ended = true
	c.loops.start(func() { c.reportEnd(s, st, time.Now()) })
}

// reportEnd tells how the program ended, once its output has been read, and lets the guest power off.
func (c *Conn) reportEnd(s *session, st protocol.State, at time.Time) {
	if c.o.Drained != nil {
		ctx, cancel := context.WithTimeout(c.ctx, drainTimeout)
		c.o.Drained(ctx, st.Written)
		cancel()
	}
	e := Event{Time: at}
	if f := st.Failed; f != nil {
		e.Kind, e.Code, e.Message = ProgramFailed, f.Code, clip(f.Message, 1024)
	} else {
		x := st.Exited
		e.Kind, e.Code, e.Signal, e.OOM, e.Message = ProgramExited, x.Code, clip(x.Signal, 32), x.OOM, clip(x.Message, 1024)
	}
	c.mu.Lock()
	c.acked = true
	c.events.add(e)
	c.mu.Unlock()
	c.out.Send(s.ctx, protocol.Frame{Type: protocol.TypeEndAck, Session: s.id})
}

func (c *Conn) readBulk() {
	r := protocol.NewReader(c.bulk)
	for {
		f, err := r.Next()
		if err != nil {
			c.mu.Lock()
			s := c.session
			c.mu.Unlock()
			if s != nil {
				s.mux.Close(fmt.Errorf("the bulk port: %w", err))
			}
			return
		}
		c.mu.Lock()
		s := c.session
		c.mu.Unlock()
		if s != nil {
			s.mux.Deliver(f)
		}
	}
}

// clip bounds a text of the guest's.
func clip(s string, n int) string { return s[:min(n, len(s))] }

// A group is goroutines that start at any time, until somebody waits for the last of them.
type group struct {
	mu     sync.Mutex
	closed bool
	wg     sync.WaitGroup
}

// start runs f, unless the group is being waited for.
func (g *group) start(f func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.closed {
		g.wg.Go(f)
	}
}

func (g *group) wait() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	g.wg.Wait()
}
