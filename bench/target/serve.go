package target

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A Mode is what a target does.
type Mode string

// The modes. Those that are not named here are refused.
const (
	OK     Mode = "ok"     // answers 200
	Broken Mode = "broken" // answers 503
	Silent Mode = "silent" // accepts and never answers, neither a request nor a ClientHello
	Full   Mode = "full"   // listens, and its backlog is full: a connection never opens
	Closed Mode = "closed" // does not listen
	Fickle Mode = "fickle" // does with its n-th connection what Fate says
)

// A Config says what is served.
type Config struct {
	Targets []Address
	Mode    Mode // of all at first
	Seed    uint64
}

// A Request changes some targets.
type Request struct {
	Set  []int
	Mode Mode
}

// An Answer says when what was asked for was in force, by Uptime, and how many requests were answered so far.
type Answer struct {
	At    time.Duration
	Count int64
}

// Serve is the main function of a server of targets.
func Serve(in *json.Decoder, out *json.Encoder) error {
	if err := RaiseFiles(); err != nil {
		return err
	}
	var c Config
	if err := in.Decode(&c); err != nil {
		return err
	}
	var count atomic.Int64
	servers := make([]*server, len(c.Targets))
	for i, a := range c.Targets {
		servers[i] = &server{addr: a, index: i, seed: c.Seed, count: &count}
		if err := servers[i].turn(c.Mode); err != nil {
			return err
		}
	}
	if err := out.Encode("here"); err != nil {
		return err
	}
	for {
		var r Request
		if err := in.Decode(&r); err != nil {
			return err
		}
		for _, i := range r.Set {
			if err := servers[i].turn(r.Mode); err != nil {
				return err
			}
		}
		if err := out.Encode(Answer{At: Uptime(), Count: count.Load()}); err != nil {
			return err
		}
	}
}

// A server is one target. turn is called from one goroutine.
type server struct {
	addr  Address
	index int
	seed  uint64
	count *atomic.Int64

	mode  Mode
	stop  func()
	conns uint64 // so far, of one that is fickle; its acceptor's
}

// turn makes the target do something else. What it was doing is over when turn returns, its open connections included.
func (s *server) turn(m Mode) error {
	if s.stop != nil {
		s.stop()
		s.stop = nil
	}
	s.mode, s.conns = m, 0
	var err error
	switch m {
	case OK:
		s.stop, err = s.answer(http.StatusOK)
	case Broken:
		s.stop, err = s.answer(http.StatusServiceUnavailable)
	case Silent:
		s.stop, err = s.accept(func(c net.Conn, _ uint64) { io.Copy(io.Discard, c) })
	case Fickle:
		s.stop, err = s.accept(s.fickle)
	case Full:
		s.stop, err = s.fill()
	case Closed:
	default:
		err = fmt.Errorf("no mode %q", m)
	}
	return err
}

func (s *server) listen() (net.Listener, error) {
	return net.ListenTCP("tcp4", &net.TCPAddr{IP: s.addr.IP[:], Port: int(s.addr.Port)})
}

// answer serves HTTP as programs in Go do.
func (s *server) answer(status int) (func(), error) {
	l, err := s.listen()
	if err != nil {
		return nil, err
	}
	web := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s.count.Add(1)
		w.WriteHeader(status)
		io.WriteString(w, "ok\n")
	})}
	go web.Serve(l)
	return func() { web.Close() }, nil
}

// accept hands each connection to a goroutine of its own.
func (s *server) accept(serve func(c net.Conn, n uint64)) (func(), error) {
	l, err := s.listen()
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.conns++
			n := s.conns
			mu.Lock()
			open[c] = true
			mu.Unlock()
			go func() {
				serve(c, n)
				c.Close()
				mu.Lock()
				delete(open, c)
				mu.Unlock()
			}()
		}
	}()
	return func() {
		l.Close()
		<-done
		mu.Lock()
		defer mu.Unlock()
		for c := range open {
			c.Close()
		}
	}, nil
}

// fill listens with the shortest backlog there is, and fills it.
func (s *server) fill() (func(), error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	files := []int{fd}
	stop := func() {
		for _, f := range files {
			unix.Close(f)
		}
	}
	to := &unix.SockaddrInet4{Addr: s.addr.IP, Port: int(s.addr.Port)}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		stop()
		return nil, err
	}
	if err := unix.Bind(fd, to); err != nil {
		stop()
		return nil, err
	}
	if err := unix.Listen(fd, 0); err != nil {
		stop()
		return nil, err
	}
	for range 2 { // a backlog of 0 holds one; the second is never opened
		c, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			stop()
			return nil, err
		}
		files = append(files, c)
		unix.Connect(c, to)
	}
	return stop, nil
}
