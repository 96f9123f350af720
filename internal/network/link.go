package network

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

const (
	lengthSize = 4
	// maxFrame is the largest frame that is read: what an MTU of DefaultMTU needs, with some room. A larger length is no
	// frame of a virtio card but a stream that is out of step, and ends the link.
	maxFrame = 65550

	// queueBytes bounds what waits for the guest, and the last queueReserve of it are for frames of at most smallFrame
	// bytes: the SYN of a probe gets through where a download has filled the rest.
	queueBytes   = 2 << 20
	queueReserve = 512 << 10
	smallFrame   = 2048
	// keepBytes is the buffer that is kept when the queue is empty again.
	keepBytes = 256 << 10
)

var errFrameTooLong = errors.New("a frame longer than any that a network card sends")

// A link is gVisor's view of the machine's network card. WritePackets queues and never blocks: one goroutine (writeLoop)
// hands everything that waits to the other end in one write.
type link struct {
	rw  io.ReadWriteCloser
	mtu uint32
	id  stations

	dispatcher atomic.Pointer[stack.NetworkDispatcher]

	mu      sync.Mutex
	pending []byte // frames with their lengths
	stopped bool
	news    sync.Cond // pending is not empty any more, or the link has stopped
	lost    atomic.Uint64
}

var _ stack.LinkEndpoint = (*link)(nil)

func newLink(rw io.ReadWriteCloser, mtu int, id stations) *link {
	l := &link{rw: rw, mtu: uint32(mtu), id: id}
	l.news.L = &l.mu
	return l
}

// WritePackets implements stack.LinkWriter. A packet that finds no room is counted and lost, as on any card.
func (l *link) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	for i, pkt := range pkts.AsSlice() {
		if !l.enqueue(pkt.Size(), pkt.AsSlices()...) {
			return i, &tcpip.ErrNoBufferSpace{}
		}
	}
	return pkts.Len(), nil
}

// enqueue appends one frame, given in parts of size bytes in all, to what waits for the guest.
func (l *link) enqueue(size int, parts ...[]byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	limit := queueBytes
	if size > smallFrame {
		limit -= queueReserve
	}
	if l.stopped || len(l.pending)+lengthSize+size > limit {
		l.lost.Add(1)
		return false
	}
	if len(l.pending) == 0 {
		l.news.Signal()
	}
	l.pending = binary.BigEndian.AppendUint32(l.pending, uint32(size))
	for _, p := range parts {
		l.pending = append(l.pending, p...)
	}
	return true
}

// await returns once something waits; false: the link has stopped.
func (l *link) await() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.pending) == 0 && !l.stopped {
		l.news.Wait()
	}
	return !l.stopped
}

// take returns everything that waits, and keeps spent, which was written, to collect what comes next.
func (l *link) take(spent []byte) []byte {
	if cap(spent) > keepBytes {
		spent = nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	out := l.pending
	l.pending = spent[:0]
	return out
}

func (l *link) writeLoop() {
	var out []byte
	for l.await() {
		runtime.Gosched() // whoever this frame was written for may have one that goes with it, as a request with the last of the handshake
		out = l.take(out)
		if _, err := l.rw.Write(out); err != nil {
			if !errors.Is(err, syscall.EPIPE) { // of that the reader learns by itself, and tells
				l.stop() // half a frame may have gone
			}
			return
		}
	}
}

// stop closes the link; what still waits is dropped.
func (l *link) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		return
	}
	l.stopped = true
	l.pending = nil
	l.news.Signal()
	l.rw.Close()
}

// A frameReader takes frames out of a stream.
type frameReader struct {
	r    *bufio.Reader
	size [lengthSize]byte
}

func newFrameReader(r io.Reader) *frameReader {
	return &frameReader{r: bufio.NewReaderSize(r, 32<<10)}
}

// next returns the next frame; the caller releases it. io.EOF is the stream's end between two frames.
func (f *frameReader) next() (*buffer.View, error) {
	if _, err := io.ReadFull(f.r, f.size[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(f.size[:])
	if n > maxFrame {
		return nil, fmt.Errorf("reading the link: %d bytes: %w", n, errFrameTooLong)
	}
	v := buffer.NewViewSize(int(n))
	if _, err := io.ReadFull(f.r, v.AsSlice()); err != nil {
		v.Release()
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return v, nil
}

// inject hands a frame that the guard let through to the stack, and consumes it.
func (l *link) inject(v *buffer.View) {
	d := l.dispatcher.Load()
	if d == nil {
		v.Release()
		return
	}
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithView(v)})
	defer pkt.DecRef()
	if !l.ParseHeader(pkt) {
		return
	}
	pkt.PktType = tcpip.PacketHost
	(*d).DeliverNetworkPacket(header.Ethernet(pkt.LinkHeader().Slice()).Type(), pkt)
}

// AddHeader implements stack.NetworkLinkEndpoint.
func (l *link) AddHeader(pkt *stack.PacketBuffer) {
	header.Ethernet(pkt.LinkHeader().Push(header.EthernetMinimumSize)).Encode(&header.EthernetFields{
		SrcAddr: tcpip.LinkAddress(l.id.gatewayMAC[:]),
		DstAddr: tcpip.LinkAddress(l.id.guestMAC[:]),
		Type:    pkt.NetworkProtocolNumber,
	})
}

// ParseHeader implements stack.NetworkLinkEndpoint.
func (l *link) ParseHeader(pkt *stack.PacketBuffer) bool {
	_, ok := pkt.LinkHeader().Consume(header.EthernetMinimumSize)
	return ok
}

// Attach implements stack.NetworkLinkEndpoint.
func (l *link) Attach(d stack.NetworkDispatcher) {
	if d == nil {
		l.dispatcher.Store(nil)
		return
	}
	l.dispatcher.Store(&d)
}

// IsAttached implements stack.NetworkLinkEndpoint.
func (l *link) IsAttached() bool { return l.dispatcher.Load() != nil }

// MTU implements stack.NetworkLinkEndpoint.
func (l *link) MTU() uint32 { return l.mtu }

// MaxHeaderLength implements stack.NetworkLinkEndpoint.
func (l *link) MaxHeaderLength() uint16 { return header.EthernetMinimumSize }

// LinkAddress implements stack.NetworkLinkEndpoint.
func (l *link) LinkAddress() tcpip.LinkAddress { return tcpip.LinkAddress(l.id.gatewayMAC[:]) }

// Capabilities implements stack.NetworkLinkEndpoint.
func (l *link) Capabilities() stack.LinkEndpointCapabilities {
	return stack.CapabilityResolutionRequired
}

// ARPHardwareType implements stack.NetworkLinkEndpoint.
func (l *link) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareEther }

// The rest of stack.NetworkLinkEndpoint: the address and the MTU are fixed, and the Stack closes the link and waits for it.

func (l *link) SetMTU(uint32)                    {}
func (l *link) SetLinkAddress(tcpip.LinkAddress) {}
func (l *link) Wait()                            {}
func (l *link) Close()                           {}
func (l *link) SetOnCloseAction(func())          {}
