// Package egress decides what a guest may reach outside its machine. Judge is the whole decision: a pure function of the flow,
// the instance's policy and the host's own addresses at that moment. Nothing else in hale lets a flow out, and whoever dials
// asks Judge about the very address that is dialled, at each dial and each datagram.
//
// It knows no socket, no stack and no instance. Everything here is a value and may be used from any goroutine.
package egress

import (
	"fmt"
	"net/netip"
)

// A Protocol is an IP protocol number.
type Protocol uint8

// The protocols with names.
const (
	ICMP Protocol = 1
	TCP  Protocol = 6
	UDP  Protocol = 17
)

func (p Protocol) String() string {
	switch p {
	case ICMP:
		return "icmp"
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	}
	return fmt.Sprintf("ip protocol %d", uint8(p))
}

// A Flow is what the guest begins: a connection, or a datagram.
type Flow struct {
	Protocol Protocol
	Addr     netip.AddrPort // the destination; port 0 where the protocol has none
}

func (f Flow) String() string {
	if f.Protocol == TCP || f.Protocol == UDP {
		return fmt.Sprintf("%v %v", f.Protocol, f.Addr)
	}
	return fmt.Sprintf("%v %v", f.Protocol, f.Addr.Addr())
}

// A Policy is what one instance may reach. The zero Policy lets it reach public addresses, and nothing that is private.
type Policy struct {
	None  bool           `json:"none,omitempty"`  // nothing at all, names included
	Allow []netip.Prefix `json:"allow,omitempty"` // private ranges that it may reach; see ParseRange
	// Instances is where the instances of this host have their addresses; the first of them is the gateway's.
	Instances netip.Prefix `json:"instances,omitzero"`
}

// A Host is what belongs to the host itself, as its kernel has it at one moment (the local routing table).
type Host struct {
	Own       []netip.Prefix // its addresses
	Broadcast []netip.Prefix // of the networks that it is in
}

// A Reason is why a flow was refused. The zero Reason is that it was not.
type Reason struct {
	Why   string // for a person
	Allow string // how a person allows it; "" where nothing does
}

// Refused reports whether there is a reason.
func (r Reason) Refused() bool { return r.Why != "" }

func (r Reason) String() string {
	if r.Allow == "" {
		return r.Why
	}
	return r.Why + "; " + r.Allow
}

// A special range is one that no policy lets a guest reach.
type special struct {
	net netip.Prefix
	why string
}

// metadata are the addresses where clouds hand secrets to whoever asks from the host. Not all of them are link-local: Azure's is a
// public one, Alibaba's lies in the range of carriers' NAT.
var metadata = []special{
	{netip.MustParsePrefix("169.254.169.254/32"), "the cloud's metadata service is never reached"},
	{netip.MustParsePrefix("169.254.170.2/32"), "the cloud's metadata service is never reached"},
	{netip.MustParsePrefix("100.100.100.200/32"), "the cloud's metadata service is never reached"},
	{netip.MustParsePrefix("168.63.129.16/32"), "the cloud's metadata service is never reached"},
	{netip.MustParsePrefix("192.0.0.192/32"), "the cloud's metadata service is never reached"},
}

var never = append(metadata,
	special{netip.MustParsePrefix("0.0.0.0/8"), "0.0.0.0/8 is the host itself"},
	special{netip.MustParsePrefix("127.0.0.0/8"), "loopback is the host itself"},
	special{netip.MustParsePrefix("169.254.0.0/16"), "link-local addresses are never reached"},
	special{netip.MustParsePrefix("224.0.0.0/4"), "multicast is never sent"},
	special{netip.MustParsePrefix("255.255.255.255/32"), "broadcast is never sent"},
	special{netip.MustParsePrefix("240.0.0.0/4"), "240.0.0.0/4 is reserved"},
)

// private are the ranges that are refused until somebody allows them: RFC 1918's, and that of carriers' NAT (RFC 6598).
var private = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"),
	netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("100.64.0.0/10"),
}

// Judge says why the guest may not begin f, or send one more datagram of it; the zero Reason: it may. DNS, which the gateway
// answers, is judged with everything else.
func (p Policy) Judge(f Flow, h Host) Reason {
	a := f.Addr.Addr()
	switch {
	case p.None:
		return Reason{"the instance was made without traffic to the outside", "make one without --no-outbound (API: network.outbound)"}
	case !a.Is4():
		return Reason{Why: "machines speak IPv4"}
	case f.Protocol != TCP && f.Protocol != UDP:
		return Reason{Why: "only TCP and UDP leave a machine"}
	case f.Addr.Port() == 0:
		return Reason{Why: "port 0 is nobody's"}
	case p.Instances.IsValid() && a == p.Instances.Masked().Addr().Next():
		if f.Addr.Port() == DNSPort {
			return Reason{}
		}
		return Reason{Why: fmt.Sprintf("the gateway answers DNS at port %d, and nothing else", DNSPort)}
	}
	for _, s := range never {
		if s.net.Contains(a) {
			return Reason{Why: s.why}
		}
	}
	switch {
	case within(h.Own, a):
		return Reason{Why: "it is an address of the host itself"}
	case within(h.Broadcast, a):
		return Reason{Why: "it is the broadcast address of one of the host's networks"}
	case p.Instances.Contains(a):
		return Reason{Why: "instances do not reach each other"}
	case within(private, a) && !within(p.Allow, a):
		return Reason{"it is a private address", fmt.Sprintf("make the instance with --allow-net %v/32 (API: network.allow), or run the daemon with it", a)}
	}
	return Reason{}
}

// DNSPort is where the gateway answers DNS, over UDP and TCP.
const DNSPort = 53

func within(nets []netip.Prefix, a netip.Addr) bool {
	for _, n := range nets {
		if n.Contains(a) {
			return true
		}
	}
	return false
}
