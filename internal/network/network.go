// Package network is one machine's virtual network: a user-mode TCP/IP stack (gVisor's) at the other end of its network card.
//
// The host side dials into the guest (Dial, for probes) and publishes ports of it (Publish). What the guest begins, by TCP or UDP,
// goes out through sockets of the host, where internal/egress lets it: it is asked at each connection and each datagram, about the
// address that is dialled and the host's own addresses at that moment (outbound.go). What it refuses is answered at once,
// with a reset or an ICMP answer, so that programs fail fast, and told. The gateway answers DNS with the host's resolvers (dns.go).
// There is no IPv6, no DHCP, no multicast: such frames are ignored.
//
// The link is hostile. Frames are bounded; only those that carry the guest's own MAC and IP address get past guard.go, and of
// those for other addresses than the gateway's only connections that were let through reach the TCP/IP stack. Flows are
// bounded in number and rate (limits.go). The queue towards the guest is bounded in bytes, what does not fit is counted, and
// room is kept in it for small frames, so that a bulk transfer costs a probe no lost segment and no retransmission timeout.
//
// All methods may be called from any goroutine. Every goroutine belongs to the Stack, and Close waits for them. The package knows
// no instance, no hypervisor and no policy of health.
package network

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"github.com/halevm/hale/internal/egress"
)

// DefaultMTU is the largest IP packet on the link unless the Config says otherwise; the guest's card must be told the same
// (QEMU's host_mtu). It moves two and a half to four times as much as 1500 does.
const DefaultMTU = 65520

// MaxConnections bounds the connections of one machine that are relayed at a time, unless its Limits do; one more is reset.
const MaxConnections = 4096

// GatewayMAC is the hardware address of the host's end of every link. No link holds more than two stations.
var GatewayMAC = net.HardwareAddr{0x02, 'h', 'a', 'l', 'e', 0x01}

// A Config says who is at the other end of the link.
type Config struct {
	Guest    netip.Prefix     // the guest's IPv4 address with the length of its subnet, at most /30
	GuestMAC net.HardwareAddr // six bytes, unicast
	MTU      int              // bytes of an IP packet; 0 is DefaultMTU
	Log      *slog.Logger     // nil discards
	// Policy says what the guest may reach. Its Instances are the guest's subnet where they are not set.
	Policy egress.Policy
	Limits Limits // zero fields are defaults
	// Dial makes the connections to the outside ("tcp4" or "udp4"), after the policy has let them through; nil is the host's kernel.
	Dial func(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error)
	// Host tells what belongs to the host at this moment; nil asks its kernel. While it fails nothing is reached.
	Host func() (egress.Host, error)
	// Resolvers are the servers that DNS queries are handed to, in their order; nil: those of /etc/resolv.conf.
	Resolvers func() ([]netip.AddrPort, error)
	// Refused is told, at a bounded rate and never twice at a time, what the guest tried to reach and may not.
	// It must not block: the guest's frames wait for it. Nil: nobody is told.
	Refused func(Refusal)
}

// Counters is what went through a Stack since New. Probes (Dial) are in none of the numbers of traffic.
type Counters struct {
	RxBytes     int64  // payload into the guest
	TxBytes     int64  // payload out of the guest
	Connections int    // relayed now, through published ports
	Outbound    int    // flows of the guest that are open now
	Turned      uint64 // connections to published ports that were reset because as many were open as may be
	Refused     uint64 // connections, datagrams and queries of the guest that were refused, by the policy or a limit
	Spoofed     uint64 // frames with an address that is not the guest's
	Malformed   uint64 // frames that are not what they claim to be
	Lost        uint64 // frames for the guest that found no room in the queue, which TCP sends again, and datagrams that the host's kernel had no room for
}

