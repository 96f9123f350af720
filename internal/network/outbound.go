package network

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"github.com/halevm/hale/internal/egress"
)

// The guest's flows are internal/egress's.
type (
	Protocol = egress.Protocol
	Flow     = egress.Flow
)

// The protocols with names.
const (
	ICMP = egress.ICMP
	TCP  = egress.TCP
	UDP  = egress.UDP
)

// A Refusal is a flow that the guest may not begin, or not now.
type Refusal struct {
	Flow   Flow
	Reason egress.Reason
	Unsaid uint64 // refusals since the last one told that were not told
}

func (r Refusal) String() string {
	s := fmt.Sprintf("outbound refused: %v: %v", r.Flow, r.Reason)
	if r.Unsaid > 0 {
		s += fmt.Sprintf(" (and %d more before it)", r.Unsaid)
	}
	return s
}

// An outbound is what the guest has begun.
type outbound struct {
	s         *Stack
	policy    egress.Policy
	limits    Limits
	host      func() (egress.Host, error)
	dial      func(context.Context, string, netip.AddrPort) (net.Conn, error)
	resolvers func() ([]netip.AddrPort, error)
	watch     *hostWatch // nil where Config.Host stands in for it

	refusals, lost atomic.Uint64

	tellMu   sync.Mutex
	tell     func(Refusal)
	byPolicy teller // of what is told
	byLimit  [limitKinds]teller

	// Of TCP: connections are made by one of two forwarders, by how many there are.
	roomy, tight *tcp.Forwarder

	mu       sync.Mutex
	tcp      map[stack.TransportEndpointID]*tcpFlow
	udp      map[udpKey]*udpFlow
	queries  int       // DNS queries under way
	full     time.Time // no UDP flow makes room for another before
	newFlows *rate.Limiter
	newNames *rate.Limiter
}

func newOutbound(s *Stack, c Config) *outbound {
	o := &outbound{
		s: s, policy: c.Policy, limits: c.Limits.withDefaults(), host: c.Host, dial: c.Dial, resolvers: c.Resolvers, tell: c.Refused,
		tcp: map[stack.TransportEndpointID]*tcpFlow{}, udp: map[udpKey]*udpFlow{}, byPolicy: policyTold(),
	}
	for k := range o.byLimit {
		o.byLimit[k] = limitTold()
	}
	if !o.policy.Instances.IsValid() {
		o.policy.Instances = c.Guest.Masked()
	}
	if o.host == nil {
		o.watch = newHostWatch()
		o.host = o.watch.now
	}
	if o.dial == nil {
		o.dial = func(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, to.String())
		}
	}
	if o.resolvers == nil {
		o.resolvers = new(resolvConf).servers
	}
	o.newFlows = rate.NewLimiter(rate.Limit(o.limits.FlowRate), o.limits.FlowBurst)
	o.newNames = rate.NewLimiter(rate.Limit(o.limits.DNSRate), o.limits.DNSBurst)
	o.roomy = o.forwarder(roomyBuffer)
	o.tight = o.forwarder(leastReceive)
	return o
}

func (o *outbound) close() {
	if o.watch != nil {
		o.watch.close()
	}
}

// judge asks the policy about a flow, with the host as it is now.
func (o *outbound) judge(f Flow) egress.Reason {
	h, err := o.host()
	if err != nil {
		return egress.Reason{Why: "the host's own addresses are not known: " + err.Error()}
	}
	return o.policy.Judge(f, h)
}

// errRefused is a flow that the policy does not let out.
var errRefused = errors.New("refused by the policy")

// open connects to where the guest wants to be. It asks the policy about that very address, whatever was asked before: nothing
// of the guest's leaves the host another way. (What dns.go sends to the host's resolvers is the shim's own.)
func (o *outbound) open(ctx context.Context, network string, f Flow) (net.Conn, error) {
	if why := o.judge(f); why.Refused() || f.Addr.Addr().As4() == o.s.link.id.gatewayIP {
		return nil, errRefused
	}
	return o.dial(ctx, network, f.Addr)
}

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
			if why := s.out.judge(flow); why.Refused() {
				s.out.refuse(flow, why, &s.out.byPolicy)
				s.answer(v.AsSlice())
			} else if flow.Protocol == TCP {
				s.link.inject(v)
				continue
			} else {
				s.out.datagram(flow, v.AsSlice())
			}
		case follows, resets:
			if s.out.knows(v.AsSlice()) {
				s.link.inject(v)
				continue
			}
			if what == follows {
				s.answer(v.AsSlice())
			}
		case asks:
			reply := s.link.id.gatewayHas(v.AsSlice())
			s.link.enqueue(len(reply), reply)
		case malformed:
			s.malformed.Add(1)
		case spoofed:
			s.spoofed.Add(1)
		}
		v.Release()
	}
}

// refuse counts a refusal and tells of it, at a bounded rate.
func (o *outbound) refuse(f Flow, why egress.Reason, l *teller) {
	o.refusals.Add(1)
	if o.tell == nil {
		return
	}
	o.tellMu.Lock()
	defer o.tellMu.Unlock()
	if unsaid, ok := l.allow(time.Now()); ok {
		o.tell(Refusal{Flow: f, Reason: why, Unsaid: unsaid})
	}
}

// limited is refuse for what a limit was reached by, or what the host could not do.
func (o *outbound) limited(k limitKind, f Flow, why string) {
	o.refuse(f, egress.Reason{Why: why}, &o.byLimit[k])
}

// answer sends the guest what ends the attempt in frame at once.
func (s *Stack) answer(frame []byte) {
	reply := s.link.id.refusal(frame)
	s.link.enqueue(len(reply), reply)
}

// gatewayHas answers a question who has an address.
func (id *stations) gatewayHas(frame []byte) []byte {
	asked := header.ARP(frame[header.EthernetMinimumSize:])
	out := make([]byte, header.EthernetMinimumSize+header.ARPSize)
	copy(out, id.guestMAC[:])
	copy(out[6:], id.gatewayMAC[:])
	binary.BigEndian.PutUint16(out[12:], uint16(header.ARPProtocolNumber))
	a := header.ARP(out[header.EthernetMinimumSize:])
	a.SetIPv4OverEthernet()
	a.SetOp(header.ARPReply)
	copy(a.HardwareAddressSender(), id.gatewayMAC[:])
	copy(a.ProtocolAddressSender(), asked.ProtocolAddressTarget())
	copy(a.HardwareAddressTarget(), id.guestMAC[:])
	copy(a.ProtocolAddressTarget(), id.guestIP[:])
	return out
}

// refusal makes the frame that answers one whose verdict was begins or follows: what the destination itself would say of a closed
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
	id.fill(frame, src, p, size)
	return frame, frame[headers:]
}

// fill writes the ethernet and IP headers of a frame for the guest, with a payload of size bytes.
func (id *stations) fill(frame []byte, src tcpip.Address, p tcpip.TransportProtocolNumber, size int) {
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
}
