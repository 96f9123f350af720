package network

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// A resolver answers every query over UDP and TCP with its own text, as a record would be.
type resolver struct {
	addr netip.AddrPort
	udp  *net.UDPConn
	tcp  net.Listener
}

// answerTo turns a query into an answer with text behind it.
func answerTo(q []byte, text string) []byte {
	a := append([]byte(nil), q...)
	a[2] |= 0x80
	return append(a, text...)
}

func newResolver(t testing.TB, answer func(q []byte) [][]byte) *resolver {
	t.Helper()
	u, ln := listenBoth(t)
	addr := u.LocalAddr().(*net.UDPAddr).AddrPort()
	t.Cleanup(func() { u.Close(); ln.Close() })
	go func() {
		b := make([]byte, 64<<10)
		for {
			n, from, err := u.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			for _, a := range answer(b[:n]) {
				u.WriteToUDPAddrPort(a, from)
			}
		}
	}()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for {
					q, err := readMessage(c, 64<<10)
					if err != nil {
						return
					}
					for _, a := range answer(q) {
						writeMessage(c, a)
					}
				}
			}()
		}
	}()
	return &resolver{addr: addr, udp: u, tcp: ln}
}

// listenBoth listens at one port for both: one that is free for UDP may be taken for TCP.
func listenBoth(t testing.TB) (*net.UDPConn, net.Listener) {
	t.Helper()
	for {
		u, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		ln, err := net.Listen("tcp", u.LocalAddr().String())
		if err == nil {
			return u, ln
		}
		defer u.Close() // not before another one was found
		if !errors.Is(err, syscall.EADDRINUSE) {
			t.Fatal(err)
		}
	}
}

// query is a question for a name.
func query(id uint16, name string, kind uint16) []byte {
	q := make([]byte, dnsHeader)
	binary.BigEndian.PutUint16(q, id)
	q[2], q[5] = 1, 1 // recursion desired, one question
	for label := range strings.SplitSeq(name, ".") {
		q = append(append(q, byte(len(label))), label...)
	}
	q = append(q, 0)
	q = binary.BigEndian.AppendUint16(q, kind)
	return binary.BigEndian.AppendUint16(q, 1)
}

const gatewayDNS = "10.77.0.1:53"

func rcodeOf(a []byte) int { return int(a[3] & 0xf) }

func ask(t *testing.T, c net.Conn, q []byte) []byte {
	t.Helper()
	if _, err := c.Write(q); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 64<<10)
	n, err := c.Read(b)
	if err != nil {
		t.Fatalf("waiting for an answer: %v", err)
	}
	return b[:n]
}

func TestDNS(t *testing.T) {
	r := newResolver(t, func(q []byte) [][]byte {
		other := answerTo(q, "forged")
		other[0]++ // to another query
		return [][]byte{other, answerTo(q, "genuine")}
	})
	var w world
	c := w.config()
	c.Resolvers = func() ([]netip.AddrPort, error) { return []netip.AddrPort{r.addr}, nil }
	s, g := pair(t, c)
	u := g.socket(gatewayDNS)
	for id := range uint16(3) {
		q := query(id, "example.com", 16)
		if a := ask(t, u, q); string(a) != string(answerTo(q, "genuine")) {
			t.Errorf("the answer is %q", a)
		}
	}
	if s.Counters().Outbound != 0 || w.dialled != nil {
		t.Errorf("the guest's query took a flow: %+v, %v", s.Counters(), w.dialled)
	}
}

