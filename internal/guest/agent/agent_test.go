package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
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

// A cable is the ports of one machine: what the host has of them, and what the agent opens.
type cable struct {
	mu    sync.Mutex
	guest map[string]net.Conn
	host  map[string]net.Conn
}

func newCable(t *testing.T) *cable {
	c := &cable{guest: map[string]net.Conn{}, host: map[string]net.Conn{}}
	for _, name := range []string{protocol.ControlPort, protocol.BulkPort, protocol.OutputPort} {
		c.plug(t, name)
	}
	return c
}

// plug makes a port anew.
func (c *cable) plug(t *testing.T, name string) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ends := [2]net.Conn{}
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), name)
		if ends[i], err = net.FileConn(f); err != nil {
			t.Fatal(err)
		}
		f.Close()
		t.Cleanup(func() { ends[i].Close() })
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.host[name], c.guest[name] = ends[0], ends[1]
}

func (c *cable) open(name string) (io.ReadWriteCloser, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.guest[name]
	if p == nil {
		return nil, errors.New("the port is not there")
	}
	c.guest[name] = nil
	return p, nil
}

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
	l.cable.host[protocol.OutputPort].SetReadDeadline(time.Now())
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

func TestAProgramFromStartToEnd(t *testing.T) {
	l := newLab(t, machine.Process{
		Argv: []string{"sh", "-c", `echo "$GREETING from $PWD, $HOSTNAME"; echo and errors >&2; exit 3`},
		Env:  []string{"GREETING=hello"}, Dir: t.TempDir() + "/made/for/it",
	})
	l.running()
	e := l.want(guest.ProgramExited)
	if e.Code != 3 || e.Signal != "" || e.OOM {
		t.Errorf("%+v", e)
	}
	out := l.off()
	if !strings.HasPrefix(out, "hello from "+os.TempDir()) || !strings.HasSuffix(out, "/made/for/it, lab\nand errors\n") {
		t.Errorf("output %q", out)
	}
	select {
	case at := <-l.machine.clock:
		if time.Since(at) > limit {
			t.Errorf("the clock was set to %v", at)
		}
	default:
		t.Error("the clock was not set")
	}
}

func TestAProgramThatCannotBeStarted(t *testing.T) {
	script := t.TempDir() + "/script"
	os.WriteFile(script, []byte("#!/no/such/interpreter\n"), 0o755)
	data := t.TempDir() + "/data"
	os.WriteFile(data, []byte("no program"), 0o644)
	for name, c := range map[string]struct {
		p    machine.Process
		code int
		says string
	}{
		"not in PATH":       {machine.Process{Argv: []string{"no-such-program"}}, 127, "not found in PATH"},
		"no such file":      {machine.Process{Argv: []string{"/no/such/program"}}, 127, "/no/such/program: no such file"},
		"no interpreter":    {machine.Process{Argv: []string{script}}, 127, "its interpreter or loader"},
		"not executable":    {machine.Process{Argv: []string{data}}, 126, "permission denied"},
		"nothing":           {machine.Process{}, 127, "no command"},
		"no such user":      {machine.Process{Argv: []string{"true"}, User: "nobody-of-this-name"}, 126, `no user "nobody-of-this-name"`},
		"no such group":     {machine.Process{Argv: []string{"true"}, User: "0:no-such-group"}, 126, `no group "no-such-group"`},
		"a file for a dir":  {machine.Process{Argv: []string{"true"}, Dir: data}, 126, "not a directory"},
		"a zero in its env": {machine.Process{Argv: []string{"true"}, Env: []string{"A=\x00"}}, 126, "zero byte"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, c.p)
			l.want(guest.Hello)
			e := l.want(guest.ProgramFailed)
			if e.Code != c.code || !strings.Contains(e.Message, c.says) {
				t.Errorf("%d %q, want %d and %q", e.Code, e.Message, c.code, c.says)
			}
			l.off()
		})
	}
}

func TestAMachineThatCannotBePrepared(t *testing.T) {
	l := startAgent(t)
	l.machine.bootFail = errors.New(`no disk with the serial "upper"`)
	l.connect(guest.Options{})
	l.want(guest.Hello)
	if e := l.want(guest.ProgramFailed); !strings.Contains(e.Message, `no disk with the serial "upper"`) {
		t.Errorf("%+v", e)
	}
	l.off()
}

