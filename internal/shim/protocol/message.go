package protocol

import (
	"encoding/json"
	"errors"
	"net/netip"
	"time"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/machine"
)

// Versions of the protocol that this build speaks.
const (
	MinVersion = 1
	MaxVersion = 3
)

// From version 2 on a shim sends notices of kind machine.Told, which a daemon of before takes for a shim that is broken, and the
// stdin of an exec has credit. From version 3 on it says that a probe has begun, and sends notices of kind machine.Hinted, which would be
// no better understood.
const (
	VersionTold   = 2
	VersionCredit = 2
	VersionBegun  = 3
	VersionHinted = 3
)

// A Role is what a connection is for.
type Role string

// The roles.
const (
	RoleControl Role = "control"
	RoleExec    Role = "exec"
)

// Hello is the client's first frame.
type Hello struct {
	MinVersion int                  `json:"min_version"`
	MaxVersion int                  `json:"max_version"`
	Secret     string               `json:"secret"`
	Role       Role                 `json:"role"`
	Exec       *machine.ExecRequest `json:"exec,omitempty"` // for RoleExec
}

// Welcome is the shim's answer. With an Error the connection ends.
type Welcome struct {
	Version int    `json:"version"` // the one that is spoken from here on
	Build   string `json:"build"`   // of the shim's binary
	PID     int    `json:"pid"`
	VMM     int    `json:"vmm"` // pid of the hypervisor
	Error   *Error `json:"error,omitempty"`
}

// The methods of a control connection.
const (
	MethodStop  = "stop"  // Stop → nothing; the exit comes as a notice
	MethodKill  = "kill"  // nothing → nothing; the exit comes as a notice
	MethodStat  = "stat"  // Stat → machine.FileInfo
	MethodProbe = "probe" // Probe → health.Result
	MethodStats = "stats" // nothing → machine.Stats
	MethodPorts = "ports" // nothing → []machine.Port
	MethodWatch = "watch" // Watch → nothing; what there is to say comes as notices
)

// A Request asks for one thing.
type Request struct {
	ID     uint64          `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params,omitempty"`
}

// A Reply answers the request of its id.
type Reply struct {
	ID     uint64          `json:"id"`
	Result json.RawMessage `json:"result,omitempty"`
	Error  *Error          `json:"error,omitempty"`
}

// A Begun says of a probe that is under way that what costs CPU to begin is over: the TLS handshake is done, or the guest's agent says
// that the command runs. It comes before the Reply, once at most, and not for every probe.
type Begun struct {
	ID uint64 `json:"id"`
}

// A Cancel takes a request back; it is still answered, and not before nothing is left of what it asked for.
type Cancel struct {
	ID uint64 `json:"id"`
}

// Stop asks the guest to end in an orderly way.
type Stop struct {
	Grace time.Duration `json:"grace"`
}

// Stat asks for a path in the guest.
type Stat struct {
	Path        string `json:"path"`
	FollowLinks bool   `json:"follow_links"`
}

// Probe asks for one probe.
type Probe struct {
	Policy json.RawMessage `json:"policy"` // a health.Policy
}

// Watch names the one port of the guest whose beginning and ceasing to be listened on is told; 0: none is.
type Watch struct {
	Port uint16 `json:"port"`
}

// ExecControl changes a running exec: its terminal's size, or a signal for it.
type ExecControl struct {
	Rows   uint16 `json:"rows,omitempty"`
	Cols   uint16 `json:"cols,omitempty"`
	Signal string `json:"signal,omitempty"`
}

// ExecCredit lets so many more bytes of stdin be sent; at first none may.
type ExecCredit struct {
	Bytes int `json:"bytes"`
}

// ExecEnd is the last frame of an exec connection.
type ExecEnd struct {
	Exit  machine.ExecExit `json:"exit"`
	Error *Error           `json:"error,omitempty"` // the program's fate is not known
}

// An Error crosses the socket with its kind.
type Error struct {
	Kind    api.Kind `json:"kind"`
	Message string   `json:"message"`
}

func (e *Error) Error() string { return e.Message }

// Unwrap makes errors.Is(err, api.NotFound) read the same on both sides of the socket.
func (e *Error) Unwrap() error { return e.Kind }

// ErrorOf turns err into one that can be sent; nil stays nil.
func ErrorOf(err error) *Error {
	if err == nil {
		return nil
	}
	kind := api.Internal
	errors.As(err, &kind)
	return &Error{Kind: kind, Message: err.Error()}
}

// A Config is what the daemon hands to a new shim on its standard input, as one JSON document. Descriptors are named
// by their number in the shim.
type Config struct {
	Machine machine.Config `json:"machine"`
	Secret  string         `json:"secret"`
	Build   string         `json:"build"`

	QEMU    string  `json:"qemu"`  // path of the binary
	Accel   string  `json:"accel"` // "kvm" or "tcg"
	Sandbox Sandbox `json:"sandbox"`

	KernelFD  int        `json:"kernel_fd"`
	InitrdFD  int        `json:"initrd_fd"`
	LowerFD   int        `json:"lower_fd"`
	UpperFD   int        `json:"upper_fd"`
	ReadyFD   int        `json:"ready_fd"` // the shim writes one Ready and closes it
	Listeners []Listener `json:"listeners,omitempty"`

	Gateway      netip.Addr    `json:"gateway,omitzero"`
	BootDeadline time.Duration `json:"boot_deadline"`
}

// A Sandbox is what the shim and its hypervisor are shut in with.
type Sandbox struct {
	UID        uint32 `json:"uid,omitempty"` // of the machine's own; 0: the daemon's
	Namespaces bool   `json:"namespaces"`    // the shim has a user namespace, and its hypervisor gets an empty network
	Landlock   bool   `json:"landlock"`
	Seccomp    bool   `json:"seccomp"`
}

// A Listener is a published port that the daemon has bound.
type Listener struct {
	FD   int          `json:"fd"`
	Port machine.Port `json:"port"`
}

// Ready is the shim's word that the machine has a process and the socket is there, or why not.
type Ready struct {
	VMM   int    `json:"vmm,omitempty"`
	Error *Error `json:"error,omitempty"`
}
