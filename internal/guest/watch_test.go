package guest

import (
	"encoding/json"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/halevm/hale/internal/guest/protocol"
)

// watched is the next port that the fake guest is told to watch.
func (g *fakeGuest) watched() netip.AddrPort {
	g.t.Helper()
	var m protocol.Watch
	if err := json.Unmarshal(g.next(protocol.TypeWatch).Payload, &m); err != nil {
		g.t.Error(err)
	}
	return m.Addr
}

func TestAWatchIsSaidOnceInASessionAndAgainInTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, g := open(t, Options{})
		at80, at81 := netip.MustParseAddrPort("10.0.0.2:80"), netip.MustParseAddrPort("10.0.0.2:81")
		c.Watch(at80) // before there is anybody
		g.welcome(protocol.State{Booted: true})
		want(t, c, Hello)
		if got := g.watched(); got != at80 {
			t.Errorf("told to watch %v, want %v", got, at80)
		}
		c.Watch(at80)
		c.Watch(at81)
		if got := g.watched(); got != at81 {
			t.Errorf("told to watch %v, want %v", got, at81)
		}
		c.PortChanged(false)
		want(t, c, Lost)
		g.welcome(protocol.State{Booted: true})
		want(t, c, Hello)
		if got := g.watched(); got != at81 {
			t.Errorf("the next session is told to watch %v, want %v", got, at81)
		}
		c.Watch(netip.AddrPort{})
		if got := g.watched(); got.IsValid() {
			t.Errorf("told to watch %v, want nothing", got)
		}
	})
}

func TestOnlyNewsOfTheWatchedPortIsHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var heard []protocol.Where
		c, g := open(t, Options{Listening: func(port uint16, where protocol.Where) {
			if port != 80 {
				t.Errorf("heard of port %d", port)
			}
			heard = append(heard, where)
		}})
		g.welcome(protocol.State{Booted: true})
		want(t, c, Hello)
		g.say(protocol.TypeListening, protocol.Listening{Port: 80, Where: protocol.Open}) // nobody asked
		synctest.Wait()
		c.Watch(netip.MustParseAddrPort("10.0.0.2:80"))
		g.watched()
		for range 100 {
			g.say(protocol.TypeListening, protocol.Listening{Port: 80, Where: protocol.Loopback})
			g.say(protocol.TypeListening, protocol.Listening{Port: 81, Where: protocol.Open})
			g.say(protocol.TypeListening, "no listening")
		}
		synctest.Wait()
		if c.Listening(80) != protocol.Loopback || c.Listening(81) != "" {
			t.Errorf("port 80 is listened on %q, port 81 %q", c.Listening(80), c.Listening(81))
		}
		g.say(protocol.TypeListening, protocol.Listening{Port: 80, Where: protocol.Open})
		g.say(protocol.TypeListening, protocol.Listening{Port: 80, Where: "on the moon"})
		synctest.Wait()
		if want := []protocol.Where{protocol.Loopback, protocol.Open, protocol.Nowhere}; !slices.Equal(heard, want) {
			t.Errorf("heard %v, want %v", heard, want)
		}
	})
}
