package registry

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/halevm/hale/internal/egress"
)

// What carries an IPv4 address in an IPv6 one, and at which byte.
var carriers = []struct {
	net netip.Prefix
	at  int
}{
	{netip.MustParsePrefix("::/96"), 12},           // IPv4-compatible, obsolete
	{netip.MustParsePrefix("64:ff9b::/96"), 12},    // NAT64 (RFC 6052)
	{netip.MustParsePrefix("64:ff9b:1::/48"), 12},  // NAT64 of a network's own (RFC 8215), as it is set up mostly
	{netip.MustParsePrefix("::ffff:0:0:0/96"), 12}, // IPv4-translated (RFC 2765)
	{netip.MustParsePrefix("2002::/16"), 2},        // 6to4 (RFC 3056)
}

// metadata are the addresses of IPv6 where clouds hand secrets to whoever asks from the host; egress knows those of IPv4.
var metadata = []netip.Addr{
	netip.MustParseAddr("fd00:ec2::254"), // Amazon
	netip.MustParseAddr("fd20:ce::254"),  // Google
}

// anyPrivate is a policy that has nothing against private ranges: registries and their storage lie there.
var anyPrivate = egress.Policy{Allow: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}}

// notHere keeps a registry from making requests of ours reach what only this host can: its own services, under any of its
// addresses, and the metadata services of clouds.
func notHere(_, address string, _ syscall.RawConn) error {
	a := addressOf(address)
	if !a.IsValid() || a.IsLoopback() || a.IsUnspecified() || a.IsLinkLocalUnicast() || a.IsMulticast() {
		return errLedHere
	}
	if a.Is6() {
		for _, m := range metadata {
			if a.WithZone("") == m {
				return errLedHere
			}
		}
		for _, c := range carriers {
			if b := a.As16(); c.net.Contains(a.WithZone("")) {
				carried := netip.AddrFrom4([4]byte(b[c.at : c.at+4]))
				if err := notHere("", netip.AddrPortFrom(carried, 443).String(), nil); errors.Is(err, errLedHere) {
					return err
				}
			}
		}
	} else if anyPrivate.Judge(egress.Flow{Protocol: egress.TCP, Addr: netip.AddrPortFrom(a, 443)}, egress.Host{}).Refused() {
		return errLedHere
	}
	kind, err := route(a)
	if err != nil {
		return err
	}
	switch kind {
	case unix.RTN_LOCAL, unix.RTN_BROADCAST, unix.RTN_ANYCAST, unix.RTN_MULTICAST:
		return errLedHere
	}
	return nil
}

// isOwn reports whether a is an address of this host.
func isOwn(a netip.Addr) bool {
	if !a.IsValid() {
		return false
	}
	kind, err := route(a)
	return err == nil && kind == unix.RTN_LOCAL
}

// route asks the kernel where a packet to a would go (RTM_GETROUTE, rtnetlink(7)), and returns the kind of the route: RTN_LOCAL is
// this host. An address without a route is the error that a connection to it would be. Nothing is sent.
func route(a netip.Addr) (kind byte, err error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return 0, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	dst, family := a.AsSlice(), byte(unix.AF_INET)
	if a.Is6() {
		family = unix.AF_INET6
	}
	const head = unix.SizeofNlMsghdr + unix.SizeofRtMsg
	req := make([]byte, head+unix.SizeofRtAttr+len(dst))
	binary.NativeEndian.PutUint32(req[0:], uint32(len(req)))
	binary.NativeEndian.PutUint16(req[4:], unix.RTM_GETROUTE)
	binary.NativeEndian.PutUint16(req[6:], unix.NLM_F_REQUEST)
	req[unix.SizeofNlMsghdr] = family
	req[unix.SizeofNlMsghdr+1] = byte(a.BitLen())
	binary.NativeEndian.PutUint16(req[head:], uint16(unix.SizeofRtAttr+len(dst)))
	binary.NativeEndian.PutUint16(req[head+2:], unix.RTA_DST)
	copy(req[head+unix.SizeofRtAttr:], dst)
	if err := unix.Sendto(fd, req, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, os.NewSyscallError("sendto", err)
	}
	buf := make([]byte, 16<<10)
	n, _, err := unix.Recvfrom(fd, buf, 0)
	for errors.Is(err, unix.EINTR) {
		n, _, err = unix.Recvfrom(fd, buf, 0)
	}
	if err != nil {
		return 0, os.NewSyscallError("recvfrom", err)
	}
	messages, err := syscall.ParseNetlinkMessage(buf[:n])
	if err != nil {
		return 0, err
	}
	for _, m := range messages {
		switch {
		case m.Header.Type == unix.NLMSG_ERROR && len(m.Data) >= 4:
			return 0, os.NewSyscallError("connect", syscall.Errno(-int32(binary.NativeEndian.Uint32(m.Data))))
		case m.Header.Type == unix.RTM_NEWROUTE && len(m.Data) >= unix.SizeofRtMsg:
			return m.Data[7], nil // rtm_type
		}
	}
	return 0, fmt.Errorf("the kernel does not say where %v is", a)
}
