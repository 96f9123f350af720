package pid1

import (
	"encoding/binary"
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// A message is the body of a request to the kernel: a fixed part and then attributes, in this machine's byte order.
type message []byte

func (m *message) u8(v ...byte) *message { *m = append(*m, v...); return m }

func (m *message) u16(v uint16) *message { *m = binary.NativeEndian.AppendUint16(*m, v); return m }

func (m *message) u32(v uint32) *message { *m = binary.NativeEndian.AppendUint32(*m, v); return m }

// attr appends an attribute: length, type, value, and zeros up to the next multiple of 4.
func (m *message) attr(kind uint16, value []byte) *message {
	m.u16(uint16(unix.SizeofRtAttr + len(value))).u16(kind).u8(value...)
	for len(*m)%unix.RTA_ALIGNTO != 0 {
		m.u8(0)
	}
	return m
}

// request puts the header before a message.
func request(kind, flags uint16, seq uint32, body message) message {
	m := message{}
	m.u32(uint32(unix.SizeofNlMsghdr + len(body))).u16(kind).u16(flags).u32(seq).u32(0)
	return append(m, body...)
}

// ask sends a request and waits for the kernel's word on it.
func (n *netlink) ask(kind, flags uint16, body message) error {
	n.seq++
	out := request(kind, flags|unix.NLM_F_REQUEST|unix.NLM_F_ACK, n.seq, body)
	if err := unix.Sendto(n.fd, out, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("sendto", err)
	}
	buf := make([]byte, 8<<10)
	for {
		size, _, err := unix.Recvfrom(n.fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return os.NewSyscallError("recvfrom", err)
		}
		if answered, err := verdict(buf[:size], n.seq); answered {
			return err
		}
	}
}

// verdict finds the acknowledgement of a request among what the kernel sent: an error number, 0 for none.
func verdict(b []byte, seq uint32) (answered bool, err error) {
	for len(b) >= unix.SizeofNlMsghdr {
		length := int(binary.NativeEndian.Uint32(b))
		if length < unix.SizeofNlMsghdr || length > len(b) {
			return true, errors.New("an answer of the kernel that makes no sense")
		}
		kind, of := binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint32(b[8:])
		if kind == unix.NLMSG_ERROR && of == seq && length >= unix.SizeofNlMsghdr+4 {
			if code := int32(binary.NativeEndian.Uint32(b[unix.SizeofNlMsghdr:])); code != 0 {
				return true, unix.Errno(-code)
			}
			return true, nil
		}
		b = b[min(len(b), (length+unix.NLMSG_ALIGNTO-1)&^(unix.NLMSG_ALIGNTO-1)):]
	}
	return false, nil
}
