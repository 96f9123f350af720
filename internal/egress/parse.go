package egress

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// MaxRanges bounds the ranges that one policy allows.
const MaxRanges = 64

// ParseRange reads a range that a policy may allow: 192.168.1.0/24, or one address. It refuses what would allow nothing, so
// that nobody believes to have allowed, or to have restricted, what they have not.
func ParseRange(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" {
			return netip.Prefix{}, errors.New("want an IPv4 range such as 192.168.1.0/24, or one address")
		}
		p = netip.PrefixFrom(a, a.BitLen())
	}
	if !p.Addr().Is4() {
		return netip.Prefix{}, errors.New("machines speak IPv4: want a range such as 192.168.1.0/24")
	}
	given := p
	p = p.Masked()
	for _, s := range never {
		if s.net.Bits() <= p.Bits() && s.net.Contains(p.Addr()) {
			return netip.Prefix{}, fmt.Errorf("%s, and cannot be allowed", s.why)
		}
	}
	if !slices.ContainsFunc(private, p.Overlaps) {
		return netip.Prefix{}, errors.New("there is nothing private in it, and public addresses are reached without: " + privateList())
	}
	if given != p {
		return netip.Prefix{}, fmt.Errorf("%v is an address in a range: write %v for the whole range, or %v for the one address", given, p, given.Addr())
	}
	return p, nil
}

// ParseRanges reads ranges that are separated by commas or white space; none is no error.
func ParseRanges(s string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, f := range strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\n' }) {
		p, err := ParseRange(f)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", f, err)
		}
		out = append(out, p)
	}
	if len(out) > MaxRanges {
		return nil, fmt.Errorf("%d ranges: at most %d", len(out), MaxRanges)
	}
	return out, nil
}

func privateList() string {
	names := make([]string, len(private))
	for i, p := range private {
		names[i] = p.String()
	}
	return "private are " + strings.Join(names, ", ")
}
