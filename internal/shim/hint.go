package shim

import (
	"net/netip"
	"time"

	"golang.org/x/time/rate"

	guestprotocol "github.com/halevm/hale/internal/guest/protocol"
	"github.com/halevm/hale/internal/machine"
)

// The rate at which a daemon is told that the checked port began or ceased to be listened on: so many at once, and one more
// in so long. A guest may open and close it as fast as it likes.
const (
	hintBurst = 3
	hintEvery = 100 * time.Millisecond
)

// A hint is the guest's last word on the checked port, until a daemon has taken it. A newer word takes its place, so that nothing piles
// up; what comes sooner than the rate allows is held back until it does. server.mu guards it.
type hint struct {
	rate    *rate.Limiter
	held    *machine.Notice // to be let go
	waiting bool            // somebody lets it go when the rate allows
	ready   *machine.Notice // to be taken by a connection
}

// hint tells whoever holds the machine, at once or a little later, that the checked port is listened on now, or no more. It never waits.
func (s *server) hint(port uint16, listening bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hinted.held = &machine.Notice{Kind: machine.Hinted, Time: time.Now(), Port: port, Listening: listening}
	s.letGo()
}

// letGo lets the hint that is held back be taken, or has that done when the rate allows it. The caller holds s.mu.
func (s *server) letGo() {
	h := &s.hinted
	if h.held == nil || h.waiting {
		return
	}
	if !h.rate.Allow() {
		h.waiting = true
		time.AfterFunc(hintEvery, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			h.waiting = false
			s.letGo()
		})
		return
	}
	h.ready, h.held = h.held, nil
	s.wake()
}

// takeHint returns the hint that nobody has taken yet; nil: there is none.
func (s *server) takeHint() *machine.Notice {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.hinted.ready
	s.hinted.ready = nil
	return n
}

// putBackHint returns one that did not reach whoever took it, unless there is a newer one.
func (s *server) putBackHint(n *machine.Notice) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hinted.ready == nil {
		s.hinted.ready = n
	}
}

// watch has the guest's agent tell of a port, and of no other; 0: of none.
func (r *run) watch(port uint16) {
	var at netip.AddrPort
	if n := r.c.Machine.Network; n != nil && port != 0 {
		at = netip.AddrPortFrom(n.Addr.Addr(), port)
	}
	r.agent.Watch(at)
}

// listening takes the agent's word on the watched port.
func (r *run) listening(port uint16, where guestprotocol.Where) {
	open := where == guestprotocol.Open
	r.mu.Lock()
	was := r.openPort == port
	if open {
		r.openPort = port
	} else if was {
		r.openPort = 0
	}
	r.mu.Unlock()
	if was != open { // from nowhere to loopback is no news to a check
		r.server.hint(port, open)
	}
}