func TestShutdown(t *testing.T) {
	for name, c := range map[string]struct {
		script, signal string
		grace          time.Duration
		code           int
		killedBy       string
	}{
		"it ends by itself":    {`trap "echo bye; exit 5" TERM; echo up; while :; do sleep 0.05; done`, "", limit, 5, ""},
		"with its own signal":  {`trap "exit 6" QUIT; echo up; while :; do sleep 0.05; done`, "SIGQUIT", limit, 6, ""},
		"it does not listen":   {`trap "" TERM; echo up; while :; do sleep 0.05; done`, "", time.Millisecond, 137, "SIGKILL"},
		"it dies of a signal":  {`echo up; while :; do sleep 0.05; done`, "INT", limit, 130, "SIGINT"},
		"with a strange image": {`trap "exit 7" TERM; echo up; while :; do sleep 0.05; done`, "SIGNONSENSE", limit, 7, ""},
	} {
		t.Run(name, func(t *testing.T) {
			ready := t.TempDir() + "/ready"
			if err := unix.Mkfifo(ready, 0o600); err != nil {
				t.Fatal(err)
			}
			script := strings.Replace(c.script, "echo up", "echo up > "+ready, 1)
			l := newLab(t, machine.Process{Argv: []string{"sh", "-c", script}, StopSignal: c.signal})
			l.running()
			if _, err := os.ReadFile(ready); err != nil { // it has its trap by now
				t.Fatal(err)
			}
			if err := l.conn.Shutdown(t.Context(), c.grace); err != nil {
				t.Fatal(err)
			}
			if e := l.want(guest.ProgramExited); e.Code != c.code || e.Signal != c.killedBy {
				t.Errorf("%+v, want code %d of %q", e, c.code, c.killedBy)
			}
			l.off()
		})
	}
}

func TestShutdownBeforeTheBoot(t *testing.T) {
	l := startAgent(t)
	l.agent.Shutdown(time.Second)
	l.connect(guest.Options{Boot: protocol.Boot{Process: sleeper}})
	l.want(guest.Hello)
	for e := range l.conn.Events() { // the boot may have come first
		if e.Kind == guest.ProgramExited {
			break
		}
		if e.Kind != guest.Started {
			t.Fatalf("%+v", e)
		}
	}
	l.off()
}

func TestExec(t *testing.T) {
	l := newLab(t, sleeper)
	l.running()
	for name, c := range map[string]struct {
		r           machine.ExecRequest
		stdin       string
		code        int
		signal      string
		out, errOut string
		says        string
	}{
		"both outputs":   {r: machine.ExecRequest{Argv: []string{"sh", "-c", "echo out; echo err >&2; exit 7"}}, code: 7, out: "out\n", errOut: "err\n"},
		"the image's":    {r: machine.ExecRequest{Argv: []string{"sh", "-c", "echo $FROM $PWD"}}, out: "image /tmp\n"},
		"its own":        {r: machine.ExecRequest{Argv: []string{"sh", "-c", "echo $FROM $PWD"}, Env: []string{"FROM=request"}, Dir: "/"}, out: "request /\n"},
		"stdin":          {r: machine.ExecRequest{Argv: []string{"tr", "a-z", "A-Z"}, Stdin: true}, stdin: "shout", out: "SHOUT"},
		"no stdin":       {r: machine.ExecRequest{Argv: []string{"cat"}}, stdin: "not for it"},
		"a signal":       {r: machine.ExecRequest{Argv: []string{"sh", "-c", "kill -USR1 $$"}}, code: 138, signal: "SIGUSR1"},
		"not found":      {r: machine.ExecRequest{Argv: []string{"no-such-program"}}, code: 127, says: "not found in PATH"},
		"not executable": {r: machine.ExecRequest{Argv: []string{"/etc/passwd"}}, code: 126, says: "permission denied"},
		"no user":        {r: machine.ExecRequest{Argv: []string{"true"}, User: "nobody-of-this-name"}, code: 126, says: "no user"},
		"no directory":   {r: machine.ExecRequest{Argv: []string{"true"}, Dir: "/no/such/dir"}, code: 126, says: "/no/such/dir: no such file"},
		"/dev/stdout":    {r: machine.ExecRequest{Argv: []string{"sh", "-c", "echo again > /dev/stdout"}}, out: "again\n"},
	} {
		t.Run(name, func(t *testing.T) {
			exit, out, errOut := l.exec(c.r, c.stdin)
			if exit.Code != c.code || exit.Signal != c.signal || out != c.out || errOut != c.errOut || !strings.Contains(exit.Error, c.says) || exit.TimedOut || exit.Lingering {
				t.Errorf("%+v, out %q, err %q", exit, out, errOut)
			}
		})
	}
}

func TestExecAsAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can be another user")
	}
	l := newLab(t, sleeper)
	l.running()
	exit, out, _ := l.exec(machine.ExecRequest{Argv: []string{"sh", "-c", "id -u; id -g; echo $HOME; echo again > /dev/stdout"}, User: "4711:4712"}, "")
	if exit.Code != 0 || out != "4711\n4712\n/\nagain\n" {
		t.Errorf("%+v, %q", exit, out)
	}
}

