package network

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// dialTimeout bounds the wait for a guest that does not answer a connection to one of its published ports. It outlasts a boot
// with a few of TCP's retries.
const dialTimeout = 30 * time.Second

var errDialTimeout = errors.New("the guest did not answer")

// Publish relays every connection that ln accepts to a port of the guest, until Close. It takes ownership of ln, also
// when it returns an error, which it does only on a Stack that was closed.
func (s *Stack) Publish(ln net.Listener, guestPort uint16) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		ln.Close()
		return ErrClosed
	}
	s.listeners[ln] = struct{}{}
	s.wg.Go(func() { s.acceptLoop(ln, guestPort) })
	return nil
}

func (s *Stack) acceptLoop(ln net.Listener, port uint16) {
	const longest = time.Second
	pause := time.Millisecond
	for {
		c, err := ln.Accept()
		if s.ctx.Err() != nil {
			if err == nil {
				c.Close()
			}
			return
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // no descriptors, a connection that went away: the listener itself is well
			s.log.Warn("accepting a connection to a published port; trying again", "guest_port", port, "err", err)
			select {
			case <-s.ctx.Done():
				return
			case <-time.After(pause):
			}
			pause = min(2*pause, longest)
			continue
		}
		pause = time.Millisecond
		n := s.open.Add(1)
		if n > s.most {
			s.open.Add(-1)
			s.turned.Add(1)
			resetConn(c)
			continue
		}
		if n > manyConns {
			s.crowded.Store(true)
		}
		s.wg.Go(func() {
			defer s.left()
			s.relay(c, port, n > manyConns)
		})
	}
}

// relay joins a connection from outside to one into the guest, and returns when both are gone. Either end's end of stream
// and either end's reset reach the other as what they are.
func (s *Stack) relay(outside net.Conn, port uint16, small bool) {
	ctx, cancel := context.WithTimeoutCause(s.ctx, dialTimeout, errDialTimeout)
	inside, err := s.dial(ctx, port, small)
	cancel()
	if err != nil {
		s.log.Debug("a connection to a published port", "guest_port", port, "err", err)
		resetConn(outside)
		return
	}
	s.join(outside, inside, &relayBuffers, func() {})
}

// join carries what two connections have for each other until both directions have ended, or the Stack closes, and closes both.
// passed is called whenever something went through.
func (s *Stack) join(outside net.Conn, inside *Conn, buffers *bufferPool, passed func()) {
	abort := sync.OnceFunc(func() {
		resetConn(outside)
		resetConn(inside)
	})
	defer context.AfterFunc(s.ctx, abort)()

	count := func(total *atomic.Int64) func(int) {
		return func(n int) {
			total.Add(int64(n))
			passed()
		}
	}
	var back sync.WaitGroup
	back.Go(func() {
		if pump(outside, guestSource{inside, buffers}, count(&s.tx)) != nil {
			abort()
		}
	})
	if pump(inside, sourceOf(outside, buffers), count(&s.rx)) != nil {
		abort()
	}
	back.Wait()
	outside.Close()
	inside.leave()
}

// resetConn ends a connection with a reset, where it has one.
func resetConn(c net.Conn) {
	if l, ok := c.(interface{ SetLinger(sec int) error }); ok {
		l.SetLinger(0)
	}
	c.Close()
	if c, ok := c.(*Conn); ok {
		c.drop() // both ends may have closed it before, and the guest not have taken the rest
	}
}

// A bufferPool holds buffers for what is on its way through a relay. An idle connection holds none.
type bufferPool struct{ pool sync.Pool }

func newBufferPool(size int) bufferPool {
	return bufferPool{sync.Pool{New: func() any { b := make([]byte, size); return &b }}}
}

var (
	relayBuffers = newBufferPool(32 << 10)
	// smallBuffers are for the connections of a guest that has many: each may hold one for as long as its reader does not read.
	smallBuffers = newBufferPool(4 << 10)
)

func (p *bufferPool) get() *[]byte   { return p.pool.Get().(*[]byte) }
func (p *bufferPool) done(b *[]byte) { p.pool.Put(b) }

// A source is read from by a relay. Its read waits until there is something before it takes a buffer; the caller hands the
// buffer back with done.
type source interface {
	read() (b *[]byte, n int, err error)
	done(b *[]byte)
}

// pump copies to dst until src ends, hands the end on, and counts the bytes. A nil error means that dst was told of the end.
func pump(dst net.Conn, src source, count func(int)) error {
	for {
		b, n, err := src.read()
		if n > 0 {
			_, werr := dst.Write((*b)[:n])
			count(n)
			if werr != nil {
				err = werr
			}
		}
		if b != nil {
			src.done(b)
		}
		if errors.Is(err, io.EOF) {
			if half, ok := dst.(interface{ CloseWrite() error }); ok {
				return half.CloseWrite()
			}
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// A guestSource reads from the guest's end.
type guestSource struct {
	c *Conn
	*bufferPool
}

func (g guestSource) read() (*[]byte, int, error) {
	g.c.waitReadable()
	b := g.get()
	n, err := g.c.Read(*b)
	return b, n, err
}

// sourceOf reads a connection of the host's kernel by readiness, and any other with a buffer in hand.
func sourceOf(c net.Conn, buffers *bufferPool) source {
	if sc, ok := c.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			return kernelSource{raw, buffers}
		}
	}
	return plainSource{c, buffers}
}

type plainSource struct {
	r io.Reader
	*bufferPool
}

func (p plainSource) read() (*[]byte, int, error) {
	b := p.get()
	n, err := p.r.Read(*b)
	return b, n, err
}

type kernelSource struct {
	raw syscall.RawConn
	*bufferPool
}

func (k kernelSource) read() (b *[]byte, n int, err error) {
	b, n, err = k.receive()
	if err == nil && n == 0 {
		err = io.EOF
	}
	return b, n, err
}

// receive waits until there is something, or an error, and reads it: of a stream what there is, of datagrams one.
func (k kernelSource) receive() (b *[]byte, n int, err error) {
	rawErr := k.raw.Read(func(fd uintptr) bool {
		b = k.get()
		for {
			n, err = syscall.Read(int(fd), *b)
			if err != syscall.EINTR {
				break
			}
		}
		if err == syscall.EAGAIN {
			k.done(b)
			b = nil
			return false
		}
		return true
	})
	if rawErr != nil {
		err = rawErr
	}
	return b, max(n, 0), err
}
