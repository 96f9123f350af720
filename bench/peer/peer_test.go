package peer

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/halevm/hale/bench/target"
	"github.com/halevm/hale/internal/health"
)

func TestDial(t *testing.T) {
	at := target.Address{IP: [4]byte{127, 105, 0, 1}, Port: 18081}
	if _, err := dial(t.Context(), at); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Error("nobody listens, and dial says", err)
	}
	l, err := net.Listen("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err == nil {
			io.Copy(c, c)
		}
	}()
	c, err := dial(t.Context(), at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b := make([]byte, 5)
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Error(err)
	}
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "hello" {
		t.Errorf("%q, %v", b, err)
	}
	c.SetDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := c.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("after the deadline Read says", err)
	}
}

// A connection that does not open ends with its context.
func TestDialGivenUp(t *testing.T) {
	at := target.Address{IP: [4]byte{127, 105, 0, 2}, Port: 18081}
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrInet4{Addr: at.IP, Port: int(at.Port)}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	for range 3 { // a backlog of 0 holds one
		if c, err := net.DialTimeout("tcp", at.String(), 50*time.Millisecond); err == nil {
			defer c.Close()
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := dial(ctx, at); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("dial says", err)
	}
}

func TestQuantiles(t *testing.T) {
	var h histogram
	for i := range 1000 {
		h.add(time.Duration(i) * time.Millisecond)
	}
	h.add(time.Hour)
	q := h.quantiles()
	if q.P50 < 500*time.Millisecond || q.P50 > 502*time.Millisecond || q.P99 < 989*time.Millisecond || q.P99 > 993*time.Millisecond || q.Max != time.Hour {
		t.Errorf("%+v", q)
	}
	h.reset()
	if q := h.quantiles(); q != (Quantiles{}) {
		t.Errorf("%+v after a reset", q)
	}
}

// What is called full is.
func TestFull(t *testing.T) {
	for turned, transitions := range map[bool]int{false: 2, true: 64} {
		c := Config{Type: "http", Targets: target.Addresses(105, 18080, 1), Interval: time.Second, Timeout: time.Second, Full: true, Turned: turned}
		record, err := c.full()
		if err != nil {
			t.Fatal(err)
		}
		p, err := c.policy(c.Targets[0])
		if err != nil {
			t.Fatal(err)
		}
		set := health.NewSet(health.Config{Journal: nowhere{record}, Probe: func(ctx context.Context, _ string, _ health.Policy, _ func()) health.Result {
			<-ctx.Done()
			return health.Result{Outcome: health.Inconclusive}
		}})
		set.Sync(health.Observed{ID: "a", Run: 1, Phase: health.Running, Policy: p, Agent: true, Network: true})
		s, _ := set.Snapshot("a")
		if len(s.Results) != 64 || len(s.Transitions) != transitions || s.Status != health.StatusHealthy {
			t.Errorf("%s with %d results, %d transitions", s.Status, len(s.Results), len(s.Transitions))
		}
		set.Close(t.Context())
	}
}
