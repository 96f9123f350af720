package agent

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/halevm/hale/internal/guest/protocol"
)

// portTables are the kernel's lists of TCP sockets, of the network namespace that the agent and the program share. They
// begin with the sockets that listen (tcp_seq_start in the kernel's net/ipv4/tcp_ipv4.c), and only those are read: with a
// thousand connections that is a hundredth of the work. The files stay open, for a path costs as much as the rest.
type portTables struct {
	paths []string
	files []*os.File // nil: not open
	buf   []byte
}

// portPiece is how much of a table is read at a time: six lines. More would have the kernel write out connections that
// nobody reads.
const portPiece = 1 << 10

func newPortTables(proc string) *portTables {
	t := &portTables{paths: []string{filepath.Join(proc, "net/tcp"), filepath.Join(proc, "net/tcp6")}}
	t.files = make([]*os.File, len(t.paths))
	return t
}

func (t *portTables) close() {
	for _, f := range t.files {
		if f != nil {
			f.Close()
		}
	}
}

// where finds who listens on the port of at, an address of the machine's own. What cannot be read holds nobody: a hint
// that is missing costs a little time.
func (t *portTables) where(at netip.AddrPort) protocol.Where {
	found := protocol.Nowhere
	for i := range t.files {
		if t.files[i] == nil {
			f, err := os.Open(t.paths[i])
			if err != nil {
				continue // not mounted yet, or a kernel without IPv6
			}
			t.files[i] = f
		}
		if w := t.whereIn(t.files[i], at); w == protocol.Open {
			return w
		} else if w == protocol.Loopback {
			found = w
		}
	}
	return found
}

func (t *portTables) whereIn(f *os.File, at netip.AddrPort) protocol.Where {
	found := protocol.Nowhere
	offset, heading := int64(0), true
	t.buf = t.buf[:0]
	for {
		held := len(t.buf)
		t.buf = slices.Grow(t.buf, portPiece)[:held+portPiece]
		n, err := f.ReadAt(t.buf[held:], offset)
		t.buf = t.buf[:held+max(n, 0)]
		offset += int64(max(n, 0))
		for {
			end := bytes.IndexByte(t.buf, '\n')
			if end < 0 {
				break
			}
			line := t.buf[:end]
			if !heading {
				addr, listens := listener(line)
				switch {
				case !listens: // connections follow
					return found
				case addr.Port() != at.Port():
				case addr.Addr().IsUnspecified() || addr.Addr() == at.Addr():
					return protocol.Open
				case addr.Addr().IsLoopback():
					found = protocol.Loopback
				}
			}
			heading = false
			t.buf = append(t.buf[:0], t.buf[end+1:]...)
		}
		if err != nil || n <= 0 { // the end is an error, too
			return found
		}
	}
}

// listener reads a line of a table; listens is false for a socket that does not, and for a line that makes no sense.
func listener(line []byte) (at netip.AddrPort, listens bool) {
	const stateListen = "0A" // TCP_LISTEN
	f := bytes.Fields(line)
	if len(f) < 4 || string(f[3]) != stateListen {
		return at, false
	}
	host, port, ok := bytes.Cut(f[1], []byte(":"))
	if !ok {
		return at, false
	}
	n, err := strconv.ParseUint(string(port), 16, 16)
	if err != nil {
		return at, false
	}
	// Each 32 bits of an address are a number in the machine's own order, which is little-endian wherever hale runs.
	var raw [16]byte
	size := hex.DecodedLen(len(host))
	if size > len(raw) || size%4 != 0 {
		return at, false
	}
	if _, err := hex.Decode(raw[:], host); err != nil {
		return at, false
	}
	for i := 0; i < size; i += 4 {
		slices.Reverse(raw[i : i+4])
	}
	addr, ok := netip.AddrFromSlice(raw[:size])
	return netip.AddrPortFrom(addr.Unmap(), uint16(n)), ok
}
