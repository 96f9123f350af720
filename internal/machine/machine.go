// Package machine holds what a machine is, as data: what it is made from, how it ends, what can be asked of the
// program inside. The domain (internal/instance) and the drivers (internal/shim, internal/instance/fake) share these
// values and nothing else. It knows no process, no socket and no policy.
package machine

import (
	"log/slog"
	"net/netip"
	"time"

	"github.com/halevm/hale/internal/egress"
)

// A Config is everything a driver needs to start one machine.
type Config struct {
	ID       string // the instance's id, unique on this host
	Dir      string // the machine's own directory (instances/ID/vm), absolute; the driver may create files below it
	RootDisk string // the image's read-only ext4, absolute path
	VCPUs    int
	Memory   int64    // bytes
	Overlay  int64    // size of the writable layer in bytes; the file is sparse and kept from start to start
	Network  *Network // nil: no network
	Process  Process
	Hostname string
	// BootDeadline is the longest time from the machine's start to the agent's HELLO, and again from there to the program's
	// start. Zero: the driver's default (60 s under emulation, 20 s with KVM).
	BootDeadline time.Duration
}

// A Network is the machine's place in its own virtual network.
type Network struct {
	Addr  netip.Prefix // the guest's address with the length of its subnet
	MAC   string
	Ports []Port
	// Outbound says what the guest may reach outside. It holds from the machine's start to its end.
	Outbound egress.Policy
}

// A Port is a port of the guest that is published on the host. TCP only.
type Port struct {
	HostAddr  netip.Addr `json:"host_addr"` // where the host listens; loopback unless a person named another
	HostPort  uint16     `json:"host_port"` // 0 asks for a free one
	GuestPort uint16     `json:"guest_port"`
}

// A Process is the program of the image, resolved on the host from the image's config and the request.
type Process struct {
	Argv       []string `json:"argv"`        // entrypoint followed by cmd
	Env        []string `json:"env"`         // KEY=value
	Dir        string   `json:"dir"`         // "" is "/"
	User       string   `json:"user"`        // as in the image's config: name, uid, name:group, uid:gid; "" is root. Names are resolved in the guest.
	StopSignal string   `json:"stop_signal"` // "SIGTERM", "SIGQUIT", "15"; "" is SIGTERM
}

// MaxProcess bounds a Process or an ExecRequest, as JSON: it goes to the guest in one message, which has room for a little more.
const MaxProcess = 192 << 10

// A Notice is something a machine says about itself. The order is AgentReady, then Started, then exactly one Exited,
// which is the last; the first two may be missing. NetworkUp comes once at most, anywhere before Exited. Of Told and Hinted there may be
// any number, anywhere before Exited: each is said once, to whoever holds the machine then, and nothing follows from it.
type Notice struct {
	Kind    NoticeKind
	Time    time.Time
	Exit    Exit       // for Exited
	Level   slog.Level `json:",omitempty"` // for Told
	Message string     `json:",omitempty"` // for Told: one line

	Port      uint16 `json:",omitempty"` // for Hinted: the watched one
	Listening bool   `json:",omitempty"` // for Hinted
}

// NoticeKind says what happened.
type NoticeKind string

// The notices.
const (
	AgentReady NoticeKind = "agent_ready" // the guest agent said HELLO
	Started    NoticeKind = "started"     // the program has been started: the instance is Running
	Exited     NoticeKind = "exited"      // the machine is gone, with everything that belonged to it
	Told       NoticeKind = "told"        // a line for the instance's own log: Level and Message
	NetworkUp  NoticeKind = "network_up"  // a frame came from the guest, the first since its start
	Hinted     NoticeKind = "hinted"      // the guest says that the watched Port began (Listening) or ceased to be listened on
)

// Reason is why a machine is gone.
type Reason string

