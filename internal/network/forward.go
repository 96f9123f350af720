package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

const (
	// connectTimeout bounds the wait for the outside. The guest's own kernel sends its SYN again meanwhile, and gives up by itself.
	connectTimeout = 30 * time.Second
	// roomyFlows is how many connections of one guest have buffers of their full size; all beyond have small ones, so that
	// what hundreds of them hold is bounded whatever their ends do not read. None of them grows.
	roomyFlows  = 4
	roomyBuffer = 512 << 10
)

// A tcpFlow is a connection that the guest began, from its SYN to the end of its relay.
type tcpFlow struct {
	Flow
	syn   []byte // its IP header and 8 bytes more, for an ICMP answer
	small bool
	last  moment // of the last byte
	abort atomic.Pointer[func()]
}

func (f *tcpFlow) passed() { f.last.isNow() }

// knows reports whether a segment to the outside belongs to a connection.
func (o *outbound) knows(frame []byte) bool {
	ip := header.IPv4(frame[header.EthernetMinimumSize:])
	seg := header.TCP(ip.Payload())
	id := stack.TransportEndpointID{
		LocalAddress: ip.DestinationAddress(), LocalPort: seg.DestinationPort(), RemoteAddress: ip.SourceAddress(), RemotePort: seg.SourcePort(),
	}
	return o.s.stack.FindTransportEndpoint(ipv4.ProtocolNumber, tcp.ProtocolNumber, id, nicID) != nil
}

func (o *outbound) forwarder(window int) *tcp.Forwarder {
	const unbounded = 1 << 30 // begin bounds them
	return tcp.NewForwarder(o.s.stack, window, unbounded, o.connect)
}

// begin takes a segment that belongs to no connection; gVisor answers what it does not take with a reset. It runs in readLoop, which
// has asked the policy.
func (o *outbound) begin(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	seg := header.TCP(pkt.TransportHeader().Slice())
	if seg.Flags()&(header.TCPFlagSyn|header.TCPFlagAck|header.TCPFlagRst) != header.TCPFlagSyn {
		return false
	}
	f := &tcpFlow{Flow: Flow{Protocol: TCP, Addr: addrPort(id.LocalAddress, id.LocalPort)}}
	f.syn = append(append(f.syn, pkt.NetworkHeader().Slice()...), seg[:8]...)
	f.passed()
	o.mu.Lock()
	if o.tcp[id] != nil {
		o.mu.Unlock()
		return true // sent again while the outside is awaited
	}
	if n := len(o.tcp); n >= o.limits.TCP {
		o.mu.Unlock()
		o.limited(connectionLimit, f.Flow, fmt.Sprintf("%d connections to the outside are open, which is the most at a time", n))
		return false
	}
	if !o.newFlows.Allow() {
		o.mu.Unlock()
		o.limited(rateLimit, f.Flow, o.limits.tooFast())
		return true // without an answer: the guest's kernel tries again in a second
	}
	f.small = len(o.tcp) >= roomyFlows
	o.tcp[id] = f
	o.mu.Unlock()
	forward := o.roomy
	if f.small {
		forward = o.tight
	}
	o.s.wg.Add(1) // connect's; readLoop is one of the group itself
	if !forward.HandlePacket(id, pkt) {
		o.s.wg.Done()
		o.forget(id)
		return false
	}
	return true
}

func (l Limits) tooFast() string {
	return fmt.Sprintf("more than %d new connections and flows a second", l.FlowRate)
}

func (o *outbound) forget(id stack.TransportEndpointID) {
	o.mu.Lock()
	delete(o.tcp, id)
	o.mu.Unlock()
}

// connect connects to the outside first, so that the guest sees what became of that and not a connection that breaks off.
func (o *outbound) connect(r *tcp.ForwarderRequest) {
	defer o.s.wg.Done()
	id := r.ID()
	o.mu.Lock()
	f := o.tcp[id]
	o.mu.Unlock()
	defer o.forget(id)
	if f.Addr.Addr().As4() == o.s.link.id.gatewayIP {
		if inside := o.accept(r, f); inside != nil {
			o.serveDNS(inside, f)
		}
		return
	}
	ctx, cancel := context.WithTimeoutCause(o.s.ctx, connectTimeout, errDialTimeout)
	outside, err := o.open(ctx, "tcp4", f.Flow)
	cancel()
	if err != nil {
		o.failed(r, f, err)
		return
	}
	inside := o.accept(r, f)
	if inside == nil {
		resetConn(outside)
		return
	}
	abort := func() { resetConn(outside); resetConn(inside) }
	f.abort.Store(&abort)
	buffers := &relayBuffers
	if f.small {
		buffers = &smallBuffers
	}
	f.passed()
	o.s.join(outside, inside, buffers, f.passed)
}

