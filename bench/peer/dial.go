package peer

import (
	"context"
	"io"
	"net"
	"os"
	"sync"
	"time"

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
	to := unix.SockaddrInet4{Addr: a.IP, Port: int(a.Port)}
	err = unix.Connect(fd, &to)
	if err == unix.EINPROGRESS {
		err = unix.Connect(fd, &to) // on the loopback it is done by now, or it waits for the other end
	}
	if err != nil && err != unix.EALREADY {
		unix.Close(fd)
		return nil, os.NewSyscallError("connect", err)
	}
	c := &conn{fd: fd, to: a}
	if err == unix.EALREADY {
		if err := c.connected(ctx); err != nil {
			c.Close()
			return nil, err
		}
	}
	return c, nil
}

// lateAck has the request go with the last packet of the handshake, as HAProxy has it too.
func lateAck(fd int) { unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_QUICKACK, 0) }

// A conn is a socket, whose calls never wait: what has to waits for the poller. os.File would do, but it asks what it was given, watches
// it for both directions from the first moment to the last, and has a finalizer, which together are a tenth of what a probe costs.
// One goroutine reads and one writes at a time.
type conn struct {
	fd int
	to target.Address

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

// Read is net.Conn's. An answer is never there yet when it is first waited for, so that is not tried.
func (c *conn) Read(b []byte) (int, error) {
	for {
		c.mu.Lock()
		first := !c.watched
		c.mu.Unlock()
		if !first {
			n, err := unix.Read(c.fd, b)
			switch {
			case err == unix.EAGAIN || err == unix.EINTR:
			case err != nil:
				return 0, os.NewSyscallError("read", err)
			case n == 0 && len(b) > 0:
				return 0, io.EOF
			default:
				return n, nil
			}
		}
		if err := c.wait(readable); err != nil {
			return 0, err
		}
	}
}

// Write is net.Conn's.
func (c *conn) Write(b []byte) (done int, err error) {
	for done < len(b) {
		n, err := unix.Write(c.fd, b[done:])
		switch {
		case err == nil:
			done += n
		case err == unix.EAGAIN || err == unix.EINTR:
			if err := c.wait(writable); err != nil {
				return done, err
			}
		default:
			return done, os.NewSyscallError("write", err)
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
	return os.NewSyscallError("close", unix.Close(c.fd))
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
