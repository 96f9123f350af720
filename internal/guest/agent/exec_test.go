package agent

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"github.com/halevm/hale/internal/machine"
)

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

// A command that looks at its terminal at once finds the size that was asked for.
func TestATerminalHasItsSizeFromTheStart(t *testing.T) {
	e := &execution{r: machine.ExecRequest{TTY: true}, rows: 30, cols: 90}
	w := new(wires)
	if err := w.makeTerminal(e, &command{id: identity{uid: uint32(os.Getuid())}}); err != nil {
		t.Fatal(err)
	}
	defer w.terminal.Close()
	defer w.closeTheirs()
	if rows, cols, err := pty.Getsize(w.child[0]); rows != 30 || cols != 90 || err != nil {
		t.Errorf("%d by %d, %v", rows, cols, err)
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
	exit, out, _ := l.exec(machine.ExecRequest{Argv: []string{"sh", "-c", "sleep 1000 & echo $!; sleep 1000"}, Timeout: patience}, "")
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

// What even a kill does not reach, here a child in a session of its own where there are no cgroups, and holds the output open: the end is
// not put off by it.
func TestAChildThatEscapesHoldsNothingUp(t *testing.T) {
	l := newLab(t, sleeper)
	l.running()
	began := time.Now()
	exit, _, _ := l.exec(machine.ExecRequest{Argv: []string{"sh", "-c",
		`setsid sleep 60 & p=$!; until [ "$(cut -d" " -f6 /proc/$p/stat)" = $p ]; do sleep 0.01; done; echo $p`}, Capture: 4096}, "")
	took := time.Since(began)
	pid, err := strconv.Atoi(strings.TrimSpace(string(exit.Output)))
	if err != nil {
		t.Fatalf("%+v, output %q", exit, exit.Output)
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Errorf("it did not escape: %v", err)
	}
	if exit.Code != 0 || took > limit/2 {
		t.Errorf("%+v after %v", exit, took)
	}
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
	exit, _, _ = l.exec(machine.ExecRequest{Argv: []string{"sh", "-c", "echo before; sleep 1000"}, Capture: 4096, Timeout: patience}, "")
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

// A check that is killed from outside answers with what it wrote.
func TestACheckThatIsKilledAnswers(t *testing.T) {
	l := newLab(t, sleeper)
	l.running()
	e, err := l.conn.Exec(t.Context(), machine.ExecRequest{Argv: []string{"sh", "-c", "echo before; sleep 1000"}, Capture: 4096})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	wait(t, func() bool { return childSleeps(t) }) // it has written
	if err := e.Signal(t.Context(), "SIGKILL"); err != nil {
		t.Fatal(err)
	}
	exit, err := e.Wait(t.Context())
	if err != nil || exit.Signal != "SIGKILL" || exit.TimedOut || exit.Lingering || string(exit.Output) != "before\n" {
		t.Errorf("%+v, %v, output %q", exit, err, exit.Output)
	}
}

// childSleeps reports whether this process has a grandchild that is `sleep 1000` under a shell.
func childSleeps(t *testing.T) bool {
	out, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range out {
		cmd, _ := os.ReadFile("/proc/" + d.Name() + "/cmdline")
		stat, _ := os.ReadFile("/proc/" + d.Name() + "/stat")
		f := strings.Fields(string(stat))
		if string(cmd) != "sleep\x001000\x00" || len(f) < 4 {
			continue
		}
		parent, _ := os.ReadFile("/proc/" + f[3] + "/stat")
		if p := strings.Fields(string(parent)); len(p) > 3 && p[3] == strconv.Itoa(os.Getpid()) && p[1] == "(sh)" {
			return true
		}
	}
	return false
}

// Output without end is bounded, and what a command prints last is what is kept.
func TestEndlessOutputIsBounded(t *testing.T) {
	l := newLab(t, sleeper)
	l.running()
	exit, _, _ := l.exec(machine.ExecRequest{Argv: []string{"sh", "-c", "yes & yes >&2"}, Capture: 4096, Timeout: patience}, "")
	if !exit.TimedOut || len(exit.Output) != 4096 || strings.Trim(string(exit.Output), "y\n") != "" {
		t.Errorf("%+v", exit)
	}
}

// One check at a time: not before all of the one before is gone, and the next one says so. Other commands go on.
func TestOneCheckAtATime(t *testing.T) {
	l := newLab(t, sleeper)
	l.running()
	hangs, err := l.conn.Exec(t.Context(), machine.ExecRequest{Argv: []string{"sleep", "1000"}, Capture: 4096})
	if err != nil {
		t.Fatal(err)
	}
	check := machine.ExecRequest{Argv: []string{"echo", "well"}, Capture: 4096}
	exit, _, _ := l.exec(check, "")
	if exit.Code != 126 || !exit.Lingering || !strings.Contains(exit.Error, "what an earlier check started is still there") || len(exit.Output) > 0 {
		t.Errorf("beside another: %+v", exit)
	}
	if exit, out, _ := l.sh("echo a person"); exit.Code != 0 || out != "a person\n" {
		t.Errorf("a person's: %+v, %q", exit, out)
	}
	hangs.Close()
	if exit, _, _ := l.exec(check, ""); exit.Code != 0 || string(exit.Output) != "well\n" {
		t.Errorf("after it was killed: %+v", exit)
	}
}

// An exec is answered when its command runs.
func TestAnExecIsAnsweredWhenItRuns(t *testing.T) {
	l := newLab(t, sleeper)
	l.running()
	e, err := l.conn.Exec(t.Context(), machine.ExecRequest{Argv: []string{"sleep", "4711"}, Capture: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	children, err := os.ReadFile("/proc/self/task/" + strconv.Itoa(os.Getpid()) + "/children")
	if err != nil {
		t.Skip("this kernel does not list children")
	}
	runs := false
	tasks, _ := os.ReadDir("/proc/self/task")
	for _, task := range tasks { // a child belongs to the thread that made it
		b, _ := os.ReadFile("/proc/self/task/" + task.Name() + "/children")
		children = append(children, b...)
	}
	for _, pid := range strings.Fields(string(children)) {
		cmd, _ := os.ReadFile("/proc/" + pid + "/cmdline")
		runs = runs || string(cmd) == "sleep\x004711\x00"
	}
	if !runs {
		t.Error("it was answered before its command ran")
	}
}
