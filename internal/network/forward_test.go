package network

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/halevm/hale/internal/egress"
)

// A world is the outside of one test: 203.0.113.10 is this host's loopback, and everything else is nowhere.
type world struct {
	mu      sync.Mutex
	host    egress.Host
	dialled []string
	told    []Refusal
	fail    error // of the next dials
}

var outsideAddr = netip.MustParseAddr("203.0.113.10")

func (w *world) config() Config {
	c := testConfig()
	c.Policy = egress.Policy{}
	c.Dial = w.dial
	c.Host = func() (egress.Host, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.host, nil
	}
	c.Refused = func(r Refusal) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.told = append(w.told, r)
	}
	return c
}

func (w *world) dial(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
	w.mu.Lock()
	w.dialled = append(w.dialled, to.String())
	fail := w.fail
	w.mu.Unlock()
	if fail == errDialTimeout {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	if fail != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: fail}
	}
	if to.Addr() != outsideAddr && !to.Addr().IsPrivate() {
		return nil, syscall.ENETUNREACH
	}
	return new(net.Dialer).DialContext(ctx, network, fmt.Sprintf("127.0.0.1:%d", to.Port()))
}

func (w *world) set(do func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	do()
}

// reasons are the refusals that were told, one to a line.
func (w *world) reasons() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var b strings.Builder
	for _, r := range w.told {
		fmt.Fprintln(&b, r)
	}
	return b.String()
}

func full(addr string) tcpip.FullAddress {
	a := netip.MustParseAddrPort(addr)
	return tcpip.FullAddress{NIC: nicID, Addr: tcpip.AddrFrom4(a.Addr().As4()), Port: a.Port()}
}

// connect is a connection of a program in the guest; an error is the kernel's.
func (g *guest) connect(ctx context.Context, addr string) (*Conn, error) {
	c, err := (&Stack{stack: g.stack, ctx: context.Background()}).connect(ctx, full(addr), false)
	if err != nil {
		return nil, err
	}
	g.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return c, nil
}

func (g *guest) mustConnect(addr string) *Conn {
	g.t.Helper()
	c, err := g.connect(soon(g.t), addr)
	if err != nil {
		g.t.Fatalf("connect to %s: %v", addr, err)
	}
	return c
}

// A socket is a UDP socket in the guest, connected.
type socket struct {
	*gonet.UDPConn
	endpoint tcpip.Endpoint
	queue    *waiter.Queue
}

func (g *guest) socket(addr string) *socket {
	g.t.Helper()
	u := &socket{queue: new(waiter.Queue)}
	var err tcpip.Error
	if u.endpoint, err = g.stack.NewEndpoint(udp.ProtocolNumber, ipv4.ProtocolNumber, u.queue); err != nil {
		g.t.Fatal(err)
	}
	if err := u.endpoint.Connect(full(addr)); err != nil {
		g.t.Fatal(err)
	}
	u.UDPConn = gonet.NewUDPConn(u.queue, u.endpoint)
	g.t.Cleanup(func() { u.Close() })
	u.SetDeadline(time.Now().Add(20 * time.Second))
	return u
}

// refused sends datagrams and waits for the ICMP answer that says that nobody listens.
func (u *socket) refused(t *testing.T, texts ...string) {
	t.Helper()
	entry, failed := waiter.NewChannelEntry(waiter.EventErr)
	u.queue.EventRegister(&entry)
	defer u.queue.EventUnregister(&entry)
	for _, text := range texts {
		io.WriteString(u, text)
	}
	select {
	case <-failed:
	case <-soon(t).Done():
		t.Fatal("a datagram is left without an answer")
	}
	if _, ok := u.endpoint.LastError().(*tcpip.ErrConnectionRefused); !ok {
		t.Error("a datagram is answered, and not refused")
	}
}

// outsideTCP serves connections from the guests of a test, and says at which address the guests find it.
func outsideTCP(t testing.TB, handle func(*net.TCPConn)) (addr string, ln net.Listener) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go handle(c.(*net.TCPConn))
		}
	}()
	return netip.AddrPortFrom(outsideAddr, uint16(ln.Addr().(*net.TCPAddr).Port)).String(), ln
}

// outsideUDP sends datagrams back, with an exclamation mark.
func outsideUDP(t testing.TB) (addr string, c *net.UDPConn) {
	t.Helper()
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		b := make([]byte, 64<<10)
		for {
			n, from, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			c.WriteToUDPAddrPort(append(b[:n:n], '!'), from)
		}
	}()
	return netip.AddrPortFrom(outsideAddr, uint16(c.LocalAddr().(*net.UDPAddr).Port)).String(), c
}

