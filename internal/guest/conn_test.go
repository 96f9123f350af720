package guest

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/halevm/hale/internal/guest/protocol"
	"github.com/halevm/hale/internal/machine"
)

// A fakeGuest is the other end of a Conn's ports, word for word as a test has it.
type fakeGuest struct {
	t             *testing.T
	control, bulk net.Conn
	out           *protocol.Writer
	bulkOut       *protocol.Writer
	frames        chan protocol.Frame // what came on the control port
	bulkFrames    chan protocol.Frame
	session       uint64
}

// open returns a Conn and the fake guest at its other end.
func open(t *testing.T, o Options) (*Conn, *fakeGuest) {
	control, guestControl := net.Pipe()
	bulk, guestBulk := net.Pipe()
	g := &fakeGuest{
		t: t, control: guestControl, bulk: guestBulk,
		out: protocol.NewWriter(guestControl), bulkOut: protocol.NewWriter(guestBulk),
		frames: make(chan protocol.Frame, 4096), bulkFrames: make(chan protocol.Frame, 4096),
	}
	c := Open(control, bulk, o)
	go pump(guestControl, g.frames)
	go pump(guestBulk, g.bulkFrames)
	t.Cleanup(func() {
		guestControl.Close()
		guestBulk.Close()
		c.Close()
		g.out.Close()
		g.bulkOut.Close()
	})
	return c, g
}

func pump(from io.Reader, to chan<- protocol.Frame) {
	defer close(to)
	r := protocol.NewReader(from)
	for {
		f, err := r.Next()
		if err != nil {
			return
		}
		f.Payload = append([]byte(nil), f.Payload...)
		to <- f
	}
}

// next returns the next frame of a type, and skips others.
func (g *fakeGuest) next(want protocol.Type) protocol.Frame {
	g.t.Helper()
	for f := range g.frames {
		if f.Type == want {
			return f
		}
	}
	g.t.Error("the control port ended")
	return protocol.Frame{}
}

func (g *fakeGuest) say(t protocol.Type, message any) {
	g.t.Helper()
	f, err := protocol.JSON(t, g.session, message)
	if err != nil {
		g.t.Error(err)
	}
	g.out.Send(context.Background(), f)
}

// answer answers the next request of an operation.
func (g *fakeGuest) answer(op protocol.Op, failure string, result any) protocol.Request {
	g.t.Helper()
	for {
		var m protocol.Request
		if err := json.Unmarshal(g.next(protocol.TypeRequest).Payload, &m); err != nil {
			g.t.Error(err)
			return m
		}
		if m.Op != op {
			continue
		}
		body, _ := json.Marshal(result)
		g.say(protocol.TypeReply, protocol.Reply{ID: m.ID, Error: failure, Body: body})
		return m
	}
}

// welcome answers a HELLO as a guest that booted before.
func (g *fakeGuest) welcome(s protocol.State) {
	g.t.Helper()
	g.session = g.next(protocol.TypeHello).Session
	g.say(protocol.TypeWelcome, protocol.Welcome{Version: protocol.Version, State: s})
}

func want(t *testing.T, c *Conn, kind EventKind) Event {
	t.Helper()
	select {
	case e, ok := <-c.Events():
		if !ok || e.Kind != kind {
			t.Fatalf("event %+v (open: %v), want %s", e, ok, kind)
		}
		return e
	case <-time.After(time.Hour):
		t.Fatalf("no event, want %s", kind)
	}
	return Event{}
}

func TestHelloIsSaidUntilItIsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, g := open(t, Options{Hello: time.Second})
		began := time.Now()
		first := g.next(protocol.TypeHello)
		for range 9 {
			if f := g.next(protocol.TypeHello); f.Session != first.Session {
				t.Fatal("a HELLO that was not answered began another session")
			}
		}
		if d := time.Since(began); d != 9*time.Second {
			t.Errorf("ten HELLOs in %v, want 9s", d)
		}
		if c.Connected() {
			t.Error("connected to nobody")
		}
		if _, err := c.Stat(t.Context(), "/", false); !errors.Is(err, ErrNotConnected) {
			t.Errorf("Stat: %v", err)
		}
	})
}

func TestABootGoesInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var drained uint64
		boot := protocol.Boot{Hostname: "web-1", Process: machine.Process{Argv: []string{"nginx"}}}
		c, g := open(t, Options{Boot: boot, Drained: func(_ context.Context, n uint64) { drained = n }})
		time.Sleep(3 * time.Second) // the guest boots
		before := time.Now()
		g.session = 12345
		g.say(protocol.TypeWelcome, protocol.Welcome{Version: 1}) // of a session that nobody began
		g.welcome(protocol.State{})
		want(t, c, Hello)
		var clock protocol.Clock
		json.Unmarshal(g.next(protocol.TypeClock).Payload, &clock)
		if !clock.Time.Equal(before) {
			t.Errorf("the clock is %v, want the time after the answer, %v", clock.Time, before)
		}
		var got protocol.Boot
		json.Unmarshal(g.answer(protocol.OpBoot, "", nil).Body, &got)
		if got.Hostname != "web-1" || got.Process.Argv[0] != "nginx" {
			t.Errorf("booted with %+v", got)
		}
		g.say(protocol.TypeState, protocol.State{Booted: true, Started: true})
		want(t, c, Started)
		g.say(protocol.TypeState, protocol.State{Booted: true, Started: true}) // once more: no news
		g.say(protocol.TypeState, protocol.State{Booted: true, Started: true, Written: 17, Exited: &protocol.Exited{Code: 3}})
		if e := want(t, c, ProgramExited); e.Code != 3 {
			t.Errorf("exit %+v", e)
		}
		if drained != 17 {
			t.Errorf("told %d bytes of output, want 17", drained)
		}
		g.next(protocol.TypeEndAck)
		g.control.Close()
		want(t, c, Lost)
		if e, ok := <-c.Events(); ok {
			t.Errorf("after the port's end: %+v", e)
		}
	})
}

func TestAGuestThatWasThereBeforeIsNotBootedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, g := open(t, Options{})
		g.welcome(protocol.State{Booted: true, Started: true})
		want(t, c, Hello)
		want(t, c, Started)
		g.next(protocol.TypeClock)
		synctest.Wait()
		if len(g.frames) > 0 {
			t.Errorf("more was sent: %+v", <-g.frames)
		}
	})
}

func TestAProgramThatCannotBeStarted(t *testing.T) {
	for name, say := range map[string]func(*fakeGuest){
		"the guest says so": func(g *fakeGuest) {
			g.answer(protocol.OpBoot, "", nil)
			g.say(protocol.TypeState, protocol.State{Booted: true, Failed: &protocol.Failed{Code: 127, Message: strings.Repeat("no such file ", 1000)}})
		},
		"the guest does not take its configuration": func(g *fakeGuest) { g.answer(protocol.OpBoot, "what is that?", nil) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, g := open(t, Options{})
				g.welcome(protocol.State{})
				want(t, c, Hello)
				say(g)
				e := want(t, c, ProgramFailed)
				if e.Code < 126 || e.Message == "" || len(e.Message) > 1024 {
					t.Errorf("%+v", e)
				}
				g.next(protocol.TypeEndAck)
			})
		})
	}
}

func TestAnAgentThatStaysSilentIsLostAndGreetedAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, g := open(t, Options{Answer: 10 * time.Second})
		g.welcome(protocol.State{Booted: true})
		want(t, c, Hello)
		time.Sleep(24 * time.Hour) // silence alone is no loss: nothing was asked
		if !c.Connected() {
			t.Fatal("lost without having been asked")
		}
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		if _, err := c.Stat(ctx, "/", false); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Stat: %v", err)
		}
		first := g.session
		if f := g.next(protocol.TypeHello); f.Session != first || time.Since(began) != 5*time.Second {
			t.Errorf("asked again after %v", time.Since(began))
		}
		want(t, c, Lost)
		if d := time.Since(began); d != 10*time.Second {
			t.Errorf("lost after %v, want 10s", d)
		}
		g.welcome(protocol.State{Booted: true})
		want(t, c, Hello)
		if g.session == first {
			t.Error("the new session has the number of the old")
		}
	})
}

func TestAnAgentThatIsSlowIsNotLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, g := open(t, Options{Answer: 10 * time.Second})
		g.welcome(protocol.State{Booted: true})
		want(t, c, Hello)
		for range 20 {
			go func() {
				time.Sleep(9 * time.Second)
				g.answer(protocol.OpStat, "", machine.FileInfo{Exists: true})
			}()
			if i, err := c.Stat(t.Context(), "/", false); err != nil || !i.Exists {
				t.Fatalf("Stat: %+v, %v", i, err)
			}
		}
		if !c.Connected() {
			t.Error("lost")
		}
	})
}

// An exec whose client has gone is told to the guest, which may take its time over that, or never read it: nobody waits for it, neither
// who closes the exec nor who asks for the machine's end, nor the end of the Conn.
func TestAnExecsFarewellHoldsNothingUp(t *testing.T) {
	for _, reads := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			control, port := net.Pipe()
			bulk, guestBulk := net.Pipe()
			c := Open(control, bulk, Options{})
			in, out := protocol.NewReader(port), protocol.NewWriter(port)
			answer := func(op protocol.Op) {
				for {
					f, err := in.Next()
					if err != nil {
						t.Errorf("%s: %v", op, err)
						return
					}
					var m protocol.Request
					switch {
					case f.Type == protocol.TypeHello:
						w, _ := protocol.JSON(protocol.TypeWelcome, f.Session, protocol.Welcome{Version: protocol.Version, State: protocol.State{Booted: true}})
						out.Send(t.Context(), w)
					case f.Type == protocol.TypeRequest && json.Unmarshal(f.Payload, &m) == nil && m.Op == op:
						r, _ := protocol.JSON(protocol.TypeReply, f.Session, protocol.Reply{ID: m.ID})
						out.Send(t.Context(), r)
						return
					}
				}
			}
			execs := make([]*Exec, protocol.MaxExecs)
			for i := range execs {
				go answer(protocol.OpExec)
				if i == 0 {
					want(t, c, Hello)
				}
				var err error
				if execs[i], err = c.Exec(t.Context(), machine.ExecRequest{Argv: []string{"sleep"}}); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
			}
			begun := time.Now()
			for _, e := range execs {
				e.Close()
			}
			synctest.Wait()
			if reads {
				go answer(protocol.OpShutdown)
				if err := c.Shutdown(t.Context(), time.Second); err != nil {
					t.Error(err)
				}
			}
			c.Close()
			if took := time.Since(begun); took != 0 {
				t.Errorf("a guest that reads on: %v; it took %v", reads, took)
			}
			port.Close()
			guestBulk.Close()
			out.Close()
		})
	}
}

func TestWhatIsUnderWayEndsWithTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, g := open(t, Options{})
		g.welcome(protocol.State{Booted: true})
		want(t, c, Hello)
		go g.answer(protocol.OpExec, "", nil)
		e, err := c.Exec(t.Context(), machine.ExecRequest{Argv: []string{"sleep"}})
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		errs := make(chan error, 3)
		go func() { _, err := c.Stat(t.Context(), "/", true); errs <- err }()
		go func() { _, err := e.Wait(t.Context()); errs <- err }()
		go func() { _, err := io.ReadAll(e.Stdout()); errs <- err }()
		synctest.Wait()
		c.PortChanged(false)
		for range 3 {
			if err := <-errs; !errors.Is(err, ErrLost) {
				t.Errorf("%v, want ErrLost", err)
			}
		}
		want(t, c, Lost)
	})
}

func TestAHostileGuestIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, g := open(t, Options{})
		g.welcome(protocol.State{Booted: true})
		want(t, c, Hello)
		for i := range uint64(5000) { // answers to what was never asked, exits of what never ran
			g.say(protocol.TypeReply, protocol.Reply{ID: i + 100})
			g.say(protocol.TypeExecExited, protocol.ExecExited{Exec: uint32(i + 1)})
			g.say(protocol.TypeState, protocol.State{Booted: true, Started: true})
			g.say(200, "a type from the future")
		}
		g.out.Send(t.Context(), protocol.Frame{Type: protocol.TypeReply, Session: g.session, Payload: []byte(`{"id":"`)})
		go g.answer(protocol.OpExec, "", nil)
		e, err := c.Exec(t.Context(), machine.ExecRequest{Argv: []string{"x"}, Capture: 4096})
		if err != nil {
			t.Fatal(err)
		}
		exit := machine.ExecExit{Code: -7, Signal: strings.Repeat("S", 999), Error: strings.Repeat("e", 9999), Output: make([]byte, 100<<10)}
		g.say(protocol.TypeExecExited, protocol.ExecExited{Exec: 1, Exit: exit})
		g.say(protocol.TypeExecExited, protocol.ExecExited{Exec: 1, Exit: machine.ExecExit{Code: 5}})
		got, err := e.Wait(t.Context())
		if err != nil || got.Code != 0 || len(got.Signal) > 32 || len(got.Error) > 1024 || len(got.Output) != protocol.MaxCapture {
			t.Errorf("%v: code %d, signal of %d, error of %d, output of %d bytes", err, got.Code, len(got.Signal), len(got.Error), len(got.Output))
		}
		want(t, c, Started)
		select {
		case e := <-c.Events():
			t.Errorf("more than one event: %+v", e)
		default:
		}
	})
}

// A command's time is over even where the guest hangs, and never ends it.
func TestAnExecEndsWithoutItsAgent(t *testing.T) {
	for _, capture := range []int{0, 100} {
		synctest.Test(t, func(t *testing.T) {
			c, g := open(t, Options{})
			g.welcome(protocol.State{Booted: true, Started: true})
			want(t, c, Hello)
			want(t, c, Started)
			go g.answer(protocol.OpExec, "", nil)
			begun := time.Now()
			e, err := c.Exec(t.Context(), machine.ExecRequest{Argv: []string{"x"}, Timeout: time.Minute, Capture: capture})
			if err != nil {
				t.Fatal(err)
			}
			read := make(chan error, 1)
			go func() { _, err := io.ReadAll(e.Stdout()); read <- err }()
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			exit, err := e.Wait(ctx)
			if took := time.Since(begun); err != nil || !exit.TimedOut || exit.Code != 124 || took != time.Minute+lateExit {
				t.Errorf("after %v: %+v, %v", took, exit, err)
			}
			if err := <-read; err != nil {
				t.Error(err)
			}
			e.Close()
			g.answer(protocol.OpClose, "", nil) // it is not to stay there, should the guest go on
		})
	}
}

// The output of one that ended in its time is read to its end, however late.
func TestALateReaderOfAnExec(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, g := open(t, Options{})
		g.welcome(protocol.State{Booted: true, Started: true})
		want(t, c, Hello)
		want(t, c, Started)
		go g.answer(protocol.OpExec, "", nil)
		e, err := c.Exec(t.Context(), machine.ExecRequest{Argv: []string{"x"}, Timeout: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		g.say(protocol.TypeExecExited, protocol.ExecExited{Exec: e.id})
		<-e.exited
		time.Sleep(time.Hour)
		read := make(chan error, 1)
		go func() { _, err := e.Stdout().Read(make([]byte, 1)); read <- err }()
		synctest.Wait()
		select {
		case err := <-read:
			t.Errorf("its output is over, though the guest has not ended it: %v", err)
		default:
		}
		e.Close()
		<-read
	})
}

// A guest that ends each session as soon as it has begun, or begins one that nobody has asked for, sets no pace: each is told and logged.
func TestSessionsBeginAtTheHostsPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, g := open(t, Options{Hello: 100 * time.Millisecond})
		ended := make(chan struct{})
		time.AfterFunc(1050*time.Millisecond, func() { close(ended) })
		go func() {
			answers := 0
			for f := range g.frames {
				if answers++; f.Type != protocol.TypeHello || answers > 10_000 {
					continue
				}
				for _, g.session = range []uint64{f.Session, 0} {
					g.say(protocol.TypeWelcome, protocol.Welcome{Version: protocol.Version, State: protocol.State{Booted: true}})
					g.say(protocol.TypeOver, nil)
				}
			}
		}()
		begun := 0
		for {
			select {
			case e := <-c.Events():
				if e.Kind == Hello {
					begun++
				}
			case <-ended:
				if begun != 11 {
					t.Errorf("%d sessions in a second", begun)
				}
				return
			}
		}
	})
}

