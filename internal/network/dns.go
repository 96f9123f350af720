package network

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

// The gateway answers DNS by handing each query, as it is, to the host's resolvers: any type of record works, and what the host
// resolves the guest does. They may well be on the host's loopback, so what goes there is looked at: plain questions only, no
// updates and no transfers, which a resolver may grant to its own host. An answer that names a forbidden address does no harm: each
// dial is judged by itself.

const (
	maxQuery      = 4096             // bytes; a question with all its options has a few hundred
	serverTimeout = 3 * time.Second  // for the answer of one resolver
	dnsIdle       = 30 * time.Second // for the next query of a connection
)

// The parts of a query's header that matter here (RFC 1035, section 4.1.1).
const (
	dnsHeader   = 12
	rcodeFormat = 1
	rcodeFailed = 2 // SERVFAIL: try again
	rcodeNotImp = 4
	rcodeRefuse = 5
	typeIXFR    = 251
	typeAXFR    = 252
)

// checkQuery returns where the question ends, and the code to answer with where the query is not handed on; 0 where it is.
func checkQuery(q []byte) (end, rcode int) {
	if len(q) < dnsHeader || len(q) > maxQuery || q[2]&0x80 != 0 {
		return 0, rcodeFormat // and one that is no query is not answered
	}
	if q[2]>>3&0xf != 0 {
		return dnsHeader, rcodeNotImp // an update, a notification
	}
	count := func(i int) uint16 { return binary.BigEndian.Uint16(q[i:]) }
	if count(4) != 1 || count(6) != 0 || count(8) != 0 {
		return dnsHeader, rcodeFormat
	}
	at := dnsHeader
	for {
		if at >= len(q) || q[at] > 63 || at-dnsHeader > 255 {
			return dnsHeader, rcodeFormat
		}
		size := int(q[at])
		at += 1 + size
		if size == 0 {
			break
		}
	}
	if at+4 > len(q) {
		return dnsHeader, rcodeFormat
	}
	switch count(at) {
	case typeIXFR, typeAXFR:
		return at + 4, rcodeRefuse
	}
	return at + 4, 0
}

// refuseQuery answers a query, whose question ends at end, with a code; nil where there is nothing to answer.
func refuseQuery(q []byte, end, rcode int) []byte {
	if end < dnsHeader {
		return nil
	}
	a := append([]byte(nil), q[:end]...)
	a[2] = a[2]&0x79 | 0x80 // an answer; opcode and "recursion desired" stay
	a[3] = 0x80 | byte(rcode)
	for i := 4; i < dnsHeader; i++ {
		a[i] = 0
	}
	if end > dnsHeader {
		a[5] = 1
	}
	return a
}

// queryByDatagram answers a query that came as a datagram. It runs in readLoop and never blocks.
func (o *outbound) queryByDatagram(key udpKey, q []byte) {
	o.s.tx.Add(int64(len(q)))
	end, rcode := checkQuery(q)
	if rcode == 0 {
		rcode = o.beginQuery(Flow{Protocol: UDP, Addr: key.to})
	}
	if rcode != 0 {
		if a := refuseQuery(q, end, rcode); a != nil {
			o.s.deliverDatagram(key.to, key.port, a)
		}
		return
	}
	q = append([]byte(nil), q...) // the frame is released
	o.s.wg.Go(func() {
		defer o.endQuery()
		if a := o.resolve("udp", q, end); a != nil {
			o.s.deliverDatagram(key.to, key.port, a)
		}
	})
}

// beginQuery takes a place for one query, or says with which code it is turned away.
func (o *outbound) beginQuery(f Flow) (rcode int) {
	o.mu.Lock()
	n, slow := o.queries, o.newNames.Allow()
	if slow && n < o.limits.DNS {
		o.queries++
		o.mu.Unlock()
		return 0
	}
	o.mu.Unlock()
	if slow {
		o.limited(nameLimit, f, fmt.Sprintf("%d DNS queries are under way, which is the most at a time", n))
	} else {
		o.limited(nameRateLimit, f, fmt.Sprintf("more than %d DNS queries a second", o.limits.DNSRate))
	}
	return rcodeFailed
}

func (o *outbound) endQuery() {
	o.mu.Lock()
	o.queries--
	o.mu.Unlock()
}

