package fake

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// A site is what serve serves.
type site struct {
	ports  map[uint16]*pipes
	broken atomic.Bool
	print  func(string)
}

func newSite(args []string, print func(string)) (*site, error) {
	s := &site{ports: map[uint16]*pipes{}, print: print}
	for _, a := range args {
		port, err := strconv.ParseUint(a, 10, 16)
		if err != nil || port == 0 {
			return nil, fmt.Errorf("%q is no port", a)
		}
		s.ports[uint16(port)] = newPipes()
	}
	return s, nil
}

// serve answers until ctx is done, and waits for what it began.
func (s *site) serve(ctx context.Context) {
	mux := http.NewServeMux()
	mux.HandleFunc("/{$}", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello from a machine\n") })
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, r *http.Request) {
		if s.broken.Load() {
			http.Error(w, "broken on request", http.StatusServiceUnavailable)
			return
		}
		io.WriteString(w, "ok\n")
	})
	mux.HandleFunc("/break", func(http.ResponseWriter, *http.Request) { s.broken.Store(true); s.print("broken on request") })
	mux.HandleFunc("/mend", func(http.ResponseWriter, *http.Request) { s.broken.Store(false); s.print("mended on request") })
	server := &http.Server{Handler: mux}
	var wg sync.WaitGroup
	for _, l := range s.ports {
		wg.Go(func() { _ = server.Serve(l) })
	}
	<-ctx.Done()
	server.Close()
	wg.Wait()
}

// pipes is a listener whose connections are in memory.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

// Accept returns the next connection.
func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

// Close ends Accept.
func (p *pipes) Close() error {
	p.once.Do(func() { close(p.done) })
	return nil
}

// Addr says nothing that anyone could dial.
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "memory", Net: "memory"} }

func (p *pipes) dial(ctx context.Context) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case p.conns <- theirs:
		return ours, nil
	case <-p.done:
	case <-ctx.Done():
	}
	ours.Close()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	return nil, refused
}

var refused = &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}

// dial connects to a port of the guest.
func (g *guest) dial(ctx context.Context, port uint16) (net.Conn, error) {
	if state, _ := g.now(); state != started {
		return nil, refused
	}
	g.mu.Lock()
	var l *pipes
	if g.site != nil {
		l = g.site.ports[port]
	}
	g.mu.Unlock()
	if l == nil {
		return nil, refused
	}
	return l.dial(ctx)
}

// publish relays the connections of a published port, until its listener is closed.
func (g *guest) publish(ctx context.Context, l net.Listener) {
	to := g.guestPort(l)
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of descriptors: later
			time.Sleep(10 * time.Millisecond)
			continue
		}
		g.wg.Go(func() { g.relay(ctx, c, to) })
	}
}

func (g *guest) guestPort(l net.Listener) uint16 {
	for i := range g.listeners {
		if g.listeners[i] == l {
			return g.ports[i].GuestPort
		}
	}
	return 0
}

func (g *guest) relay(ctx context.Context, host net.Conn, port uint16) {
	defer host.Close()
	inner, err := g.dial(ctx, port)
	if err != nil {
		return
	}
	defer inner.Close()
	if !g.track(host) {
		return
	}
	defer g.untrack(host)
	var in int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		in, _ = io.Copy(inner, host)
		inner.Close()
	}()
	out, _ := io.Copy(host, inner)
	host.Close()
	<-done
	g.mu.Lock()
	g.rx, g.tx = g.rx+in, g.tx+out
	g.mu.Unlock()
}

// track remembers a connection, so that it ends with the machine; it reports whether there is still one.
func (g *guest) track(c net.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ended {
		return false
	}
	if g.conns == nil {
		g.conns = map[net.Conn]struct{}{}
	}
	g.conns[c] = struct{}{}
	return true
}

func (g *guest) untrack(c net.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.conns, c)
}