func TestDNSByTCP(t *testing.T) {
	r := newResolver(t, func(q []byte) [][]byte { return [][]byte{answerTo(q, strings.Repeat("long", 1000))} })
	var w world
	c := w.config()
	c.Resolvers = func() ([]netip.AddrPort, error) { return []netip.AddrPort{r.addr}, nil }
	s, g := pair(t, c)
	conn := g.mustConnect(gatewayDNS)
	for id := range uint16(3) { // of one connection
		q := query(id, "example.com", 16)
		if err := writeMessage(conn, q); err != nil {
			t.Fatal(err)
		}
		a, err := readMessage(conn, 64<<10)
		if err != nil || string(a) != string(answerTo(q, strings.Repeat("long", 1000))) {
			t.Errorf("the answer is %d bytes, %v", len(a), err)
		}
	}
	writeMessage(conn, query(9, "example.com", typeAXFR))
	if a, err := readMessage(conn, 512); err != nil || rcodeOf(a) != rcodeRefuse {
		t.Errorf("a transfer is answered with %x, %v", a, err)
	}
	conn.Close()
	eventually(t, "the connection is forgotten", func() bool { return s.Counters().Outbound == 0 })
}

// A resolver that does not answer is passed over, and where none does the guest is told to try again.
func TestDNSWithoutAnswer(t *testing.T) {
	dead := newResolver(t, nil)
	alive := newResolver(t, func(q []byte) [][]byte { return [][]byte{answerTo(q, "alive")} })
	dead.udp.Close() // not before alive has a port of its own
	servers := []netip.AddrPort{dead.addr, alive.addr}
	var w world
	c := w.config()
	c.Resolvers = func() ([]netip.AddrPort, error) { return servers, nil }
	_, g := pair(t, c)
	u := g.socket(gatewayDNS)
	q := query(1, "example.com", 1)
	if a := ask(t, u, q); string(a) != string(answerTo(q, "alive")) {
		t.Errorf("the answer of the second is %q", a)
	}
	servers = servers[:1]
	if a := ask(t, u, q); rcodeOf(a) != rcodeFailed || string(a[dnsHeader:]) != string(q[dnsHeader:]) {
		t.Errorf("without any the answer is %x", a)
	}
	if !strings.Contains(w.reasons(), "the host's resolver does not answer") {
		t.Errorf("told:\n%s", w.reasons())
	}
}

func TestDNSIsBounded(t *testing.T) {
	release := make(chan struct{})
	r := newResolver(t, func(q []byte) [][]byte { <-release; return [][]byte{answerTo(q, "late")} })
	var w world
	c := w.config()
	c.Limits.DNS, c.Limits.DNSRate, c.Limits.DNSBurst = 1, 1, 3
	c.Resolvers = func() ([]netip.AddrPort, error) { return []netip.AddrPort{r.addr}, nil }
	s, g := pair(t, c)
	first, second := g.socket(gatewayDNS), g.socket(gatewayDNS)
	first.Write(query(1, "example.com", 1))
	eventually(t, "the first query is under way", func() bool { s.out.mu.Lock(); defer s.out.mu.Unlock(); return s.out.queries == 1 })
	for range 10 { // more than a busy host has one wait for
		if a := ask(t, second, query(2, "example.com", 1)); rcodeOf(a) != rcodeFailed {
			t.Errorf("beyond the limit the answer is %x", a)
		}
	}
	close(release)
	if n, err := first.Read(make([]byte, 512)); err != nil || n == 0 {
		t.Errorf("the first query: %d bytes, %v", n, err)
	}
	told := w.reasons()
	if !strings.Contains(told, "1 DNS queries are under way") || !strings.Contains(told, "more than 1 DNS queries a second") {
		t.Errorf("told:\n%s", told)
	}
}

// Without traffic to the outside there are no names either.
func TestDNSWithoutOutside(t *testing.T) {
	_, g := pair(t, testConfig())
	g.socket(gatewayDNS).refused(t, string(query(1, "example.com", 1)))
}

