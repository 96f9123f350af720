package peer

import (
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/halevm/hale/bench/target"
)

// newFloor is what the system calls themselves cost: one thread that connects, writes, reads and closes, one target after the other
// at an even pace, with nothing around it. Nothing could watch anything with it: one target that does not answer stops all.
func newFloor(c Config) (watcher, error) {
	w := new(counts)
	to := make([]unix.SockaddrInet4, len(c.Targets))
	requests := make([][]byte, len(c.Targets))
	for i, a := range c.Targets {
		to[i] = unix.SockaddrInet4{Addr: a.IP, Port: int(a.Port)}
		requests[i] = fmt.Appendf(nil, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", a)
	}
	go func() {
		runtime.LockOSThread()
		answer := make([]byte, 4<<10)
		gap := c.Interval / time.Duration(len(to))
		for next := target.Uptime(); ; next += gap {
			at := unix.NsecToTimespec(int64(next))
			for unix.ClockNanosleep(unix.CLOCK_MONOTONIC, unix.TIMER_ABSTIME, &at, nil) == unix.EINTR {
			}
			i := int(w.probes.Load()) % len(to)
			w.count(exchange(&to[i], requests[i], answer) == nil)
		}
	}()
	return w, nil
}

func exchange(to unix.Sockaddr, request, answer []byte) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, to); err != nil {
		return err
	}
	if _, err := unix.Write(fd, request); err != nil {
		return err
	}
	n, err := unix.Read(fd, answer)
	if err == nil && (n < 12 || string(answer[:12]) != "HTTP/1.1 200") {
		err = fmt.Errorf("it answers %q", answer[:n])
	}
	return err
}
