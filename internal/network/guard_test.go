package network

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/time/rate"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// A packet describes a frame from the guest; what is not said is as it should be.
type packet struct {
	srcMAC, dstMAC []byte
	kind           uint16
	src, dst       string
	protocol       Protocol
	flags          header.TCPFlags
	port, from     uint16
	seq, ack       uint32
	icmp           header.ICMPv4Type
	code           header.ICMPv4Code
	mtu            uint16
	fragment       uint16
	cut            int // bytes missing at the end
	lie            int // what a datagram says to have more
}

func (p packet) frame() []byte {
	id := stationsOf(testConfig())
	or := func(b, other []byte) []byte {
		if b == nil {
			return other
		}
		return b
	}
	addr := func(s string, other [4]byte) tcpip.Address {
		if s == "" {
			return tcpip.AddrFrom4(other)
		}
		return tcpip.AddrFrom4(netip.MustParseAddr(s).As4())
	}
	src, dst := addr(p.src, id.guestIP), addr(p.dst, id.gatewayIP)
	var body []byte
	switch p.protocol {
	case TCP:
		body = make([]byte, header.TCPMinimumSize)
		t := header.TCP(body)
		t.Encode(&header.TCPFields{SrcPort: cmp.Or(p.from, 4000), DstPort: p.port, SeqNum: 100 + p.seq, AckNum: 200 + p.ack, DataOffset: header.TCPMinimumSize, Flags: p.flags, WindowSize: 1000})
		t.SetChecksum(^t.CalculateChecksum(header.PseudoHeaderChecksum(header.TCPProtocolNumber, src, dst, uint16(len(body)))))
	case UDP:
		body = make([]byte, header.UDPMinimumSize+4)
		u := header.UDP(body)
		u.Encode(&header.UDPFields{SrcPort: 4000, DstPort: p.port, Length: uint16(len(body) + p.lie)})
	case ICMP:
		body = make([]byte, header.ICMPv4MinimumSize+4)
		m := header.ICMPv4(body)
		m.SetType(p.icmp)
		m.SetCode(p.code)
		m.SetMTU(p.mtu)
		m.SetChecksum(^checksum.Checksum(m, 0))
	default:
		body = make([]byte, 8)
	}
	frame := make([]byte, header.EthernetMinimumSize+header.IPv4MinimumSize, 128)
	copy(frame, or(p.dstMAC, id.gatewayMAC[:]))
	copy(frame[6:], or(p.srcMAC, id.guestMAC[:]))
	if p.kind == 0 {
		p.kind = uint16(header.IPv4ProtocolNumber)
	}
	binary.BigEndian.PutUint16(frame[12:], p.kind)
	ip := header.IPv4(frame[header.EthernetMinimumSize:])
	ip.Encode(&header.IPv4Fields{TotalLength: uint16(len(ip) + len(body)), TTL: 64, Protocol: uint8(p.protocol), FragmentOffset: p.fragment, SrcAddr: src, DstAddr: dst})
	ip.SetChecksum(^ip.CalculateChecksum())
	frame = append(frame, body...)
	return frame[:len(frame)-p.cut]
}

func arpFrame(op header.ARPOp, senderMAC []byte, sender, target string) []byte {
	id := stationsOf(testConfig())
	frame := make([]byte, header.EthernetMinimumSize+header.ARPSize)
	copy(frame, bytes.Repeat([]byte{0xff}, 6))
	copy(frame[6:], id.guestMAC[:])
	binary.BigEndian.PutUint16(frame[12:], uint16(header.ARPProtocolNumber))
	a := header.ARP(frame[header.EthernetMinimumSize:])
	a.SetIPv4OverEthernet()
	a.SetOp(op)
	copy(a.HardwareAddressSender(), senderMAC)
	copy(a.ProtocolAddressSender(), netip.MustParseAddr(sender).AsSlice())
	copy(a.ProtocolAddressTarget(), netip.MustParseAddr(target).AsSlice())
	return frame
}

