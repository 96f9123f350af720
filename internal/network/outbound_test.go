package network

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
)

// A real TCP stack in the guest takes the refusal for what it is, and waits for nothing.
func TestGuestFailsFast(t *testing.T) {
	s, g := pair(t, testConfig())
	for _, to := range []string{"203.0.113.7:443", "10.77.0.1:22", "169.254.169.254:80"} {
		addr := netip.MustParseAddrPort(to)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		full := tcpip.FullAddress{NIC: nicID, Addr: tcpip.AddrFrom4(addr.Addr().As4()), Port: addr.Port()}
		late, start := kept(), time.Now()
		c, err := gonet.DialContextTCP(ctx, g.stack, full, ipv4.ProtocolNumber)
		took, worst := time.Since(start), late()
		cancel()
		if err == nil {
			c.Close()
			t.Errorf("the guest reached %v", to)
		} else if took > 900*time.Millisecond+3*worst { // a second is its first retry
			t.Errorf("the guest's connection to %v failed after %v, where the host keeps a ticker waiting %v: %v", to, took, worst, err)
		}
	}
	if n := s.Counters().Refused; n != 3 {
		t.Errorf("%d refusals counted, want 3", n)
	}
}

func TestGuestDatagramFailsFast(t *testing.T) {
	_, g := pair(t, testConfig())
	g.socket("203.0.113.7:53").refused(t, "question")
}