// The reasons. ProgramExited, ProgramFailed and GuestPanic, GuestShutdown and BootTimeout are the guest's doing (a
// person looks at their image); VMMFailed, VMMKilled, ShimDied, ShimFailed and
// DaemonStopped are the host's.
const (
	ProgramExited Reason = "program_exited" // the program ended by itself: Code or Signal says how
	ProgramFailed Reason = "program_failed" // the program could not be started: Message says why (Code is 126 or 127)
	Stopped       Reason = "stopped"        // asked to stop, in an orderly way; Code is the program's
	Killed        Reason = "killed"         // killed on request, or because an orderly stop took too long
	GuestPanic    Reason = "guest_panic"    // the guest's kernel panicked
	GuestShutdown Reason = "guest_shutdown" // the guest powered itself off or rebooted without saying why
	BootTimeout   Reason = "boot_timeout"   // no HELLO before the boot deadline, or no program started before the second
	VMMFailed     Reason = "vmm_failed"     // the hypervisor did not start, or ended with an error: Message has its words
	VMMKilled     Reason = "vmm_killed"     // the hypervisor was killed by a signal that was not ours
	ShimDied      Reason = "shim_died"      // the process beside the machine died, and took the machine down
	ShimFailed    Reason = "shim_failed"    // the process beside the machine could not do its work (network, disks, files)
	DaemonStopped Reason = "daemon_stopped" // the daemon stopped while it ran, and the machine was gone when it came back
)

// GuestFault reports whether the reason lies in the guest rather than in the host.
func (r Reason) GuestFault() bool {
	switch r {
	case ProgramExited, ProgramFailed, GuestPanic, GuestShutdown, BootTimeout:
		return true
	}
	return false
}

// An Exit is how a machine ended.
type Exit struct {
	Reason  Reason `json:"reason"`
	Code    *int   `json:"code,omitempty"`    // the program's exit code (128+n for signal n), where it is known
	Signal  string `json:"signal,omitempty"`  // "SIGKILL", where the program died of one
	Message string `json:"message,omitempty"` // one line for a person
	Console string `json:"console,omitempty"` // the console's last lines (at most 4 KiB), for a panic or a boot that failed
	OOM     bool   `json:"oom,omitempty"`     // the guest's kernel killed the program for want of memory
	// Silent says that the guest ended, or was given up, before its agent said HELLO: nothing of the image has run.
	Silent bool      `json:"silent,omitempty"`
	Time   time.Time `json:"time"`
}

// An ExecRequest asks the guest agent to run a program beside the image's own.
type ExecRequest struct {
	Argv    []string      `json:"argv"`
	Env     []string      `json:"env,omitempty"`  // KEY=value, added to the image's
	Dir     string        `json:"dir,omitempty"`  // "": the image's
	User    string        `json:"user,omitempty"` // "": the image's
	TTY     bool          `json:"tty,omitempty"`
	Rows    uint16        `json:"rows,omitempty"`
	Cols    uint16        `json:"cols,omitempty"`
	Timeout time.Duration `json:"timeout,omitempty"` // 0: none. At the end everything in its cgroup is killed.
	Stdin   bool          `json:"stdin,omitempty"`   // false: stdin is empty
	// Capture, when not zero, asks for no streams: the last Capture bytes of merged output come with the exit. A check
	// uses it, so that no stalled stream can delay it. At most 64 KiB.
	Capture int `json:"capture,omitempty"`
}

// An ExecExit is how an exec ended.
type ExecExit struct {
	Code     int           `json:"code"` // 128+n for signal n; 126 not executable, 127 not found, 124 timed out
	Signal   string        `json:"signal,omitempty"`
	TimedOut bool          `json:"timed_out,omitempty"`
	Error    string        `json:"error,omitempty"`  // why it could not be started: no such file, no such user
	Output   []byte        `json:"output,omitempty"` // with Capture
	Duration time.Duration `json:"duration"`
	// Lingering says that something of its cgroup was still there 5 s after it was killed.
	Lingering bool `json:"lingering,omitempty"`
}

// A FileInfo describes a path in the guest.
type FileInfo struct {
	Exists     bool   `json:"exists"`
	IsDir      bool   `json:"is_dir"`
	IsFile     bool   `json:"is_file"`
	IsSymlink  bool   `json:"is_symlink"`
	LinkTarget string `json:"link_target,omitempty"`
	Mode       uint32 `json:"mode"` // permission bits with setuid, setgid and sticky, as in stat(2)
	Size       int64  `json:"size"`
	Error      string `json:"error,omitempty"` // why it could not be looked at (permission, a loop of links)
}

// Stats is what a machine uses now.
type Stats struct {
	CPU         time.Duration // of the hypervisor's process, user and system
	RSS         int64         // bytes
	VMS         int64         // bytes
	RxBytes     int64         // into the guest; probes not counted
	TxBytes     int64
	Connections int // open through published ports
}
