package pid1

import (
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The bytes that "ip address add 10.77.0.2/16 dev eth0" and "ip route add default via 10.77.0.1" send (little-endian, as
// rtnetlink(7) lays them out), but for the attributes that repeat what is said already.
func TestRequests(t *testing.T) {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("the bytes below are little-endian")
	}
	addr := netip.MustParsePrefix("10.77.0.2/16")
	for name, c := range map[string]struct {
		got  message
		want string
	}{
		"link": {request(unix.RTM_NEWLINK, unix.NLM_F_REQUEST|unix.NLM_F_ACK, 1, linkUpMessage(2)),
			"20000000 1000 0500 01000000 00000000 00 00 0000 02000000 01000000 01000000"},
		"address": {request(unix.RTM_NEWADDR, unix.NLM_F_REQUEST|unix.NLM_F_ACK|unix.NLM_F_CREATE|unix.NLM_F_REPLACE, 2, addrMessage(2, addr)),
			"28000000 1400 0505 02000000 00000000 02 10 00 00 02000000 0800 0200 0a4d0002 0800 0100 0a4d0002"},
		"route": {request(unix.RTM_NEWROUTE, unix.NLM_F_REQUEST|unix.NLM_F_ACK|unix.NLM_F_CREATE|unix.NLM_F_REPLACE, 3, defaultMessage(netip.MustParseAddr("10.77.0.1"))),
			"24000000 1800 0505 03000000 00000000 02 00 00 00 fe 03 00 01 00000000 0800 0500 0a4d0001"},
	} {
		if want := strings.ReplaceAll(c.want, " ", ""); hex.EncodeToString(c.got) != want {
			t.Errorf("%s:\ngot  %x\nwant %s", name, c.got, want)
		}
	}
	if m := defaultMessage(netip.MustParseAddr("fd00::1")); m[0] != unix.AF_INET6 || len(m) != 12+4+16 {
		t.Errorf("IPv6: %x", m)
	}
}

func acknowledgement(seq uint32, code int32) []byte {
	return request(unix.NLMSG_ERROR, 0, seq, binary.NativeEndian.AppendUint32(nil, uint32(code)))
}

func TestVerdict(t *testing.T) {
	other := request(unix.RTM_NEWLINK, 0, 7, linkUpMessage(1))
	for name, c := range map[string]struct {
		b        []byte
		answered bool
		err      error
	}{
		"nothing":                   {nil, false, nil},
		"done":                      {acknowledgement(7, 0), true, nil},
		"refused":                   {acknowledgement(7, -int32(unix.EEXIST)), true, unix.EEXIST},
		"of another request":        {acknowledgement(6, -1), false, nil},
		"after something else":      {append(append([]byte{}, other...), acknowledgement(7, 0)...), true, nil},
		"something else altogether": {other, false, nil},
	} {
		answered, err := verdict(c.b, 7)
		if answered != c.answered || err != c.err {
			t.Errorf("%s: %v, %v", name, answered, err)
		}
	}
	if _, err := verdict(make([]byte, 16), 7); err == nil {
		t.Error("a length of zero makes sense to it")
	}
}

func FuzzVerdict(f *testing.F) {
	f.Add(acknowledgement(7, -1))
	f.Add([]byte(append(request(unix.RTM_NEWLINK, 0, 7, linkUpMessage(1)), acknowledgement(7, 0)...)))
	f.Fuzz(func(t *testing.T, b []byte) {
		if answered, err := verdict(b, 7); err != nil && !answered {
			t.Errorf("an error (%v) without an answer", err)
		}
	})
}