func TestJudge(t *testing.T) {
	const syn, ack, rst = header.TCPFlagSyn, header.TCPFlagAck, header.TCPFlagRst
	flow := func(p Protocol, addr string) Flow { return Flow{Protocol: p, Addr: netip.MustParseAddrPort(addr)} }
	broadcast, other := bytes.Repeat([]byte{0xff}, 6), []byte{2, 0, 0, 0, 0, 77}
	tests := []struct {
		name  string
		frame []byte
		want  verdict
		flow  Flow
	}{
		{"an answer of the guest", packet{protocol: TCP, flags: syn | ack, port: 20000}.frame(), deliver, Flow{}},
		{"a segment of the guest", packet{protocol: TCP, flags: ack, port: 20000}.frame(), deliver, Flow{}},
		{"a reset of the guest", packet{protocol: TCP, flags: rst, port: 20000}.frame(), deliver, Flow{}},
		{"a ping of the gateway", packet{protocol: ICMP, icmp: header.ICMPv4Echo}.frame(), deliver, Flow{}},
		{"an ICMP error of the guest", packet{protocol: ICMP, icmp: header.ICMPv4DstUnreachable}.frame(), deliver, Flow{}},
		{"a smaller path", packet{protocol: ICMP, icmp: header.ICMPv4DstUnreachable, code: header.ICMPv4FragmentationNeeded, mtu: 1400}.frame(), deliver, Flow{}},
		{"a path of nothing", packet{protocol: ICMP, icmp: header.ICMPv4DstUnreachable, code: header.ICMPv4FragmentationNeeded}.frame(), ignore, Flow{}},
		{"a question who has the gateway's address", arpFrame(header.ARPRequest, testMAC, "10.77.0.9", "10.77.0.1"), asks, Flow{}},

		{"a connection to the gateway", packet{protocol: TCP, flags: syn, port: 22}.frame(), begins, flow(TCP, "10.77.0.1:22")},
		{"a connection outside", packet{dst: "203.0.113.7", protocol: TCP, flags: syn, port: 443}.frame(), begins, flow(TCP, "203.0.113.7:443")},
		{"a connection to loopback", packet{dst: "127.0.0.1", protocol: TCP, flags: syn, port: 80}.frame(), begins, flow(TCP, "127.0.0.1:80")},
		{"a datagram to the gateway", packet{protocol: UDP, port: 53}.frame(), begins, flow(UDP, "10.77.0.1:53")},
		{"a datagram outside", packet{dst: "203.0.113.7", protocol: UDP, port: 53}.frame(), begins, flow(UDP, "203.0.113.7:53")},
		{"a ping outside", packet{dst: "203.0.113.7", protocol: ICMP, icmp: header.ICMPv4Echo}.frame(), begins, flow(ICMP, "203.0.113.7:0")},
		{"another protocol", packet{protocol: 47}.frame(), begins, flow(47, "10.77.0.1:0")},
		{"a segment outside of no connection", packet{dst: "203.0.113.7", protocol: TCP, flags: ack, port: 443}.frame(), follows, Flow{}},
		{"a SYN-ACK outside", packet{dst: "203.0.113.7", protocol: TCP, flags: syn | ack, port: 443}.frame(), follows, Flow{}},
		{"a reset outside", packet{dst: "203.0.113.7", protocol: TCP, flags: rst, port: 443}.frame(), resets, Flow{}},
		{"an ICMP error outside", packet{dst: "203.0.113.7", protocol: ICMP, icmp: header.ICMPv4DstUnreachable}.frame(), ignore, Flow{}},

		{"a router solicitation", packet{kind: 0x86dd, dstMAC: []byte{0x33, 0x33, 0, 0, 0, 2}}.frame(), ignore, Flow{}},
		{"a DHCP request", packet{dstMAC: broadcast, src: "0.0.0.0", dst: "255.255.255.255", protocol: UDP, port: 67}.frame(), ignore, Flow{}},
		{"multicast", packet{dst: "224.0.0.251", protocol: UDP, port: 5353}.frame(), ignore, Flow{}},
		{"to another station", packet{dstMAC: other, protocol: UDP, port: 1}.frame(), ignore, Flow{}},
		{"a fragment", packet{protocol: TCP, flags: ack, port: 20000, fragment: 8}.frame(), ignore, Flow{}},
		{"a question who has another's address", arpFrame(header.ARPRequest, testMAC, "10.77.0.9", "10.77.0.55"), asks, Flow{}},
		{"an announcement", arpFrame(header.ARPRequest, testMAC, "10.77.0.9", "10.77.0.9"), ignore, Flow{}},
		{"an ARP answer", arpFrame(header.ARPReply, testMAC, "10.77.0.9", "10.77.0.1"), ignore, Flow{}},
		{"a question whether the address is taken", arpFrame(header.ARPRequest, testMAC, "0.0.0.0", "10.77.0.9"), ignore, Flow{}},

		{"another's hardware address", packet{srcMAC: other, protocol: TCP, flags: ack}.frame(), spoofed, Flow{}},
		{"the gateway's hardware address", packet{srcMAC: GatewayMAC, protocol: TCP, flags: ack}.frame(), spoofed, Flow{}},
		{"another's address", packet{src: "10.77.0.10", protocol: TCP, flags: ack}.frame(), spoofed, Flow{}},
		{"the gateway's address", packet{src: "10.77.0.1", protocol: TCP, flags: ack}.frame(), spoofed, Flow{}},
		{"ARP in the gateway's name", arpFrame(header.ARPReply, testMAC, "10.77.0.1", "10.77.0.9"), spoofed, Flow{}},
		{"ARP with another's hardware address", arpFrame(header.ARPReply, other, "10.77.0.9", "10.77.0.1"), spoofed, Flow{}},

		{"nothing", nil, malformed, Flow{}},
		{"half an ethernet header", packet{}.frame()[:10], malformed, Flow{}},
		{"no IP header", packet{}.frame()[:20], malformed, Flow{}},
		{"shorter than it says", packet{protocol: TCP, flags: ack, cut: 1}.frame(), malformed, Flow{}},
		{"a datagram longer than its packet", packet{protocol: UDP, port: 53, lie: 1}.frame(), malformed, Flow{}},
		{"a datagram shorter than its header", packet{protocol: UDP, port: 53, lie: -5}.frame(), malformed, Flow{}},
		{"half an ARP packet", arpFrame(header.ARPRequest, testMAC, "10.77.0.9", "10.77.0.1")[:30], malformed, Flow{}},
	}
	id := stationsOf(testConfig())
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := bytes.Clone(tt.frame)
			got, flow := id.judge(tt.frame)
			if got != tt.want || flow != tt.flow {
				t.Errorf("judged %v %v, want %v %v", got, flow, tt.want, tt.flow)
			}
			if !bytes.Equal(before, tt.frame) {
				t.Error("judge wrote to the frame")
			}
		})
	}
}

