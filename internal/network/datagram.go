package network

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

const udpHeaders = header.EthernetMinimumSize + header.IPv4MinimumSize + header.UDPMinimumSize

// datagramBuffers hold any datagram.
var datagramBuffers = newBufferPool(64 << 10)

// evictIdle is how long a flow must have been idle to make room for a new one.
const evictIdle = 5 * time.Second

// A udpKey is a port of the guest's and where it sends to.
type udpKey struct {
	port uint16
	to   netip.AddrPort
}

// A udpFlow is a socket of the host's that stands for one of the guest's. gVisor has no part in it: datagrams need no stack.
type udpFlow struct {
	udpKey
	conn net.Conn
	raw  kernelSource
	last moment // of the last datagram
}

// datagram sends what the policy has let through. It runs in readLoop and never blocks.
func (o *outbound) datagram(f Flow, frame []byte) {
	ip := header.IPv4(frame[header.EthernetMinimumSize:])
	u := header.UDP(ip.Payload())
	u = u[:u.Length()]
	payload := []byte(u[header.UDPMinimumSize:])
	if u.Checksum() != 0 && !u.IsChecksumValid(ip.SourceAddress(), ip.DestinationAddress(), checksum.Checksum(payload, 0)) {
		o.s.malformed.Add(1)
		return
	}
	key := udpKey{u.SourcePort(), f.Addr}
	if f.Addr.Addr().As4() == o.s.link.id.gatewayIP {
		o.queryByDatagram(key, payload)
		return
	}
	flow := o.udpFlow(key, frame)
	if flow == nil {
		return
	}
	flow.last.isNow()
	o.s.tx.Add(int64(len(payload)))
	switch err := flow.send(payload); {
	case errors.Is(err, syscall.ECONNREFUSED): // an ICMP answer to what was sent before
		o.unreachable(flow.quote(o.s.link.id), header.ICMPv4PortUnreachable)
	case err != nil:
		o.lost.Add(1)
	}
}

func (f *udpFlow) send(payload []byte) (err error) {
	rawErr := f.raw.raw.Write(func(fd uintptr) bool {
		err = unix.Sendto(int(fd), payload, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, nil)
		return true
	})
	return errors.Join(rawErr, err)
}

// udpFlow finds or opens the flow of a datagram; nil where that cannot be, which the guest was told.
func (o *outbound) udpFlow(key udpKey, frame []byte) *udpFlow {
	f := Flow{Protocol: UDP, Addr: key.to}
	o.mu.Lock()
	if flow := o.udp[key]; flow != nil {
		o.mu.Unlock()
		return flow
	}
	if len(o.udp) >= o.limits.UDP && !o.evictLocked() {
		n := len(o.udp)
		o.mu.Unlock()
		o.limited(datagramLimit, f, fmt.Sprintf("%d UDP flows to the outside are open, which is the most at a time", n))
		return nil
	}
	if !o.newFlows.Allow() {
		o.mu.Unlock()
		o.limited(rateLimit, f, o.limits.tooFast())
		return nil
	}
	o.mu.Unlock()
	ctx, cancel := context.WithTimeout(o.s.ctx, time.Second) // a socket is connected at once
	conn, err := o.open(ctx, "udp4", f)
	cancel()
	if err != nil {
		switch {
		case errors.Is(err, errRefused):
			o.s.answer(frame)
		case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EACCES):
			o.unreachable(frame[header.EthernetMinimumSize:], header.ICMPv4HostUnreachable)
		default:
			o.hostLacks(f, err)
		}
		return nil
	}
	flow := &udpFlow{udpKey: key, conn: conn}
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		conn.Close()
		return nil
	}
	flow.raw = kernelSource{raw, &datagramBuffers}
	flow.last.isNow()
	o.mu.Lock()
	o.udp[key] = flow
	o.mu.Unlock()
	o.s.wg.Go(func() { o.receive(flow) })
	return flow
}

// evictLocked makes room by the flow that was idle for longest, if that is long enough.
func (o *outbound) evictLocked() bool {
	now := time.Now()
	if now.Before(o.full) {
		return false
	}
	var oldest *udpFlow
	for _, f := range o.udp {
		if oldest == nil || f.last.idle(now) > oldest.last.idle(now) {
			oldest = f
		}
	}
	if oldest == nil {
		return false
	}
	if left := evictIdle - oldest.last.idle(now); left > 0 {
		o.full = now.Add(min(left, time.Second)) // a flood does not have all of them looked at each time
		return false
	}
	delete(o.udp, oldest.udpKey)
	oldest.conn.Close()
	return true
}

// receive hands the guest what comes back, until the flow is closed.
func (o *outbound) receive(f *udpFlow) {
	defer context.AfterFunc(o.s.ctx, func() { f.conn.Close() })()
	defer func() {
		f.conn.Close()
		o.mu.Lock()
		if o.udp[f.udpKey] == f {
			delete(o.udp, f.udpKey)
		}
		o.mu.Unlock()
	}()
	for {
		b, n, err := f.raw.receive()
		switch {
		case err == nil:
			f.last.isNow()
			o.s.deliverDatagram(f.to, f.port, (*b)[:n])
		case errors.Is(err, syscall.ECONNREFUSED):
			o.unreachable(f.quote(o.s.link.id), header.ICMPv4PortUnreachable)
		case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
			o.unreachable(f.quote(o.s.link.id), header.ICMPv4HostUnreachable)
		}
		if b != nil {
			f.raw.done(b)
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
	}
}

// deliverDatagram sends the guest a datagram; one that is larger than the link carries is lost.
func (s *Stack) deliverDatagram(from netip.AddrPort, port uint16, payload []byte) {
	if len(payload) > int(s.link.mtu)-header.IPv4MinimumSize-header.UDPMinimumSize {
		s.out.lost.Add(1)
		return
	}
	s.rx.Add(int64(len(payload)))
	src := tcpip.AddrFrom4(from.Addr().As4())
	size := header.UDPMinimumSize + len(payload)
	var headers [udpHeaders]byte
	s.link.id.fill(headers[:], src, header.UDPProtocolNumber, size)
	u := header.UDP(headers[udpHeaders-header.UDPMinimumSize:])
	u.Encode(&header.UDPFields{SrcPort: from.Port(), DstPort: port, Length: uint16(size)})
	sum := header.PseudoHeaderChecksum(header.UDPProtocolNumber, src, tcpip.AddrFrom4(s.link.id.guestIP), uint16(size))
	sum = ^u.CalculateChecksum(checksum.Checksum(payload, sum))
	if sum == 0 {
		sum = 0xffff // 0 says that there is none
	}
	u.SetChecksum(sum)
	s.link.enqueue(udpHeaders+len(payload), headers[:], payload)
}

// quote is the beginning of a packet of the flow's, for an ICMP answer to it.
func (f *udpFlow) quote(id stations) []byte {
	b := make([]byte, header.IPv4MinimumSize+header.UDPMinimumSize)
	ip := header.IPv4(b)
	ip.Encode(&header.IPv4Fields{
		TotalLength: uint16(len(b)), TTL: 64, Protocol: uint8(UDP),
		SrcAddr: tcpip.AddrFrom4(id.guestIP), DstAddr: tcpip.AddrFrom4(f.to.Addr().As4()),
	})
	ip.SetChecksum(^ip.CalculateChecksum())
	u := b[header.IPv4MinimumSize:]
	binary.BigEndian.PutUint16(u[0:], f.port)
	binary.BigEndian.PutUint16(u[2:], f.to.Port())
	binary.BigEndian.PutUint16(u[4:], header.UDPMinimumSize)
	return b
}
