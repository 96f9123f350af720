package target

import (
	"bufio"
	"errors"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Each mode does what it says.
func TestModes(t *testing.T) {
	const seed = 7
	var count atomic.Int64
	s := &server{addr: Address{IP: [4]byte{127, 104, 0, 1}, Port: 18080}, index: 3, seed: seed, count: &count}
	t.Cleanup(func() { s.turn(Closed) })
	turn := func(m Mode) {
		t.Helper()
		if err := s.turn(m); err != nil {
			t.Fatal(err)
		}
	}
	// What answers, in whatever way, has as long as it takes; what never does is not waited for.
	const answers, never = time.Minute, 300 * time.Millisecond
	ask := func(patience time.Duration) (int, error) {
		c, err := net.DialTimeout("tcp", s.addr.String(), patience)
		if err != nil {
			return 0, err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(patience))
		if _, err := c.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")); err != nil {
			return 1, err
		}
		r, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			return 1, err
		}
		return r.StatusCode, nil
	}
	turn(OK)
	if status, err := ask(answers); status != 200 || count.Load() != 1 {
		t.Error("ok:", status, err, count.Load())
	}
	turn(Broken)
	if status, err := ask(answers); status != 503 {
		t.Error("broken:", status, err)
	}
	turn(Silent)
	if status, err := ask(never); status != 1 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("silent:", status, err)
	}
	turn(Closed)
	if status, err := ask(answers); status != 0 || !errors.Is(err, syscall.ECONNREFUSED) {
		t.Error("closed:", status, err)
	}
	turn(Full)
	var slow net.Error
	if status, err := ask(never); status != 0 || !errors.As(err, &slow) || !slow.Timeout() {
		t.Error("full:", status, err)
	}
	for range 3 {
		// Nor does one whose last word is held back until there is something to say, as benchmarks have it.
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_QUICKACK, 0)
		unix.Connect(fd, &unix.SockaddrInet4{Addr: s.addr.IP, Port: int(s.addr.Port)})
		polled := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		n, err := unix.Poll(polled, 200)
		for err == unix.EINTR { // by Go's own signals
			n, err = unix.Poll(polled, 200)
		}
		if n != 0 {
			t.Error("full, with its last word held back:", n, err)
		}
	}
	turn(Fickle)
	for n := uint64(1); n <= 30; n++ {
		fate, patience := FateOf(seed, 3, n), answers
		if fate == Hangs {
			patience = never
		}
		status, err := ask(patience)
		switch {
		case fate == Answers && status == 200, fate == Fails && status == 503:
		case fate == Hangs && errors.Is(err, os.ErrDeadlineExceeded):
		case fate > Hangs && status == 1 && err != nil && !errors.Is(err, os.ErrDeadlineExceeded):
		default:
			t.Errorf("connection %d, fate %d: %d, %v", n, fate, status, err)
		}
	}
	if err := s.turn("odd"); err == nil {
		t.Error("there is a mode that nobody knows")
	}
}

// Every fate comes, and both long runs that are well and long runs that are not.
func TestFates(t *testing.T) {
	seen, bad, worst := map[Fate]int{}, 0, 0
	for n := range uint64(10_000) {
		f := FateOf(1, 1, n)
		seen[f]++
		if bad++; f == Answers {
			bad = 0
		}
		worst = max(worst, bad)
	}
	if len(seen) != 6 || seen[Answers] < 6000 || seen[Answers] > 9000 || worst < 5 {
		t.Errorf("%v, at most %d bad ones in a row", seen, worst)
	}
}