// accept answers the guest's SYN and returns the connection; nil where the guest does not want it any more.
func (o *outbound) accept(r *tcp.ForwarderRequest, f *tcpFlow) *Conn {
	queue := new(waiter.Queue)
	ep, err := r.CreateEndpoint(queue)
	r.Complete(false)
	if err != nil {
		return nil
	}
	send, receive := int64(roomyBuffer), int64(roomyBuffer)
	if f.small {
		send, receive = leastSend, leastReceive
	}
	ep.SocketOptions().SetSendBufferSize(send, true)
	ep.SocketOptions().SetReceiveBufferSize(receive, true)
	// The guest's kernel may give up a connection without a word, when its program has died: it is asked.
	every := tcpip.KeepaliveIdleOption(time.Minute)
	ep.SetSockOpt(&every)
	ep.SocketOptions().SetKeepAlive(true)
	return &Conn{TCPConn: gonet.NewTCPConn(queue, ep), endpoint: ep, queue: queue}
}

// failed tells the guest what became of its connection as the network would: a reset, an ICMP answer, or nothing.
func (o *outbound) failed(r *tcp.ForwarderRequest, f *tcpFlow, err error) {
	switch {
	case errors.Is(err, errRefused), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET):
		r.Complete(true)
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		r.Complete(false)
		o.unreachable(f.syn, header.ICMPv4HostUnreachable)
	case errors.Is(err, errDialTimeout), errors.Is(err, syscall.ETIMEDOUT), o.s.ctx.Err() != nil:
		r.Complete(false)
	default:
		o.hostLacks(f.Flow, err) // first: who is refused finds why
		r.Complete(true)
	}
}

// hostLacks tells of what is not the outside's doing: no descriptors, no ports, no memory.
func (o *outbound) hostLacks(f Flow, err error) {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		err = op.Err
	}
	o.limited(hostLimit, f, "the host could not connect: "+err.Error())
}

// unreachable answers a packet, of which quote has the beginning, from where it went.
func (o *outbound) unreachable(quote []byte, code header.ICMPv4Code) {
	ip := header.IPv4(quote)
	from := ip.DestinationAddress()
	if code != header.ICMPv4PortUnreachable {
		from = tcpip.AddrFrom4(o.s.link.id.gatewayIP)
	}
	reply := o.s.link.id.unreachable(ip, from, code)
	o.s.link.enqueue(len(reply), reply)
}

func addrPort(a tcpip.Address, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4(a.As4()), port)
}

// flows is how many are open.
func (o *outbound) flows() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.tcp) + len(o.udp)
}

// sweep ends what was idle for too long.
func (o *outbound) sweep() {
	tick := time.NewTicker(min(o.limits.IdleUDP/4, time.Minute))
	defer tick.Stop()
	for {
		select {
		case <-o.s.ctx.Done():
			return
		case <-o.s.done:
			return
		case now := <-tick.C:
			o.sweepOnce(now)
		}
	}
}

func (o *outbound) sweepOnce(now time.Time) {
	var old []func()
	o.mu.Lock()
	for _, f := range o.tcp {
		if abort := f.abort.Load(); abort != nil && f.last.idle(now) > o.limits.IdleTCP {
			old = append(old, *abort)
		}
	}
	for _, f := range o.udp {
		if f.last.idle(now) > o.limits.IdleUDP {
			old = append(old, func() { f.conn.Close() })
		}
	}
	o.mu.Unlock()
	for _, end := range old {
		end()
	}
}

// A moment is when a flow was used last, in nanoseconds since began: a step of the host's clock neither ends a flow nor keeps one.
type moment struct{ ns atomic.Int64 }

var began = time.Now()

func (m *moment) isNow() { m.ns.Store(int64(time.Since(began))) }

func (m *moment) idle(now time.Time) time.Duration {
	return now.Sub(began) - time.Duration(m.ns.Load())
}