// What is refused is answered at once, from where the guest expects an answer, and with a checksum that its kernel accepts.
func TestRefusalOnTheWire(t *testing.T) {
	var told []Refusal
	c := testConfig()
	c.Refused = func(r Refusal) { told = append(told, r) }
	s, w := rawPair(t, c)

	w.send(packet{dst: "203.0.113.7", protocol: TCP, flags: header.TCPFlagSyn, port: 443}.frame())
	ip := checkIP(t, w.receive(), "203.0.113.7")
	seg := header.TCP(ip.Payload())
	if seg.Flags() != header.TCPFlagRst|header.TCPFlagAck || seg.AckNumber() != 101 || seg.DestinationPort() != 4000 || seg.SourcePort() != 443 {
		t.Errorf("the SYN's answer is %v, ack %d", seg.Flags(), seg.AckNumber())
	}
	if !seg.IsChecksumValid(ip.SourceAddress(), ip.DestinationAddress(), 0, 0) {
		t.Error("the reset's checksum is wrong")
	}

	w.send(packet{dst: "203.0.113.7", protocol: TCP, flags: header.TCPFlagAck, port: 443}.frame())
	seg = header.TCP(checkIP(t, w.receive(), "203.0.113.7").Payload())
	if seg.Flags() != header.TCPFlagRst || seg.SequenceNumber() != 200 {
		t.Errorf("a stray segment's answer is %v, seq %d; want a reset at 200", seg.Flags(), seg.SequenceNumber())
	}

	for _, p := range []packet{
		{dst: "203.0.113.7", protocol: UDP, port: 53},
		{dst: "203.0.113.7", protocol: ICMP, icmp: header.ICMPv4Echo},
		{dst: "203.0.113.7", protocol: 47},
	} {
		sent := p.frame()
		w.send(sent)
		from, code := "10.77.0.1", header.ICMPv4AdminProhibited
		if p.protocol == UDP {
			from, code = p.dst, header.ICMPv4PortUnreachable
		}
		m := header.ICMPv4(checkIP(t, w.receive(), from).Payload())
		if m.Type() != header.ICMPv4DstUnreachable || m.Code() != code || checksum.Checksum(m, 0) != 0xffff {
			t.Errorf("the answer to %v is type %d code %d", p.protocol, m.Type(), m.Code())
		}
		if quoted := sent[header.EthernetMinimumSize:][:header.IPv4MinimumSize+8]; !bytes.Equal(m.Payload(), quoted) {
			t.Errorf("the answer to %v quotes %x, want %x", p.protocol, m.Payload(), quoted)
		}
	}

	s.Close()
	if n := s.Counters().Refused; n != 4 {
		t.Errorf("%d refusals counted, want 4", n)
	}
	if len(told) != 4 || told[0].String() != "outbound refused: tcp 203.0.113.7:443: the instance was made without traffic to the outside; make one without --no-outbound (API: network.outbound)" {
		t.Errorf("told %v", told)
	}
}

