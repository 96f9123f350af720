// Package quiet reads and writes a socket without the rest of the process, and the host, hearing more of it than they must. For a process
// that does one small thing a second what surrounds a call costs as much as the thing.
//
// Before an ordinary system call Go's scheduler is told, so that it can give the processor to another goroutine should the call take
// long; and the first such call after a rest wakes its monitor, a thread that then looks around for a while before it sleeps again. A
// call that cannot block needs none of it, and is made on the spot.
//
// And Go's poller wants to hear of everything that happens to a socket: each time the peer has read what was written the process is
// woken, to learn that there is room, which nobody asked. So a Conn is not the poller's. It has an epoll instance of its own, which knows of
// what can be read alone, and that is what the poller looks at; another one is for room, and is asked while somebody waits for it.
package quiet

import (
	"cmp"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Conn is a stream socket of the kernel's, as a net.Conn.
type Conn struct {
	fd            int
	local, remote net.Addr

	in, out  half
	ready    *events       // that there is something to be read
	room     *events       // that there is room; asked while somebody waits for it. It is made in time: a write must not fail for want of a descriptor
	patience time.Duration // of the write under way, should it find no room; 0: as the deadline says

	mu      sync.Mutex // of what follows
	closed  bool
	writeBy time.Time // the deadline of writes, for room to come; SetWriteDeadline's
}

// A half is one direction, with what its call under way is about.
type half struct {
	mu   sync.Mutex // one call at a time; and the descriptor is not closed meanwhile
	b    []byte
	n    int
	errn unix.Errno
	try  func(uintptr) bool // made once: a closure for each call would be garbage
}

// New makes a Conn of a connection, which is the Conn's from then on. Where this fails, for want of descriptors as a rule, the connection is
// as it was, and does the same at a higher price.
func New(conn *net.UnixConn) (*Conn, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	c := &Conn{local: conn.LocalAddr(), remote: conn.RemoteAddr()}
	c.in.try, c.out.try = c.read, c.write
	var dup error
	err = raw.Control(func(fd uintptr) { c.fd, dup = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 3) })
	if err = errors.Join(err, os.NewSyscallError("fcntl", dup)); err != nil {
		return nil, err
	}
	if c.ready, err = newEvents(c.fd, unix.EPOLLIN); err != nil {
		unix.Close(c.fd)
		return nil, err
	}
	if c.room, err = newEvents(c.fd, 0); err != nil {
		c.ready.Close()
		unix.Close(c.fd)
		return nil, err
	}
	conn.Close() // the socket leaves the poller
	return c, nil
}

// Read implements net.Conn.
func (c *Conn) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	h := &c.in
	h.begin(b)
	defer h.end()
	err := c.ready.raw.Read(h.try)
	if err = c.result("read", h.errn, err); err == nil && h.n == 0 {
		err = io.EOF
	}
	return h.n, err
}

func (c *Conn) read(uintptr) bool {
	h := &c.in
	h.n, h.errn = call(unix.SYS_READ, uintptr(c.fd), h.b, 0)
	return h.errn != unix.EAGAIN
}

// Write implements net.Conn.
func (c *Conn) Write(b []byte) (int, error) { return c.WriteWithin(b, 0) }

// WriteWithin is Write that waits no longer than d for room, whatever the deadline; 0: as that says. Most need not wait, and no timer is set
// for those.
func (c *Conn) WriteWithin(b []byte, d time.Duration) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	h := &c.out
	h.begin(b)
	defer h.end()
	if err := c.opened(); err != nil {
		return 0, err
	}
	if c.write(0) {
		return h.n, c.result("write", h.errn, nil)
	}
	c.patience = d
	err := c.awaitRoom()
	if err == nil {
		err = c.room.raw.Read(h.try)
		c.room.arm(c.fd, 0)
	}
	c.patience = 0
	return h.n, c.result("write", h.errn, err)
}

