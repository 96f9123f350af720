package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/halevm/hale/internal/egress"
)

// A hostWatch knows the host's own addresses as they are at this moment: what the kernel's local routing table holds, which is the
// addresses of every interface, the ranges that are routed to the host itself, and broadcast addresses. It is read again as soon as
// the kernel has told of a change; asking is one system call where there is none.
type hostWatch struct {
	mu      sync.Mutex
	changes int // a netlink socket that the kernel tells of changes; -1: not open yet
	host    egress.Host
}

func newHostWatch() *hostWatch { return &hostWatch{changes: -1} }

// now returns the addresses. With an error nobody knows them, and nothing may be dialled.
func (w *hostWatch) now() (egress.Host, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.changes >= 0 && !changed(w.changes) {
		return w.host, nil
	}
	h, err := w.read()
	if err != nil {
		w.closeLocked() // the next call begins afresh
		return egress.Host{}, fmt.Errorf("read the host's addresses: %w", err)
	}
	w.host = h
	return h, nil
}

// read subscribes first and looks then, so that no change is missed.
func (w *hostWatch) read() (egress.Host, error) {
	if w.changes < 0 {
		fd, err := routeSocket(unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV4_ROUTE)
		if err != nil {
			return egress.Host{}, err
		}
		w.changes = fd
	}
	h, err := localTable()
	for again := 0; errors.Is(err, errMoved) && again < 10; again++ {
		h, err = localTable()
	}
	return h, err
}

// errMoved is a table that changed while it was read.
var errMoved = errors.New("they changed while they were read")

func (w *hostWatch) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closeLocked()
}

func (w *hostWatch) closeLocked() {
	if w.changes >= 0 {
		unix.Close(w.changes)
	}
	w.changes = -1
}

// changed empties the socket and reports whether there was anything. An overrun (ENOBUFS) is news as well.
func changed(fd int) bool {
	var buf [4096]byte
	news := false
	for {
		_, _, err := unix.Recvfrom(fd, buf[:], unix.MSG_DONTWAIT|unix.MSG_TRUNC)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return news
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ENOBUFS), err == nil:
			news = true
		default:
			return true
		}
	}
}

func routeSocket(groups uint32) (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		unix.Close(fd)
		return -1, os.NewSyscallError("bind", err)
	}
	return fd, nil
}

// localTable asks the kernel for its local routing table. Where it can filter (4.20 and later) it sends no other; on a host with
// a large one the others are passed over.
func localTable() (egress.Host, error) {
	fd, err := routeSocket(0)
	if err != nil {
		return egress.Host{}, err
	}
	defer unix.Close(fd)
	unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1)
	req := make([]byte, unix.SizeofNlMsghdr+unix.SizeofRtMsg)
	binary.NativeEndian.PutUint32(req[0:], uint32(len(req)))
	binary.NativeEndian.PutUint16(req[4:], unix.RTM_GETROUTE)
	binary.NativeEndian.PutUint16(req[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	req[unix.SizeofNlMsghdr] = unix.AF_INET
	req[unix.SizeofNlMsghdr+4] = unix.RT_TABLE_LOCAL
	if err := unix.Sendto(fd, req, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return egress.Host{}, os.NewSyscallError("sendto", err)
	}
	var h egress.Host
	buf := make([]byte, 32<<10)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return egress.Host{}, os.NewSyscallError("recvfrom", err)
		}
		messages, err := syscall.ParseNetlinkMessage(buf[:n])
		if err != nil {
			return egress.Host{}, err
		}
		for _, m := range messages {
			switch {
			case m.Header.Type == unix.NLMSG_DONE:
				return h, nil
			case m.Header.Type == unix.NLMSG_ERROR && len(m.Data) >= 4:
				return egress.Host{}, syscall.Errno(-int32(binary.NativeEndian.Uint32(m.Data)))
			case m.Header.Flags&unix.NLM_F_DUMP_INTR != 0:
				return egress.Host{}, errMoved
			case m.Header.Type == unix.RTM_NEWROUTE:
				addRoute(&h, m)
			}
		}
	}
}

// addRoute takes in a route to the host itself, or to a broadcast address (struct rtmsg and its attributes).
func addRoute(h *egress.Host, m syscall.NetlinkMessage) {
	if len(m.Data) < unix.SizeofRtMsg || m.Data[0] != unix.AF_INET || m.Data[1] > 32 {
		return
	}
	kind := m.Data[7]
	if kind != unix.RTN_LOCAL && kind != unix.RTN_BROADCAST && kind != unix.RTN_ANYCAST {
		return
	}
	attrs, err := syscall.ParseNetlinkRouteAttr(&m)
	if err != nil {
		return
	}
	dst := netip.AddrFrom4([4]byte{})
	for _, a := range attrs {
		if a.Attr.Type == unix.RTA_DST && len(a.Value) == 4 {
			dst = netip.AddrFrom4([4]byte(a.Value))
		}
	}
	p := netip.PrefixFrom(dst, int(m.Data[1]))
	if kind == unix.RTN_BROADCAST {
		h.Broadcast = append(h.Broadcast, p)
	} else {
		h.Own = append(h.Own, p)
	}
}