func checkIP(t *testing.T, frame []byte, from string) header.IPv4 {
	t.Helper()
	id := stationsOf(testConfig())
	if [6]byte(frame) != id.guestMAC || [6]byte(frame[6:]) != id.gatewayMAC {
		t.Errorf("a frame from %x to %x", frame[6:12], frame[:6])
	}
	ip := header.IPv4(frame[header.EthernetMinimumSize:])
	if !ip.IsValid(len(ip)) || !ip.IsChecksumValid() {
		t.Error("the answer is no valid IP packet")
	}
	if ip.SourceAddress().String() != from || ip.DestinationAddress().As4() != id.guestIP {
		t.Errorf("an answer from %v to %v", ip.SourceAddress(), ip.DestinationAddress())
	}
	return ip
}

// The gateway answers who it is, and pings; nothing else about it is to be seen. A machine that lies is counted, not believed.
func TestHostileWire(t *testing.T) {
	s, w := rawPair(t, testConfig())
	w.send(packet{srcMAC: []byte{2, 0, 0, 0, 0, 77}, protocol: UDP}.frame())
	w.send(arpFrame(header.ARPReply, testMAC, "10.77.0.1", "10.77.0.9"))
	w.send(nil)
	w.send(bytes.Repeat([]byte{0xff}, maxFrame))
	w.send(packet{protocol: TCP, flags: header.TCPFlagAck, cut: 3}.frame())
	w.send(arpFrame(header.ARPRequest, testMAC, "10.77.0.9", "10.77.0.9")) // its own address: nobody answers
	for _, asked := range []string{"10.77.0.1", "10.77.0.55"} {            // who would be another instance is behind the gateway
		w.send(arpFrame(header.ARPRequest, testMAC, "10.77.0.9", asked))
		a := header.ARP(w.receive()[header.EthernetMinimumSize:])
		if a.Op() != header.ARPReply || !bytes.Equal(a.HardwareAddressSender(), GatewayMAC) ||
			netip.AddrFrom4([4]byte(a.ProtocolAddressSender())).String() != asked {
			t.Errorf("the gateway's ARP answer to %s: op %d, %x has %v", asked, a.Op(), a.HardwareAddressSender(), a.ProtocolAddressSender())
		}
	}
	w.send(packet{protocol: ICMP, icmp: header.ICMPv4Echo}.frame())
	if m := header.ICMPv4(checkIP(t, w.receive(), "10.77.0.1").Payload()); m.Type() != header.ICMPv4EchoReply {
		t.Errorf("a ping of the gateway is answered by type %d", m.Type())
	}
	if c := s.Counters(); c.Spoofed != 3 || c.Malformed != 2 || c.Refused != 0 {
		t.Errorf("counters %+v, want 3 spoofed, 2 malformed", c)
	}
}

func TestSeen(t *testing.T) {
	s, w := rawPair(t, testConfig())
	w.send(packet{srcMAC: []byte{2, 0, 0, 0, 0, 77}}.frame())
	w.send(arpFrame(header.ARPRequest, testMAC, "10.77.0.9", "10.77.0.1"))
	w.receive()
	<-s.Seen()

	s, w = rawPair(t, testConfig())
	w.c.Close()
	<-s.Done()
	select {
	case <-s.Seen():
		t.Error("Seen without a frame")
	default:
	}
	if !errors.Is(s.Err(), io.EOF) {
		t.Errorf("Err = %v, want EOF", s.Err())
	}
}

func TestBrokenFraming(t *testing.T) {
	s, w := rawPair(t, testConfig())
	if s.Err() != nil {
		t.Errorf("Err = %v before the end", s.Err())
	}
	w.c.Write([]byte{0x7f, 0xff, 0xff, 0xff})
	<-s.Done()
	if !errors.Is(s.Err(), errFrameTooLong) {
		t.Errorf("Err = %v, want a frame that is too long", s.Err())
	}
}

func TestQueue(t *testing.T) {
	id := stationsOf(testConfig())
	l := newLink(nil, DefaultMTU, id) // nobody writes: the guest takes nothing
	big, small := make([]byte, 60000), make([]byte, 60)
	for l.enqueue(len(big), big) {
	}
	if n := l.lost.Load(); n != 1 {
		t.Fatalf("%d frames lost, want the one that was refused", n)
	}
	if len(l.pending) < queueBytes-queueReserve-len(big)-lengthSize || len(l.pending) > queueBytes-queueReserve {
		t.Errorf("%d bytes of large frames wait", len(l.pending))
	}
	for range 1000 {
		if !l.enqueue(len(small), small[:20], small[20:]) {
			t.Fatal("a small frame finds no room beside large ones")
		}
	}
	for l.enqueue(len(small), small) {
	}
	if len(l.pending) > queueBytes {
		t.Errorf("%d bytes wait, more than the bound", len(l.pending))
	}
	frames := newFrameReader(bytes.NewReader(l.take(nil)))
	var sizes int
	for {
		v, err := frames.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		sizes += v.Size()
		v.Release()
	}
	if sizes < queueBytes*9/10 {
		t.Errorf("frames of %d bytes came out of a full queue", sizes)
	}
	if !l.enqueue(len(big), big) {
		t.Error("an empty queue takes nothing")
	}
}