func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not after a minute: %s", what)
		}
	}
}

func TestOutboundConnection(t *testing.T) {
	var w world
	s, g := pair(t, w.config())
	addr, _ := outsideTCP(t, func(c *net.TCPConn) { echo(c) })
	c := g.mustConnect(addr)
	if s.Counters().Outbound != 1 {
		t.Errorf("counters %+v, want one flow", s.Counters())
	}
	text := strings.Repeat("outside ", 100_000)
	go func() {
		io.WriteString(c, text)
		c.CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || string(got) != text {
		t.Fatalf("%d of %d bytes came back: %v", len(got), len(text), err)
	}
	c.Close()
	eventually(t, "the flow is forgotten", func() bool { return s.Counters().Outbound == 0 })
	if n := s.Counters(); n.RxBytes != int64(len(text)) || n.TxBytes != int64(len(text)) || n.Connections != 0 {
		t.Errorf("counters %+v, want %d bytes each way", n, len(text))
	}
	if w.dialled[0] != addr || len(w.dialled) != 1 {
		t.Errorf("dialled %v", w.dialled)
	}
}

// What becomes of a connection outside is what the program in the guest sees.
func TestOutboundFailuresLookReal(t *testing.T) {
	var w world
	_, g := pair(t, w.config())
	closed, ln := outsideTCP(t, nil)
	ln.Close()
	for _, tt := range []struct {
		name string
		fail error
		addr string
		want error
	}{
		{"nobody listens", nil, closed, syscall.ECONNREFUSED},
		{"no route", nil, "198.51.100.1:80", syscall.EHOSTUNREACH},
		{"nobody is there", syscall.EHOSTUNREACH, "203.0.113.10:80", syscall.EHOSTUNREACH},
		{"refused by the policy", nil, "10.0.0.1:80", syscall.ECONNREFUSED},
		{"no descriptors", syscall.EMFILE, "203.0.113.10:80", syscall.ECONNREFUSED},
	} {
		w.set(func() { w.fail = tt.fail })
		late, start := kept(), time.Now()
		_, err := g.connect(soon(t), tt.addr)
		took, worst := time.Since(start), late()
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
		if took > 900*time.Millisecond+3*worst { // a second is the guest's first retry
			t.Errorf("%s: only after %v, where the host keeps a ticker waiting %v", tt.name, took, worst)
		}
	}
	if told := w.reasons(); !strings.Contains(told, "the host could not connect: too many open files") || !strings.Contains(told, "--allow-net 10.0.0.1/32") {
		t.Errorf("told:\n%s", told)
	}

	w.set(func() { w.fail = errDialTimeout })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := g.connect(ctx, "203.0.113.10:80"); err == nil || errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("an outside that says nothing: %v", err)
	}
}

// A reset outside is a reset inside, and the other way round.
func TestOutboundReset(t *testing.T) {
	var w world
	_, g := pair(t, w.config())
	reset, begun := make(chan error, 1), make(chan struct{}, 2)
	addr, _ := outsideTCP(t, func(c *net.TCPConn) {
		b := make([]byte, 1)
		c.Read(b)
		begun <- struct{}{}
		if b[0] == 'r' {
			resetConn(c)
			return
		}
		_, err := c.Read(b)
		reset <- err
		c.Close()
	})
	c := g.mustConnect(addr)
	io.WriteString(c, "r")
	if _, err := c.Read(make([]byte, 1)); !errors.Is(asErrno(err), syscall.ECONNRESET) {
		t.Errorf("the guest reads %v, want a reset", err)
	}
	<-begun
	c = g.mustConnect(addr)
	io.WriteString(c, "x")
	<-begun
	resetConn(c)
	if err := <-reset; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the outside reads %v, want a reset", err)
	}
}

