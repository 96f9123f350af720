package agent

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/halevm/hale/internal/guest"
	"github.com/halevm/hale/internal/guest/protocol"
	"github.com/halevm/hale/internal/machine"
)

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
