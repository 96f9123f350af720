package shim

import (
	"encoding/json"
	"log/slog"
	"net"
	"testing"
	"testing/synctest"
	"time"

	guestprotocol "github.com/halevm/hale/internal/guest/protocol"
	"github.com/halevm/hale/internal/machine"
	"github.com/halevm/hale/internal/shim/protocol"
)

// A guest that opens and closes its port as fast as it can is heard at a bounded rate, and its last word always.
func TestHintsAreBoundedAndTheLastComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{changed: make(chan struct{}), hinted: hint{rate: newRate(hintBurst, hintEvery)}}
		began := time.Now()
		var taken []machine.Notice
		take := func() {
			if n := s.takeHint(); n != nil {
				taken = append(taken, *n)
			}
		}
		for i := range 1000 { // one second
			s.hint(80, i%2 == 0)
			synctest.Wait()
			take()
			time.Sleep(time.Millisecond)
		}
		if most := hintBurst + int(time.Since(began)/hintEvery); len(taken) < 10 || len(taken) > most {
			t.Errorf("%d hints in %v, at most %d", len(taken), time.Since(began), most)
		}
		time.Sleep(hintEvery)
		synctest.Wait()
		take()
		if last := taken[len(taken)-1]; last.Kind != machine.Hinted || last.Port != 80 || last.Listening {
			t.Errorf("the last is %+v, want that nobody listens", last)
		}
		time.Sleep(time.Minute)
		if n := s.takeHint(); n != nil {
			t.Errorf("and then %+v", n)
		}
		// What nobody takes is replaced by what is newer.
		for range hintBurst {
			s.hint(80, true)
			s.hint(81, false)
		}
		time.Sleep(time.Minute)
		if n := s.takeHint(); n == nil || n.Port != 81 || n.Listening {
			t.Errorf("after a while without a daemon it is %+v", n)
		}
		if n := s.takeHint(); n != nil {
			t.Errorf("and then %+v", n)
		}
	})
}

// A hint goes to one daemon, once, also when none was there at the time.
func TestAHintIsToldOnce(t *testing.T) {
	_, s, d := play(t)
	s.hint(80, true)
	s.notify(machine.Notice{Kind: machine.AgentReady})
	next := func(conn net.Conn) machine.Notice {
		t.Helper()
		var n machine.Notice
		if err := protocol.Expect(conn, protocol.KindNotice, &n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	first := dialControl(t, d)
	if n := next(first); n.Kind != machine.AgentReady {
		t.Errorf("first comes %+v", n)
	}
	if n := next(first); n.Kind != machine.Hinted || n.Port != 80 || !n.Listening || n.Time.IsZero() {
		t.Errorf("then comes %+v", n)
	}
	first.Close()
	second := dialControl(t, d)
	if n := next(second); n.Kind != machine.AgentReady {
		t.Errorf("whoever comes later is told %+v", n)
	}
	s.notify(machine.Notice{Kind: machine.NetworkUp})
	if n := next(second); n.Kind != machine.NetworkUp {
		t.Errorf("and then %+v, not what comes next", n)
	}
}

// Only what matters to a check over the network is a hint.
func TestWhatIsAHint(t *testing.T) {
	s := &server{changed: make(chan struct{}), hinted: hint{rate: newRate(100, hintEvery)}}
	r := &run{server: s}
	for i, tt := range []struct {
		port  uint16
		where guestprotocol.Where
		want  string
	}{
		{80, guestprotocol.Nowhere, ""},
		{80, guestprotocol.Loopback, ""},
		{80, guestprotocol.Open, "began"},
		{80, guestprotocol.Loopback, "ceased"},
		{80, guestprotocol.Nowhere, ""},
		{80, guestprotocol.Open, "began"},
		{81, guestprotocol.Nowhere, ""}, // another one is watched
		{81, guestprotocol.Open, "began"},
		{81, guestprotocol.Nowhere, "ceased"},
	} {
		r.listening(tt.port, tt.where)
		got := ""
		if n := s.takeHint(); n != nil {
			got = map[bool]string{true: "began", false: "ceased"}[n.Listening]
			if n.Port != tt.port {
				t.Errorf("%d: a hint about port %d", i, n.Port)
			}
		}
		if got != tt.want {
			t.Errorf("%d: %d is listened on %s: %q, want %q", i, tt.port, tt.where, got, tt.want)
		}
	}
}

// The shim is told of the newest port, once, and the caller waits for nothing.
func TestWatchIsToldToTheShim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, conn := talk(t)
		defer conn.Close()
		m.Watch(80)
		synctest.Wait() // the shim does not read
		m.Watch(81)
		m.Watch(82)
		asked := func() uint16 {
			t.Helper()
			var r protocol.Request
			var w protocol.Watch
			if err := protocol.Expect(conn, protocol.KindRequest, &r); err != nil || r.Method != protocol.MethodWatch {
				t.Fatalf("%+v, %v", r, err)
			}
			if err := json.Unmarshal(r.Params, &w); err != nil {
				t.Fatal(err)
			}
			protocol.WriteJSON(conn, protocol.KindReply, protocol.Reply{ID: r.ID})
			return w.Port
		}
		if a, b := asked(), asked(); a != 80 || b != 82 {
			t.Errorf("it is told of %d and %d, want 80 and 82", a, b)
		}
		synctest.Wait()
		m.Watch(82)
		synctest.Wait()
		if m.watched.saying {
			t.Error("it is told again")
		}
		m.Watch(0)
		if p := asked(); p != 0 {
			t.Errorf("it is told of %d", p)
		}
	})
}

// A shim that sends more than its bound is kept to the daemon's, and whoever reads nothing holds nothing up.
func TestHintsAreBoundedByTheDaemon(t *testing.T) {
	m := &Machine{
		log: slog.New(slog.DiscardHandler), notices: make(chan machine.Notice, noticeRoom), hints: newRate(2*hintBurst, hintEvery/2),
	}
	for range 1000 {
		m.hinted(machine.Notice{Kind: machine.Hinted, Port: 80})
	}
	if n := len(m.notices); n == 0 || n > noticeRoom-noticeOnce {
		t.Errorf("%d hints", n)
	}
	m.hints = newRate(1000, time.Second)
	for range 1000 {
		m.hinted(machine.Notice{Kind: machine.Hinted, Port: 80})
	}
	if n := len(m.notices); n != noticeRoom-noticeOnce {
		t.Errorf("%d hints take the place of what comes once", n)
	}
}
