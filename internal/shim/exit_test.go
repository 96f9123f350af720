package shim

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	guestprotocol "github.com/halevm/hale/internal/guest/protocol"
	"github.com/halevm/hale/internal/machine"
)

func TestExit(t *testing.T) {
	ended := func(code int) *program { return &program{code: code} }
	for _, c := range []struct {
		name    string
		facts   facts
		reason  machine.Reason
		message string
		code    int // -1: none
		console bool
	}{
		{"program ends", facts{started: true, program: ended(3), guestDown: true}, machine.ProgramExited, "the program exited with code 3", 3, false},
		{"program dies of a signal", facts{started: true, program: &program{code: 139, signal: "SIGSEGV"}, guestDown: true}, machine.ProgramExited, "the program was ended by SIGSEGV", 139, false},
		{"program is killed for want of memory", facts{started: true, program: &program{code: 137, signal: "SIGKILL", oom: true}}, machine.ProgramExited, "the program was killed for want of memory", 137, false},
		{"program cannot start", facts{failed: "no such file: /nope", program: ended(127)}, machine.ProgramFailed, "no such file: /nope", 127, false},
		{"stopped", facts{started: true, stopping: true, program: ended(0), guestDown: true}, machine.Stopped, "stopped, the program exited with code 0", 0, false},
		{"stopped before it began", facts{stopping: true, guestDown: true}, machine.Stopped, "stopped", -1, false},
		{"killed while stopping", facts{started: true, stopping: true, killed: true, program: ended(0)}, machine.Killed, "killed", 0, false},
		{"killed from outside while stopping", facts{started: true, stopping: true, vmmSignal: "SIGKILL"}, machine.VMMKilled, "the hypervisor was killed by SIGKILL", -1, false},
		{"panic", facts{started: true, guestDown: true, console: "x\n[ 1.0] Kernel panic - not syncing: sysrq triggered crash\ny"}, machine.GuestPanic, "Kernel panic - not syncing: sysrq triggered crash", -1, true},
		{"a panic that comes after the program's end", facts{started: true, program: ended(0), console: panicMark}, machine.ProgramExited, "the program exited with code 0", 0, false},
		{"no boot", facts{bootTimeout: time.Minute, console: "stuck"}, machine.BootTimeout, "the guest did not come up within 1m0s", -1, true},
		{"killed by somebody", facts{started: true, vmmSignal: "SIGKILL"}, machine.VMMKilled, "the hypervisor was killed by SIGKILL", -1, false},
		{"an assertion of its own", facts{started: true, vmmSignal: "SIGABRT", vmmError: "Assertion `x' failed."}, machine.VMMKilled, "the hypervisor was killed by SIGABRT: Assertion `x' failed.", -1, false},
		{"guest powers off", facts{started: true, guestDown: true}, machine.GuestShutdown, "the guest shut itself down", -1, false},
		{"hypervisor fails", facts{vmmError: "exit code 1: no such device"}, machine.VMMFailed, "the hypervisor ended: exit code 1: no such device", -1, true},
		{"ours", facts{started: true, linkFailed: "the network ended"}, machine.ShimFailed, "the network ended", -1, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			now := time.Unix(1000, 0)
			if c.console && c.facts.console == "" {
				c.facts.console = "last words"
			}
			e := c.facts.exit(now)
			if e.Reason != c.reason || e.Message != c.message || !e.Time.Equal(now) {
				t.Errorf("got %s %q at %v", e.Reason, e.Message, e.Time)
			}
			if code := codeOf(e); code != c.code {
				t.Errorf("code %d, want %d", code, c.code)
			}
			if (e.Console != "") != c.console {
				t.Errorf("console %q", e.Console)
			}
		})
	}
}

func codeOf(e machine.Exit) int {
	if e.Code == nil {
		return -1
	}
	return *e.Code
}

func TestConsoleIsCutAtALine(t *testing.T) {
	long := strings.Repeat("0123456789\n", 1000)
	got := lastOf(long)
	if len(got) > maxConsole || !strings.HasPrefix(got, "0123456789\n") {
		t.Errorf("%d bytes, beginning with %q", len(got), got[:12])
	}
}

// What a guest and a hypervisor say last never makes the record too long to be read.
func TestExitCanBeRead(t *testing.T) {
	long := strings.Repeat("\x01", 2*maxConsole)
	for name, f := range map[string]facts{
		"a panic that a program made up": {guestDown: true, console: panicMark + long[len(panicMark):]},
		"a hypervisor that talks":        {vmmError: long, vmmSignal: "SIGABRT", console: long},
		"a boot that was looked at":      {bootTimeout: time.Second, bootSeen: strings.Repeat(long, 10), console: long},
	} {
		d := &runDir{path: t.TempDir()}
		want := f.exit(time.Now())
		b, err := json.Marshal(want)
		if err == nil {
			err = os.Mkdir(filepath.Join(d.path, runDirName), 0o700)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(d.path, exitName), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := d.exit(record{}); got.Reason != want.Reason {
			t.Errorf("%s: %d bytes are read as %s, not %s", name, len(b), got.Reason, want.Reason)
		}
	}
}

// A shim that the host kept from running finds a machine that is gone, and what was said last still to be heard.
func TestLastWords(t *testing.T) {
	exited := guestprotocol.State{Booted: true, Started: true, Exited: &guestprotocol.Exited{Code: 3}}
	for name, c := range map[string]struct {
		says  guestprotocol.State
		guest bool // the hypervisor said that the guest ended it
		want  machine.Reason
	}{
		"the agent's":      {exited, true, machine.ProgramExited},
		"the hypervisor's": {guestprotocol.State{Booted: true, Started: true}, true, machine.GuestShutdown},
		"nobody's":         {guestprotocol.State{Booted: true, Started: true}, false, machine.VMMFailed},
	} {
		t.Run(name, func(t *testing.T) {
			r, vm, control := puppeteer(t, time.Minute)
			vm.exit.Guest = c.guest
			said := make(chan struct{})
			go func() {
				defer close(said)
				defer vm.Kill()
				hello, err := guestprotocol.NewReader(control).Next()
				welcome, err2 := guestprotocol.JSON(guestprotocol.TypeWelcome, hello.Session, guestprotocol.Welcome{Version: guestprotocol.Version, State: c.says})
				if err := errors.Join(err, err2); err != nil {
					t.Error(err)
					return
				}
				control.Write(guestprotocol.AppendFrame(nil, welcome))
			}()
			r.finish(facts{started: true})
			<-said
			if _, exit := r.told(); exit.Reason != c.want || c.want == machine.ProgramExited && (exit.Code == nil || *exit.Code != 3) {
				t.Errorf("it ended with %+v", exit)
			}
		})
	}
}
