package egress

import (
	"net/netip"
	"strings"
	"testing"
)

func prefixes(s ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range s {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

var instances = netip.MustParsePrefix("10.77.0.0/16")

func TestJudge(t *testing.T) {
	host := Host{
		Own:       prefixes("127.0.0.0/8", "203.0.113.5/32", "192.168.1.7/32", "198.51.100.0/28"),
		Broadcast: prefixes("203.0.113.255/32", "192.168.1.255/32"),
	}
	plain := Policy{Instances: instances}
	lan := Policy{Instances: instances, Allow: prefixes("192.168.1.0/24", "100.64.0.0/10")}
	all := Policy{Instances: instances, Allow: prefixes("0.0.0.0/0")}
	const (
		allowed  = ""
		self     = "an address of the host itself"
		isPriv   = "a private address"
		cloud    = "the cloud's metadata service"
		link     = "link-local"
		others   = "instances do not reach each other"
		dnsOnly  = "the gateway answers DNS"
		loopback = "loopback"
	)
	tests := []struct {
		name     string
		policy   Policy
		protocol Protocol
		addr     string
		want     string
	}{
		{"a public address", plain, TCP, "198.51.100.99:443", allowed},
		{"a public address by UDP", plain, UDP, "8.8.8.8:53", allowed},
		{"ping", plain, ICMP, "8.8.8.8:0", "only TCP and UDP"},
		{"GRE", plain, 47, "8.8.8.8:0", "only TCP and UDP"},
		{"port 0", plain, TCP, "8.8.8.8:0", "port 0"},
		{"IPv6", plain, TCP, "[2001:db8::1]:443", "IPv4"},
		{"ULA", all, TCP, "[fd00::1]:443", "IPv4"},
		{"IPv4 in IPv6", all, TCP, "[::ffff:127.0.0.1]:80", "IPv4"},

		{"DNS at the gateway", plain, UDP, "10.77.0.1:53", allowed},
		{"DNS at the gateway by TCP", plain, TCP, "10.77.0.1:53", allowed},
		{"the gateway's ssh", plain, TCP, "10.77.0.1:22", dnsOnly},
		{"the gateway's ssh where all is allowed", all, TCP, "10.77.0.1:22", dnsOnly},
		{"another instance", plain, TCP, "10.77.0.3:80", others},
		{"another instance where all is allowed", all, UDP, "10.77.200.3:80", others},
		{"beside the instances", plain, TCP, "10.78.0.3:80", isPriv},

		{"0.0.0.0", all, TCP, "0.0.0.0:80", "0.0.0.0/8"},
		{"0/8", all, TCP, "0.1.2.3:80", "0.0.0.0/8"},
		{"loopback", all, TCP, "127.0.0.1:80", loopback},
		{"all of loopback", all, UDP, "127.255.255.254:53", loopback},
		{"link-local", all, TCP, "169.254.1.1:80", link},
		{"AWS and the others' metadata", all, TCP, "169.254.169.254:80", cloud},
		{"ECS's metadata", all, TCP, "169.254.170.2:80", cloud},
		{"Alibaba's metadata", lan, TCP, "100.100.100.200:80", cloud},
		{"Azure's metadata", plain, TCP, "168.63.129.16:80", cloud},
		{"Oracle's metadata", plain, TCP, "192.0.0.192:80", cloud},
		{"multicast", all, UDP, "224.0.0.251:5353", "multicast"},
		{"the last of multicast", all, UDP, "239.255.255.255:1", "multicast"},
		{"broadcast", all, UDP, "255.255.255.255:67", "broadcast"},
		{"reserved", all, TCP, "240.0.0.1:80", "reserved"},

		{"the host's public address", plain, TCP, "203.0.113.5:22", self},
		{"beside it", plain, TCP, "203.0.113.6:22", allowed},
		{"the host's private address where it is allowed", lan, TCP, "192.168.1.7:22", self},
		{"a range that is routed to the host", all, TCP, "198.51.100.9:22", self},
		{"the broadcast address of its public network", plain, UDP, "203.0.113.255:9", "broadcast address of one of"},
		{"of its private one, where it is allowed", lan, UDP, "192.168.1.255:9", "broadcast address of one of"},

		{"10/8", plain, TCP, "10.0.0.1:80", isPriv},
		{"172.16/12", plain, TCP, "172.31.255.255:80", isPriv},
		{"behind 172.16/12", plain, TCP, "172.32.0.1:80", allowed},
		{"192.168/16", plain, UDP, "192.168.1.8:80", isPriv},
		{"a carrier's NAT", plain, TCP, "100.64.0.1:80", isPriv},
		{"allowed", lan, UDP, "192.168.1.8:80", allowed},
		{"beside what is allowed", lan, TCP, "192.168.2.8:80", isPriv},
		{"allowed, of a carrier's NAT", lan, TCP, "100.127.255.255:80", allowed},
		{"everything private is allowed", all, TCP, "10.1.2.3:80", allowed},

		{"none: a public address", Policy{None: true, Instances: instances}, TCP, "8.8.8.8:443", "without traffic"},
		{"none: DNS", Policy{None: true, Instances: instances}, UDP, "10.77.0.1:53", "without traffic"},
		{"none: what is allowed besides", Policy{None: true, Allow: prefixes("10.0.0.0/8")}, TCP, "10.0.0.1:1", "without traffic"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := tt.policy.Judge(Flow{tt.protocol, netip.MustParseAddrPort(tt.addr)}, host)
			if got.Refused() != (tt.want != allowed) || !strings.Contains(got.Why, tt.want) {
				t.Errorf("%v: %q, want %q", tt.addr, got, tt.want)
			}
			if tt.want == isPriv && !strings.Contains(got.Allow, "--allow-net") {
				t.Errorf("%v: no way to allow it: %q", tt.addr, got)
			}
		})
	}
}

// The way that a refusal tells does allow the flow.
func TestTheWayToAllow(t *testing.T) {
	f := Flow{TCP, netip.MustParseAddrPort("192.168.77.10:80")}
	p := Policy{Instances: instances}
	_, after, found := strings.Cut(p.Judge(f, Host{}).Allow, "--allow-net ")
	if !found {
		t.Fatalf("no way: %v", p.Judge(f, Host{}))
	}
	allow, err := ParseRange(strings.Fields(after)[0])
	if err != nil {
		t.Fatal(err)
	}
	p.Allow = append(p.Allow, allow)
	if r := p.Judge(f, Host{}); r.Refused() {
		t.Errorf("still refused: %v", r)
	}
}

func TestParseRange(t *testing.T) {
	for in, want := range map[string]string{
		"192.168.1.0/24":    "192.168.1.0/24",
		"192.168.1.7/24":    "write 192.168.1.0/24 for the whole range, or 192.168.1.7 for the one address",
		"10.0.0.5/8":        "write 10.0.0.0/8 for the whole range, or 10.0.0.5 for the one address",
		"127.0.0.1/8":       "loopback is the host itself, and cannot be allowed",
		"192.168.1.7/32":    "192.168.1.7/32",
		"192.168.1.7":       "192.168.1.7/32",
		"0.0.0.0/0":         "0.0.0.0/0",
		"100.64.0.0/10":     "100.64.0.0/10",
		"":                  "want an IPv4 range",
		"lan":               "want an IPv4 range",
		"192.168.1.0/33":    "want an IPv4 range",
		"192.168.1.1:80":    "want an IPv4 range",
		"fe80::1%eth0":      "want an IPv4 range",
		"fd00::/8":          "machines speak IPv4",
		"::ffff:10.0.0.1":   "machines speak IPv4",
		"127.0.0.0/8":       "loopback is the host itself, and cannot be allowed",
		"127.0.0.1":         "cannot be allowed",
		"169.254.169.254":   "metadata",
		"0.0.0.0/8":         "cannot be allowed",
		"224.0.0.0/24":      "multicast",
		"255.255.255.255":   "broadcast",
		"203.0.113.0/24":    "nothing private in it",
		"100.100.100.200":   "metadata",
		"169.254.0.0/16":    "link-local",
		"172.16.0.0/12":     "172.16.0.0/12",
		" 192.168.1.0/24":   "want an IPv4 range",
		"192.168.001.0/24":  "want an IPv4 range",
		"10.0.0.0/8,1.2.3.": "want an IPv4 range",
	} {
		p, err := ParseRange(in)
		if err != nil && !strings.Contains(err.Error(), want) || err == nil && p.String() != want {
			t.Errorf("ParseRange(%q) = %v, %v; want %q", in, p, err, want)
		}
	}
	got, err := ParseRanges("10.0.0.0/8, 192.168.0.0/16\t172.16.0.0/12")
	if err != nil || len(got) != 3 {
		t.Errorf("three ranges: %v, %v", got, err)
	}
	if _, err := ParseRanges("10.0.0.0/8,nonsense"); err == nil || !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("a range that is none: %v", err)
	}
	if _, err := ParseRanges(strings.Repeat("10.0.0.0/8,", MaxRanges+1)); err == nil {
		t.Error("too many ranges are taken")
	}
}

