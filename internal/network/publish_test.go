package network

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestPublishHalfClose(t *testing.T) {
	s, g := pair(t, testConfig())
	g.serve(80, func(c net.Conn) { // answers only once it has everything
		defer c.Close()
		b, _ := io.ReadAll(c)
		fmt.Fprintf(c, "%x", sha256.Sum256(b))
	})
	c := dialTCP(t, publish(t, s, 80))
	data := bytes.Repeat([]byte("0123456789"), 100_000)
	if _, err := c.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("%x", sha256.Sum256(data)); string(got) != want {
		t.Errorf("answer %q, want %q", got, want)
	}
	if n := s.Counters(); n.RxBytes != int64(len(data)) || n.TxBytes != int64(len(got)) {
		t.Errorf("counted %d in and %d out, want %d and %d", n.RxBytes, n.TxBytes, len(data), len(got))
	}
}

func TestPublishClosedPort(t *testing.T) {
	s, _ := pair(t, testConfig())
	c, err := net.Dial("tcp", publish(t, s, 81)) // the reset may come so soon that connect(2) tells of it already
	if err == nil {
		c.SetDeadline(time.Now().Add(20 * time.Second))
		_, err = c.Read(make([]byte, 1))
		c.Close()
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("reading from a published port where nobody listens = %v, want ECONNRESET", err)
	}
}

func TestPublishResetReachesTheOtherEnd(t *testing.T) {
	s, g := pair(t, testConfig())
	inside := make(chan net.Conn, 1)
	g.serve(80, func(c net.Conn) { inside <- c })
	addr := publish(t, s, 80)

	c := dialTCP(t, addr)
	c.SetLinger(0)
	in := <-inside
	c.Close()
	if _, err := in.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("the guest reads %v after the client's reset, want a reset", err)
	}

	c = dialTCP(t, addr)
	io.WriteString(c, "xx")
	closeUnread(<-inside)
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client reads %v after the guest's reset, want ECONNRESET", err)
	}
}

func TestPublishConcurrent(t *testing.T) {
	s, g := pair(t, testConfig())
	g.serve(80, echo)
	addr := publish(t, s, 80)
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			data := make([]byte, 32<<10+i)
			for j := range data {
				data[j] = byte(rand.Uint32())
			}
			c := dialTCP(t, addr)
			go func() {
				c.Write(data)
				c.CloseWrite()
			}()
			got, err := io.ReadAll(c)
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("connection %d: %d bytes of %d came back, %v", i, len(got), len(data), err)
			}
		})
	}
	wg.Wait()
}

func TestPublishIsBounded(t *testing.T) {
	s, g := pair(t, testConfig())
	s.most = 3
	inside := make(chan net.Conn, 3)
	g.serve(80, func(c net.Conn) { inside <- c })
	addr := publish(t, s, 80)
	var held []net.Conn
	for range 3 {
		held = append(held, dialTCP(t, addr))
		<-inside
	}
	if n := s.Counters().Connections; n != 3 {
		t.Errorf("%d connections counted, want 3", n)
	}
	// The reset may come so soon that connect(2) tells of it already.
	one, err := net.Dial("tcp", addr)
	if err == nil {
		defer one.Close()
		_, err = one.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("one connection too many ends with %v, want ECONNRESET", err)
	}
	if n := s.Counters(); n.Turned != 1 || n.Connections != 3 {
		t.Errorf("counters %+v, want 1 turned away and 3 open", n)
	}
	for _, c := range held {
		c.Close()
	}
}

func TestPublishAfterClose(t *testing.T) {
	s, _ := rawPair(t, testConfig())
	s.Close()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Publish(ln, 80); !errors.Is(err, ErrClosed) {
		t.Errorf("Publish after Close = %v, want ErrClosed", err)
	}
	if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Error("the listener was left open")
	}
}

// A connection of another kind than the kernel's TCP is relayed too, with a buffer in hand and no half-close.
func TestPublishAnyListener(t *testing.T) {
	s, g := pair(t, testConfig())
	g.serve(80, echo)
	ln := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
	if err := s.Publish(ln, 80); err != nil {
		t.Fatal(err)
	}
	client, server := net.Pipe()
	ln.conns <- server
	go io.WriteString(client, "there and back")
	got := make([]byte, len("there and back"))
	if _, err := io.ReadFull(client, got); string(got) != "there and back" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	client.Close()
}

type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "pipe"} }
