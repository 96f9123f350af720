// Package hypervisor holds what a virtual machine is made of, as data, and the small interface of whoever runs one.
// internal/hypervisor/qemu is the one driver there is. The package knows no instance, no image and no policy.
package hypervisor

import (
	"context"
	"errors"
	"os"
	"time"
)

// An Accel is how the guest's code is run.
type Accel string

// The accelerators.
const (
	KVM Accel = "kvm"
	TCG Accel = "tcg" // software emulation
)

// A Config is one virtual machine. The number and order of its devices follow from it and from which Files there are.
type Config struct {
	Name    string // for the process list
	Accel   Accel
	VCPUs   int
	Memory  int64  // bytes, whole MiB
	Cmdline string // added to what the driver needs itself
	MAC     string // of the network card, where Files.Net is given
	MTU     int    // bytes; 0 is 1500
}

// Files are the hypervisor's ends of everything it is connected to. The driver does not close them. All but Net are required.
type Files struct {
	Net     *os.File // frames: a length of four bytes, big-endian, and an Ethernet frame
	Control *os.File // the agent's control port
	Bulk    *os.File // the agent's bulk port
	Output  *os.File // the program's output
	Console *os.File // the serial console
	Lower   *os.File // the image's disk, read-only
	Upper   *os.File // the writable layer's disk
	Kernel  *os.File // an uncompressed kernel with a PVH note, or a bzImage; a file that the hypervisor's uid may open to read
	Initrd  *os.File // likewise
}

// Close closes all that are open.
func (f Files) Close() error {
	var errs []error
	for _, f := range []*os.File{f.Net, f.Control, f.Bulk, f.Output, f.Console, f.Lower, f.Upper, f.Kernel, f.Initrd} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// An Event is something that a virtual machine did.
type Event struct {
	Kind  EventKind
	Guest bool // the guest did it, rather than somebody on the host
	Time  time.Time
}

// EventKind says what.
type EventKind string

// The events.
const (
	ShutDown EventKind = "shutdown" // it powered off
	Reset    EventKind = "reset"    // it rebooted, which ends it
	Panicked EventKind = "panicked" // its kernel told the board that it panicked

	NoSpace EventKind = "no_space" // a write found no space on the host's disk: the guest is stopped, and Resume tries the write again

	ControlOpened EventKind = "control_opened" // somebody in the guest opened the agent's control port
	ControlClosed EventKind = "control_closed" // or closed it, or lost it
)

// An Exit is how the hypervisor's process ended. Guest is the guest's doing; Signal and Error are the host's; with none of
// the three it was the driver's Kill.
type Exit struct {
	Guest  bool   // the guest ended it: it powered off, or reset
	Code   int    // the process's exit code; -1 where a signal ended it
	Signal string // "SIGKILL", "SIGTERM": the signal that ended it, unless Kill sent it
	Error  string // its own words, where it ended with an error or at somebody's signal
}

// A VM is one virtual machine. Its methods may be called from any goroutine.
type VM interface {
	PID() int
	// Events delivers what the machine did, and is closed with its end. Nothing waits for its reader.
	Events() <-chan Event
	// Done is closed when the process is gone and everything that it said has been read.
	Done() <-chan struct{}
	// Wait waits for Done and says how it ended.
	Wait() Exit
	// Kill ends the process at once and returns when it is gone.
	Kill() error
	// Pause and Resume stop and continue the guest.
	Pause() error
	Resume() error
}

// A Looker is a VM that can be looked at while its guest runs, or hangs.
type Looker interface {
	// Look says what the machine is doing: line in a few words, and all that there is to know of it, for a log. What could not be
	// learnt is said in its place.
	Look(ctx context.Context) (line, all string)
}