func TestExecMovesMoreThanItsWindows(t *testing.T) {
	l := newLab(t, sleeper)
	l.running()
	in := strings.Repeat("0123456789abcde\n", 3<<20/16)
	exit, out, _ := l.exec(machine.ExecRequest{Argv: []string{"cat"}, Stdin: true}, in)
	if exit.Code != 0 || out != in {
		t.Errorf("%+v, %d bytes came back of %d", exit, len(out), len(in))
	}
}

func TestAStalledExecHoldsUpNoOther(t *testing.T) {
	l := newLab(t, sleeper)
	l.running()
	stalled, err := l.conn.Exec(t.Context(), machine.ExecRequest{Argv: []string{"sh", "-c", "yes | head -c 3000000; yes | head -c 3000000 >&2"}})
	if err != nil {
		t.Fatal(err)
	}
	defer stalled.Close()
	first := make([]byte, 1)
	if _, err := io.ReadFull(stalled.Stdout(), first); err != nil { // it writes, and nobody reads on
		t.Fatal(err)
	}
	for range 3 {
		if exit, out, _ := l.sh("yes | head -c 1000000"); exit.Code != 0 || len(out) != 1e6 {
			t.Errorf("beside it: %+v, %d bytes", exit, len(out))
		}
	}
	// What is read late is whole: one output after the other, as the command writes them.
	if n, err := io.CopyN(io.Discard, stalled.Stdout(), 3e6-1); err != nil {
		t.Errorf("stdout: %d bytes, %v", n, err)
	}
	if n, err := io.Copy(io.Discard, stalled.Stderr()); n != 3e6 || err != nil {
		t.Errorf("stderr: %d bytes, %v", n, err)
	}
	if n, err := io.Copy(io.Discard, stalled.Stdout()); n != 0 || err != nil {
		t.Errorf("%d bytes more of stdout, %v", n, err)
	}
	if exit, err := stalled.Wait(t.Context()); err != nil || exit.Code != 0 {
		t.Errorf("%+v, %v", exit, err)
	}
}

func TestOutputThatIsReadAfterTheEnd(t *testing.T) {
	l := newLab(t, sleeper)
	l.running()
	e, err := l.conn.Exec(t.Context(), machine.ExecRequest{Argv: []string{"sh", "-c", "yes | head -c 300000"}})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	// It ends long before anyone reads: 256 KiB are in the host's window, the rest in the agent and its pipe.
	if exit, _, _ := l.sh("true"); exit.Code != 0 {
		t.Fatalf("%+v", exit)
	}
	if n, err := io.Copy(io.Discard, e.Stdout()); n != 300000 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
}

