package network

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"runtime"
	"syscall"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

func serveHTTP(t testing.TB, g *guest, port uint16, h http.HandlerFunc) {
	srv := &http.Server{Handler: h}
	go srv.Serve(g.listen(port))
	t.Cleanup(func() { srv.Close() })
}

// get asks over a connection of its own, as a probe does.
func get(t testing.TB, s *Stack, port uint16) string {
	t.Helper()
	tr := &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return s.Dial(ctx, port) },
	}
	resp, err := (&http.Client{Transport: tr, Timeout: 20 * time.Second}).Get("http://guest/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestDial(t *testing.T) {
	s, g := pair(t, testConfig())
	serveHTTP(t, g, 80, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") })
	if got := get(t, s, 80); got != "hello" {
		t.Errorf("GET = %q, want hello", got)
	}
	select {
	case <-s.Seen():
	default:
		t.Error("Seen is open after an answer of the guest")
	}
	if c := s.Counters(); c.RxBytes != 0 || c.TxBytes != 0 || c.Connections != 0 {
		t.Errorf("a probe was counted: %+v", c)
	}
}

func TestDialRefused(t *testing.T) {
	s, _ := pair(t, testConfig())
	c, err := s.Dial(soon(t), 81)
	if !errors.Is(err, syscall.ECONNREFUSED) || c != nil {
		t.Fatalf("Dial of a closed port = %v, %v; want ECONNREFUSED", c, err)
	}
	const want = "dial tcp 10.77.0.9:81: connection refused"
	if err.Error() != want {
		t.Errorf("error %q, want %q", err, want)
	}
}

func TestReset(t *testing.T) {
	s, g := pair(t, testConfig())
	g.serve(80, closeUnread)
	c, err := s.Dial(soon(t), 80)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "xx")
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("Read after a reset = %v, want ECONNRESET", err)
	}
	if _, err := c.Write([]byte("x")); err == nil {
		t.Error("Write after a reset succeeds")
	}
}

// closeUnread closes a connection with data in it that nobody read, which is a reset.
func closeUnread(c net.Conn) {
	c.Read(make([]byte, 1))
	c.Close()
}

// Of a connection to a guest that takes nothing, not even its end, nothing is left soon after it was closed.
func TestDialedAndNotTaken(t *testing.T) {
	s, wire := rawPair(t, testConfig())
	s.linger = 50 * time.Millisecond
	conns := make(chan net.Conn)
	go func() {
		c, err := s.Dial(soon(t), 80)
		if err != nil {
			t.Error(err)
		}
		conns <- c
	}()
	syn := header.TCP(checkIP(t, wire.receive(), "10.77.0.1").Payload())
	frame := packet{protocol: TCP, flags: header.TCPFlagSyn | header.TCPFlagAck, port: syn.SourcePort(), ack: syn.SequenceNumber() + 1 - 200, from: 80}.frame()
	wire.send(frame)
	c := <-conns
	if c == nil {
		return
	}
	io.WriteString(c, "a question")
	c.Close()
	eventually(t, "it is dropped", func() bool { return len(s.stack.RegisteredEndpoints()) == 0 })
}

func TestDialEndsWithItsContext(t *testing.T) {
	s, _ := rawPair(t, testConfig()) // a guest that is paused: nobody answers
	cause := errors.New("the probe's time is over")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(10*time.Millisecond, func() { cancel(cause) })
	if c, err := s.Dial(ctx, 80); !errors.Is(err, cause) {
		t.Errorf("Dial = %v, %v; want the context's cause", c, err)
	}
	if _, err := s.Dial(ctx, 80); !errors.Is(err, cause) {
		t.Errorf("Dial with a context that is done = %v, want its cause", err)
	}
}

func TestReadDeadline(t *testing.T) {
	s, g := pair(t, testConfig())
	g.serve(80, func(c net.Conn) { io.Copy(io.Discard, c); c.Close() })
	c, err := s.Dial(soon(t), 80)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
	_, err = c.Read(make([]byte, 1))
	if ne, ok := errors.AsType[net.Error](err); !ok || !ne.Timeout() {
		t.Errorf("Read past its deadline = %v, want a timeout", err)
	}
}

