package network

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"github.com/halevm/hale/internal/egress"
)

var (
	testGuest = netip.MustParsePrefix("10.77.0.9/24")
	testMAC   = net.HardwareAddr{0x02, 0, 0, 0, 0, 9}
)

// testConfig is of a guest that reaches nothing; no test dials but where it says.
func testConfig() Config {
	return Config{
		Guest: testGuest, GuestMAC: testMAC, Policy: egress.Policy{None: true},
		Dial: func(_ context.Context, network string, to netip.AddrPort) (net.Conn, error) {
			panic("a test dials " + network + " " + to.String())
		},
		Host:      func() (egress.Host, error) { return egress.Host{}, nil },
		Resolvers: func() ([]netip.AddrPort, error) { return nil, nil },
	}
}

// socketpair returns the two ends of a stream as the shim makes them.
func socketpair(t testing.TB) (host, guest net.Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	ends := [2]net.Conn{}
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "link")
		ends[i], err = net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
	}
	return ends[0], ends[1]
}

// A guest is a machine with a network stack of its own at the other end of the link.
type guest struct {
	t     testing.TB
	stack *stack.Stack
	link  *link
	wg    sync.WaitGroup
}

// pair joins a Stack to a guest. Both are closed when the test ends, and nothing of them may be left then.
func pair(t testing.TB, c Config) (*Stack, *guest) {
	t.Helper()
	hostEnd, guestEnd := socketpair(t)
	noGoroutinesLeft(t)
	s, err := New(hostEnd, c)
	if err != nil {
		t.Fatal(err)
	}
	g := newGuest(t, guestEnd)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		g.close()
	})
	return s, g
}

func newGuest(t testing.TB, end net.Conn) *guest {
	t.Helper()
	id := stationsOf(testConfig())
	mirrored := stations{guestMAC: id.gatewayMAC, gatewayMAC: id.guestMAC, guestIP: id.gatewayIP, gatewayIP: id.guestIP}
	g := &guest{t: t, link: newLink(end, DefaultMTU, mirrored)}
	g.stack = stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4},
	})
	if err := configure(g.stack, g.link, mirrored, testGuest.Bits()); err != nil {
		t.Fatal(err)
	}
	g.stack.SetRouteTable([]tcpip.Route{{Destination: allIPv4(), Gateway: tcpip.AddrFrom4(id.gatewayIP), NIC: nicID}})
	g.wg.Go(g.link.writeLoop)
	g.wg.Go(func() {
		frames := newFrameReader(end)
		for {
			v, err := frames.next()
			if err != nil {
				return
			}
			g.link.inject(v)
		}
	})
	return g
}

func allIPv4() tcpip.Subnet {
	s, _ := tcpip.NewSubnet(tcpip.AddrFrom4([4]byte{}), tcpip.MaskFromBytes(make([]byte, 4)))
	return s
}

func (g *guest) close() {
	g.stack.Close()
	g.link.stop()
	g.wg.Wait()
	g.stack.Wait()
}

func (g *guest) listen(port uint16) net.Listener {
	g.t.Helper()
	ln, err := gonet.ListenTCP(g.stack, tcpip.FullAddress{NIC: nicID, Addr: tcpip.AddrFrom4(testGuest.Addr().As4()), Port: port}, ipv4.ProtocolNumber)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { ln.Close() })
	return ln
}

// serve calls handle for each connection to a port of the guest.
func (g *guest) serve(port uint16, handle func(net.Conn)) {
	ln := g.listen(port)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go handle(c)
		}
	}()
}

// echo sends back what it gets, and its end of stream after the other's.
func echo(c net.Conn) {
	defer c.Close()
	io.Copy(c, c)
}

// publish publishes a port of the guest and returns where.
func publish(t testing.TB, s *Stack, port uint16) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Publish(ln, port); err != nil {
		t.Fatal(err)
	}
	return ln.Addr().String()
}

func dialTCP(t testing.TB, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return c.(*net.TCPConn)
}

func soon(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// kept measures by how much a ticker of this process is late at most, until the function that it returns is called: what the host keeps from
// everybody, and so from the stacks here, which take turns.
func kept() func() time.Duration {
	const every = 5 * time.Millisecond
	done, result := make(chan struct{}), make(chan time.Duration)
	go func() {
		var worst time.Duration
		for due := time.Now().Add(every); ; due = time.Now().Add(every) {
			select {
			case <-time.After(time.Until(due)):
				worst = max(worst, time.Since(due))
			case <-done:
				result <- max(worst, time.Since(due))
				return
			}
		}
	}()
	return func() time.Duration {
		close(done)
		return <-result
	}
}

// noGoroutinesLeft fails the test if, after everything else, a goroutine of this package or of gVisor is still there.
func noGoroutinesLeft(t testing.TB) {
	t.Helper()
	t.Cleanup(func() {
		deadline := time.Now().Add(time.Minute)
		for {
			left := goroutines()
			if len(left) == 0 {
				return
			}
			if time.Now().After(deadline) {
				t.Errorf("%d goroutines left:\n%s", len(left), strings.Join(left, "\n\n"))
				return
			}
			runtime.Gosched()
		}
	})
}

func goroutines() (left []string) {
	buf := make([]byte, 4<<20)
	for _, g := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		ours := strings.Contains(g, "network.(*") || strings.Contains(g, "gvisor.dev/")
		if ours && !strings.Contains(g, "network.goroutines") {
			left = append(left, g)
		}
	}
	return left
}

// A wire is the guest's end of a link where the test itself makes the frames.
type wire struct {
	t testing.TB
	c net.Conn
}

func rawPair(t testing.TB, c Config) (*Stack, wire) {
	t.Helper()
	hostEnd, guestEnd := socketpair(t)
	s, err := New(hostEnd, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close(); guestEnd.Close() })
	guestEnd.SetDeadline(time.Now().Add(20 * time.Second))
	return s, wire{t, guestEnd}
}

func (w wire) send(frame []byte) {
	w.t.Helper()
	b := binary.BigEndian.AppendUint32(nil, uint32(len(frame)))
	if _, err := w.c.Write(append(b, frame...)); err != nil {
		w.t.Fatal(err)
	}
}

func (w wire) receive() []byte {
	w.t.Helper()
	var size [4]byte
	if _, err := io.ReadFull(w.c, size[:]); err != nil {
		w.t.Fatal(fmt.Errorf("waiting for a frame: %w", err))
	}
	b := make([]byte, binary.BigEndian.Uint32(size[:]))
	if _, err := io.ReadFull(w.c, b); err != nil {
		w.t.Fatal(err)
	}
	return b
}
