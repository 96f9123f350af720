package network

import (
	"encoding/binary"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// stations are the two ends of the link.
type stations struct {
	guestMAC, gatewayMAC [6]byte
	guestIP, gatewayIP   [4]byte
}

func stationsOf(c Config) stations {
	return stations{
		guestMAC:   [6]byte(c.GuestMAC),
		gatewayMAC: [6]byte(GatewayMAC),
		guestIP:    c.Guest.Addr().As4(),
		gatewayIP:  Gateway(c.Guest).As4(),
	}
}

// A verdict is what becomes of a frame from the guest.
type verdict int

const (
	deliver   verdict = iota // to the stack
	ignore                   // noise that every system makes: IPv6, multicast, broadcast; or no answer is due
	malformed                // not what it claims to be
	spoofed                  // an address that is not the guest's
	begins                   // begins a flow, or is a datagram: the policy's to decide
	asks                     // asks who has an address: the gateway has
	follows                  // a TCP segment of a connection to the outside; where there is none it is reset, and no more said
	resets                   // the same, but it is a reset itself: where there is no connection it is ignored
)

// leastPath is the least that a guest can say to be the MTU of a path beyond it. The stack would believe 0 too, and send its buffers in
// segments of one byte, each of which takes as much memory as a large one.
const leastPath = 576

// judge decides what becomes of a frame, which it only reads. The flow is set where the verdict is begins.
func (id *stations) judge(frame []byte) (verdict, Flow) {
	if len(frame) < header.EthernetMinimumSize {
		return malformed, Flow{}
	}
	dst, src := [6]byte(frame[:6]), [6]byte(frame[6:12])
	if src != id.guestMAC {
		return spoofed, Flow{}
	}
	kind, body := binary.BigEndian.Uint16(frame[12:]), frame[header.EthernetMinimumSize:]
	switch {
	case kind == uint16(header.ARPProtocolNumber):
		return id.judgeARP(body), Flow{}
	case kind != uint16(header.IPv4ProtocolNumber) || dst != id.gatewayMAC:
		return ignore, Flow{}
	}
	return id.judgeIPv4(body)
}

// judgeARP tells questions in the guest's own name from lies. The gateway has every address but the guest's: the guest believes other
// instances to be on its link, and finds who refuses at once in their place. The stack hears of none of it.
func (id *stations) judgeARP(b []byte) verdict {
	h := header.ARP(b)
	switch {
	case !h.IsValid():
		return malformed
	case [6]byte(h.HardwareAddressSender()) != id.guestMAC:
		return spoofed
	case [4]byte(h.ProtocolAddressSender()) == [4]byte{}:
		return ignore // asks whether its address is taken; it is not
	case [4]byte(h.ProtocolAddressSender()) != id.guestIP:
		return spoofed
	case h.Op() != header.ARPRequest, [4]byte(h.ProtocolAddressTarget()) == id.guestIP:
		return ignore // an answer that nobody wants, an announcement
	}
	return asks
}

func (id *stations) judgeIPv4(b []byte) (verdict, Flow) {
	h := header.IPv4(b)
	if !h.IsValid(len(b)) || h.HeaderLength() < header.IPv4MinimumSize {
		return malformed, Flow{}
	}
	if [4]byte(h.SourceAddressSlice()) != id.guestIP {
		return spoofed, Flow{}
	}
	dst := netip.AddrFrom4([4]byte(h.DestinationAddressSlice()))
	if dst.IsMulticast() || dst == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return ignore, Flow{}
	}
	if h.More() || h.FragmentOffset() != 0 {
		return ignore, Flow{} // nothing that is let through needs fragments
	}
	toGateway := dst.As4() == id.gatewayIP
	flow := Flow{Protocol: Protocol(h.Protocol()), Addr: netip.AddrPortFrom(dst, 0)}
	payload := h.Payload()
	switch flow.Protocol {
	case TCP:
		if len(payload) < header.TCPMinimumSize {
			return malformed, Flow{}
		}
		t := header.TCP(payload)
		flow.Addr = netip.AddrPortFrom(dst, t.DestinationPort())
		switch flags := t.Flags(); {
		case flags&(header.TCPFlagSyn|header.TCPFlagAck|header.TCPFlagRst) == header.TCPFlagSyn:
			return begins, flow
		case toGateway:
			return deliver, Flow{}
		case flags.Contains(header.TCPFlagRst):
			return resets, Flow{}
		}
		return follows, Flow{}
	case UDP:
		if len(payload) < header.UDPMinimumSize {
			return malformed, Flow{}
		}
		u := header.UDP(payload)
		if n := int(u.Length()); n < header.UDPMinimumSize || n > len(payload) {
			return malformed, Flow{}
		}
		flow.Addr = netip.AddrPortFrom(dst, u.DestinationPort())
		return begins, flow
	case ICMP:
		if len(payload) < header.ICMPv4MinimumSize {
			return malformed, Flow{}
		}
		m := header.ICMPv4(payload)
		switch {
		case m.Type() == header.ICMPv4DstUnreachable && m.Code() == header.ICMPv4FragmentationNeeded && m.MTU() < leastPath:
			return ignore, Flow{}
		case toGateway:
			return deliver, Flow{}
		case m.Type() == header.ICMPv4Echo:
			return begins, flow
		}
		return ignore, Flow{}
	}
	return begins, flow
}
