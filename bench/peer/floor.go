package peer

import (
	"fmt"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/halevm/hale/bench/target"
)

// floorBeat is how often the floor wakes: as late as hale's timers may be.
const floorBeat = 10 * time.Millisecond

// A floor is what the system calls themselves cost: one thread that at each beat connects and writes to whatever is due, and reads and
// closes what it began at the beat before. It makes no other calls, waits for nothing else, and Go's scheduler is told of none but the
// sleep. Nothing could watch anything with it: it knows nothing of when an answer came.
type floor struct {
	counts
	config   Config
	to       []unix.RawSockaddrInet4
	requests [][]byte
	answer   [4 << 10]byte
	open     []floorConn
}

type floorConn struct {
	fd    uintptr
	until time.Duration
}

func newFloor(c Config) (watcher, error) {
	f := &floor{config: c, to: make([]unix.RawSockaddrInet4, len(c.Targets)), requests: make([][]byte, len(c.Targets))}
	for i, a := range c.Targets {
		f.to[i] = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: a.Port<<8 | a.Port>>8, Addr: a.IP}
		f.requests[i] = fmt.Appendf(nil, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", a)
	}
	go f.run()
	return f, nil
}

func (f *floor) run() {
	runtime.LockOSThread()
	began, gap := target.Uptime(), f.config.Interval/time.Duration(len(f.to))
	begun := 0
	for next := began; ; next += floorBeat {
		at := unix.NsecToTimespec(int64(next))
		for unix.ClockNanosleep(unix.CLOCK_MONOTONIC, unix.TIMER_ABSTIME, &at, nil) == unix.EINTR {
		}
		now := target.Uptime()
		f.finish(now)
		for ; began+time.Duration(begun)*gap <= now; begun++ {
			if !f.begin(begun%len(f.to), now) {
				f.count(false)
			}
		}
	}
}

// begin connects to a target and asks it; false: it does not take the request at once.
func (f *floor) begin(i int, now time.Duration) bool {
	fd, _, e := unix.RawSyscall(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if e != 0 {
		return false
	}
	off, to, request := int32(0), &f.to[i], f.requests[i]
	unix.RawSyscall6(unix.SYS_SETSOCKOPT, fd, unix.IPPROTO_TCP, unix.TCP_QUICKACK, uintptr(unsafe.Pointer(&off)), unsafe.Sizeof(off), 0) // as dial has it
	if _, _, e = unix.RawSyscall(unix.SYS_CONNECT, fd, uintptr(unsafe.Pointer(to)), unsafe.Sizeof(*to)); e == 0 || e == unix.EINPROGRESS {
		_, _, e = unix.RawSyscall(unix.SYS_WRITE, fd, uintptr(unsafe.Pointer(&request[0])), uintptr(len(request))) // on the loopback it is open by now
	}
	if e != 0 {
		unix.RawSyscall(unix.SYS_CLOSE, fd, 0, 0)
		return false
	}
	f.open = append(f.open, floorConn{fd, now + f.config.Timeout})
	return true
}

// finish reads the answers that have come, and closes what they came from.
func (f *floor) finish(now time.Duration) {
	left := f.open[:0]
	for _, c := range f.open {
		n, _, e := unix.RawSyscall(unix.SYS_READ, c.fd, uintptr(unsafe.Pointer(&f.answer)), unsafe.Sizeof(f.answer))
		if e == unix.EAGAIN && now < c.until {
			left = append(left, c)
			continue
		}
		unix.RawSyscall(unix.SYS_CLOSE, c.fd, 0, 0)
		f.count(e == 0 && n >= 12 && string(f.answer[:12]) == "HTTP/1.1 200")
	}
	f.open = left
}
