package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/link/ethernet"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"github.com/halevm/hale/internal/guest/protocol"
)

const (
	nic      = 1
	mtu      = 1500
	maxFrame = 1 << 16
)

// join gives the machine its address, and serves HTTP there.
func (m *machine) join(b protocol.Boot) error {
	if b.Network == nil {
		return errors.New("it has no network")
	}
	mac, err := net.ParseMAC(m.mac)
	if err != nil {
		return err
	}
	s := stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol},
	})
	cable := channel.New(256, mtu, tcpip.LinkAddress(mac))
	if err := s.CreateNIC(nic, ethernet.New(cable)); err != nil {
		return fmt.Errorf("card: %v", err)
	}
	addr := tcpip.AddrFrom4(b.Network.Addr.Addr().As4())
	if err := s.AddProtocolAddress(nic, tcpip.ProtocolAddress{
		Protocol:          ipv4.ProtocolNumber,
		AddressWithPrefix: tcpip.AddressWithPrefix{Address: addr, PrefixLen: b.Network.Addr.Bits()},
	}, stack.AddressProperties{}); err != nil {
		return fmt.Errorf("address: %v", err)
	}
	everything, err := tcpip.NewSubnet(tcpip.AddrFrom4([4]byte{}), tcpip.MaskFromBytes(make([]byte, 4)))
	if err != nil {
		return err
	}
	s.SetRouteTable([]tcpip.Route{{Destination: everything, Gateway: tcpip.AddrFrom4(b.Network.Gateway.As4()), NIC: nic}})
	card := os.NewFile(m.card, "card")
	go fromHost(polled{card}, cable)
	go toHost(card, cable)
	l, err := gonet.ListenTCP(s, tcpip.FullAddress{NIC: nic, Addr: addr, Port: 80}, ipv4.ProtocolNumber)
	if err != nil {
		return err
	}
	go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok\n") }))
	return nil
}

// A polled file is waited for with poll, as QEMU's main loop does. Who waits in a read of a socket is woken by the peer's reading, too, and the
// shim would pay for it.
type polled struct{ *os.File }

func (p polled) Read(b []byte) (int, error) {
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(p.Fd()), Events: unix.POLLIN}}, -1)
		if err == nil {
			return p.File.Read(b)
		}
		if err != unix.EINTR {
			return 0, err
		}
	}
}

// Frames go with their length before them, as -netdev stream has it.
func fromHost(card io.Reader, cable *channel.Endpoint) {
	in := bufio.NewReaderSize(card, maxFrame)
	for {
		var head [4]byte
		if _, err := io.ReadFull(in, head[:]); err != nil {
			return
		}
		n := binary.BigEndian.Uint32(head[:])
		if n > maxFrame {
			return
		}
		frame := make([]byte, n)
		if _, err := io.ReadFull(in, frame); err != nil {
			return
		}
		p := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(frame)})
		cable.InjectInbound(0, p)
		p.DecRef()
	}
}

func toHost(card io.Writer, cable *channel.Endpoint) {
	for {
		p := cable.ReadContext(context.Background())
		if p == nil {
			return
		}
		frame := p.ToView().AsSlice()
		b := append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(frame)), uint32(len(frame))), frame...)
		p.DecRef()
		if _, err := card.Write(b); err != nil {
			return
		}
	}
}
