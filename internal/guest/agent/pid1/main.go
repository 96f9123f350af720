// Package pid1 makes the guest agent the first process of a machine: modules, mounts, the root file system from the two
// disks, network, clock, the ports to the host, and the end of it all.
//
// It begins in an initramfs that holds /init (this program) and /modules, where order and late name the kernel's modules in the
// order of loading. The disks are found by their serials, the ports by their names. Everything that does not need the
// host's word is done while that is awaited; [Machine.Boot] does the rest.
//
// The package is the only one that must not be run anywhere but in a guest. It does not know how programs are run.
package pid1

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/halevm/hale/internal/guest/agent"
	"github.com/halevm/hale/internal/version"
)

// The agent shares the guest's memory with the program: its heap is some hundred kilobytes, so a garbage collection is
// cheap, and the soft limit only matters for the host's largest requests.
const (
	gcPercent   = 50
	memoryLimit = 32 << 20
)

// insideGrace is from the stop signal to the kill when the machine's end was asked for from inside (poweroff and the like
// send PID 1 a signal).
const insideGrace = 10 * time.Second

// Main is the life of a machine. It does not return.
func Main() {
	var boot phases
	boot.reached("init")
	debug.SetGCPercent(gcPercent)
	debug.SetMemoryLimit(memoryLimit)
	syscall.Umask(0o022)
	signals := make(chan os.Signal, 16)
	// Without this, Go ends a program on some of them, and the end of PID 1 is a panic of the kernel. They are not
	// ignored, which the program would inherit.
	signal.Notify(signals, unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGABRT, unix.SIGTERM,
		unix.SIGUSR1, unix.SIGUSR2, unix.SIGPWR)
	err := mountEarly()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{ReplaceAttr: withoutTime}))
	if err != nil {
		log.Error("the first mounts", "err", err)
	}
	setLimits(log)
	boot.reached("mounts")
	kernel, err := openModules(modulesDir)
	if err == nil {
		err = kernel.load(modulesNow)
	}
	if err != nil {
		log.Error("the kernel's modules", "err", err) // what is missing for it is said where it is missed
	}
	boot.reached("modules")
	m := newMachine(log, boot, kernel)
	ports := newPorts()
	a := agent.New(agent.Config{
		Open: ports.open, Machine: m, Cgroups: cgroupMount, Init: true, Build: version.String(), Log: log,
	})
	go func() {
		for s := range signals {
			switch s {
			case unix.SIGHUP, unix.SIGQUIT, unix.SIGABRT:
			default:
				log.Info("asked to end from inside", "signal", s)
				a.Shutdown(insideGrace)
			}
		}
	}()
	a.Run(context.Background())
	m.PowerOff() // not reached: the agent ends with the machine
}

// withoutTime leaves out what the console's reader adds, and what is wrong before the clock has been set.
func withoutTime(_ []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}

// setLimits gives programs the limits that they have under Docker; the kernel's own for PID 1 are for another century.
func setLimits(log *slog.Logger) {
	for resource, l := range map[int]unix.Rlimit{
		unix.RLIMIT_NOFILE: {Cur: 1024, Max: 512 << 10},
		unix.RLIMIT_NPROC:  {Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY},
		unix.RLIMIT_CORE:   {Cur: 0, Max: unix.RLIM_INFINITY},
	} {
		// Through syscall, which remembers that the descriptors' limit is not Go's own to raise in a child.
		if err := syscall.Setrlimit(resource, &syscall.Rlimit{Cur: l.Cur, Max: l.Max}); err != nil {
			log.Warn("a limit", "resource", resource, "err", err)
		}
	}
}