// The policy is asked at each connection and each datagram, with the host as it is then.
func TestPolicyAtEachDialAndDatagram(t *testing.T) {
	var w world
	s, g := pair(t, w.config())
	tcpAddr, _ := outsideTCP(t, func(c *net.TCPConn) { echo(c) })
	udpAddr, _ := outsideUDP(t)
	c, u := g.mustConnect(tcpAddr), g.socket(udpAddr)
	exchange(t, u, "before", "before!")

	w.set(func() { w.host.Own = []netip.Prefix{netip.PrefixFrom(outsideAddr, 32)} })
	if _, err := g.connect(soon(t), tcpAddr); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a connection to what is the host's own by now: %v", err)
	}
	u.refused(t, "after")
	if told := w.reasons(); strings.Count(told, "it is an address of the host itself") != 2 {
		t.Errorf("told:\n%s", told)
	}
	if len(w.dialled) != 2 {
		t.Errorf("dialled %v", w.dialled)
	}
	io.WriteString(c, "x") // a connection that was let through goes on
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Errorf("the connection that was there: %v", err)
	}
	if n := s.Counters().Refused; n != 2 {
		t.Errorf("%d refusals counted, want 2", n)
	}
}

// While nobody knows what is the host's own, nothing is reached.
func TestUnknownHost(t *testing.T) {
	var w world
	c := w.config()
	c.Host = func() (egress.Host, error) { return egress.Host{}, errors.New("netlink is gone") }
	_, g := pair(t, c)
	if _, err := g.connect(soon(t), "203.0.113.10:80"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("connect: %v", err)
	}
	if !strings.Contains(w.reasons(), "not known: netlink is gone") || w.dialled != nil {
		t.Errorf("told %s, dialled %v", w.reasons(), w.dialled)
	}
}

func TestAllowed(t *testing.T) {
	var w world
	c := w.config()
	c.Policy.Allow = []netip.Prefix{netip.MustParsePrefix("192.168.77.0/24")}
	_, g := pair(t, c)
	addr, _ := outsideTCP(t, func(c *net.TCPConn) { echo(c) })
	_, port, _ := net.SplitHostPort(addr)
	g.mustConnect("192.168.77.10:" + port)
	if _, err := g.connect(soon(t), "192.168.78.10:"+port); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("beside what is allowed: %v", err)
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	var w world
	c := w.config()
	c.Limits.TCP = 3
	s, g := pair(t, c)
	addr, _ := outsideTCP(t, func(c *net.TCPConn) { echo(c) })
	first := g.mustConnect(addr)
	g.mustConnect(addr)
	g.mustConnect(addr)
	if _, err := g.connect(soon(t), addr); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("the fourth of three: %v", err)
	}
	if told := w.reasons(); !strings.Contains(told, "3 connections to the outside are open, which is the most at a time") {
		t.Errorf("told:\n%s", told)
	}
	first.Close()
	eventually(t, "there is room again", func() bool { return s.Counters().Outbound == 2 })
	g.mustConnect(addr)
}

func TestRateIsBounded(t *testing.T) {
	var w world
	c := w.config()
	c.Limits.FlowRate, c.Limits.FlowBurst = 1, 2
	_, g := pair(t, c)
	addr, _ := outsideTCP(t, func(c *net.TCPConn) { echo(c) })
	start := time.Now()
	for range 3 { // the third waits for the guest's own second try
		g.mustConnect(addr)
	}
	if took := time.Since(start); took < 500*time.Millisecond {
		t.Errorf("three connections at 1 a second and 2 at once took %v", took)
	}
	if told := w.reasons(); !strings.Contains(told, "more than 1 new connections and flows a second") {
		t.Errorf("told:\n%s", told)
	}
}

func TestIdleConnection(t *testing.T) {
	var w world
	c := w.config()
	s, g := pair(t, c)
	addr, _ := outsideTCP(t, func(c *net.TCPConn) { echo(c) })
	conn := g.mustConnect(addr)
	io.WriteString(conn, "x")
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	for _, now := range []time.Time{time.Now().Add(s.out.limits.IdleTCP - time.Minute), stepped(time.Now(), 2*s.out.limits.IdleTCP)} {
		s.out.sweepOnce(now)
		if s.Counters().Outbound != 1 {
			t.Errorf("ended before its time, at %v", now)
		}
	}
	s.out.sweepOnce(time.Now().Add(s.out.limits.IdleTCP + time.Minute))
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(asErrno(err), syscall.ECONNRESET) {
		t.Errorf("an idle connection reads %v, want a reset", err)
	}
}

// stepped is t after a step of the clock on the wall, which the monotonic one of time.Time does not make.
func stepped(t time.Time, by time.Duration) time.Time {
	wall := (*uint64)(unsafe.Pointer(&t)) // its first field: a bit for "has a monotonic reading", 33 of seconds, 30 of nanoseconds
	*wall += uint64(by/time.Second) << 30
	return t
}