func TestATerminal(t *testing.T) {
	l := newLab(t, sleeper)
	l.running()
	e, err := l.conn.Exec(t.Context(), machine.ExecRequest{
		Argv: []string{"sh", "-c", `stty -echo; stty size; read x; stty size; echo "got $x"; tty >&2; cat; exit 4`}, TTY: true, Stdin: true, Rows: 30, Cols: 90,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	out := &lines{from: e.Stdout()}
	if got := out.next(t); got != "30 90" {
		t.Errorf("the terminal is %q", got)
	}
	if err := e.Resize(t.Context(), 40, 120); err != nil {
		t.Fatal(err)
	}
	io.WriteString(e.Stdin(), "a line\n")
	if got := out.next(t); got != "40 120" {
		t.Errorf("after the resize it is %q", got)
	}
	if got := out.next(t); got != "got a line" {
		t.Errorf("%q", got)
	}
	if got := out.next(t); !strings.HasPrefix(got, "/dev/pts/") {
		t.Errorf("its stderr is %q", got)
	}
	e.Stdin().Close() // ends cat
	exit, err := e.Wait(t.Context())
	if err != nil || exit.Code != 4 {
		t.Errorf("%+v, %v", exit, err)
	}
}

// lines reads a terminal's output line by line.
type lines struct {
	from io.Reader
	rest string
}

func (l *lines) next(t *testing.T) string {
	t.Helper()
	b := make([]byte, 1024)
	for {
		if line, rest, ok := strings.Cut(l.rest, "\n"); ok {
			l.rest = rest
			return strings.TrimRight(line, "\r")
		}
		n, err := l.from.Read(b)
		l.rest += string(b[:n])
		if err != nil {
			t.Fatalf("%q, then %v", l.rest, err)
		}
	}
}

func TestATimeoutKillsTheCommandAndItsChildren(t *testing.T) {
	l := newLab(t, sleeper)
	l.running()
	exit, out, _ := l.exec(machine.ExecRequest{Argv: []string{"sh", "-c", "sleep 1000 & echo $!; sleep 1000"}, Timeout: 300 * time.Millisecond}, "")
	if exit.Code != 124 || !exit.TimedOut || exit.Lingering {
		t.Errorf("%+v", exit)
	}
	gone(t, out)
}

func TestWhatACommandLeavesBehindIsKilled(t *testing.T) {
	l := newLab(t, sleeper)
	l.running()
	began := time.Now()
	exit, out, _ := l.sh("sleep 1000 & echo $!")
	if exit.Code != 0 || exit.TimedOut {
		t.Errorf("%+v", exit)
	}
	if time.Since(began) > limit/2 {
		t.Errorf("a child that holds stdout open delayed the end by %v", time.Since(began))
	}
	gone(t, out)
}

// gone fails if the process whose number it is goes on. (It was killed; that this host's PID 1 reaps it is not waited for.)
func gone(t *testing.T, pid string) {
	t.Helper()
	n, err := strconv.Atoi(strings.TrimSpace(pid))
	if err != nil {
		t.Fatalf("no pid: %q", pid)
	}
	wait(t, func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", n))
		return err != nil || strings.Contains(string(stat), ") Z ") || strings.Contains(string(stat), ") X ")
	})
}

func TestASignalReachesTheWholeGroup(t *testing.T) {
	l := newLab(t, sleeper)
	l.running()
	e, err := l.conn.Exec(t.Context(), machine.ExecRequest{Argv: []string{"sh", "-c", `trap "echo interrupted; exit 9" INT; echo up; while :; do sleep 0.05; done`}})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	out := &lines{from: e.Stdout()}
	out.next(t)
	if err := e.Signal(t.Context(), "SIGNONSENSE"); err == nil {
		t.Error("a signal that is none was sent")
	}
	if err := e.Signal(t.Context(), "INT"); err != nil {
		t.Fatal(err)
	}
	if got := out.next(t); got != "interrupted" {
		t.Errorf("%q", got)
	}
	if exit, err := e.Wait(t.Context()); err != nil || exit.Code != 9 {
		t.Errorf("%+v, %v", exit, err)
	}
}

func TestCapture(t *testing.T) {
	l := newLab(t, sleeper)
	l.running()
	exit, out, errOut := l.exec(machine.ExecRequest{Argv: []string{"sh", "-c", "seq 1 20000; echo the last words >&2; exit 1"}, Capture: 40}, "")
	if exit.Code != 1 || out != "" || errOut != "" {
		t.Errorf("%+v, %q, %q", exit, out, errOut)
	}
	if got := string(exit.Output); len(got) != 40 || !strings.HasSuffix(got, "19999\n20000\nthe last words\n") {
		t.Errorf("captured %q", got)
	}
	exit, _, _ = l.exec(machine.ExecRequest{Argv: []string{"sh", "-c", "echo before; sleep 1000"}, Capture: 4096, Timeout: 300 * time.Millisecond}, "")
	if !exit.TimedOut || string(exit.Output) != "before\n" {
		t.Errorf("%+v, output %q", exit, exit.Output)
	}
}

func TestClosingAnExecKillsIt(t *testing.T) {
	l := newLab(t, sleeper)
	l.running()
	e, err := l.conn.Exec(t.Context(), machine.ExecRequest{Argv: []string{"sh", "-c", "echo $$; exec sleep 1000"}})
	if err != nil {
		t.Fatal(err)
	}
	out := &lines{from: e.Stdout()}
	pid := out.next(t)
	e.Close()
	n, _ := strconv.Atoi(pid)
	wait(t, func() bool { return unix.Kill(n, 0) == unix.ESRCH })
}

// wait waits until something that nobody announces is so.
func wait(t *testing.T, so func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !so(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("waited in vain")
		}
	}
}

func TestAnotherHostTakesOver(t *testing.T) {
	l := startAgent(t)
	l.connect(guest.Options{Boot: protocol.Boot{Process: sleeper}, Answer: 200 * time.Millisecond})
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
	for _, name := range []string{protocol.ControlPort, protocol.BulkPort} {
		l.cable.host[name].Close() // the agent's read fails
	}
	l.conn.Close()
	l.cable.plug(t, protocol.BulkPort)
	l.cable.plug(t, protocol.ControlPort)
	l.connect(guest.Options{Boot: protocol.Boot{Process: machine.Process{Argv: []string{"not", "this"}}}})
	l.running() // the same program
	if exit, out, _ := l.sh("echo still here"); exit.Code != 0 || out != "still here\n" {
		t.Errorf("%+v, %q", exit, out)
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
