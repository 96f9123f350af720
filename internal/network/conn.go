package network

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// smallBuffer is the send and receive buffer of each published connection of a machine that has many of them; leastReceive and leastSend
// are those of each connection that the guest began beside others. gVisor offers half of a receive buffer as its window.
const (
	smallBuffer  = 64 << 10
	manyConns    = 256
	leastReceive = 16 << 10
	leastSend    = 8 << 10
)

// ErrClosed is the error of a call on a Stack that was closed.
var ErrClosed = errors.New("the machine's network is closed")

// A Conn is a TCP connection to the guest: a net.Conn whose errors are the kernel's (syscall.ECONNREFUSED,
// syscall.ECONNRESET and the like, found with errors.Is), with CloseWrite, CloseRead and SetLinger as *net.TCPConn has them.
type Conn struct {
	*gonet.TCPConn
	endpoint tcpip.Endpoint
	queue    *waiter.Queue
	linger   time.Duration // from Close to the reset of what the guest has not taken; 0: however long it takes
	dropping *time.Timer   // of that; nil: it has not begun
}

// probeLinger is what a guest is given to take the end of a connection that it did not begin: one that takes nothing would have
// a probe's connection left with each, until there are no ports.
const probeLinger = 5 * time.Second

// Dial connects to a port of the guest's own address. A port where nobody listens is an error that is
// syscall.ECONNREFUSED; ctx ends the attempt with its cause. What goes through the connection (always a *Conn) is in no counter.
func (s *Stack) Dial(ctx context.Context, port uint16) (net.Conn, error) {
	c, err := s.dial(ctx, port, false)
	if err != nil {
		return nil, err // not a nil *Conn in a net.Conn
	}
	c.linger = s.linger
	return c, nil
}

func (s *Stack) dial(ctx context.Context, port uint16, small bool) (*Conn, error) {
	to := s.guest
	to.Port = port
	c, err := s.connect(ctx, to, small)
	if err != nil {
		addr := &net.TCPAddr{IP: to.Addr.AsSlice(), Port: int(port)}
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: addr, Err: err}
	}
	return c, nil
}

func (s *Stack) connect(ctx context.Context, to tcpip.FullAddress, small bool) (*Conn, error) {
	if s.ctx.Err() != nil {
		return nil, ErrClosed
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	queue := new(waiter.Queue)
	ep, terr := s.stack.NewEndpoint(tcp.ProtocolNumber, ipv4.ProtocolNumber, queue)
	if terr != nil {
		return nil, errnoOf(terr)
	}
	if small {
		// With the endpoint told of it, so that it does not let them grow.
		ep.SocketOptions().SetSendBufferSize(smallBuffer, true)
		ep.SocketOptions().SetReceiveBufferSize(smallBuffer, true)
	}
	entry, connected := waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventErr | waiter.EventHUp)
	queue.EventRegister(&entry)
	defer queue.EventUnregister(&entry)

	terr = ep.Connect(to)
	if _, started := terr.(*tcpip.ErrConnectStarted); started {
		select {
		case <-ctx.Done():
			ep.Abort()
			return nil, context.Cause(ctx)
		case <-s.ctx.Done():
			ep.Abort()
			return nil, ErrClosed
		case <-connected:
			terr = ep.LastError()
		}
	}
	if terr != nil {
		ep.Close()
		return nil, errnoOf(terr)
	}
	return &Conn{TCPConn: gonet.NewTCPConn(queue, ep), endpoint: ep, queue: queue}, nil
}

// Read implements net.Conn.
func (c *Conn) Read(b []byte) (int, error) {
	n, err := c.TCPConn.Read(b)
	return n, asErrno(err)
}

// Write implements net.Conn.
func (c *Conn) Write(b []byte) (int, error) {
	n, err := c.TCPConn.Write(b)
	return n, asErrno(err)
}

// Close implements net.Conn.
func (c *Conn) Close() error {
	err := c.TCPConn.Close()
	if c.linger > 0 {
		c.dropAfter(c.linger)
	}
	return err
}