func TestTeller(t *testing.T) {
	l := policyTold()
	const burst, every = 10, 10 * time.Second
	now := time.Unix(1000, 0)
	steps := []struct {
		after  time.Duration
		events int
		passed int
		unsaid uint64 // with the first that passes
	}{
		{0, 15, burst, 0},
		{every - 1, 3, 0, 0},
		{1, 2, 1, 8},
		{3 * every, 5, 3, 1},
		{time.Hour, 11, burst, 2},
	}
	for i, step := range steps {
		now = now.Add(step.after)
		var passed int
		var unsaid uint64
		for range step.events {
			if n, ok := l.allow(now); ok {
				passed++
				unsaid += n
			}
		}
		if passed != step.passed || unsaid != step.unsaid {
			t.Errorf("step %d: %d of %d passed, %d unsaid; want %d and %d", i, passed, step.events, unsaid, step.passed, step.unsaid)
		}
	}
}

// All kinds together are told no more often than is promised to who takes it.
func TestToldTogether(t *testing.T) {
	tellers := []teller{policyTold()}
	for range limitKinds {
		tellers = append(tellers, limitTold())
	}
	takes := rate.NewLimiter(rate.Every(ToldEvery), ToldBurst)
	for now, end := time.Unix(1000, 0), time.Unix(1000, 0).Add(2*time.Hour); now.Before(end); now = now.Add(time.Second) {
		for i := range tellers {
			if _, told := tellers[i].allow(now); told && !takes.AllowN(now, 1) {
				t.Fatalf("too many are told after %v", now.Sub(time.Unix(1000, 0)))
			}
		}
	}
}

func TestConfig(t *testing.T) {
	for _, c := range []Config{
		{},
		{Guest: netip.MustParsePrefix("fd00::2/64"), GuestMAC: testMAC},
		{Guest: netip.MustParsePrefix("10.0.0.1/24"), GuestMAC: testMAC}, // the gateway's
		{Guest: netip.MustParsePrefix("10.0.0.0/24"), GuestMAC: testMAC},
		{Guest: netip.MustParsePrefix("10.0.0.3/31"), GuestMAC: testMAC},
		{Guest: testGuest},
		{Guest: testGuest, GuestMAC: []byte{1, 0, 0, 0, 0, 1}},
		{Guest: testGuest, GuestMAC: testMAC, MTU: 100},
		{Guest: testGuest, GuestMAC: testMAC, MTU: 100_000},
	} {
		if s, err := New(nil, c); err == nil {
			s.Close()
			t.Errorf("New accepts %+v", c)
		}
	}
}

// Whatever the guest sends, reading it ends, and neither the judge nor the answer reads beyond it.
func FuzzFrames(f *testing.F) {
	id := stationsOf(testConfig())
	add := func(frame []byte) { f.Add(append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...)) }
	add(packet{dst: "203.0.113.7", protocol: TCP, flags: header.TCPFlagSyn}.frame())
	add(packet{protocol: UDP, port: 53}.frame())
	add(packet{protocol: ICMP}.frame())
	add(arpFrame(header.ARPRequest, testMAC, "10.77.0.9", "10.77.0.1"))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{0, 0, 0, 9, 1})
	f.Fuzz(func(t *testing.T, stream []byte) {
		frames := newFrameReader(bytes.NewReader(stream))
		for {
			v, err := frames.next()
			if err != nil {
				return
			}
			if v.Size() > maxFrame {
				t.Fatalf("a frame of %d bytes", v.Size())
			}
			what, flow := id.judge(v.AsSlice())
			if what == begins || what == follows {
				reply := id.refusal(v.AsSlice())
				if len(reply) < header.EthernetMinimumSize+header.IPv4MinimumSize || len(reply) > 128 {
					t.Fatalf("an answer of %d bytes", len(reply))
				}
				if what == begins && !flow.Addr.IsValid() {
					t.Fatal("a flow to nowhere")
				}
			}
			v.Release()
		}
	})
}
