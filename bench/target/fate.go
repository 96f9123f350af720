package target

import (
	"bufio"
	"io"
	"net"
	"net/http"
)

// A Fate is what happens to one connection of a fickle target.
type Fate int

// The fates.
const (
	Answers Fate = iota // 200
	Fails               // 503
	Hangs               // accepts, and never answers
	Resets              // before the first byte
	Hangup              // closes before the first byte
	Garbles             // answers what is no HTTP
)

// FateOf returns what a target does with its n-th connection, from 1 on. It goes well and badly in stretches, so that both streaks
// grow long enough to decide something.
func FateOf(seed uint64, target int, n uint64) Fate {
	stretch := mix(seed ^ mix(uint64(target)<<32|n/8))
	one := mix(seed ^ mix(uint64(target)<<32|n) ^ 0x9e3779b97f4a7c15)
	bad := uint64(10) // of 100
	if stretch%4 == 0 {
		bad = 80
	}
	if one%100 >= bad {
		return Answers
	}
	return Fails + Fate(one/100%5)
}

func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

func (s *server) fickle(c net.Conn, n uint64) {
	s.count.Add(1)
	fate := FateOf(s.seed, s.index, n)
	if fate == Hangs {
		io.Copy(io.Discard, c)
		return
	}
	if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
		return
	}
	switch fate {
	case Answers:
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n")
	case Fails:
		io.WriteString(c, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
	case Resets:
		c.(*net.TCPConn).SetLinger(0)
	case Garbles:
		io.WriteString(c, "SSH-2.0-nothing\r\n")
	}
}
