package pid1

import (
	"fmt"
	"log/slog"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/halevm/hale/internal/guest/protocol"
)

// A Machine is the guest that this process is the first of. It prepares itself from the moment it is made.
type Machine struct {
	log      *slog.Logger
	prepared chan struct{} // closed when the root is the image's, or failed is set
	failed   error
	modules  modules
	upper    *os.File // the writable layer's file system, by its root directory
	phases   phases   // until prepared is closed, that goroutine's
}

func newMachine(log *slog.Logger, p phases, kernel modules) *Machine {
	m := &Machine{log: log, prepared: make(chan struct{}), phases: p, modules: kernel}
	go func() {
		defer close(m.prepared)
		defer func() {
			if v := recover(); v != nil {
				m.failed = fmt.Errorf("panic: %v", v)
			}
		}()
		m.failed = m.enterRoot()
		m.phases.reached("root")
	}()
	return m
}

// Boot makes the machine what b says.
func (m *Machine) Boot(b protocol.Boot) error {
	<-m.prepared
	if m.failed != nil {
		return m.failed
	}
	m.phases.reached("configuration")
	if err := setHostname(b.Hostname); err != nil {
		return err
	}
	if err := setNetwork(b.Network); err != nil {
		return fmt.Errorf("network: %w", err)
	}
	if err := writeNames(b); err != nil {
		return err
	}
	setSysctls(m.log)
	m.phases.reached("network")
	m.log.Info("prepared", m.phases...)
	return nil
}

// Settle does what the program need not wait for.
func (m *Machine) Settle() {
	if err := m.modules.load(modulesLate); err != nil {
		m.log.Warn("the kernel's modules", "err", err)
	}
	if err := m.modules.drop(); err != nil {
		m.log.Warn("the kernel's modules stay in memory", "err", err)
	}
}

// clockTolerance is what a clock may be off before it is set: a step costs programs more than a millisecond's error.
const clockTolerance = time.Millisecond

// SetClock sets the time of day.
func (m *Machine) SetClock(t time.Time) error {
	off := time.Until(t)
	if off.Abs() < clockTolerance {
		return nil
	}
	ts := unix.NsecToTimespec(t.UnixNano())
	if err := unix.ClockSettime(unix.CLOCK_REALTIME, &ts); err != nil {
		return os.NewSyscallError("clock_settime", err)
	}
	if off.Abs() > time.Second {
		m.log.Info("the clock was set", "by", off.Round(time.Millisecond))
	}
	return nil
}

// setSysctls makes of the kernel what images expect of one: Docker sets the same.
func setSysctls(log *slog.Logger) {
	for path, value := range map[string]string{
		"/proc/sys/net/ipv4/ip_unprivileged_port_start": "0", // a server that is not root may have port 80
		"/proc/sys/net/ipv4/ping_group_range":           "0 2147483647",
	} {
		if err := os.WriteFile(path, []byte(value), 0); err != nil {
			log.Warn("a setting of the kernel", "err", err)
		}
	}
}
