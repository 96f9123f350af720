package network

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// A Protocol is an IP protocol number.
type Protocol uint8

// The protocols with names.
const (
	ICMP Protocol = Protocol(header.ICMPv4ProtocolNumber)
	TCP  Protocol = Protocol(header.TCPProtocolNumber)
	UDP  Protocol = Protocol(header.UDPProtocolNumber)
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

// A Flow is what the guest begins: a connection, or the first of an exchange of datagrams.
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

// A Refusal is a flow that the guest may not begin.
type Refusal struct {
	Flow   Flow
	Reason string // for a person
	Unsaid uint64 // refusals since the last one told that were not told
}

func (r Refusal) String() string {
	s := fmt.Sprintf("outbound refused: %v: %s", r.Flow, r.Reason)
	if r.Unsaid > 0 {
		s += fmt.Sprintf(" (and %d more before it)", r.Unsaid)
	}
	return s
}

// whyNot says why the guest may not begin a flow. It is the one place that decides what the guest may reach: nothing, the
// gateway's own ports among it, for nothing carries a flow out of the machine.
func whyNot(Flow) string { return "machines reach nothing outside in this version" }

// readLoop judges the guest's frames one by one until the link ends.
func (s *Stack) readLoop() error {
	frames := newFrameReader(s.link.rw)
	for {
		v, err := frames.next()
		if err != nil {
			return err
		}
		what, flow := s.link.id.judge(v.AsSlice())
		if what != malformed && what != spoofed {
			s.seenOnce.Do(func() { close(s.seen) })
		}
		switch what {
		case deliver:
			s.link.inject(v)
			continue
		case begins:
			s.refuse(flow, whyNot(flow))
			s.answer(v.AsSlice())
		case stray:
			s.answer(v.AsSlice())
		case malformed:
			s.malformed.Add(1)
		case spoofed:
			s.spoofed.Add(1)
		}
		v.Release()
	}
}

// refuse counts a refusal and tells of it, at a bounded rate.
func (s *Stack) refuse(f Flow, reason string) {
	s.refusals.Add(1)
	if s.refused == nil {
		return
	}
	if unsaid, ok := s.limit.allow(time.Now()); ok {
		s.refused(Refusal{Flow: f, Reason: reason, Unsaid: unsaid})
	}
}

// answer sends the guest what ends the attempt in frame at once.
func (s *Stack) answer(frame []byte) {
	reply := s.link.id.refusal(frame)
	s.link.enqueue(len(reply), reply)
}

// A limiter lets limitBurst events through at once and one more for each limitEvery that passes.
type limiter struct {
	spent  int
	last   time.Time // when spent was last put right
	unsaid uint64
}

const (
	limitBurst = 10
	limitEvery = 10 * time.Second
)

// allow reports whether an event at now may pass, and how many before it did not.
func (l *limiter) allow(now time.Time) (unsaid uint64, ok bool) {
	if n := now.Sub(l.last) / limitEvery; n > 0 {
		l.spent = int(max(0, time.Duration(l.spent)-n))
		l.last = now
	}
	if l.spent >= limitBurst {
		l.unsaid++
		return 0, false
	}
	l.spent++
	unsaid, l.unsaid = l.unsaid, 0
	return unsaid, true
}

// refusal makes the frame that answers one whose verdict was begins or stray: what the destination itself would say of a closed
// port, for TCP and UDP, which every program understands; else "administratively prohibited" from the gateway.
func (id *stations) refusal(frame []byte) []byte {
	ip := header.IPv4(frame[header.EthernetMinimumSize:])
	switch Protocol(ip.Protocol()) {
	case TCP:
		return id.reset(ip)
	case UDP:
		return id.unreachable(ip, ip.DestinationAddress(), header.ICMPv4PortUnreachable)
	}
	return id.unreachable(ip, tcpip.AddrFrom4(id.gatewayIP), header.ICMPv4AdminProhibited)
}

// reset answers a segment as RFC 9293, section 3.10.7.1 has it for a port where nobody listens.
func (id *stations) reset(ip header.IPv4) []byte {
	seg := header.TCP(ip.Payload())
	fields := header.TCPFields{
		SrcPort:    seg.DestinationPort(),
		DstPort:    seg.SourcePort(),
		DataOffset: header.TCPMinimumSize,
		Flags:      header.TCPFlagRst,
	}
	if flags := seg.Flags(); flags.Contains(header.TCPFlagAck) {
		fields.SeqNum = seg.AckNumber()
	} else {
		data := max(0, len(ip.Payload())-int(seg.DataOffset()))
		fields.AckNum = seg.SequenceNumber() + uint32(data)
		for _, one := range []header.TCPFlags{header.TCPFlagSyn, header.TCPFlagFin} {
			if flags.Contains(one) {
				fields.AckNum++
			}
		}
		fields.Flags |= header.TCPFlagAck
	}
	out, body := id.packet(ip.DestinationAddress(), header.TCPProtocolNumber, header.TCPMinimumSize)
	t := header.TCP(body)
	t.Encode(&fields)
	pseudo := header.PseudoHeaderChecksum(header.TCPProtocolNumber, ip.DestinationAddress(), ip.SourceAddress(), header.TCPMinimumSize)
	t.SetChecksum(^t.CalculateChecksum(pseudo))
	return out
}

// unreachable quotes the packet's header and the 8 bytes after it, which is what a system needs to find the socket.
func (id *stations) unreachable(ip header.IPv4, from tcpip.Address, code header.ICMPv4Code) []byte {
	quote := ip[:min(int(ip.HeaderLength())+8, int(ip.TotalLength()))]
	out, body := id.packet(from, header.ICMPv4ProtocolNumber, header.ICMPv4MinimumSize+len(quote))
	m := header.ICMPv4(body)
	m.SetType(header.ICMPv4DstUnreachable)
	m.SetCode(code)
	copy(m.Payload(), quote)
	m.SetChecksum(^checksum.Checksum(m, 0))
	return out
}

// packet returns a frame for the guest with its ethernet and IP headers written, and the part of it that is the payload.
func (id *stations) packet(src tcpip.Address, p tcpip.TransportProtocolNumber, size int) (frame, payload []byte) {
	const headers = header.EthernetMinimumSize + header.IPv4MinimumSize
	frame = make([]byte, headers+size)
	copy(frame, id.guestMAC[:])
	copy(frame[6:], id.gatewayMAC[:])
	binary.BigEndian.PutUint16(frame[12:], uint16(header.IPv4ProtocolNumber))
	ip := header.IPv4(frame[header.EthernetMinimumSize:])
	ip.Encode(&header.IPv4Fields{
		TotalLength: uint16(header.IPv4MinimumSize + size),
		Flags:       header.IPv4FlagDontFragment,
		TTL:         64,
		Protocol:    uint8(p),
		SrcAddr:     src,
		DstAddr:     tcpip.AddrFrom4(id.guestIP),
	})
	ip.SetChecksum(^ip.CalculateChecksum())
	return frame, frame[headers:]
}
