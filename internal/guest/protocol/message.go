package protocol

import (
	"encoding/json"
	"net/netip"
	"time"

	"github.com/halevm/hale/internal/machine"
)

// Version is the version of the messages in this package. A higher one understands every lower one; unknown fields and
// unknown types are ignored by both ends, so it changes only when ignoring them would be wrong.
const Version = 1

// The names of the virtio-serial ports, as the guest finds them in /sys/class/virtio-ports/*/name.
const (
	ControlPort = "hale.control" // Hello, requests, replies, state: small and never delayed by a stream
	BulkPort    = "hale.bulk"    // data of exec streams
	OutputPort  = "hale.output"  // the program's stdout and stderr, raw
)

// Bounds that both ends keep.
const (
	MaxPayload = 256 << 10 // bytes of one frame's payload
	MaxExecs   = 64        // execs at one time in one guest
	MaxCapture = 64 << 10  // bytes of output that come with an exec's exit
)

// A Hello begins a session. Its frame carries the session's number, which the host draws at random; every frame of either
// direction carries it from then on, and others are dropped. A Hello with the number of the session in force is only
// answered again, so a host may repeat it until it is answered.
type Hello struct {
	Version int `json:"version"`
	// Again asks whether a session that was answered before is still in force: where it is not, nothing is begun and
	// nothing answered.
	Again bool `json:"again,omitempty"`
}

// A Welcome answers a Hello. A host that was there before learns from State where the machine is.
type Welcome struct {
	Version int    `json:"version"`
	Agent   string `json:"agent,omitempty"` // the agent's build, for a log
	State   State  `json:"state"`
}

// A State is where the machine is. The guest sends it whole whenever it changes, until the host has acknowledged an end.
type State struct {
	Booted  bool    `json:"booted"`            // Boot was received
	Started bool    `json:"started"`           // the program has been started
	Failed  *Failed `json:"failed,omitempty"`  // the program could not be started, or the machine not be prepared for it
	Exited  *Exited `json:"exited,omitempty"`  // the program has ended
	Written uint64  `json:"written,omitempty"` // with Failed or Exited: bytes that were written to the output port
}

// Ended reports whether the machine has nothing left to do but to power off.
func (s State) Ended() bool { return s.Failed != nil || s.Exited != nil }

// Failed says why the program could not be started.
type Failed struct {
	Code    int    `json:"code"` // 126: not executable, or no such user or directory; 127: not found
	Message string `json:"message"`
}

// Exited says how the program ended.
type Exited struct {
	Code    int    `json:"code"` // 128+n for signal n
	Signal  string `json:"signal,omitempty"`
	OOM     bool   `json:"oom,omitempty"`
	Message string `json:"message,omitempty"` // anything more that a person should know
}

// A Clock sets the guest's clock. It follows each Welcome that began a session: a Hello may have waited in a buffer for
// as long as the guest took to boot, so it cannot carry the time itself.
type Clock struct {
	Time time.Time `json:"time"`
}

// An Op is what a Request asks for.
type Op string

// The operations, with the types of their bodies and results.
const (
	OpBoot     Op = "boot"     // Boot → nothing; how it went comes as State
	OpExec     Op = "exec"     // ExecStart → nothing, when the command runs or cannot; how it went comes as ExecExited
	OpResize   Op = "resize"   // ExecResize → nothing
	OpSignal   Op = "signal"   // ExecSignal → nothing
	OpClose    Op = "close"    // ExecClose → nothing
	OpStat     Op = "stat"     // Stat → machine.FileInfo
	OpEnding   Op = "ending"   // nothing → Ending; an agent of before does not know it
	OpShutdown Op = "shutdown" // Shutdown → nothing; the end comes as State
)

// A Request asks the agent for something.
type Request struct {
	ID   uint64          `json:"id"`
	Op   Op              `json:"op"`
	Body json.RawMessage `json:"body,omitempty"`
}

// A Reply answers the Request of the same ID, in any order.
type Reply struct {
	ID    uint64          `json:"id"`
	Error string          `json:"error,omitempty"` // one line for a person; "": done
	Body  json.RawMessage `json:"body,omitempty"`
}

// A Boot is the machine's configuration.
type Boot struct {
	Process  machine.Process `json:"process"`
	Hostname string          `json:"hostname"`
	Network  *Network        `json:"network,omitempty"` // nil: loopback only
}

// A Network is the guest's own address, and the gateway that is its nameserver too.
type Network struct {
	Addr    netip.Prefix `json:"addr"`
	Gateway netip.Addr   `json:"gateway"`
}

// An ExecStart starts a command. Its streams are those that StreamID names.
type ExecStart struct {
	Exec    uint32              `json:"exec"` // chosen by the host, unique in the session
	Request machine.ExecRequest `json:"request"`
}

// An ExecResize sets the size of a command's terminal.
type ExecResize struct {
	Exec uint32 `json:"exec"`
	Rows uint16 `json:"rows"`
	Cols uint16 `json:"cols"`
}

// An ExecSignal sends a signal to a command's process group, as a terminal would; SIGKILL kills its cgroup.
type ExecSignal struct {
	Exec   uint32 `json:"exec"`
	Signal string `json:"signal"` // "SIGINT", "INT" or "2"
}

// An ExecClose kills a command that still runs and forgets its streams.
type ExecClose struct {
	Exec uint32 `json:"exec"`
}

// An ExecExited says how a command ended. Data of its streams may still follow on the bulk port, up to their ends.
type ExecExited struct {
	Exec uint32           `json:"exec"`
	Exit machine.ExecExit `json:"exit"`
}

// A Stat asks about a path.
type Stat struct {
	Path        string `json:"path"`
	FollowLinks bool   `json:"follow_links,omitempty"`
}

// Ending says whether the program has ended, or is about to: its connections are closed before anybody can be told of its end.
type Ending struct {
	Ending bool `json:"ending"`
}

// A Shutdown asks for an orderly end: the stop signal, the grace period, the kill, sync, power off.
type Shutdown struct {
	Grace time.Duration `json:"grace"`
}

// A Watch names the one port, with the guest's own address, that the host wants to hear of; the zero value is none. The
// last one holds, until the session ends. An agent of before does not know it, and says nothing.
type Watch struct {
	Addr netip.AddrPort `json:"addr,omitzero"`
}

// A Listening says where the port of the last Watch is listened on by TCP: once after the Watch, and whenever it changes.
type Listening struct {
	Port  uint16 `json:"port"`
	Where Where  `json:"where"`
}

// A Where is where a port is listened on.
type Where string

// The places. A host takes what it does not know for Nowhere.
const (
	Nowhere  Where = "nowhere"  // not where the guest's own address leads to, nor on loopback
	Loopback Where = "loopback" // on a loopback address only: a connection to the guest's own is refused
	Open     Where = "open"     // on the guest's own address, or on every address
)