// What a path is said to be has bounds of its own: in JSON it may be six times as long where it is passed on.
func TestALookAtAPathIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, g := open(t, Options{})
		g.welcome(protocol.State{Booted: true, Started: true})
		want(t, c, Hello)
		want(t, c, Started)
		long := strings.Repeat("\x7f", 100<<10)
		go g.answer(protocol.OpStat, "", machine.FileInfo{Exists: true, IsSymlink: true, LinkTarget: long, Error: long})
		info, err := c.Stat(t.Context(), "/link", false)
		if err != nil || !info.IsSymlink || len(info.LinkTarget) != maxTarget || len(info.Error) > maxTarget {
			t.Errorf("%d bytes of target, %d of error, %v", len(info.LinkTarget), len(info.Error), err)
		}
	})
}

func TestTooManyExecsAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, g := open(t, Options{})
		g.welcome(protocol.State{Booted: true})
		want(t, c, Hello)
		var execs []*Exec
		for range protocol.MaxExecs {
			go g.answer(protocol.OpExec, "", nil)
			e, err := c.Exec(t.Context(), machine.ExecRequest{Argv: []string{"sleep"}})
			if err != nil {
				t.Fatal(err)
			}
			execs = append(execs, e)
		}
		if _, err := c.Exec(t.Context(), machine.ExecRequest{Argv: []string{"sleep"}}); err != ErrTooMany {
			t.Errorf("one more: %v", err)
		}
		execs[0].Close()
		go g.answer(protocol.OpExec, "", nil)
		if _, err := c.Exec(t.Context(), machine.ExecRequest{Argv: []string{"sleep"}}); err != nil {
			t.Errorf("after one was closed: %v", err)
		}
		huge := machine.ExecRequest{Argv: []string{strings.Repeat("x", protocol.MaxPayload)}}
		execs[1].Close()
		if _, err := c.Exec(t.Context(), huge); err != ErrTooLarge {
			t.Errorf("a huge one: %v", err)
		}
	})
}

func TestARefusedRequestSaysWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, g := open(t, Options{})
		g.welcome(protocol.State{Booted: true})
		want(t, c, Hello)
		go g.answer(protocol.OpExec, "64 commands run already", nil)
		_, err := c.Exec(t.Context(), machine.ExecRequest{Argv: []string{"x"}})
		var refused *RequestError
		if !errors.As(err, &refused) || refused.Message != "64 commands run already" {
			t.Errorf("%v", err)
		}
	})
}

// What a guest sends decides nothing but its own session.
func FuzzControlPort(f *testing.F) {
	for _, m := range []any{
		protocol.State{Booted: true, Started: true}, protocol.Reply{ID: 1}, protocol.ExecExited{Exec: 1},
		protocol.State{Exited: &protocol.Exited{Code: 300}}, protocol.Listening{Port: 80, Where: protocol.Open},
	} {
		b, _ := json.Marshal(m)
		for _, t := range []protocol.Type{protocol.TypeState, protocol.TypeReply, protocol.TypeExecExited, protocol.TypeWelcome, protocol.TypeListening} {
			f.Add(byte(t), b)
		}
	}
	f.Fuzz(func(t *testing.T, kind byte, payload []byte) {
		if len(payload) > protocol.MaxPayload {
			return
		}
		synctest.Test(t, func(t *testing.T) {
			c, g := open(t, Options{})
			c.Watch(netip.MustParseAddrPort("10.0.0.2:80"))
			g.welcome(protocol.State{Booted: true})
			want(t, c, Hello)
			go g.answer(protocol.OpExec, "", nil)
			e, err := c.Exec(t.Context(), machine.ExecRequest{Argv: []string{"x"}, Capture: 1})
			if err != nil {
				t.Fatal(err)
			}
			g.out.Send(t.Context(), protocol.Frame{Type: protocol.Type(kind), Session: g.session, Payload: payload})
			if protocol.Type(kind) == protocol.TypeOver { // by which the guest ends its session: another one begins
				want(t, c, Lost)
				g.welcome(protocol.State{Booted: true})
				want(t, c, Hello)
			}
			go g.answer(protocol.OpStat, "", machine.FileInfo{Exists: true})
			if i, err := c.Stat(t.Context(), "/", false); err != nil || !i.Exists {
				t.Fatalf("after it the channel is out of order: %+v, %v", i, err)
			}
			e.Close()
		})
	})
}
