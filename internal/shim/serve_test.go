package shim

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/machine"
	"github.com/halevm/hale/internal/shim/protocol"
)

// player answers as a shim's machine would.
type player struct {
	cancelled chan struct{}
	closed    chan struct{}
	sleeper   *sleeper
}

func (p *player) handle(ctx context.Context, method string, params json.RawMessage, begun func()) (any, error) {
	switch method {
	case "begin":
		begun()
		return params, nil
	case "echo":
		return params, nil
	case "long":
		return strings.Repeat("<", 200<<10), nil
	case "refuse":
		return nil, fmt.Errorf("no: %w", api.InvalidState)
	case protocol.MethodStat, protocol.MethodStop, protocol.MethodProbe, protocol.MethodStats:
		if params == nil { // of a guest that hangs
			<-ctx.Done()
			return nil, context.Cause(ctx)
		}
		return params, nil
	case protocol.MethodKill:
		return params, nil
	case "block":
		<-ctx.Done()
		close(p.cancelled)
		return nil, context.Cause(ctx)
	}
	return nil, fmt.Errorf("no method %q: %w", method, api.Unimplemented)
}

func (p *player) exec(ctx context.Context, r machine.ExecRequest) (execSession, error) {
	if r.Argv[0] == "hang" { // as a guest does, until the shim gives up
		select {
		case <-time.After(handshakeTimeout + 100*time.Millisecond):
			return nil, errNoAgent
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	if r.Argv[0] == "sleep" {
		return p.sleeper, nil
	}
	if r.Argv[0] != "cat" {
		return nil, fmt.Errorf("no %q: %w", r.Argv[0], api.InvalidState)
	}
	in, out := io.Pipe()
	return &cat{in: out, out: in, ended: make(chan struct{}), closed: p.closed}, nil
}

// cat is a program that gives back what it is given.
type cat struct {
	in     *io.PipeWriter
	out    *io.PipeReader
	ended  chan struct{}
	closed chan struct{}
}

func (c *cat) Stdin() io.WriteCloser                        { return c }
func (c *cat) Write(p []byte) (int, error)                  { return c.in.Write(p) }
func (c *cat) Stdout() io.Reader                            { return c.out }
func (c *cat) Stderr() io.Reader                            { return bytes.NewReader(nil) }
func (c *cat) Resize(context.Context, uint16, uint16) error { return nil }
func (c *cat) Signal(context.Context, string) error         { return nil }
func (c *cat) Wait(ctx context.Context) (machine.ExecExit, error) {
	select {
	case <-c.ended:
		return machine.ExecExit{Code: 7}, nil
	case <-ctx.Done():
		return machine.ExecExit{}, context.Cause(ctx)
	}
}

func (c *cat) Close() error {
	c.in.Close()
	select {
	case <-c.ended:
	default:
		close(c.ended)
	}
	select {
	case <-c.closed:
	default:
		close(c.closed)
	}
	return nil
}

const secret = "the secret"

// play serves a player below a directory of its own.
func play(t *testing.T) (*player, *server, *runDir) {
	t.Helper()
	d := &runDir{path: filepath.Join(t.TempDir(), "vm")}
	vm, err := d.make()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { vm.Close() })
	s, err := listen(filepath.Join(d.path, socketName), secret, os.Getuid())
	if err != nil {
		t.Fatal(err)
	}
	p := &player{cancelled: make(chan struct{}), closed: make(chan struct{}), sleeper: newSleeper()}
	s.serve(p, protocol.Welcome{Build: "test", PID: os.Getpid()})
	t.Cleanup(s.close)
	return p, s, d
}

func dialControl(t *testing.T, d *runDir) net.Conn {
	t.Helper()
	conn, w, err := d.dial(t.Context(), record{PID: os.Getpid(), Secret: secret}, protocol.Hello{Role: protocol.RoleControl})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if w.Version != protocol.MaxVersion || w.Build != "test" {
		t.Errorf("the welcome is %+v", w)
	}
	conn.SetDeadline(time.Now().Add(time.Minute))
	return conn
}

func TestAdmission(t *testing.T) {
	_, _, d := play(t)
	me := os.Getpid()
	for name, c := range map[string]struct {
		record record
		hello  protocol.Hello
		says   string
	}{
		"another process answers": {record{PID: me + 1, Secret: secret}, protocol.Hello{Role: protocol.RoleControl}, "answers on the socket"},
		"another user answers":    {record{PID: me, UID: 12345, Secret: secret}, protocol.Hello{Role: protocol.RoleControl}, "of uid 12345"},
		"wrong secret":            {record{PID: me, Secret: "guess"}, protocol.Hello{Role: protocol.RoleControl}, "wrong secret"},
		"no secret":               {record{PID: me}, protocol.Hello{Role: protocol.RoleControl}, "wrong secret"},
		"unknown role":            {record{PID: me, Secret: secret}, protocol.Hello{Role: "root"}, "role"},
		"exec of nothing":         {record{PID: me, Secret: secret}, protocol.Hello{Role: protocol.RoleExec}, "role"},
	} {
		conn, _, err := d.dial(t.Context(), c.record, c.hello)
		if err == nil {
			conn.Close()
			t.Errorf("%s: let in", name)
		} else if !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	conn, err := d.connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var w protocol.Welcome
	protocol.WriteJSON(conn, protocol.KindHello, protocol.Hello{MinVersion: 99, MaxVersion: 99, Secret: secret, Role: protocol.RoleControl})
	if err := protocol.Expect(conn, protocol.KindWelcome, &w); err != nil || w.Error == nil {
		t.Errorf("a version from the future: %+v, %v", w, err)
	}
}

func TestRequestsAndTheirKinds(t *testing.T) {
	p, _, d := play(t)
	conn := dialControl(t, d)
	ask := func(id uint64, method, params string) {
		t.Helper()
		if err := protocol.WriteJSON(conn, protocol.KindRequest, protocol.Request{ID: id, Method: method, Params: json.RawMessage(params)}); err != nil {
			t.Fatal(err)
		}
	}
	reply := func() protocol.Reply {
		t.Helper()
		var r protocol.Reply
		if err := protocol.Expect(conn, protocol.KindReply, &r); err != nil {
			t.Fatal(err)
		}
		return r
	}
	ask(1, "block", "1") // a request that hangs holds up no other
	ask(2, "echo", `{"a":1}`)
	if r := reply(); r.ID != 2 || string(r.Result) != `{"a":1}` {
		t.Errorf("echo: %+v", r)
	}
	ask(3, "refuse", "1")
	if r := reply(); r.ID != 3 || !errors.Is(r.Error, api.InvalidState) {
		t.Errorf("refuse: %+v", r)
	}
	ask(5, "long", "1")
	if r := reply(); r.ID != 5 || !errors.Is(r.Error, api.Internal) || r.Result != nil {
		t.Errorf("an answer that cannot be sent: %.200v", r)
	}
	ask(4, "from the future", "1")
	if r := reply(); !errors.Is(r.Error, api.Unimplemented) {
		t.Errorf("an unknown method: %+v", r)
	}
	if err := protocol.WriteJSON(conn, protocol.KindCancel, protocol.Cancel{ID: 1}); err != nil {
		t.Fatal(err)
	}
	if r := reply(); r.ID != 1 || r.Error == nil {
		t.Errorf("the cancelled request: %+v", r)
	}
	<-p.cancelled
}

// However many requests of one kind hang with the guest, those of the others have their room, and what comes after them is read.
func TestNothingIsHeldUpByWhatHangs(t *testing.T) {
	for _, c := range []struct {
		hangs, what string
		most        int
	}{
		{protocol.MethodStat, "looks at paths", maxLooks}, {protocol.MethodProbe, "probes", maxProbes},
		{protocol.MethodStop, "stops", maxKills}, {protocol.MethodStats, "requests", maxOthers},
	} {
		t.Run(c.hangs, func(t *testing.T) {
			_, _, d := play(t)
			conn := dialControl(t, d)
			write := func(k protocol.Kind, v any) {
				t.Helper()
				if err := protocol.WriteJSON(conn, k, v); err != nil {
					t.Fatal(err)
				}
			}
			reply := func(id uint64) protocol.Reply {
				t.Helper()
				var r protocol.Reply
				if err := protocol.Expect(conn, protocol.KindReply, &r); err != nil {
					t.Fatal(err)
				}
				if r.ID != id {
					t.Fatalf("a reply to %d, %v; want one to %d", r.ID, r.Error, id)
				}
				return r
			}
			const more = 64
			for id := range uint64(c.most + more) {
				write(protocol.KindRequest, protocol.Request{ID: id, Method: c.hangs})
			}
			for id := range uint64(more) {
				if r := reply(uint64(c.most) + id); !errors.Is(r.Error, api.Unavailable) || !strings.Contains(r.Error.Error(), fmt.Sprintf("%d %s are under way", c.most, c.what)) {
					t.Errorf("one more: %v", r.Error)
				}
			}
			id := uint64(1000)
			for _, method := range []string{protocol.MethodStat, protocol.MethodProbe, protocol.MethodStop, protocol.MethodKill, "echo"} {
				if method == c.hangs || method == "echo" && c.what == "requests" {
					continue
				}
				id++
				write(protocol.KindRequest, protocol.Request{ID: id, Method: method, Params: json.RawMessage(`1`)})
				if r := reply(id); r.Error != nil || string(r.Result) != "1" {
					t.Errorf("%s: %+v", method, r)
				}
			}
			write(protocol.KindCancel, protocol.Cancel{ID: 3})
			reply(3)
		})
	}
}

// Whoever connects hears what has happened already, then what happens, and the last notice also when the shim ends with it.
func TestNoticesAreToldToEveryone(t *testing.T) {
	_, s, d := play(t)
	s.notify(machine.Notice{Kind: machine.AgentReady})
	conn := dialControl(t, d)
	next := func() machine.NoticeKind {
		t.Helper()
		var n machine.Notice
		if err := protocol.Expect(conn, protocol.KindNotice, &n); err != nil {
			t.Fatal(err)
		}
		return n.Kind
	}
	if k := next(); k != machine.AgentReady {
		t.Errorf("first comes %s", k)
	}
	s.notify(machine.Notice{Kind: machine.Started})
	if k := next(); k != machine.Started {
		t.Errorf("then comes %s", k)
	}
	s.notify(machine.Notice{Kind: machine.Exited})
	s.close()
	if k := next(); k != machine.Exited {
		t.Errorf("at last comes %s", k)
	}
	if _, _, err := protocol.Read(conn); err == nil {
		t.Error("something comes after the last notice")
	}
}

func TestExecEndsWithItsClient(t *testing.T) {
	p, _, d := play(t)
	hello := protocol.Hello{Role: protocol.RoleExec, Exec: &machine.ExecRequest{Argv: []string{"cat"}}}
	conn, _, err := d.dial(t.Context(), record{PID: os.Getpid(), Secret: secret}, hello)
	if err != nil {
		t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(time.Minute))
	var credit protocol.ExecCredit
	if err := protocol.Expect(conn, protocol.KindCredit, &credit); err != nil || credit.Bytes < 5 {
		t.Fatalf("%+v, %v: want credit for some input", credit, err)
	}
	if err := protocol.Write(conn, protocol.KindStdin, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if kind, b, err := protocol.Read(conn); err != nil || kind != protocol.KindStdout || string(b) != "hello" {
		t.Errorf("kind %d, %q, %v", kind, b, err)
	}
	conn.Close()
	<-p.closed

	hello.Exec = &machine.ExecRequest{Argv: []string{"dog"}}
	if _, _, err := d.dial(t.Context(), record{PID: os.Getpid(), Secret: secret}, hello); !errors.Is(err, api.InvalidState) {
		t.Errorf("a program that cannot be run: %v", err)
	}
}

// What lies at the socket's place is connected to only if it is a socket, and no link is followed to it.
func TestConnectFollowsNoLink(t *testing.T) {
	_, _, real := play(t)
	d := &runDir{path: filepath.Join(t.TempDir(), "vm")}
	vm, err := d.make()
	if err != nil {
		t.Fatal(err)
	}
	defer vm.Close()
	if err := os.Symlink(filepath.Join(real.path, socketName), filepath.Join(d.path, socketName)); err != nil {
		t.Fatal(err)
	}
	if conn, err := d.connect(t.Context()); err == nil {
		conn.Close()
		t.Error("a link was followed to a socket elsewhere")
	}
	if b, err := d.readFile(socketName, 10); err == nil {
		t.Errorf("a link was read: %q", b)
	}
}

func TestExitOfAShimThatDied(t *testing.T) {
	d := &runDir{path: filepath.Join(t.TempDir(), "vm")}
	vm, err := d.make()
	if err != nil {
		t.Fatal(err)
	}
	defer vm.Close()
	if err := os.WriteFile(filepath.Join(d.path, stderrName), []byte("panic: something\n\ngoroutine 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if e := d.exit(record{PID: 42}); e.Reason != machine.ShimDied || !strings.Contains(e.Message, "pid 42") || !strings.Contains(e.Message, "panic: something") {
		t.Errorf("without its word: %+v", e)
	}
	if err := os.WriteFile(filepath.Join(d.path, exitName), []byte(`{"reason":"program_exited","code":3}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if e := d.exit(record{PID: 42}); e.Reason != machine.ProgramExited || e.Code == nil || *e.Code != 3 {
		t.Errorf("with it: %+v", e)
	}
}

func TestPortErrorsNameWhatIsWrong(t *testing.T) {
	p := machine.Port{HostAddr: netip.MustParseAddr("127.0.0.1"), HostPort: 80}
	for errno, field := range map[syscall.Errno]string{
		syscall.EADDRINUSE: "network.ports[2].host_port", syscall.EACCES: "network.ports[2].host_port", syscall.EADDRNOTAVAIL: "network.ports[2].host_addr",
	} {
		e, ok := errors.AsType[*api.Error](portError(2, p, &net.OpError{Op: "listen", Err: os.NewSyscallError("bind", errno)}))
		if !ok || len(e.Details) != 1 || e.Details[0].Field != field {
			t.Errorf("%v: %+v, want %s", errno, e, field)
		}
	}
}

// Who names 0.0.0.0 does not open the port to IPv6.
func TestPortsAreWhereTheyAreSaidToBe(t *testing.T) {
	for host, reached := range map[string]string{"127.0.0.1": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::1": "::1", "::": "127.0.0.1 ::1"} {
		ln, err := listenAt(t.Context(), netip.AddrPortFrom(netip.MustParseAddr(host), 0))
		if err != nil {
			t.Logf("%s: %v: not looked at", host, err) // without IPv6
			continue
		}
		_, port, _ := net.SplitHostPort(ln.Addr().String())
		var got []string
		for _, from := range []string{"127.0.0.1", "::1"} {
			if c, err := net.Dial("tcp", net.JoinHostPort(from, port)); err == nil {
				got = append(got, from)
				c.Close()
			}
		}
		ln.Close()
		if strings.Join(got, " ") != reached {
			t.Errorf("%s is reached at %q, want %q", host, got, reached)
		}
	}
}

func TestRecordComesBack(t *testing.T) {
	d := &runDir{path: filepath.Join(t.TempDir(), "vm")}
	vm, err := d.make()
	if err != nil {
		t.Fatal(err)
	}
	defer vm.Close()
	want := record{PID: 7, StartTime: 9, BootID: "b", Secret: "s"}
	if err := d.writeRecord(want); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(d.recordPath()); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the record, which holds the secret: %v, %v", st.Mode(), err)
	}
	if got, err := d.readRecord(); err != nil || got.PID != want.PID || got.StartTime != want.StartTime || got.Secret != want.Secret {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestProcessIsTheSameOne(t *testing.T) {
	start, err := startTimeOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	p, err := openProcess(os.Getpid(), start)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if p.wait(ctx) == nil {
		t.Error("this process has ended")
	}
	if _, err := openProcess(os.Getpid(), start+1); !errors.Is(err, errOtherProcess) {
		t.Errorf("another start time: %v", err)
	}
	if shim, err := isShim(os.Getpid(), "abc"); shim || err != nil {
		t.Errorf("a test is taken for a shim: %v, %v", shim, err)
	}
}
