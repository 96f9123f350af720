package peer

import (
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A poller waits for many connections at a time, through an epoll descriptor of its own that Go's waits for: it is looked at once for
// all that happened.
type poller struct {
	fd int

	mu    sync.Mutex
	conns map[int32]*conn
}

var thePoller = sync.OnceValue(func() *poller {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		panic(os.NewSyscallError("epoll_create1", err))
	}
	p := &poller{fd: fd, conns: map[int32]*conn{}}
	if err := unix.SetNonblock(fd, true); err != nil { // so that os takes it for one that can be waited for
		panic(os.NewSyscallError("fcntl", err))
	}
	raw, err := os.NewFile(uintptr(fd), "epoll").SyscallConn()
	if err != nil {
		panic(err)
	}
	go raw.Read(func(uintptr) bool {
		p.look()
		return false
	})
	return p
})

// watch wakes a connection at whatever happens to it from now on, and at what has happened already.
func (p *poller) watch(c *conn) error {
	p.mu.Lock()
	p.conns[int32(c.fd)] = c
	p.mu.Unlock()
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(p.fd, unix.EPOLL_CTL_ADD, c.fd, &unix.EpollEvent{
		Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET&0xffffffff, Fd: int32(c.fd),
	}))
}

// forget is called before the connection is closed, which takes it from the epoll descriptor.
func (p *poller) forget(fd int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, int32(fd))
}

// look wakes those to whom something happened.
func (p *poller) look() {
	var events [128]unix.EpollEvent
	for {
		count, _, e := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.fd), uintptr(unsafe.Pointer(&events)), uintptr(len(events)), 0, 0, 0) // as in dial.go
		n := int(count)
		if e != 0 || n == 0 {
			return
		}
		var conns [len(events)]*conn
		p.mu.Lock()
		for i, e := range events[:n] {
			conns[i] = p.conns[e.Fd]
		}
		p.mu.Unlock()
		for i, e := range events[:n] {
			c := conns[i]
			if c == nil {
				continue
			}
			if e.Events&^unix.EPOLLOUT != 0 {
				c.wake(readable)
			}
			if e.Events&^(unix.EPOLLIN|unix.EPOLLRDHUP) != 0 {
				c.wake(writable)
			}
		}
	}
}
