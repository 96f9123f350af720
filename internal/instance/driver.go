package instance

import (
	"context"
	"encoding/json"
	"io"
	"time"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/health"
	"github.com/halevm/hale/internal/machine"
)

// A Driver starts machines. The real one is internal/shim with internal/hypervisor/qemu; internal/instance/fake stands beside it
// for speed, and both pass the conformance test of internal/instance/drivertest.
type Driver interface {
	// Start starts the machine and returns once it has a process, long before it has booted. An error means that
	// nothing was left behind; an *api.Error among its causes (a published port in use, no room) is the caller's answer. ctx
	// bounds the call only.
	Start(ctx context.Context, c machine.Config) (Machine, error)
}

// A Recoverer finds machines that outlived the daemon. It is an ability of a Driver; without it a machine ends with its daemon.
type Recoverer interface {
	// Recover takes back the machine that was started with c. Its notices begin with what it said before. An error of
	// kind api.NotFound: it is gone, and an *Ended among its causes says how. Any other error: nobody knows.
	Recover(ctx context.Context, c machine.Config) (Machine, error)
}

// A Killer ends machines that Recover does not take back, by what was recorded of them. It is an ability of a Recoverer.
type Killer interface {
	// Kill ends the machine that was started with c, and returns how it ended once it is gone. An error of kind api.NotFound is Recover's.
	Kill(ctx context.Context, c machine.Config) (machine.Exit, error)
}

// Ended is Recover's error for a machine that ended while no daemon watched.
type Ended struct{ Exit machine.Exit }

func (e *Ended) Error() string { return "the machine has ended: " + string(e.Exit.Reason) }

// Unwrap makes it a thing that is not there.
func (e *Ended) Unwrap() error { return api.NotFound }

// A Machine is one run of an instance, from Start to its exit. Its methods may be called from any goroutine, also after the exit.
type Machine interface {
	// Notices delivers what the machine says about itself, in order; the channel is closed after Exited.
	Notices() <-chan machine.Notice
	// Stop asks the guest to end in an orderly way: stop signal to the program, the grace period, kill, sync, power off.
	// It returns when the guest was asked; the exit comes as a notice. Without an agent it is an error, and the caller kills.
	Stop(ctx context.Context, grace time.Duration) error
	// Kill ends the machine at once, and returns when it is gone or ctx is done.
	Kill(ctx context.Context) error
}

// The following are abilities that a Machine may have; they are found by assertion where they are asked for.

// An Execer runs programs in the guest. An error of kind api.InvalidState: no agent (yet).
type Execer interface {
	Exec(ctx context.Context, r machine.ExecRequest) (Exec, error)
}

// An Exec is a program that runs in the guest. Close kills it if it still runs, and frees everything.
type Exec interface {
	Stdin() io.WriteCloser // Close is end of file
	Stdout() io.Reader     // with a TTY, everything
	Stderr() io.Reader
	Resize(ctx context.Context, rows, cols uint16) error
	Signal(ctx context.Context, name string) error
	// Wait returns when the program has ended and its output was read or Close was called.
	Wait(ctx context.Context) (machine.ExecExit, error)
	Close() error
}

// A Stater looks at paths in the guest.
type Stater interface {
	Stat(ctx context.Context, path string, followLinks bool) (machine.FileInfo, error)
}

// A Prober asks the workload once whether it is well. It never returns an error: what went wrong is in the result. It calls started,
// once at most, when what costs CPU to begin is over, if it knows; started does not wait.
type Prober interface {
	Probe(ctx context.Context, p health.Policy, started func()) health.Result
}

// A Watcher has the guest's agent tell of one port, as notices of kind machine.Hinted; 0: of none. Watch waits for nothing, and may be
// called again at will.
type Watcher interface {
	Watch(port uint16)
}

// A Meter tells what a machine uses now.
type Meter interface {
	Stats(ctx context.Context) (machine.Stats, error)
}

// A PortLister tells which host ports its published ports got (for those that asked for a free one).
type PortLister interface {
	Ports() []machine.Port
}

// Images finds images that are ready to run; internal/daemon adapts internal/image to it.
type Images interface {
	// Image returns the image that ref names. Errors: api.NotFound, or an *api.Error of kind api.NotReady with code
	// image_not_ready while it is being converted.
	Image(ctx context.Context, ref string) (Image, error)
}

// An Image is what an instance needs of one.
type Image struct {
	Ref        string   `json:"ref"`                // normalised
	Digest     string   `json:"digest"`             // sha256:…, of the manifest
	Disk       string   `json:"disk"`               // absolute path of the read-only ext4
	Platform   string   `json:"platform,omitempty"` // "linux/amd64"
	Entrypoint []string `json:"entrypoint,omitempty"`
	Cmd        []string `json:"cmd,omitempty"`
	Env        []string `json:"env,omitempty"` // KEY=value
	WorkingDir string   `json:"working_dir,omitempty"`
	User       string   `json:"user,omitempty"`
	StopSignal string   `json:"stop_signal,omitempty"`
	// Healthcheck is the image's HEALTHCHECK as its configuration has it, and Shell what its CMD-SHELL runs through: what an update
	// of the check goes back to.
	Healthcheck json.RawMessage `json:"healthcheck,omitempty"`
	Shell       []string        `json:"shell,omitempty"`
}
