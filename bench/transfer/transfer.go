// Package transfer moves bytes over TCP for a while and says how fast it went. The guest's program, the host's and the one
// outside are all made of it, so that only what lies between two of them differs.
package transfer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// Ports of Serve.
const (
	SourcePort = 81 // sends until its client goes
	SinkPort   = 82 // reads to the end, and answers how many bytes that were
)

// HostOffset is added to them outside of machines.
const HostOffset = 9000

const (
	dialTimeout = 10 * time.Second
	bufferSize  = 256 << 10
	lastTimeout = 30 * time.Second // for what is still under way when the time is over
)

// Serve serves both at addr, at offset from their ports, and returns with the first error. ready is called when both listen.
func Serve(addr string, offset int, ready func()) error {
	failed := make(chan error, 2)
	for port, answer := range map[int]func(net.Conn){SourcePort: source, SinkPort: sink} {
		ln, err := net.Listen("tcp", fmt.Sprintf("%s:%d", addr, port+offset))
		if err != nil {
			return err
		}
		go func() { failed <- accept(ln, answer) }()
	}
	ready()
	return <-failed
}

// ServeOn serves one of the two on a listener, until that is closed.
func ServeOn(ln net.Listener, port int) error {
	if port == SourcePort {
		return accept(ln, source)
	}
	return accept(ln, sink)
}

func accept(ln net.Listener, answer func(net.Conn)) error {
	for {
		c, err := ln.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			answer(c)
		}()
	}
}

func source(c net.Conn) {
	for b := make([]byte, bufferSize); ; {
		if _, err := c.Write(b); err != nil {
			return
		}
	}
}

func sink(c net.Conn) {
	var total uint64
	for b := make([]byte, bufferSize); ; {
		n, err := c.Read(b)
		total += uint64(n)
		if errors.Is(err, io.EOF) {
			c.Write(binary.BigEndian.AppendUint64(nil, total))
			return
		}
		if err != nil {
			return
		}
	}
}

// Fetch reads from a source for d, from the first byte on, and returns bytes in a second.
func Fetch(addr string, d time.Duration) (float64, error) {
	c, err := net.DialTimeout("tcp", addr, dialTimeout)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(d + lastTimeout))
	b := make([]byte, bufferSize)
	if _, err := io.ReadFull(c, b[:1]); err != nil {
		return 0, err
	}
	began, total := time.Now(), 0
	for time.Since(began) < d {
		n, err := c.Read(b)
		if err != nil {
			return 0, err
		}
		total += n
	}
	return float64(total) / time.Since(began).Seconds(), nil
}

// Send writes to a sink for d, and returns bytes in a second, until the sink has counted the last of them.
func Send(addr string, d time.Duration) (float64, error) {
	c, err := net.DialTimeout("tcp", addr, dialTimeout)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(d + lastTimeout))
	b := make([]byte, bufferSize)
	began, total := time.Now(), 0
	for time.Since(began) < d {
		n, err := c.Write(b)
		if err != nil {
			return 0, err
		}
		total += n
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return 0, err
	}
	var count [8]byte
	if _, err := io.ReadFull(c, count[:]); err != nil {
		return 0, fmt.Errorf("the count of what arrived: %w", err)
	}
	if got := binary.BigEndian.Uint64(count[:]); got != uint64(total) {
		return 0, fmt.Errorf("%d bytes were sent, and %d arrived", total, got)
	}
	return float64(total) / time.Since(began).Seconds(), nil
}