// serveDNS answers the queries of one connection to the gateway, one after the other.
func (o *outbound) serveDNS(inside *Conn, f *tcpFlow) {
	abort := func() { resetConn(inside) }
	f.abort.Store(&abort)
	defer context.AfterFunc(o.s.ctx, abort)()
	defer inside.leave()
	for {
		inside.SetDeadline(time.Now().Add(dnsIdle))
		q, err := readMessage(inside, maxQuery)
		if err != nil {
			return
		}
		o.s.tx.Add(int64(len(q)))
		f.passed()
		end, rcode := checkQuery(q)
		if rcode == 0 {
			rcode = o.beginQuery(f.Flow)
		}
		var a []byte
		if rcode == 0 {
			a = o.resolve("tcp", q, end)
			o.endQuery()
		} else {
			a = refuseQuery(q, end, rcode)
		}
		if a == nil || writeMessage(inside, a) != nil {
			return
		}
		o.s.rx.Add(int64(len(a)))
	}
}

// resolve asks the host's resolvers, one after the other. It returns the answer of the first that has one, SERVFAIL where none
// has, and nil when the Stack closes.
func (o *outbound) resolve(network string, q []byte, end int) []byte {
	servers, err := o.resolvers()
	for _, server := range servers {
		var a []byte
		if a, err = o.ask(network, server, q); err == nil {
			return a
		}
		if o.s.ctx.Err() != nil {
			return nil
		}
	}
	if err != nil {
		to := netip.AddrPortFrom(netip.AddrFrom4(o.s.link.id.gatewayIP), 53)
		o.limited(hostLimit, Flow{Protocol: UDP, Addr: to}, "the host's resolver does not answer: "+err.Error())
	}
	return refuseQuery(q, end, rcodeFailed)
}

// ask asks one resolver, from a port of its own, and takes only an answer to this query.
func (o *outbound) ask(network string, server netip.AddrPort, q []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(o.s.ctx, serverTimeout)
	defer cancel()
	c, err := new(net.Dialer).DialContext(ctx, network, server.String())
	if err != nil {
		return nil, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })()
	if network == "tcp" {
		if err := writeMessage(c, q); err != nil {
			return nil, err
		}
		a, err := readMessage(c, 64<<10)
		if err == nil && !answers(a, q) {
			err = errors.New("it answers something else")
		}
		return a, err
	}
	if _, err := c.Write(q); err != nil {
		return nil, err
	}
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		return nil, err
	}
	src := kernelSource{raw, &datagramBuffers}
	for {
		b, n, err := src.receive()
		var a []byte
		if b != nil {
			if err == nil && answers((*b)[:n], q) {
				a = append(a, (*b)[:n]...)
			}
			src.done(b)
		}
		if a != nil || err != nil {
			return a, err
		}
	}
}

// answers reports whether a is an answer to q, by its number.
func answers(a, q []byte) bool {
	return len(a) >= dnsHeader && a[0] == q[0] && a[1] == q[1] && a[2]&0x80 != 0
}

// readMessage and writeMessage speak DNS over a stream: each message after its length.

func readMessage(r io.Reader, most int) ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(size[:]))
	if n > most {
		return nil, fmt.Errorf("a message of %d bytes: at most %d", n, most)
	}
	b := make([]byte, n)
	_, err := io.ReadFull(r, b)
	return b, err
}

func writeMessage(w io.Writer, m []byte) error {
	b := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(m)), uint16(len(m)))
	_, err := w.Write(append(b, m...))
	return err
}

// A resolvConf knows the servers of /etc/resolv.conf as it is now.
type resolvConf struct {
	mu   sync.Mutex
	seen os.FileInfo // the file that list is from
	list []netip.AddrPort
}

const resolvConfPath = "/etc/resolv.conf"

func (c *resolvConf) servers() ([]netip.AddrPort, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, err := os.Stat(resolvConfPath)
	if err != nil {
		return nil, fmt.Errorf("the host's resolvers: %w", err)
	}
	if c.seen != nil && os.SameFile(c.seen, now) && c.seen.ModTime().Equal(now.ModTime()) && c.seen.Size() == now.Size() {
		return c.list, nil
	}
	b, err := os.ReadFile(resolvConfPath)
	if err != nil {
		return nil, fmt.Errorf("the host's resolvers: %w", err)
	}
	c.seen, c.list = now, parseResolvConf(string(b))
	return c.list, nil
}

// parseResolvConf reads resolv.conf(5): at most three servers, and the local one where none is named.
func parseResolvConf(text string) []netip.AddrPort {
	const most = 3
	var list []netip.AddrPort
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "nameserver" || len(list) == most {
			continue
		}
		if a, err := netip.ParseAddr(f[1]); err == nil {
			list = append(list, netip.AddrPortFrom(a, 53))
		}
	}
	if list == nil {
		list = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53")}
	}
	return list
}
