package probe

import (
	"crypto/tls"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/halevm/hale/internal/health"
)

// header returns what the check's headers give for name, in whatever case it is written there; the first in order if several do.
func header(c *health.HTTPCheck, name string) (string, bool) {
	if len(c.Headers) == 0 {
		return "", false
	}
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

// appendRequest writes the request as it goes over the wire. The policy was checked: no header can break out of its line.
func appendRequest(b []byte, c *health.HTTPCheck, version string) []byte {
	line := func(name, value string) {
		b = append(append(append(append(b, name...), ": "...), value...), "\r\n"...)
	}
	b = append(append(b, c.Method...), ' ')
	b = append(appendEscaped(b, c.Path), " HTTP/1.1\r\n"...)
	if host, ok := header(c, "Host"); ok {
		line("Host", host)
	} else {
		b = append(strconv.AppendUint(append(b, "Host: localhost:"...), uint64(c.Port), 10), "\r\n"...)
	}
	if _, ok := header(c, "User-Agent"); !ok {
		b = append(b, "User-Agent: hale-probe/"...)
		b = append(append(b, version...), "\r\n"...)
	}
	if _, ok := header(c, "Accept"); !ok {
		line("Accept", "*/*")
	}
	line("Connection", "close")
	if c.Method == "POST" {
		line("Content-Length", "0")
	}
	if len(c.Headers) > 0 {
		for _, name := range slices.Sorted(maps.Keys(c.Headers)) {
			if !strings.EqualFold(name, "Host") {
				line(name, c.Headers[name])
			}
		}
	}
	return append(b, "\r\n"...)
}

// appendEscaped writes what is not ASCII in a path as RFC 3986 has it; the rest is as the person wrote it.
func appendEscaped(b []byte, path string) []byte {
	const digits = "0123456789ABCDEF"
	for i := range len(path) {
		if c := path[i]; c < 0x80 {
			b = append(b, c)
		} else {
			b = append(b, '%', digits[c>>4], digits[c&15])
		}
	}
	return b
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
