package daemon

import (
	"container/list"
	"net"
	"net/http"
	"sync"
	"syscall"
)

// mostConnections bounds the API's connections at a time, those that follow or wait among them (server.New bounds these by themselves).
const mostConnections = 4096

// A crowd keeps the API's connections below a bound: when one more comes, the one goes that has been idle for longest, or has
// not finished its first request. So whoever holds connections without using them pushes out their own, and not those in use.
type crowd struct {
	most int

	mu   sync.Mutex
	all  int
	idle list.List // of net.Conn, the longest idle first
	at   map[net.Conn]*list.Element
}

// newCrowd leaves three in four of the process's descriptors to everything else.
func newCrowd() *crowd {
	most := mostConnections
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err == nil {
		most = int(min(uint64(most), files.Cur/4))
	}
	return &crowd{most: most, at: make(map[net.Conn]*list.Element)}
}

// changed is for http.Server.ConnState.
func (c *crowd) changed(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.at[conn]; e != nil {
		c.idle.Remove(e)
		delete(c.at, conn)
	}
	switch state {
	case http.StateNew:
		c.all++
		c.at[conn] = c.idle.PushBack(conn)
		if c.all > c.most {
			longest := c.idle.Remove(c.idle.Front()).(net.Conn)
			delete(c.at, longest)
			longest.Close() // its state changes in its own time
		}
	case http.StateIdle:
		c.at[conn] = c.idle.PushBack(conn)
	case http.StateClosed, http.StateHijacked:
		c.all--
	}
}
