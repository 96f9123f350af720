package instance

import (
	"fmt"
	"net"
	"net/netip"
)

// defaultNetwork is where instances live unless the configuration says otherwise. Each is alone in a network of its own; that
// their addresses differ all the same is for people who read logs, and for later.
var defaultNetwork = netip.MustParsePrefix("10.77.0.0/16")

// A pool gives each instance an address of its own. The first address is the gateway's. It is guarded by Set.mu.
type pool struct {
	net  netip.Prefix
	used map[netip.Addr]bool
	last netip.Addr // given last: an address that was freed is taken again as late as possible
}

func newPool(p netip.Prefix) (*pool, error) {
	if !p.IsValid() {
		p = defaultNetwork
	}
	p = p.Masked()
	if !p.Addr().Is4() || p.Bits() > 29 || p.Bits() < 8 {
		return nil, fmt.Errorf("network %s: want an IPv4 network from /8 to /29", p)
	}
	gateway := p.Addr().Next()
	return &pool{net: p, used: map[netip.Addr]bool{}, last: gateway}, nil
}

// take returns a free address.
func (p *pool) take() (netip.Addr, error) {
	gateway := p.net.Addr().Next()
	a := p.last
	for range 1 << (32 - p.net.Bits()) {
		if a = a.Next(); !p.net.Contains(a.Next()) { // what comes next is outside: a is the broadcast address
			a = gateway.Next()
		}
		if !p.used[a] {
			p.used[a] = true
			p.last = a
			return a, nil
		}
	}
	return netip.Addr{}, noRoom("all addresses of %s are taken", p.net)
}

// reserve takes the address of a record that was loaded; it reports whether it was free.
func (p *pool) reserve(a netip.Addr) bool {
	if p.used[a] {
		return false
	}
	p.used[a] = true
	if p.net.Contains(a) && p.last.Less(a) {
		p.last = a
	}
	return true
}

// allowable finds what no range can allow, for it lies where the instances are.
func (p *pool) allowable(nets []netip.Prefix) error {
	for _, n := range nets {
		if n.Bits() >= p.net.Bits() && p.net.Contains(n.Addr()) {
			return fmt.Errorf("%v lies in %v, where instances have their addresses; nothing there is reached, and it cannot be allowed", n, p.net)
		}
	}
	return nil
}

func (p *pool) free(a netip.Addr) { delete(p.used, a) }

// mac derives a locally administered address of the link layer from an IPv4 address.
func mac(a netip.Addr) string {
	b := a.As4()
	return net.HardwareAddr{0x02, 0x68, b[0], b[1], b[2], b[3]}.String()
}
