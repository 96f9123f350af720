package peer

import (
	"context"
	"errors"
	"net"
	"os"
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
	c := &conn{File: os.NewFile(uintptr(fd), ""), to: a}
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

// connected waits until a connection is open.
func (c *conn) connected(ctx context.Context) error {
	if until, ok := ctx.Deadline(); ok {
		c.SetWriteDeadline(until)
	}
	defer context.AfterFunc(ctx, func() { c.SetWriteDeadline(time.Unix(1, 0)) })()
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	first, failed := true, error(nil)
	err = raw.Write(func(fd uintptr) bool {
		if first {
			first = false
			return false // wait for the socket to turn writable
		}
		n, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		if err != nil {
			failed = err
		} else if n != 0 {
			failed = unix.Errno(n)
		}
		return true
	})
	return errors.Join(err, os.NewSyscallError("connect", failed))
}

// A conn is a socket. What a probe needs of net.Conn the file has.
type conn struct {
	*os.File
	to target.Address
}

func (c *conn) LocalAddr() net.Addr  { return nil }
func (c *conn) RemoteAddr() net.Addr { return &net.TCPAddr{IP: c.to.IP[:], Port: int(c.to.Port)} }

func (c *conn) SetLinger(seconds int) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: int32(seconds)})
	})
	return errors.Join(err, failed)
}
