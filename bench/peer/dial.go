package peer

import (
	"context"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/halevm/hale/bench/target"
)

// dial opens a connection with the system calls that it takes, and no more: net.Dialer would resolve, race and watch, which nobody
// asked for here.
func dial(ctx context.Context, a target.Address) (net.Conn, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	lateAck(fd)
	to := unix.RawSockaddrInet4{Family: unix.AF_INET, Port: a.Port<<8 | a.Port>>8, Addr: a.IP}
	connect := func() unix.Errno {
		_, e := call(unix.SYS_CONNECT, fd, unsafe.Pointer(&to), unix.SizeofSockaddrInet4)
		return e
	}
	e := connect()
	if e == unix.EINPROGRESS {
		e = connect() // on the loopback it is done by now, or it waits for the other end
	}
	if e != 0 && e != unix.EALREADY {
		unix.Close(fd)
		return nil, os.NewSyscallError("connect", e)
	}
	c := &conn{fd: fd, to: a}
	if e == unix.EALREADY {
		if err := c.connected(ctx); err != nil {
			c.Close()
			return nil, err
		}
	}
	return c, nil
}

// lateAck has the request go with the last packet of the handshake, as HAProxy has it too.
func lateAck(fd int) {
	off := int32(0)
	unix.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK, uintptr(unsafe.Pointer(&off)), unsafe.Sizeof(off), 0)
}

// call makes a system call about a descriptor that never waits, and which Go's scheduler therefore need not hear of, as package quiet has
// it in the product.
func call(number uintptr, fd int, b unsafe.Pointer, size int) (int, unix.Errno) {
	n, _, e := unix.RawSyscall(number, uintptr(fd), uintptr(b), uintptr(size))
	return int(n), e
}

// A conn is a socket, whose calls never wait: what has to waits for the poller. os.File would do, but it asks what it was given, watches
// it for both directions from the first moment to the last, and has a finalizer, which together are a tenth of what a probe costs.
// One goroutine reads and one writes at a time.
type conn struct {
	fd    int
	to    target.Address
	asked bool // it was read from

	mu      sync.Mutex
	ways    [2]way // to be read, and to be written
	watched bool
	late    bool // its deadline has passed
	closed  bool
	timer   *time.Timer
}

const (
	readable = iota
	writable
)

// A way is one direction.
type way struct {
	happened bool
	waits    chan struct{} // closed when something happens; nil: nobody waits
}

// connected waits until a connection is open.
func (c *conn) connected(ctx context.Context) error {
	if until, ok := ctx.Deadline(); ok {
		c.SetDeadline(until)
	}
	defer context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })()
	if err := c.wait(writable); err != nil {
		return err
	}
	n, err := unix.GetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && n != 0 {
		err = unix.Errno(n)
	}
	return os.NewSyscallError("connect", err)
}

// wait returns when something happened to the connection in a direction since the last wait, or its time is over.
func (c *conn) wait(direction int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.watched {
		c.watched = true
		if err := thePoller().watch(c); err != nil {
			return err
		}
	}
	for w := &c.ways[direction]; ; {
		switch {
		case c.closed:
			return os.ErrClosed
		case c.late:
			return os.ErrDeadlineExceeded
		case w.happened:
			w.happened = false
			return nil
		}
		waits := make(chan struct{})
		w.waits = waits
		c.mu.Unlock()
		<-waits
		c.mu.Lock()
	}
}

// wake ends a wait, or the next one.
func (c *conn) wake(direction int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wakeLocked(direction)
}

func (c *conn) wakeLocked(direction int) {
	w := &c.ways[direction]
	w.happened = true
	if w.waits != nil {
		close(w.waits)
		w.waits = nil
	}
}

// Read is net.Conn's. An answer is never there yet when it is first waited for. So whoever else is to run does first, with another
// request as a rule, and often it is there after that.
func (c *conn) Read(b []byte) (int, error) {
	if !c.asked {
		c.asked = true
		runtime.Gosched()
	}
	for {
		n, e := call(unix.SYS_READ, c.fd, unsafe.Pointer(unsafe.SliceData(b)), len(b))
		switch {
		case e == unix.EAGAIN:
			if err := c.wait(readable); err != nil {
				return 0, err
			}
		case e == unix.EINTR:
		case e != 0:
			return 0, os.NewSyscallError("read", e)
		case n == 0 && len(b) > 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

// Write is net.Conn's.
func (c *conn) Write(b []byte) (done int, err error) {
	for done < len(b) {
		n, e := call(unix.SYS_WRITE, c.fd, unsafe.Pointer(&b[done]), len(b)-done)
		switch e {
		case 0:
			done += n
		case unix.EINTR:
		case unix.EAGAIN:
			if err := c.wait(writable); err != nil {
				return done, err
			}
		default:
			return done, os.NewSyscallError("write", e)
		}
	}
	return done, nil
}

// Close is net.Conn's.
func (c *conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return os.ErrClosed
	}
	c.closed = true
	if c.timer != nil {
		c.timer.Stop()
	}
	if c.watched {
		thePoller().forget(c.fd)
	}
	c.wakeLocked(readable)
	c.wakeLocked(writable)
	if _, e := call(unix.SYS_CLOSE, c.fd, nil, 0); e != 0 {
		return os.NewSyscallError("close", e)
	}
	return nil
}

// SetDeadline is net.Conn's.
func (c *conn) SetDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timer != nil {
		c.timer.Stop()
	}
	c.late = false
	switch d := time.Until(t); {
	case t.IsZero():
	case d > 0:
		c.timer = time.AfterFunc(d, c.expire)
	default:
		c.late = true
		c.wakeLocked(readable)
		c.wakeLocked(writable)
	}
	return nil
}

func (c *conn) expire() { c.SetDeadline(time.Unix(1, 0)) }

// SetReadDeadline is net.Conn's, as it is used here.
func (c *conn) SetReadDeadline(t time.Time) error { return c.SetDeadline(t) }

// SetWriteDeadline is the same.
func (c *conn) SetWriteDeadline(t time.Time) error { return c.SetDeadline(t) }

// LocalAddr is nobody's business.
func (c *conn) LocalAddr() net.Addr { return nil }

// RemoteAddr is net.Conn's.
func (c *conn) RemoteAddr() net.Addr { return &net.TCPAddr{IP: c.to.IP[:], Port: int(c.to.Port)} }

// SetLinger is *net.TCPConn's.
func (c *conn) SetLinger(seconds int) error {
	return unix.SetsockoptLinger(c.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: int32(seconds)})
}
