package guest

import (
	"encoding/json"
	"net/netip"
	"sync"

	"github.com/halevm/hale/internal/guest/protocol"
)

// A watchedPort is the one that the agent is asked to tell of, and what it has told. An agent of before says nothing.
type watchedPort struct {
	saying sync.Mutex // held while the agent is asked, so that it hears the last Watch last

	mu    sync.Mutex
	at    netip.AddrPort // invalid: none
	where protocol.Where // "": not told yet
}

// Watch asks the agent, in this session and in later ones, where a port is listened on with an address of the guest's own;
// the zero value asks for nothing any more. One that is watched already goes on. Options.Listening hears the answers. It
// does not wait for the agent.
func (c *Conn) Watch(at netip.AddrPort) {
	c.port.mu.Lock()
	same := c.port.at == at
	if !same {
		c.port.at, c.port.where = at, ""
	}
	c.port.mu.Unlock()
	if !same {
		c.loops.start(c.sayWatch)
	}
}

// Listening is what the agent told of a port last; "" where it is not the one that is watched, or nothing was told yet.
func (c *Conn) Listening(port uint16) protocol.Where {
	c.port.mu.Lock()
	defer c.port.mu.Unlock()
	if c.port.at.Port() != port {
		return ""
	}
	return c.port.where
}

// watches reports whether there is a port to tell a new session of.
func (c *Conn) watches() bool {
	c.port.mu.Lock()
	defer c.port.mu.Unlock()
	return c.port.at.IsValid()
}

// sayWatch tells the agent which port is watched now.
func (c *Conn) sayWatch() {
	c.port.saying.Lock()
	defer c.port.saying.Unlock()
	c.mu.Lock()
	s := c.session
	c.mu.Unlock()
	if s == nil {
		return // the next session begins with it
	}
	c.port.mu.Lock()
	at := c.port.at
	c.port.mu.Unlock()
	if f, err := protocol.JSON(protocol.TypeWatch, s.id, protocol.Watch{Addr: at}); err == nil {
		c.out.Send(s.ctx, f)
	}
}

// listening takes what the agent tells of the port. What it repeats, and what it tells of another, is no news.
func (c *Conn) listening(payload []byte) {
	var m protocol.Listening
	if json.Unmarshal(payload, &m) != nil {
		return
	}
	if m.Where != protocol.Open && m.Where != protocol.Loopback {
		m.Where = protocol.Nowhere
	}
	w := &c.port
	w.mu.Lock()
	news := w.at.IsValid() && m.Port == w.at.Port() && m.Where != w.where
	if news {
		w.where = m.Where
	}
	w.mu.Unlock()
	if news && c.o.Listening != nil {
		c.o.Listening(m.Port, m.Where)
	}
}
