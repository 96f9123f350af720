package main

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
)

// errNoListener says that nobody listens where a daemon wrote that it does.
var errNoListener = errors.New("nobody listens there")

// trusted returns an error unless whoever listens at rawURL is uid, or root. A daemon that was killed leaves word of its address, where anybody
// may listen since, and would be given a token.
func trusted(rawURL string, uid uint32) error {
	u, err := url.Parse(rawURL)
	if err != nil {
		return err
	}
	at, err := netip.ParseAddrPort(u.Host)
	if err != nil {
		return err
	}
	found := false
	for _, table := range []string{"tcp", "tcp6"} {
		f, err := os.Open("/proc/net/" + table)
		if errors.Is(err, fs.ErrNotExist) { // a host without IPv6
			continue
		}
		if err != nil {
			return err
		}
		owners, err := listeners(f, at)
		f.Close()
		if err != nil {
			return fmt.Errorf("/proc/net/%s: %w", table, err)
		}
		for _, owner := range owners {
			if found = true; owner != uid && owner != 0 {
				return fmt.Errorf("it is user %d who listens there, and not the daemon's, %d", owner, uid)
			}
		}
	}
	if !found {
		return errNoListener
	}
	return nil
}

// listeners are the uids of those who listen at an address, or at all of its port, by a table of the kernel's (proc_net(5)).
func listeners(table io.Reader, at netip.AddrPort) (uids []uint32, err error) {
	lines := bufio.NewScanner(table)
	for lines.Scan() {
		const listens = "0A"
		f := strings.Fields(lines.Text())
		if len(f) < 8 || f[3] != listens {
			continue
		}
		local, err := parseLocal(f[1])
		if err != nil {
			return nil, err
		}
		if local.Port() != at.Port() || local.Addr() != at.Addr().Unmap().WithZone("") && !local.Addr().IsUnspecified() && !at.Addr().IsUnspecified() {
			continue
		}
		uid, err := strconv.ParseUint(f[7], 10, 32)
		if err != nil {
			return nil, err
		}
		uids = append(uids, uint32(uid))
	}
	return uids, lines.Err()
}

// parseLocal reads "0100007F:1369": words of the processor's order, of which only the little-endian are known here.
func parseLocal(s string) (netip.AddrPort, error) {
	text, port, _ := strings.Cut(s, ":")
	b, err := hex.DecodeString(text)
	n, perr := strconv.ParseUint(port, 16, 16)
	if err := errors.Join(err, perr); err != nil {
		return netip.AddrPort{}, err
	}
	for word := range slices.Chunk(b, 4) {
		slices.Reverse(word)
	}
	addr, ok := netip.AddrFromSlice(b)
	if !ok {
		return netip.AddrPort{}, fmt.Errorf("%q is no address", s)
	}
	return netip.AddrPortFrom(addr.Unmap(), uint16(n)), nil
}