func TestManyDials(t *testing.T) {
	s, g := pair(t, testConfig())
	g.serve(80, echo)
	for i := range 1000 {
		c, err := s.Dial(soon(t), 80)
		if err != nil {
			t.Fatalf("dial %d: %v", i, err)
		}
		c.Close()
	}
	if lost := s.Counters().Lost; lost != 0 {
		t.Errorf("%d frames lost by dials one after the other", lost)
	}
}

// A probe that closes first leaves its port in TIME_WAIT. It must come back so soon that no number of probes uses up the 50,000
// ports there are: here are 8, and the wait is the real one.
func TestPortsComeBack(t *testing.T) {
	t.Parallel()
	s, g := pair(t, testConfig())
	if err := s.stack.SetPortRange(20000, 20007); err != nil {
		t.Fatal(err)
	}
	g.serve(80, echo)
	start := time.Now()
	for i := 0; i < 12; {
		c, err := s.Dial(soon(t), 80)
		switch {
		case err == nil:
			c.Close()
			i++
		case !errors.Is(err, syscall.EADDRNOTAVAIL) || time.Since(start) > 40*time.Second: // an ordinary wait is of a minute
			t.Fatalf("dial %d, after %v: %v", i, time.Since(start), err)
		default:
			runtime.Gosched()
		}
	}
}

func TestCloseEndsEverything(t *testing.T) {
	s, g := pair(t, testConfig())
	accepted := make(chan net.Conn, 2)
	g.serve(80, func(c net.Conn) { accepted <- c })
	probe, err := s.Dial(soon(t), 80)
	if err != nil {
		t.Fatal(err)
	}
	addr := publish(t, s, 80)
	client := dialTCP(t, addr)
	<-accepted
	<-accepted
	ended := make(chan error, 1)
	go func() {
		_, err := probe.Read(make([]byte, 1))
		ended <- err
	}()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil {
		t.Error("a read goes on after Close")
	}
	if _, err := client.Read(make([]byte, 1)); err == nil {
		t.Error("a published connection goes on after Close")
	}
	if _, err := net.Dial("tcp", addr); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("the published port after Close: %v, want refused", err)
	}
	if _, err := s.Dial(t.Context(), 80); !errors.Is(err, ErrClosed) {
		t.Errorf("Dial after Close = %v, want ErrClosed", err)
	}
	if s.Close() != nil {
		t.Error("a second Close is an error")
	}
}

func TestCloseEndsADial(t *testing.T) {
	s, w := rawPair(t, testConfig())
	noGoroutinesLeft(t)
	ended := make(chan error, 1)
	go func() {
		_, err := s.Dial(context.Background(), 80)
		ended <- err
	}()
	w.receive() // the SYN
	s.Close()
	if err := <-ended; !errors.Is(err, ErrClosed) && !errors.Is(err, syscall.ECONNABORTED) {
		t.Errorf("Dial during Close = %v, want ErrClosed", err)
	}
}

// Once a connection has ended in order, whoever ended it first, no timer is left of it.
func TestDialedAndTaken(t *testing.T) {
	s, g := pair(t, testConfig())
	s.linger = time.Hour
	ln := g.listen(80)
	for _, guestFirst := range []bool{true, false} {
		c, err := s.Dial(soon(t), 80)
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		ends := []net.Conn{c, theirs}
		if guestFirst {
			ends = []net.Conn{theirs, c}
		}
		for i, end := range ends {
			end.Close()
			if other := ends[1-i]; i == 0 {
				io.Copy(io.Discard, other) // it knows
			}
		}
		dropping := c.(*Conn).dropping
		eventually(t, "its timer ends", func() bool {
			if dropping.Stop() {
				dropping.Reset(time.Hour) // it went on, and does
				return false
			}
			return true
		})
	}
}
