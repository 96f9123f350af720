package agent

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/halevm/hale/internal/guest"
	"github.com/halevm/hale/internal/guest/protocol"
	"github.com/halevm/hale/internal/machine"
)

// These tests run the agent as an ordinary process, with the host's end of the channel and real programs: those of this
// host, whose root is the image here. A limit only ends a test that hangs.
const limit = 30 * time.Second

// patience is what is waited for in vain, and long enough for a busy host to do before that what is to be done.
const patience = 2 * time.Second

// A testMachine is a machine whose root is this host's, and that ends by saying so.
type testMachine struct {
	booted   chan protocol.Boot
	clock    chan time.Time
	off      chan struct{}
	bootFail error
}

func (m *testMachine) Boot(b protocol.Boot) error { m.booted <- b; return m.bootFail }
func (m *testMachine) SetClock(t time.Time) error { m.clock <- t; return nil }
func (m *testMachine) PowerOff()                  { close(m.off) }

// A cable is the ports of one machine: what the host has of them, and what the agent opens. As with a virtio-serial port,
// the host sees nothing of the guest's opening and closing.
type cable struct {
	guest, host map[string]net.Conn
}

func newCable(t *testing.T) *cable {
	t.Helper()
	c := &cable{guest: map[string]net.Conn{}, host: map[string]net.Conn{}}
	for _, name := range []string{protocol.ControlPort, protocol.BulkPort, protocol.OutputPort} {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		for i, ends := range []map[string]net.Conn{c.host, c.guest} {
			f := os.NewFile(uintptr(fds[i]), name)
			if ends[name], err = net.FileConn(f); err != nil {
				t.Fatal(err)
			}
			f.Close()
			t.Cleanup(func() { ends[name].Close() })
		}
	}
	return c
}

// open opens a port; its device file is there whatever became of earlier ones.
func (c *cable) open(name string) (io.ReadWriteCloser, error) {
	p := port{c.guest[name]}
	return p, p.SetDeadline(time.Time{})
}

// unbind fails the agent's reads of a port.
func (c *cable) unbind(name string) { c.guest[name].SetDeadline(time.Unix(1, 0)) }

// A port is the guest's end of one.
type port struct{ net.Conn }

func (p port) Close() error { return p.SetDeadline(time.Unix(1, 0)) }

// A lab is an agent and the host that speaks to it.
type lab struct {
	t       *testing.T
	agent   *Agent
	machine *testMachine
	cable   *cable
	conn    *guest.Conn
	output  *bytes.Buffer // complete once the machine is off
	drained chan struct{}
}

func newLab(t *testing.T, p machine.Process) *lab {
	l := startAgent(t)
	l.connect(guest.Options{Boot: protocol.Boot{Process: p, Hostname: "lab"}})
	return l
}

func startAgent(t *testing.T) *lab {
	l := &lab{
		t: t, cable: newCable(t), output: new(bytes.Buffer), drained: make(chan struct{}),
		machine: &testMachine{booted: make(chan protocol.Boot, 1), clock: make(chan time.Time, 8), off: make(chan struct{})},
	}
	l.agent = New(Config{Open: l.cable.open, Machine: l.machine, Log: slog.New(slog.NewTextHandler(testLog{t}, nil))})
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan struct{})
	go func() { defer close(over); l.agent.Run(ctx) }()
	t.Cleanup(func() {
		if l.conn != nil {
			l.conn.Close()
		}
		cancel()
		select {
		case <-over:
		case <-time.After(limit):
			t.Error("the agent does not end")
		}
	})
	output := l.cable.host[protocol.OutputPort]
	go func() {
		defer close(l.drained)
		io.Copy(l.output, output)
	}()
	return l
}

func (l *lab) connect(o guest.Options) {
	l.conn = guest.Open(l.cable.host[protocol.ControlPort], l.cable.host[protocol.BulkPort], o)
}

type testLog struct{ t *testing.T }

func (l testLog) Write(b []byte) (int, error) {
	l.t.Logf("agent: %s", bytes.TrimSpace(b))
	return len(b), nil
}

func (l *lab) want(kind guest.EventKind) guest.Event {
	l.t.Helper()
	select {
	case e := <-l.conn.Events():
		if e.Kind != kind {
			l.t.Fatalf("event %+v, want %s", e, kind)
		}
		return e
	case <-time.After(limit):
		l.t.Fatalf("no event, want %s", kind)
	}
	return guest.Event{}
}

// running waits until the program runs.
func (l *lab) running() {
	l.t.Helper()
	l.want(guest.Hello)
	l.want(guest.Started)
}

// off waits for the end, and returns what the program wrote.
func (l *lab) off() string {
	l.t.Helper()
	select {
	case <-l.machine.off:
	case <-time.After(limit):
		l.t.Fatal("the machine is not switched off")
	}
	// All that was written is there to be read: who reads it comes to its end, and not before.
	if err := l.cable.guest[protocol.OutputPort].(*net.UnixConn).CloseWrite(); err != nil {
		l.t.Error(err)
	}
	<-l.drained
	return l.output.String()
}

// exec runs a command to its end.
func (l *lab) exec(r machine.ExecRequest, stdin string) (exit machine.ExecExit, stdout, stderr string) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	e, err := l.conn.Exec(ctx, r)
	if err != nil {
		l.t.Fatal(err)
	}
	defer e.Close()
	var wg sync.WaitGroup
	wg.Go(func() {
		io.WriteString(e.Stdin(), stdin)
		e.Stdin().Close()
	})
	var out, errOut []byte
	wg.Go(func() { out, _ = io.ReadAll(e.Stdout()) })
	wg.Go(func() { errOut, _ = io.ReadAll(e.Stderr()) })
	exit, err = e.Wait(ctx)
	if err != nil {
		l.t.Fatal(err)
	}
	wg.Wait()
	return exit, string(out), string(errOut)
}

func (l *lab) sh(script string) (machine.ExecExit, string, string) {
	l.t.Helper()
	return l.exec(machine.ExecRequest{Argv: []string{"sh", "-c", script}}, "")
}

var sleeper = machine.Process{Argv: []string{"sleep", "1000"}, Env: []string{"FROM=image"}, Dir: "/tmp"}

// wait waits until something that nobody announces is so.
func wait(t *testing.T, so func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !so(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("waited in vain")
		}
	}
}