// Many connections have small buffers, and carry what they are given all the same.
func TestManyConnections(t *testing.T) {
	var w world
	s, g := pair(t, w.config())
	addr, _ := outsideTCP(t, func(c *net.TCPConn) { echo(c) })
	text := strings.Repeat("many", 20_000)
	var wg sync.WaitGroup
	for range 3 * roomyFlows {
		c := g.mustConnect(addr)
		wg.Go(func() {
			go func() {
				io.WriteString(c, text)
				c.CloseWrite()
			}()
			if got, err := io.ReadAll(c); err != nil || string(got) != text {
				t.Errorf("%d of %d bytes came back: %v", len(got), len(text), err)
			}
		})
	}
	wg.Wait()
	eventually(t, "all are forgotten", func() bool { return s.Counters().Outbound == 0 })
}

// A guest that never answers the outside's connection holds one place, and no Close waits for it.
func TestHalfOpenGuest(t *testing.T) {
	var w world
	addr, _ := outsideTCP(t, func(c *net.TCPConn) { echo(c) })
	to := netip.MustParseAddrPort(addr)
	s, wire := rawPair(t, w.config())
	wire.send(packet{dst: to.Addr().String(), protocol: TCP, flags: 2, port: to.Port()}.frame())
	checkIP(t, wire.receive(), to.Addr().String()) // the SYN-ACK
	if n := s.Counters().Outbound; n != 1 {
		t.Errorf("%d flows, want 1", n)
	}
	wire.send(packet{dst: to.Addr().String(), protocol: TCP, flags: 2, port: to.Port()}.frame()) // again: the same
	if n := s.Counters().Outbound; n != 1 {
		t.Errorf("%d flows, want 1", n)
	}
}

// A connection that both ends have closed keeps its place until the guest has taken what was sent before, or its time is over: or a guest
// that takes nothing would have any number of full buffers.
func TestGuestThatTakesNothing(t *testing.T) {
	const sent = 300 << 10
	for name, last := range map[string]func(s *Stack, acknowledge func()){
		"takes the rest": func(_ *Stack, acknowledge func()) { acknowledge() },
		"is given up":    func(s *Stack, _ func()) { s.out.sweepOnce(time.Now().Add(s.out.limits.IdleTCP + time.Minute)) },
		"is closed":      func(s *Stack, _ func()) { s.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			var w world
			closed := make(chan struct{})
			addr, _ := outsideTCP(t, func(c *net.TCPConn) {
				c.Write(make([]byte, sent))
				c.CloseWrite()
				io.Copy(io.Discard, c)
				close(closed)
			})
			to := netip.MustParseAddrPort(addr)
			s, wire := rawPair(t, w.config())
			send := func(flags header.TCPFlags, seq, ack uint32) {
				wire.send(packet{dst: to.Addr().String(), protocol: TCP, flags: flags, port: to.Port(), seq: seq, ack: ack - 200}.frame())
			}
			send(header.TCPFlagSyn, 0, 0)
			first := header.TCP(checkIP(t, wire.receive(), to.Addr().String()).Payload()).SequenceNumber() + 1
			send(header.TCPFlagAck|header.TCPFlagFin, 1, first)
			<-closed // the guest's end of the stream went all the way
			var got uint32
			for got < sent { // acknowledged, but for the last byte and the end
				seg := header.TCP(header.IPv4(wire.receive()[header.EthernetMinimumSize:]).Payload())
				if end := seg.SequenceNumber() + uint32(len(seg.Payload())) - first; end > got {
					got = end
					send(header.TCPFlagAck, 2, first+min(got, sent-1))
				}
			}
			for range 20 {
				time.Sleep(time.Millisecond)
				if n := s.Counters().Outbound; n != 1 {
					t.Fatalf("%d flows, want 1", n)
				}
			}
			last(s, func() { send(header.TCPFlagAck, 2, first+sent+1) })
			eventually(t, "it is forgotten", func() bool { return s.Counters().Outbound == 0 })
		})
	}
}