// write writes all of it, in as many calls as the socket's room takes.
func (c *Conn) write(uintptr) bool {
	h := &c.out
	for h.n < len(h.b) {
		n, errn := call(unix.SYS_WRITE, uintptr(c.fd), h.b[h.n:], 0)
		h.n += n
		if h.errn = errn; errn == unix.EAGAIN {
			c.room.arm(c.fd, unix.EPOLLOUT) // it fails where it was closed, and so does the wait then
			return false
		}
		if errn != 0 {
			return true
		}
	}
	return true
}

// awaitRoom sets until when a write waits.
func (c *Conn) awaitRoom() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	by := c.writeBy
	if c.patience > 0 {
		by = time.Now().Add(c.patience)
	}
	return c.room.SetReadDeadline(by)
}

func (c *Conn) opened() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	return nil
}

func (h *half) begin(b []byte) {
	h.mu.Lock()
	h.b, h.n, h.errn = b, 0, 0
}

func (h *half) end() {
	h.b = nil // it is the caller's
	h.mu.Unlock()
}

// result is what a call comes to whose wait has ended with err.
func (c *Conn) result(name string, errn unix.Errno, err error) error {
	if err != nil {
		return cmp.Or(c.opened(), err)
	}
	if errn != 0 {
		return os.NewSyscallError(name, errn)
	}
	return nil
}

// Close ends it. A Read or Write that waits fails with net.ErrClosed.
func (c *Conn) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return net.ErrClosed
	}
	c.closed = true
	c.mu.Unlock()
	c.ready.Close() // it waits for who waits
	c.room.Close()
	c.in.mu.Lock()
	defer c.in.mu.Unlock()
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	return os.NewSyscallError("close", unix.Close(c.fd))
}

// CloseRead has reads find the end.
func (c *Conn) CloseRead() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	return os.NewSyscallError("shutdown", unix.Shutdown(c.fd, unix.SHUT_RD))
}

// LocalAddr implements net.Conn.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr implements net.Conn.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline implements net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.ready.SetReadDeadline(t) }

// SetWriteDeadline implements net.Conn. A write that need not wait does not heed it.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writeBy = t
	return c.room.SetReadDeadline(t)
}

// events are an epoll instance that knows of one socket. As a file it can be read while something is so.
type events struct {
	*os.File
	raw syscall.RawConn
}

// newEvents is about what of fd's; 0: nothing, until arm is called.
func newEvents(fd int, what uint32) (*events, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err = unix.SetNonblock(epoll, true); err == nil { // os.NewFile has the poller look at it then
		err = unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: what})
	}
	if err != nil {
		unix.Close(epoll)
		return nil, os.NewSyscallError("epoll_ctl", err)
	}
	e := &events{File: os.NewFile(uintptr(epoll), "epoll")}
	if e.raw, err = e.SyscallConn(); err != nil {
		e.Close()
		return nil, err
	}
	return e, nil
}

// arm changes what it is about.
func (e *events) arm(fd int, what uint32) (err error) {
	cerr := e.raw.Control(func(epoll uintptr) {
		err = unix.EpollCtl(int(epoll), unix.EPOLL_CTL_MOD, fd, &unix.EpollEvent{Events: what})
	})
	return errors.Join(cerr, err)
}

// ReadAt reads once what a file holds from offset on, without waiting for a disk: it is for the kernel's own files, as those of /proc are.
// At the end of the file it returns 0 and no error.
func ReadAt(fd uintptr, b []byte, offset int64) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	n, errn := call(unix.SYS_PREAD64, fd, b, offset)
	if errn != 0 {
		return 0, os.NewSyscallError("pread", errn)
	}
	return n, nil
}

func call(number, fd uintptr, b []byte, offset int64) (int, unix.Errno) {
	for {
		n, _, errn := unix.RawSyscall6(number, fd, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), uintptr(offset), 0, 0)
		switch errn {
		case 0:
			return int(n), 0
		case unix.EINTR:
		default:
			return 0, errn
		}
	}
}