// dropAfter resets a connection that was closed, unless nothing is left of it by then. As a rule that is so at once, and then no timer is
// left either: it would wake the process once more for each probe.
func (c *Conn) dropAfter(d time.Duration) {
	c.dropping = time.AfterFunc(d, c.drop)
	end := waiter.NewFunctionEntry(waiter.EventHUp, func(waiter.EventMask) { c.dropping.Stop() })
	c.queue.EventRegister(&end)
	if c.gone() {
		c.dropping.Stop()
	}
}

// CloseWrite sends the guest the end of the stream; reading goes on.
func (c *Conn) CloseWrite() error { return asErrno(c.TCPConn.CloseWrite()) }

// SetLinger sets what Close does with data that was not acknowledged: 0 drops it and resets the connection.
func (c *Conn) SetLinger(sec int) error {
	c.endpoint.SocketOptions().SetLinger(tcpip.LingerOption{Enabled: sec >= 0, Timeout: time.Duration(max(sec, 0)) * time.Second})
	return nil
}

// leave closes a connection whose both directions have ended, and returns once nothing is left of it. Until the guest has taken the rest
// it takes memory, and so keeps its place: or a guest that takes nothing would have any number of them.
func (c *Conn) leave() {
	entry, ended := waiter.NewChannelEntry(waiter.EventHUp)
	c.queue.EventRegister(&entry)
	defer c.queue.EventUnregister(&entry)
	c.Close()
	for !c.gone() {
		<-ended
	}
}

// drop resets a connection that was closed, if anything is left of it.
func (c *Conn) drop() {
	if !c.gone() {
		c.endpoint.Abort()
	}
}

// gone reports whether the connection has ended, and nothing of it is to be sent any more.
func (c *Conn) gone() bool { return c.endpoint.Readiness(waiter.EventHUp) != 0 }

// waitReadable returns when a Read would not block.
func (c *Conn) waitReadable() {
	const events = waiter.ReadableEvents | waiter.EventErr | waiter.EventHUp
	if c.endpoint.Readiness(waiter.ReadableEvents) != 0 {
		return
	}
	entry, ready := waiter.NewChannelEntry(events)
	c.queue.EventRegister(&entry)
	defer c.queue.EventUnregister(&entry)
	for c.endpoint.Readiness(waiter.ReadableEvents) == 0 {
		<-ready
	}
}

// errnos are gVisor's errors and what the kernel calls them.
var errnos = []struct {
	from tcpip.Error
	to   syscall.Errno
}{
	{&tcpip.ErrConnectionRefused{}, syscall.ECONNREFUSED},
	{&tcpip.ErrConnectionReset{}, syscall.ECONNRESET},
	{&tcpip.ErrConnectionAborted{}, syscall.ECONNABORTED},
	{&tcpip.ErrAborted{}, syscall.ECONNABORTED},
	{&tcpip.ErrClosedForSend{}, syscall.EPIPE},
	{&tcpip.ErrNotConnected{}, syscall.ENOTCONN},
	{&tcpip.ErrInvalidEndpointState{}, syscall.ENOTCONN},
	{&tcpip.ErrTimeout{}, syscall.ETIMEDOUT},
	{&tcpip.ErrHostUnreachable{}, syscall.EHOSTUNREACH},
	{&tcpip.ErrNetworkUnreachable{}, syscall.ENETUNREACH},
	{&tcpip.ErrNoPortAvailable{}, syscall.EADDRNOTAVAIL},
	{&tcpip.ErrNoBufferSpace{}, syscall.ENOBUFS},
}

func errnoOf(e tcpip.Error) error { return errnoFor(e.String()) }

// errnoFor goes by gVisor's text, which is all that gonet keeps of an error.
func errnoFor(text string) error {
	for _, e := range errnos {
		if e.from.String() == text {
			return e.to
		}
	}
	return fmt.Errorf("network: %s", text)
}

// asErrno puts the kernel's error into one of gonet's, and leaves others (io.EOF, a deadline) as they are.
func asErrno(err error) error {
	if err == nil || err == io.EOF { // as nearly always
		return err
	}
	var op *net.OpError
	if !errors.As(err, &op) || op.Timeout() {
		return err
	}
	op.Err = errnoFor(op.Err.Error())
	return op
}
