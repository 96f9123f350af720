package daemon

import (
	"container/list"
	"context"
	"net"
	"net/http"
	"sync"
	"syscall"
)

// mostConnections bounds the API's connections at a time, those that follow or wait among them (server.New bounds these by themselves).
const mostConnections = 4096

// A crowd keeps the API's connections below a bound: when one more comes, the one goes that has been idle for longest, or that of a
// stranger (who has shown no token on it) which came first. So whoever holds connections without using them, or without being let in,
// pushes out their own, and not those in use.
type crowd struct {
	most int

	mu   sync.Mutex
	all  int
	idle list.List // of net.Conn that may go, the first to go first
	at   map[net.Conn]*list.Element
	in   map[net.Conn]bool // who has shown a token
}

// newCrowd leaves three in four of the process's descriptors to everything else.
func newCrowd() *crowd {
	most := mostConnections
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err == nil {
		most = int(min(uint64(most), files.Cur/4))
	}
	return &crowd{most: most, at: make(map[net.Conn]*list.Element), in: make(map[net.Conn]bool)}
}

type connKey struct{}

// remember is for http.Server.ConnContext: a request knows its connection.
func (c *crowd) remember(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, conn)
}

// admit is told that a request has shown a token.
func (c *crowd) admit(ctx context.Context) {
	conn, ok := ctx.Value(connKey{}).(net.Conn)
	if !ok {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.at[conn] == nil && !c.in[conn] {
		return // it has been pushed out
	}
	c.in[conn] = true
	c.stay(conn)
}

// stay takes a connection off the list of those that may go. c.mu is held.
func (c *crowd) stay(conn net.Conn) {
	if e := c.at[conn]; e != nil {
		c.idle.Remove(e)
		delete(c.at, conn)
	}
}

// changed is for http.Server.ConnState.
func (c *crowd) changed(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch state {
	case http.StateNew:
		c.all++
		c.at[conn] = c.idle.PushBack(conn)
		if c.all > c.most {
			longest := c.idle.Remove(c.idle.Front()).(net.Conn)
			delete(c.at, longest)
			longest.Close() // its state changes in its own time
		}
	case http.StateActive:
		if c.in[conn] {
			c.stay(conn)
		}
	case http.StateIdle:
		if c.in[conn] { // a stranger's stays where it is
			c.at[conn] = c.idle.PushBack(conn)
		}
	case http.StateClosed, http.StateHijacked:
		c.all--
		c.stay(conn)
		delete(c.in, conn)
	}
}
