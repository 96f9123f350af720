package shim

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/halevm/hale/internal/machine"
	"github.com/halevm/hale/internal/network"
	"github.com/halevm/hale/internal/shim/protocol"
)

func TestVoiceIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{changed: make(chan struct{})}
		loud, calm := s.voice(), s.voice()
		for i := range 100 {
			loud.say(slog.LevelWarn, fmt.Sprint("line ", i))
		}
		calm.say(slog.LevelInfo, strings.Repeat("x", 10_000)+"\x1b[2J\n\xff")
		_, lines, _ := s.next(0, true)
		if len(lines) != voiceBurst+1 || lines[voiceBurst-1].Message != "line 19" || len(lines[voiceBurst].Message) > maxLine {
			t.Fatalf("%d lines", len(lines))
		}
		time.Sleep(voiceEvery)
		loud.say(slog.LevelWarn, "one\ntwo\x1b[2J")
		loud.say(slog.LevelWarn, "too soon")
		if _, lines, _ := s.next(0, true); len(lines) != 1 || lines[0].Message != "one two[2J (80 lines of the kind were left out before)" {
			t.Errorf("%+v", lines)
		}
		for range 10 { // nobody takes them
			time.Sleep(voiceBurst * voiceEvery)
			for range voiceBurst {
				loud.say(slog.LevelWarn, "more")
			}
		}
		loud.say(slog.LevelWarn, "not this")
		time.Sleep(voiceEvery)
		loud.say(slog.LevelWarn, "the last")
		if _, lines, _ := s.next(0, true); len(lines) != maxLines || !strings.HasPrefix(lines[maxLines-1].Message, "the last") {
			t.Errorf("%d lines wait", len(lines))
		}
	})
}

// What the network tells of its refusals is said, all of it.
func TestRefusalsAreSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{changed: make(chan struct{})}
		v := s.voiceOfRefusals()
		said := 0
		for i := range network.ToldBurst + 100 {
			if i >= network.ToldBurst {
				time.Sleep(network.ToldEvery)
			}
			v.say(slog.LevelWarn, "refused")
			_, lines, _ := s.next(0, true)
			said += len(lines)
		}
		if said != network.ToldBurst+100 {
			t.Errorf("%d of %d are said", said, network.ToldBurst+100)
		}
	})
}

// A line goes to one daemon, once, also when none was there at the time; one that knows no lines gets none.
func TestLinesAreToldOnce(t *testing.T) {
	_, s, d := play(t)
	v := s.voice()
	v.say(slog.LevelWarn, "while nobody was there")
	s.notify(machine.Notice{Kind: machine.AgentReady})
	next := func(conn net.Conn) machine.Notice {
		t.Helper()
		var n machine.Notice
		if err := protocol.Expect(conn, protocol.KindNotice, &n); err != nil {
			t.Fatal(err)
		}
		return n
	}

	old, err := d.connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	old.SetDeadline(time.Now().Add(time.Minute))
	var w protocol.Welcome
	protocol.WriteJSON(old, protocol.KindHello, protocol.Hello{MinVersion: 1, MaxVersion: 1, Secret: secret, Role: protocol.RoleControl})
	if err := protocol.Expect(old, protocol.KindWelcome, &w); err != nil || w.Error != nil || w.Version != 1 {
		t.Fatalf("a daemon of version 1: %+v, %v", w, err)
	}
	if n := next(old); n.Kind != machine.AgentReady {
		t.Errorf("a daemon of version 1 is told %+v", n)
	}
	old.Close()

	first := dialControl(t, d)
	if n := next(first); n.Kind != machine.Told || n.Level != slog.LevelWarn || n.Message != "while nobody was there" || n.Time.IsZero() {
		t.Errorf("first comes %+v", n)
	}
	if n := next(first); n.Kind != machine.AgentReady {
		t.Errorf("then comes %+v", n)
	}
	v.say(slog.LevelInfo, "now")
	if n := next(first); n.Kind != machine.Told || n.Message != "now" {
		t.Errorf("then comes %+v", n)
	}
	second := dialControl(t, d)
	if n := next(second); n.Kind != machine.AgentReady {
		t.Errorf("whoever comes later is told %+v", n)
	}
	first.Close()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) { // until the shim has seen it
		s.mu.Lock()
		n := len(s.conns)
		s.mu.Unlock()
		if n == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the shim has %d connections", n)
		}
	}
	v.say(slog.LevelWarn, "the last")
	s.notify(machine.Notice{Kind: machine.Exited})
	s.close()
	if n := next(second); n.Kind != machine.Told || n.Message != "the last" {
		t.Errorf("before the end comes %+v", n)
	}
	if n := next(second); n.Kind != machine.Exited {
		t.Errorf("at last comes %+v", n)
	}
}