// A Stack is the host's end of one machine's network.
type Stack struct {
	log    *slog.Logger
	stack  *stack.Stack
	link   *link
	guest  tcpip.FullAddress // of the guest; Port is 0
	most   int32             // connections relayed at a time
	linger time.Duration     // of what Dial returns
	out    *outbound

	ctx    context.Context // done when Close begins
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu        sync.Mutex
	closed    bool
	listeners map[net.Listener]struct{}

	seen     chan struct{}
	seenOnce sync.Once
	done     chan struct{}
	err      error // why done was closed

	rx, tx             atomic.Int64
	open               atomic.Int32
	crowded            atomic.Bool // many were open at a time, and their memory has not been given back
	turned             atomic.Uint64
	spoofed, malformed atomic.Uint64
}

// Gateway returns the address of the host's end of a guest's network: the first of its subnet.
func Gateway(guest netip.Prefix) netip.Addr { return guest.Masked().Addr().Next() }

// New puts a TCP/IP stack at the host's end of link, which carries ethernet frames, each after its length in 4 bytes, big
// endian (QEMU's `-netdev stream`). It takes ownership of link.
func New(link io.ReadWriteCloser, c Config) (*Stack, error) {
	if c.MTU == 0 {
		c.MTU = DefaultMTU
	}
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("network: %w", err)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	id := stationsOf(c)
	s := &Stack{
		log:       c.Log,
		link:      newLink(link, c.MTU, id),
		guest:     tcpip.FullAddress{NIC: nicID, Addr: tcpip.AddrFrom4(id.guestIP)},
		most:      int32(c.Limits.withDefaults().Published),
		linger:    probeLinger,
		listeners: map[net.Listener]struct{}{},
		seen:      make(chan struct{}),
		done:      make(chan struct{}),
	}
	var err error
	if s.stack, err = newStack(s.link, id, c.Guest.Bits()); err != nil {
		return nil, err
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.out = newOutbound(s, c)
	s.stack.SetTransportProtocolHandler(tcp.ProtocolNumber, s.out.begin)
	s.wg.Go(s.run)
	s.wg.Go(s.out.sweep)
	return s, nil
}

func (c Config) check() error {
	switch {
	case !c.Guest.Addr().Is4():
		return fmt.Errorf("guest address %v is not IPv4", c.Guest)
	case c.Guest.Bits() > 30:
		return fmt.Errorf("guest subnet %v has no room for a gateway", c.Guest)
	case c.Guest.Addr() == Gateway(c.Guest), c.Guest.Addr() == c.Guest.Masked().Addr():
		return fmt.Errorf("guest address %v is the gateway's or the network's own", c.Guest)
	case len(c.GuestMAC) != 6 || c.GuestMAC[0]&1 != 0:
		return fmt.Errorf("guest hardware address %v is not a unicast ethernet address", c.GuestMAC)
	case c.MTU < 576 || c.MTU > DefaultMTU:
		return fmt.Errorf("MTU %d is not in 576 … %d", c.MTU, DefaultMTU)
	}
	return nil
}

const nicID tcpip.NICID = 1

// newStack builds gVisor's stack with one interface, one address, one route and one neighbour, all of them fixed.
func newStack(l *link, id stations, bits int) (*stack.Stack, error) {
	st := stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, icmp.NewProtocol4},
	})
	err := configure(st, l, id, bits)
	if err == nil {
		err = answerForAll(st)
	}
	if err != nil {
		st.Destroy()
		return nil, errors.New("network: setting up the stack: " + err.String())
	}
	return st, nil
}

// answerForAll has the stack stand for every address. Which of them it hears of, the guard decides.
func answerForAll(st *stack.Stack) tcpip.Error {
	if err := st.SetPromiscuousMode(nicID, true); err != nil {
		return err
	}
	return st.SetSpoofing(nicID, true)
}

