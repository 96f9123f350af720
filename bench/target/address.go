// Package target is what the benches' probers ask: servers on addresses of the loopback, many of them in one process, each of
// which can be told to be well, to be silent, to be full, or to be gone.
package target

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// An Address is one of the loopback's.
type Address struct {
	IP   [4]byte
	Port uint16
	TLS  bool
}

func (a Address) String() string { return fmt.Sprintf("%s:%d", a.Host(), a.Port) }

// Host is the address without the port.
func (a Address) Host() string { return fmt.Sprintf("%d.%d.%d.%d", a.IP[0], a.IP[1], a.IP[2], a.IP[3]) }

// Addresses returns n addresses of their own, all with one port. Nets keeps those of several servers apart.
func Addresses(net byte, port uint16, n int) []Address {
	list := make([]Address, n)
	for i := range list {
		list[i] = Address{IP: [4]byte{127, net, byte(i / 250), byte(1 + i%250)}, Port: port}
	}
	return list
}

// Uptime is a clock that all processes share: the time since the host booted.
func Uptime() time.Duration {
	var ts unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // cannot fail
	return time.Duration(ts.Nano())
}

// RaiseFiles lets this process have as many files open as it may.
func RaiseFiles() error {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return err
	}
	l.Cur = l.Max
	return unix.Setrlimit(unix.RLIMIT_NOFILE, &l)
}