func TestCheckQuery(t *testing.T) {
	plain := query(7, "example.com", 1)
	with := func(at int, b byte) []byte {
		q := slices.Clone(plain)
		q[at] = b
		return q
	}
	for _, tt := range []struct {
		name  string
		q     []byte
		rcode int
	}{
		{"a plain question", plain, 0},
		{"any type", query(7, "example.com", 65), 0},
		{"the root", query(7, "", 2), rcodeFormat}, // SplitSeq makes one empty label, and so two ends
		{"with an additional record", append(with(11, 1), 0, 0, 41, 16, 0, 0, 0, 0, 0, 0, 0), 0},
		{"nothing", nil, rcodeFormat},
		{"half a header", plain[:7], rcodeFormat},
		{"an answer", with(2, 0x81), rcodeFormat},
		{"an update", with(2, 5<<3), rcodeNotImp},
		{"a notification", with(2, 4<<3), rcodeNotImp},
		{"two questions", with(5, 2), rcodeFormat},
		{"no question", with(5, 0), rcodeFormat},
		{"an answer in it", with(7, 1), rcodeFormat},
		{"an authority in it", with(9, 1), rcodeFormat},
		{"a compressed name", with(12, 0xc0), rcodeFormat},
		{"a name without an end", plain[:20], rcodeFormat},
		{"no type", plain[:len(plain)-3], rcodeFormat},
		{"a transfer", query(7, "example.com", typeAXFR), rcodeRefuse},
		{"a part of one", query(7, "example.com", typeIXFR), rcodeRefuse},
		{"a long name", query(7, strings.Repeat("sixty-three.", 30), 1), rcodeFormat},
		{"too long", append(slices.Clone(plain), make([]byte, maxQuery)...), rcodeFormat},
	} {
		end, rcode := checkQuery(tt.q)
		if tt.name == "the root" {
			end, rcode = checkQuery(append(query(7, "", 2)[:dnsHeader], 0, 0, 2, 0, 1))
			tt.rcode = 0
		}
		if rcode != tt.rcode {
			t.Errorf("%s: code %d, want %d", tt.name, rcode, tt.rcode)
		}
		if a := refuseQuery(tt.q, end, rcode); a != nil && !answers(a, tt.q) {
			t.Errorf("%s: the answer %x is none", tt.name, a)
		}
	}
}

func FuzzCheckQuery(f *testing.F) {
	f.Add(query(7, "example.com", 1))
	f.Add(query(7, "a.b", typeAXFR))
	f.Add([]byte{0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 63})
	f.Fuzz(func(t *testing.T, q []byte) {
		end, rcode := checkQuery(q)
		if end > len(q) || rcode == 0 && end < dnsHeader+5 {
			t.Fatalf("the question of %d bytes ends at %d, code %d", len(q), end, rcode)
		}
		if rcode == 0 && (q[2]&0xf8 != 0 || binary.BigEndian.Uint16(q[end-4:]) == typeAXFR) {
			t.Fatalf("%x is handed on", q)
		}
		if a := refuseQuery(q, end, rcode); a != nil && (len(a) > len(q) || !answers(a, q)) {
			t.Fatalf("the refusal of %x is %x", q, a)
		}
	})
}

func TestResolvConf(t *testing.T) {
	for text, want := range map[string]string{
		"":                                "[127.0.0.1:53]",
		"# nothing\nsearch example.com\n": "[127.0.0.1:53]",
		"nameserver 192.0.2.1\n":          "[192.0.2.1:53]",
		"options edns0\nnameserver\t127.0.0.53 # local\nnameserver 2001:db8::1": "[127.0.0.53:53 [2001:db8::1]:53]",
		"nameserver fe80::1%eth0\nnameserver nonsense\n":                        "[[fe80::1%eth0]:53]",
		strings.Repeat("nameserver 192.0.2.1\n", 5):                             "[192.0.2.1:53 192.0.2.1:53 192.0.2.1:53]",
	} {
		got := parseResolvConf(text)
		var b strings.Builder
		for i, a := range got {
			if i > 0 {
				b.WriteByte(' ')
			}
			b.WriteString(a.String())
		}
		if "["+b.String()+"]" != want {
			t.Errorf("%q: %s, want %s", text, b.String(), want)
		}
	}
}