func configure(st *stack.Stack, l *link, id stations, bits int) tcpip.Error {
	if err := tuneTCP(st); err != nil {
		return err
	}
	if err := st.CreateNIC(nicID, l); err != nil {
		return err
	}
	gateway := tcpip.AddrFrom4(id.gatewayIP)
	guest := tcpip.AddrFrom4(id.guestIP)
	address := tcpip.ProtocolAddress{
		Protocol:          ipv4.ProtocolNumber,
		AddressWithPrefix: tcpip.AddressWithPrefix{Address: gateway, PrefixLen: bits},
	}
	if err := st.AddProtocolAddress(nicID, address, stack.AddressProperties{}); err != nil {
		return err
	}
	only, _ := tcpip.NewSubnet(guest, tcpip.MaskFromBytes([]byte{255, 255, 255, 255}))
	st.SetRouteTable([]tcpip.Route{{Destination: only, NIC: nicID}})
	return st.AddStaticNeighbor(nicID, ipv4.ProtocolNumber, guest, tcpip.LinkAddress(id.guestMAC[:]))
}

// tuneTCP fits TCP to a link of two stations that reorders nothing and loses only what the queue had no room for.
func tuneTCP(st *stack.Stack) tcpip.Error {
	var (
		sack      = tcpip.TCPSACKEnabled(true)
		moderate  = tcpip.TCPModerateReceiveBufferOption(true)
		send      = tcpip.TCPSendBufferSizeRangeOption{Min: leastSend, Default: 256 << 10, Max: 1 << 20}
		receive   = tcpip.TCPReceiveBufferSizeRangeOption{Min: leastReceive, Default: 256 << 10, Max: 1 << 20}
		timeWait  = tcpip.TCPTimeWaitTimeoutOption(timeWait)
		finWait2  = tcpip.TCPLingerTimeoutOption(5 * time.Second)
		recovery  = tcpip.TCPRACKLossDetection
		algorithm = tcpip.CongestionControlOption("cubic")
	)
	for _, o := range []tcpip.SettableTransportProtocolOption{
		&sack, &moderate, &send, &receive, &timeWait, &finWait2, &recovery, &algorithm,
	} {
		if err := st.SetTransportProtocolOption(tcp.ProtocolNumber, o); err != nil {
			return err
		}
	}
	return nil
}

// timeWait is how long a port stays taken after a connection that this side closed first. A minute, which is usual, guards against
// segments that wander in a large network; here it would let probes and short connections use up the 50,000 ephemeral ports.
const timeWait = time.Second

// run moves frames until the link ends or Close is called.
func (s *Stack) run() {
	defer close(s.done)
	var writer sync.WaitGroup
	writer.Go(s.link.writeLoop)
	s.err = s.readLoop()
	s.link.stop()
	writer.Wait()
	if s.ctx.Err() == nil && s.err != nil && !errors.Is(s.err, io.EOF) {
		s.log.Warn("the machine's network ended", "err", s.err)
	}
}

// Seen is closed at the first frame from the guest.
func (s *Stack) Seen() <-chan struct{} { return s.seen }

// Done is closed when the link has ended: the hypervisor went away, broke the framing, or Close was called.
func (s *Stack) Done() <-chan struct{} { return s.done }

// Err says why the link ended; io.EOF where the other end closed it in order. It is nil until Done is closed.
func (s *Stack) Err() error {
	select {
	case <-s.done:
		return s.err
	default:
		return nil
	}
}

// Counters returns the counts at this moment.
func (s *Stack) Counters() Counters {
	return Counters{
		RxBytes:     s.rx.Load(),
		TxBytes:     s.tx.Load(),
		Connections: int(s.open.Load()),
		Outbound:    s.out.flows(),
		Turned:      s.turned.Load(),
		Refused:     s.out.refusals.Load(),
		Spoofed:     s.spoofed.Load(),
		Malformed:   s.malformed.Load(),
		Lost:        s.link.lost.Load() + s.out.lost.Load(),
	}
}

// Close ends every connection and listener and the link, and returns when nothing of the Stack runs any more.
func (s *Stack) Close() error {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		s.cancel()
		for ln := range s.listeners {
			ln.Close()
		}
	}
	s.mu.Unlock()
	s.stack.Close()
	s.link.stop()
	s.wg.Wait()
	s.stack.Wait()
	s.out.close()
	return nil
}