// A guest that says that only small packets reach it is sent no smaller segments than any path has.
func TestGuestThatWantsSmallSegments(t *testing.T) {
	var w world
	addr, _ := outsideTCP(t, func(c *net.TCPConn) {
		for {
			if _, err := c.Write(make([]byte, 1024)); err != nil {
				return
			}
		}
	})
	to := netip.MustParseAddrPort(addr)
	_, wire := rawPair(t, w.config())
	send := func(flags header.TCPFlags, seq, ack uint32) {
		wire.send(packet{dst: to.Addr().String(), protocol: TCP, flags: flags, port: to.Port(), seq: seq, ack: ack - 200}.frame())
	}
	receive := func() header.TCP { return header.TCP(checkIP(t, wire.receive(), to.Addr().String()).Payload()) }
	send(header.TCPFlagSyn, 0, 0)
	next := receive().SequenceNumber() + 1
	send(header.TCPFlagAck, 1, next)
	seg := receive()
	claim := packet{protocol: ICMP, icmp: header.ICMPv4DstUnreachable, code: header.ICMPv4FragmentationNeeded}.frame()[:header.EthernetMinimumSize+header.IPv4MinimumSize+header.ICMPv4MinimumSize]
	back := packet{dst: to.Addr().String(), protocol: TCP, port: to.Port()}.frame()[header.EthernetMinimumSize:]
	quote := header.IPv4(append([]byte(nil), back[:header.IPv4MinimumSize+8]...)) // of a packet to the guest
	quote.SetSourceAddress(header.IPv4(back).DestinationAddress())
	quote.SetDestinationAddress(header.IPv4(back).SourceAddress())
	header.TCP(quote[header.IPv4MinimumSize:]).SetSourcePort(to.Port())
	header.TCP(quote[header.IPv4MinimumSize:]).SetDestinationPort(4000)
	claim = append(claim, quote...)
	ip := header.IPv4(claim[header.EthernetMinimumSize:])
	ip.SetTotalLength(uint16(len(ip)))
	ip.SetChecksum(0)
	ip.SetChecksum(^ip.CalculateChecksum())
	m := header.ICMPv4(ip.Payload())
	m.SetChecksum(0)
	m.SetChecksum(^checksum.Checksum(m, 0))
	wire.send(claim)
	for range 50 {
		next = seg.SequenceNumber() + uint32(len(seg.Payload()))
		send(header.TCPFlagAck, 1, next)
		if seg = receive(); len(seg.Payload()) < 100 && len(seg.Payload()) > 0 {
			t.Fatalf("a segment of %d bytes", len(seg.Payload()))
		}
	}
}

func exchange(t *testing.T, c net.Conn, send, want string) {
	t.Helper()
	if _, err := io.WriteString(c, send); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 65536)
	n, err := c.Read(b)
	if err != nil || string(b[:n]) != want {
		t.Fatalf("%d bytes came back for %d: %v", n, len(send), err)
	}
}

func TestDatagrams(t *testing.T) {
	var w world
	s, g := pair(t, w.config())
	addr, server := outsideUDP(t)
	c := g.socket(addr)
	exchange(t, c, "hello", "hello!")
	exchange(t, c, "", "!")
	large := strings.Repeat("d", DefaultMTU-28-1)
	exchange(t, c, large, large+"!")
	other := g.socket(addr)
	exchange(t, other, "another", "another!")
	if n := s.Counters(); n.Outbound != 2 || n.RxBytes != n.TxBytes+4 {
		t.Errorf("counters %+v, want two flows and four bytes more into the guest", n)
	}
	if len(w.dialled) != 2 {
		t.Errorf("dialled %v", w.dialled)
	}
	s.out.sweepOnce(time.Now().Add(s.out.limits.IdleUDP + time.Second))
	eventually(t, "idle flows are forgotten", func() bool { return s.Counters().Outbound == 0 })
	exchange(t, c, "again", "again!")

	server.Close()
	c.refused(t, "nobody")
}

func TestDatagramFlowsAreBounded(t *testing.T) {
	var w world
	c := w.config()
	c.Limits.UDP = 2
	s, g := pair(t, c)
	addr, _ := outsideUDP(t)
	first := g.socket(addr)
	exchange(t, first, "1", "1!")
	exchange(t, g.socket(addr), "2", "2!")
	third := g.socket(addr)
	io.WriteString(third, "3")
	eventually(t, "it is told", func() bool {
		return strings.Contains(w.reasons(), "2 UDP flows to the outside are open, which is the most at a time")
	})
	s.out.mu.Lock()
	s.out.full = time.Time{}
	for _, f := range s.out.udp { // what was idle for a while makes room
		f.last.ns.Add(-int64(evictIdle + time.Second))
		break
	}
	s.out.mu.Unlock()
	exchange(t, third, "3", "3!")
	if n := s.Counters().Outbound; n != 2 {
		t.Errorf("%d flows, want 2", n)
	}
}
