package probe

import (
	"crypto/tls"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/halevm/hale/internal/health"
)

// header returns what the check's headers give for name, in whatever case it is written there; the first in order if several do.
func header(c *health.HTTPCheck, name string) (string, bool) {
	for _, k := range slices.Sorted(maps.Keys(c.Headers)) {
		if strings.EqualFold(k, name) {
			return c.Headers[k], true
		}
	}
	return "", false
}

func hostOf(c *health.HTTPCheck) string {
	if h, ok := header(c, "Host"); ok {
		return h
	}
	return net.JoinHostPort("localhost", strconv.Itoa(int(c.Port)))
}

// requestBytes is the request as it goes over the wire. The policy was checked: no header can break out of its line.
func requestBytes(c *health.HTTPCheck, host, version string) []byte {
	var b strings.Builder
	line := func(name, value string) { b.WriteString(name + ": " + value + "\r\n") }
	b.WriteString(c.Method + " " + escape(c.Path) + " HTTP/1.1\r\n")
	line("Host", host)
	if _, ok := header(c, "User-Agent"); !ok {
		line("User-Agent", "hale-probe/"+version)
	}
	if _, ok := header(c, "Accept"); !ok {
		line("Accept", "*/*")
	}
	line("Connection", "close")
	if c.Method == "POST" {
		line("Content-Length", "0")
	}
	for _, name := range slices.Sorted(maps.Keys(c.Headers)) {
		if !strings.EqualFold(name, "Host") {
			line(name, c.Headers[name])
		}
	}
	b.WriteString("\r\n")
	return []byte(b.String())
}

// escape writes what is not ASCII in a path as RFC 3986 has it; the rest is as the person wrote it.
func escape(path string) string {
	var b strings.Builder
	for i := range len(path) {
		if c := path[i]; c < 0x80 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// tlsConfig is this check's own: nothing is shared with another, no session is resumed.
func tlsConfig(c *health.HTTPCheck, host string) *tls.Config {
	name := c.TLSServerName
	if name == "" {
		name = host
		if h, _, err := net.SplitHostPort(host); err == nil {
			name = h
		}
	}
	// Without verification an empty name is fine; with it crypto/tls refuses one, which is a reason like any other.
	return &tls.Config{ServerName: name, InsecureSkipVerify: c.TLSSkipVerify, NextProtos: []string{"http/1.1"}}
}
