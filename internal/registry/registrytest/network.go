// Package registrytest is a network of registries in one process, for tests: every connection is a pipe, so that a test in
// a bubble of testing/synctest decides what time it is.
package registrytest

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"testing"

	"github.com/halevm/hale/internal/registry"
)

// A Network is some hosts.
type Network struct {
	t     testing.TB
	hosts map[string]*listener
}

// New returns a network without hosts.
func New(t testing.TB) *Network { return &Network{t: t, hosts: make(map[string]*listener)} }

// Serve has a handler answer at host:port, in plain HTTP, until the test ends.
func (n *Network) Serve(addr string, h http.Handler) {
	l := &listener{conns: make(chan net.Conn), closed: make(chan struct{})}
	n.hosts[addr] = l
	srv := &http.Server{Handler: h}
	done := make(chan struct{})
	go func() {
		defer close(done)
		srv.Serve(l)
	}()
	n.t.Cleanup(func() {
		srv.Close()
		<-done
	})
}

// Client returns a client of the network's registries.
func (n *Network) Client() *registry.Client { return registry.New(registry.Config{Dial: n.dial}) }

func (n *Network) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	l := n.hosts[addr]
	if l == nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: fmt.Errorf("nobody is at %s", addr)}
	}
	here, there := net.Pipe()
	select {
	case l.conns <- there:
		return here, nil
	case <-l.closed:
	case <-ctx.Done():
	}
	return nil, &net.OpError{Op: "dial", Net: "tcp", Err: fmt.Errorf("%s has closed", addr)}
}

type listener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *listener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }
