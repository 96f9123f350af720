package main

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
)

// Who listens at an address is told by the kernel's tables: there, at all addresses of the port, and nowhere else.
func TestListeners(t *testing.T) {
	const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:136D 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1001        0 1 1 0 100 0 0 10 0
   1: 00000000:136D 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1002        0 2 1 0 100 0 0 10 0
   2: 0500000A:136D 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1003        0 3 1 0 100 0 0 10 0
   3: 0100007F:136E 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1004        0 4 1 0 100 0 0 10 0
   4: 0100007F:136D 0100007F:C350 01 00000000:00000000 00:00000000 00000000  1005        0 5 1 0 100 0 0 10 0
   5: 00000000000000000000000000000000:136D 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000  1006        0 6 1 0 100 0 0 10 0
   6: 0000000000000000FFFF00000100007F:136D 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000  1007        0 7 1 0 100 0 0 10 0
   7: 00000000000000000000000001000000:136D 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000  1008        0 8 1 0 100 0 0 10 0
`
	for at, want := range map[string][]uint32{
		"127.0.0.1:4973": {1001, 1002, 1006, 1007},
		"[::1]:4973":     {1002, 1006, 1008},
		"127.0.0.1:4974": {1004},
		"0.0.0.0:4973":   {1001, 1002, 1003, 1006, 1007, 1008},
		"127.0.0.1:80":   nil,
	} {
		got, err := listeners(strings.NewReader(table), netip.MustParseAddrPort(at))
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("at %s listen %v, %v; want %v", at, got, err, want)
		}
	}
}

// A token is for the daemon that wrote where it is, and not for whoever listens there when that one was killed.
func TestTrusted(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url, me := "http://"+ln.Addr().String(), uint32(os.Getuid())
	if err := trusted(url, me); err != nil {
		t.Error(err)
	}
	if me != 0 { // whom everybody trusts
		if err := trusted(url, me+1); err == nil {
			t.Error("another user is trusted")
		}
	}
	ln.Close()
	if err := trusted(url, me); !errors.Is(err, errNoListener) {
		t.Errorf("nobody listens: %v", err)
	}
}
