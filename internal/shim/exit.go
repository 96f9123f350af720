package shim

import (
	"fmt"
	"strings"
	"time"

	"github.com/halevm/hale/internal/machine"
)

// How much an Exit carries of the console, and of anybody's words, in bytes. In JSON they may be six times as long, and the daemon reads no
// more than maxExitFile of what is recorded.
const (
	maxConsole = 4 << 10
	maxMessage = 4 << 10
)

// facts is what a shim has seen of its machine by the time the hypervisor is gone.
type facts struct {
	killed      bool          // Kill was asked for, or an orderly stop took too long
	stopping    bool          // Stop was asked for
	hello       bool          // the agent said HELLO
	bootTimeout time.Duration // not zero: no HELLO came within it, or
	bootHello   bool          // one came, and the program was not started within as long from there
	bootSeen    string        // what the machine was found doing then
	diskFull    bool          // the machine stood still then, for want of room on the host's disk
	started     bool          // the program has been started
	failed      string        // the program could not be started, and why
	program     *program
	guestDown   bool   // the guest powered itself off or reset
	linkFailed  string // something of the shim's own could not go on (network, files), and why
	vmmError    string // the hypervisor ended with an error: its words
	vmmSignal   string // the hypervisor was killed by this signal, and not by us
	console     string // the console's last bytes
}

// program is how the image's program ended.
type program struct {
	code    int
	signal  string
	oom     bool
	message string
}

// panicMark is what Linux prints first when it panics.
const panicMark = "Kernel panic - not syncing"

// exit decides how the machine ended. What was asked for comes first, then what the program said, then what the
// console says, and at last the hypervisor: each explains those after it.
func (f facts) exit(now time.Time) machine.Exit {
	e := machine.Exit{Time: now}
	if p := f.program; p != nil {
		e.Code, e.Signal, e.OOM = &p.code, p.signal, p.oom
	}
	switch {
	case f.killed:
		e.Reason, e.Message = machine.Killed, "killed"
	case f.stopping && f.vmmSignal == "" && f.vmmError == "":
		e.Reason, e.Message = machine.Stopped, "stopped"
		if f.program != nil {
			e.Message += ", " + f.program.say()
		}
	case f.failed != "":
		e.Reason, e.Message = machine.ProgramFailed, f.failed
	case f.program != nil:
		e.Reason, e.Message = machine.ProgramExited, f.program.say()
	case strings.Contains(f.console, panicMark):
		e.Reason, e.Message, e.Console = machine.GuestPanic, panicLine(f.console), lastOf(f.console)
	case f.bootTimeout != 0:
		e.Reason, e.Console = machine.BootTimeout, lastOf(f.console)
		e.Message = fmt.Sprintf("the guest did not come up within %v", f.bootTimeout)
		if f.bootHello {
			e.Message = fmt.Sprintf("the guest agent came up, and did not start the program within %v", f.bootTimeout)
		}
		switch {
		case f.diskFull:
			e.Message += ": the host's disk is full, and the machine stood still"
		case f.bootSeen != "":
			e.Message += ": " + f.bootSeen
		}
	case f.vmmSignal != "":
		e.Reason, e.Message = machine.VMMKilled, "the hypervisor was killed by "+f.vmmSignal
		if f.vmmError != "" { // what it said before: an assertion of its own that failed
			e.Message += ": " + f.vmmError
		}
	case f.guestDown:
		e.Reason, e.Message = machine.GuestShutdown, "the guest shut itself down"
		if !f.started {
			e.Message, e.Console = "the guest shut itself down before the program was started", lastOf(f.console)
		}
	case f.linkFailed != "" && f.vmmError == "":
		e.Reason, e.Message = machine.ShimFailed, f.linkFailed
	default:
		e.Reason, e.Message, e.Console = machine.VMMFailed, "the hypervisor ended", lastOf(f.console)
		if f.vmmError != "" {
			e.Message += ": " + f.vmmError
		}
	}
	e.Message = e.Message[:min(len(e.Message), maxMessage)]
	switch e.Reason {
	case machine.GuestPanic, machine.BootTimeout, machine.GuestShutdown:
		e.Silent = !f.hello && !f.diskFull
	}
	return e
}

// say puts it into words.
func (p *program) say() string {
	var s string
	switch {
	case p.oom:
		s = "the program was killed for want of memory"
	case p.signal != "":
		s = "the program was ended by " + p.signal
	default:
		s = fmt.Sprintf("the program exited with code %d", p.code)
	}
	if p.message != "" {
		s += ": " + p.message
	}
	return s
}

// panicLine is the line in which the kernel says why.
func panicLine(console string) string {
	line := console[strings.Index(console, panicMark):]
	line, _, _ = strings.Cut(line, "\n")
	return strings.TrimSpace(line)
}

// lastOf cuts the console to its last whole lines.
func lastOf(console string) string {
	if len(console) <= maxConsole {
		return console
	}
	console = console[len(console)-maxConsole:]
	if i := strings.IndexByte(console, '\n'); i >= 0 {
		console = console[i+1:]
	}
	return console
}
