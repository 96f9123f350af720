package agent

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/halevm/hale/internal/guest"
	"github.com/halevm/hale/internal/guest/protocol"
	"github.com/halevm/hale/internal/machine"
)

func TestAnotherHostTakesOver(t *testing.T) {
	l := startAgent(t)
	l.connect(guest.Options{Boot: protocol.Boot{Process: sleeper}, Answer: patience})
	l.running()
	e, err := l.conn.Exec(t.Context(), machine.ExecRequest{Argv: []string{"sh", "-c", "echo $$; exec sleep 1000"}})
	if err != nil {
		t.Fatal(err)
	}
	out := &lines{from: e.Stdout()}
	pid, _ := strconv.Atoi(out.next(t))
	// The old host goes without a word: what it wrote last was cut off in the middle, and the port stays open. That a new
	// one has come is only in its HELLO.
	half := protocol.AppendFrame(nil, protocol.Frame{Type: protocol.TypeRequest, Session: 1, Payload: make([]byte, 1000)})
	control := l.cable.host[protocol.ControlPort]
	control.Write(half[:500])
	hello, _ := protocol.JSON(protocol.TypeHello, 4711, protocol.Hello{Version: 1})
	control.Write(protocol.AppendFrame(nil, hello))
	wait(t, func() bool { return unix.Kill(pid, 0) == unix.ESRCH })
	// That host, should it be there after all, learns of it by the silence that it gets for an answer, and says HELLO.
	if _, err := l.conn.Stat(t.Context(), "/", false); !errors.Is(err, guest.ErrNotConnected) {
		t.Errorf("a request of the old host: %v", err)
	}
	l.want(guest.Lost)
	if _, err := e.Wait(t.Context()); !errors.Is(err, guest.ErrNotConnected) {
		t.Errorf("the old host's exec: %v", err)
	}
	l.want(guest.Hello)
}

func TestAPortThatIsUnboundIsOpenedAgain(t *testing.T) {
	l := newLab(t, sleeper)
	l.running()
	for _, name := range []string{protocol.BulkPort, protocol.ControlPort} {
		e, err := l.conn.Exec(t.Context(), machine.ExecRequest{Argv: []string{"sh", "-c", "echo $$; exec sleep 1000"}})
		if err != nil {
			t.Fatal(err)
		}
		out := &lines{from: e.Stdout()}
		pid := out.next(t)
		l.cable.unbind(name)
		// The host asked for nothing; it is told, and what ran for it is gone.
		l.want(guest.Lost)
		if _, err := e.Wait(t.Context()); !errors.Is(err, guest.ErrLost) {
			t.Errorf("%s: the exec: %v", name, err)
		}
		gone(t, pid)
		l.want(guest.Hello) // and no Started: it is the same program
		if exit, out, _ := l.sh("echo still here"); exit.Code != 0 || out != "still here\n" {
			t.Errorf("%s: %+v, %q", name, exit, out)
		}
	}
}

func TestStat(t *testing.T) {
	l := newLab(t, sleeper)
	l.running()
	file := t.TempDir() + "/file"
	os.WriteFile(file, []byte("abc"), 0o640)
	if i, err := l.conn.Stat(t.Context(), file, true); err != nil || !i.IsFile || i.Size != 3 || i.Mode != 0o640 {
		t.Errorf("%+v, %v", i, err)
	}
	if i, err := l.conn.Stat(t.Context(), file+"/none", true); err != nil || i.Exists {
		t.Errorf("%+v, %v", i, err)
	}
}

func TestAPanicIsToldAndEndsTheMachine(t *testing.T) {
	l := newLab(t, sleeper)
	l.running()
	l.agent.start("test", func() { panic("on purpose") })
	e := l.want(guest.ProgramExited)
	if e.Code != 125 || !strings.Contains(e.Message, "on purpose") {
		t.Errorf("%+v", e)
	}
	l.off()
}

// Whatever a host sends, the agent understands the next one's HELLO. Its machine cannot be prepared, so nothing is run.
func FuzzControlPort(f *testing.F) {
	for _, m := range []protocol.Request{
		{ID: 1, Op: protocol.OpBoot, Body: []byte(`{"process":{"argv":["true"]},"hostname":"x","network":{"addr":"10.0.0.2/24","gateway":"10.0.0.1"}}`)},
		{ID: 2, Op: protocol.OpExec, Body: []byte(`{"exec":1,"request":{"argv":["true"],"timeout":5}}`)},
		{ID: 3, Op: protocol.OpStat, Body: []byte(`{"path":"/etc/passwd","follow_links":true}`)},
		{ID: 4, Op: protocol.OpSignal, Body: []byte(`{"exec":1,"signal":"TERM"}`)},
		{ID: 5, Op: protocol.OpResize, Body: []byte(`{"exec":1,"rows":1,"cols":1}`)},
		{ID: 6, Op: protocol.OpShutdown, Body: []byte(`{"grace":1}`)},
		{ID: 7, Op: "unheard of"},
	} {
		b, _ := json.Marshal(m)
		f.Add(byte(protocol.TypeRequest), b)
	}
	f.Add(byte(protocol.TypeClock), []byte(`{"time":"2026-01-01T00:00:00Z"}`))
	f.Add(byte(protocol.TypeHello), []byte(`{"version":1,"again":true}`))
	f.Add(byte(protocol.TypeEndAck), []byte(nil))
	f.Add(byte(protocol.TypeWatch), []byte(`{"addr":"10.0.0.2:80"}`))
	f.Fuzz(func(t *testing.T, kind byte, payload []byte) {
		if len(payload) > protocol.MaxPayload {
			return
		}
		synctest.Test(t, func(t *testing.T) {
			host, control := net.Pipe()
			hostBulk, bulk := net.Pipe()
			m := &testMachine{booted: make(chan protocol.Boot, 1), clock: make(chan time.Time, 8), off: make(chan struct{}), bootFail: errors.New("no machine")}
			a := New(Config{Machine: m, Open: func(name string) (io.ReadWriteCloser, error) {
				return map[string]net.Conn{protocol.ControlPort: control, protocol.BulkPort: bulk}[name], nil
			}})
			ctx, cancel := context.WithCancel(t.Context())
			over := make(chan struct{})
			go func() { defer close(over); a.Run(ctx) }()
			defer func() { cancel(); host.Close(); hostBulk.Close(); <-over }()

			out := protocol.NewWriter(host)
			defer out.Close()
			for _, f := range []protocol.Frame{
				{Type: protocol.TypeHello, Session: 1, Payload: []byte(`{"version":1}`)},
				{Type: protocol.Type(kind), Session: 1, Payload: payload},
				{Type: protocol.TypeHello, Session: 2, Payload: []byte(`{"version":1}`)},
			} {
				out.Send(t.Context(), f)
			}
			r := protocol.NewReader(host)
			for {
				f, err := r.Next()
				if err != nil {
					t.Fatal(err)
				}
				if f.Type == protocol.TypeWelcome && f.Session == 2 {
					return
				}
			}
		})
	})
}