// However many lines come, replies do, and the exit: an owner that waits for a reply reads no notices meanwhile.
func TestLinesHoldUpNothing(t *testing.T) {
	ours, shim := net.Pipe()
	m := &Machine{
		log: slog.New(slog.DiscardHandler), conn: ours,
		pending: make(map[uint64]pending), notices: make(chan machine.Notice, noticeRoom),
		lines: newRate(lineBurst, lineEvery),
	}
	go func() {
		kind, payload, err := protocol.Read(shim)
		var req protocol.Request
		if err != nil || kind != protocol.KindRequest || json.Unmarshal(payload, &req) != nil {
			t.Error("no request came")
		}
		for range 1000 {
			protocol.WriteJSON(shim, protocol.KindNotice, machine.Notice{Kind: machine.Told, Message: "x"})
		}
		protocol.WriteJSON(shim, protocol.KindNotice, machine.Notice{Kind: machine.AgentReady})
		protocol.WriteJSON(shim, protocol.KindNotice, machine.Notice{Kind: machine.Started})
		protocol.WriteJSON(shim, protocol.KindReply, protocol.Reply{ID: req.ID})
		protocol.WriteJSON(shim, protocol.KindNotice, machine.Notice{Kind: machine.Exited, Exit: machine.Exit{Reason: machine.Stopped}})
	}()
	ended := make(chan machine.Exit)
	go func() { e, _ := m.readFrames(); ended <- e }()
	if err := m.Stop(t.Context(), time.Second); err != nil {
		t.Error(err)
	}
	if e := <-ended; e.Reason != machine.Stopped {
		t.Errorf("the end is %+v", e)
	}
	var told, others int
	for close(m.notices); ; {
		n, ok := <-m.notices
		if !ok {
			break
		}
		if n.Kind == machine.Told {
			told++
		} else {
			others++
		}
	}
	if told != noticeRoom-noticeOnce || others != 2 || !m.dropped {
		t.Errorf("%d lines and %d others", told, others)
	}
}

// Notices that nobody knows take no memory, however many come.
func TestUnknownNoticesAreForgotten(t *testing.T) {
	ours, shim := net.Pipe()
	m := &Machine{log: slog.New(slog.DiscardHandler), conn: ours, notices: make(chan machine.Notice, noticeRoom)}
	ended := make(chan machine.Exit)
	go func() { e, _ := m.readFrames(); ended <- e }()
	heap := func() uint64 {
		var s runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&s)
		return s.HeapAlloc
	}
	before, kind := heap(), strings.Repeat("x", 512<<10)
	for i := range 40 {
		if err := protocol.WriteJSON(shim, protocol.KindNotice, machine.Notice{Kind: machine.NoticeKind(kind + strconv.Itoa(i))}); err != nil {
			t.Fatal(err)
		}
	}
	if after := heap(); after > before+10<<20 {
		t.Errorf("%d MiB are taken", (after-before)>>20)
	}
	shim.Close()
	<-ended
}

// A shim that does not keep to its bounds is kept to the daemon's, also by an owner that takes every line.
func TestLinesAreBoundedByTheDaemon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, conn := talk(t)
		go func() {
			for range 10_000 {
				if protocol.WriteJSON(conn, protocol.KindNotice, machine.Notice{Kind: machine.Told, Message: strings.Repeat("x", 10_000)}) != nil {
					return
				}
			}
			conn.Close()
		}()
		told := 0
		for quiet := false; !quiet; {
			synctest.Wait()
			select {
			case n := <-m.notices:
				if told++; len(n.Message) > maxLine {
					t.Fatalf("a line of %d bytes", len(n.Message))
				}
			default:
				quiet = true
			}
		}
		if told == 0 || told > lineBurst {
			t.Errorf("%d lines", told)
		}
	})
}
