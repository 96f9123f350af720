package pid1

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/halevm/hale/internal/guest/protocol"
)

// setNetwork brings up loopback, and the machine's card with its address and the route to everywhere else.
func setNetwork(n *protocol.Network) error {
	nl, err := openNetlink()
	if err != nil {
		return err
	}
	defer nl.close()
	if err := nl.linkUp(1); err != nil { // 1 is always lo
		return fmt.Errorf("loopback: %w", err)
	}
	if n == nil {
		return nil
	}
	name, index, err := findCard()
	if err != nil {
		return err
	}
	// The address comes first and is announced when the link is up (arp_notify), so that the first frame tells the host that
	// the machine can be reached: what the host sends sooner is lost, and TCP tries again a second later.
	if err := nl.addAddr(index, n.Addr); err != nil {
		return fmt.Errorf("address %s: %w", n.Addr, err)
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/conf/"+name+"/arp_notify", []byte("1"), 0); err != nil {
		return err
	}
	if err := nl.linkUp(index); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if !n.Gateway.IsValid() {
		return nil
	}
	if err := nl.addDefault(n.Gateway); err != nil {
		return fmt.Errorf("gateway %s: %w", n.Gateway, err)
	}
	return nil
}

// findCard returns the network card: the one interface that has a device.
func findCard() (name string, index uint32, err error) {
	err = waitFor(5*time.Second, func() bool {
		devices, _ := filepath.Glob("/sys/class/net/*/device")
		for _, d := range devices {
			dir := filepath.Dir(d)
			b, err := os.ReadFile(filepath.Join(dir, "ifindex"))
			if err != nil {
				continue
			}
			if n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 32); err == nil {
				name, index = filepath.Base(dir), uint32(n)
				return true
			}
		}
		return false
	})
	if err != nil {
		return "", 0, fmt.Errorf("no network card: %w", err)
	}
	return name, index, nil
}

// A netlink is a socket to the kernel's routing tables, spoken to one request at a time.
type netlink struct {
	fd  int
	seq uint32
}

func openNetlink() (*netlink, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	return &netlink{fd: fd}, nil
}

func (n *netlink) close() { unix.Close(n.fd) }

func (n *netlink) linkUp(index uint32) error {
	return n.ask(unix.RTM_NEWLINK, 0, linkUpMessage(index))
}

func (n *netlink) addAddr(index uint32, p netip.Prefix) error {
	return n.ask(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, addrMessage(index, p))
}

func (n *netlink) addDefault(gateway netip.Addr) error {
	return n.ask(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, defaultMessage(gateway))
}

// linkUpMessage is a struct ifinfomsg.
func linkUpMessage(index uint32) message {
	var m message
	m.u8(unix.AF_UNSPEC, 0).u16(0).u32(index).u32(unix.IFF_UP).u32(unix.IFF_UP)
	return m
}

// addrMessage is a struct ifaddrmsg and its attributes.
func addrMessage(index uint32, p netip.Prefix) message {
	var m message
	m.u8(family(p.Addr()), byte(p.Bits()), 0, unix.RT_SCOPE_UNIVERSE).u32(index)
	m.attr(unix.IFA_LOCAL, p.Addr().AsSlice()).attr(unix.IFA_ADDRESS, p.Addr().AsSlice())
	return m
}

// defaultMessage is a struct rtmsg and its attribute.
func defaultMessage(gateway netip.Addr) message {
	var m message
	m.u8(family(gateway), 0, 0, 0, unix.RT_TABLE_MAIN, unix.RTPROT_BOOT, unix.RT_SCOPE_UNIVERSE, unix.RTN_UNICAST).u32(0)
	m.attr(unix.RTA_GATEWAY, gateway.AsSlice())
	return m
}

func family(a netip.Addr) byte {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