// Whatever is asked and allowed: what belongs to the host or to nobody is never reached, and what is private only where it is allowed.
func FuzzJudge(f *testing.F) {
	f.Add(uint8(6), uint32(0x7f000001), uint16(80), uint32(0), uint8(0), uint32(0x0a000005))
	f.Add(uint8(17), uint32(0xa9fea9fe), uint16(80), uint32(0xa9fe0000), uint8(16), uint32(0x0a000005))
	f.Add(uint8(6), uint32(0x0a000005), uint16(22), uint32(0x0a000000), uint8(8), uint32(0x0a000005))
	f.Add(uint8(6), uint32(0x0a4d0001), uint16(53), uint32(0), uint8(0), uint32(0x0a000005))
	addr := func(n uint32) netip.Addr {
		return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
	}
	f.Fuzz(func(t *testing.T, protocol uint8, to uint32, port uint16, allow uint32, bits uint8, own uint32) {
		a, mine := addr(to), addr(own)
		allowed := netip.PrefixFrom(addr(allow), int(bits%33)).Masked()
		p := Policy{Instances: instances, Allow: []netip.Prefix{allowed}}
		h := Host{Own: []netip.Prefix{netip.PrefixFrom(mine, 32)}}
		r := p.Judge(Flow{Protocol(protocol), netip.AddrPortFrom(a, port)}, h)
		if r.Refused() {
			return
		}
		gateway := a == instances.Addr().Next() && port == DNSPort
		bad := a == mine && !gateway || a.IsLoopback() || a.IsMulticast() || a.IsLinkLocalUnicast() || a.IsUnspecified() || to>>24 == 0 || to>>28 == 15 ||
			a.IsPrivate() && !allowed.Contains(a) && !gateway || instances.Contains(a) && !gateway || port == 0
		if bad || protocol != 6 && protocol != 17 {
			t.Errorf("protocol %d %v:%d is let out with %v allowed, from a host that is %v", protocol, a, port, allowed, mine)
		}
	})
}
