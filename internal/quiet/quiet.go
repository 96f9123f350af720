// Package quiet reads and writes without Go's scheduler hearing of it. Before an ordinary system call the scheduler is told, so that it can
// give the processor to another goroutine should the call take long; and the first such call after a rest wakes its monitor, a thread that
// then looks around for a while before it sleeps again. For a process that does one small thing a second the monitor costs as much as
// the thing. A call that cannot block needs none of it.
package quiet

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Conn is a connection over a socket of the kernel's. Where there is nothing to be read, and no room to write to, it waits as any other.
type Conn struct {
	net.Conn
	raw     syscall.RawConn
	in, out half

	patience time.Duration // of a write that finds no room; 0: it has no end, or a deadline of its own
}

// A half is one direction, with what its call under way is about.
type half struct {
	mu   sync.Mutex
	b    []byte
	n    int
	errn unix.Errno
	try  func(fd uintptr) bool // made once: a closure for each call would be garbage
}

// New returns conn as a Conn. conn is not to be read or written otherwise; everything else is as it was.
func New(conn interface {
	net.Conn
	syscall.Conn
}) (*Conn, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	c := &Conn{Conn: conn, raw: raw}
	c.in.try, c.out.try = c.in.read, c.write
	return c, nil
}

// Read implements net.Conn.
func (c *Conn) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	c.in.begin(b)
	n, err := c.in.end("read", c.raw.Read(c.in.try))
	if n == 0 && err == nil {
		err = io.EOF
	}
	return n, err
}

// Write implements net.Conn.
func (c *Conn) Write(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	c.out.begin(b)
	return c.out.end("write", c.raw.Write(c.out.try))
}

// WriteWithin is Write that waits no longer than d for room, which most need not: no timer is set for those.
func (c *Conn) WriteWithin(b []byte, d time.Duration) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	c.out.begin(b)
	c.patience = d
	err := c.raw.Write(c.out.try)
	if c.patience == 0 { // it waited
		c.Conn.SetWriteDeadline(time.Time{})
	}
	c.patience = 0
	return c.out.end("write", err)
}

func (h *half) begin(b []byte) {
	h.mu.Lock()
	h.b, h.n, h.errn = b, 0, 0
}

func (h *half) end(name string, err error) (int, error) {
	defer h.mu.Unlock()
	h.b = nil // it is the caller's
	if err == nil && h.errn != 0 {
		err = os.NewSyscallError(name, h.errn)
	}
	return h.n, err
}

func (h *half) read(fd uintptr) bool {
	h.n, h.errn = call(unix.SYS_READ, fd, h.b, 0)
	return h.errn != unix.EAGAIN
}

// write writes all of it, in as many calls as the socket's room takes.
func (c *Conn) write(fd uintptr) bool {
	h := &c.out
	for h.n < len(h.b) {
		n, errn := call(unix.SYS_WRITE, fd, h.b[h.n:], 0)
		h.n += n
		if h.errn = errn; errn == unix.EAGAIN {
			if c.patience > 0 {
				c.Conn.SetWriteDeadline(time.Now().Add(c.patience))
				c.patience = 0
			}
			return false
		}
		if errn != 0 {
			return true
		}
	}
	return true
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
