package network

import (
	"net"
	"net/netip"
	"slices"
	"testing"
)

// The kernel's own answer holds what the standard library says of the interfaces.
func TestHostAddresses(t *testing.T) {
	w := newHostWatch()
	defer w.close()
	for range 2 { // the second time from what is known
		h, err := w.now()
		if err != nil {
			t.Fatal(err)
		}
		addrs, err := net.InterfaceAddrs()
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range addrs {
			p, err := netip.ParsePrefix(a.String())
			if err != nil || !p.Addr().Is4() {
				continue
			}
			if !slices.ContainsFunc(h.Own, func(n netip.Prefix) bool { return n.Contains(p.Addr()) }) {
				t.Errorf("%v is not among the host's own addresses %v", p.Addr(), h.Own)
			}
		}
		if !slices.Contains(h.Own, netip.MustParsePrefix("127.0.0.0/8")) {
			t.Errorf("loopback is not among %v", h.Own)
		}
	}
}

func BenchmarkHostAddresses(b *testing.B) {
	w := newHostWatch()
	defer w.close()
	for b.Loop() {
		if _, err := w.now(); err != nil {
			b.Fatal(err)
		}
	}
}
