package shim

import (
	"context"
	"errors"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// A comingUp is a guest that loses SYNs until it is up; TCP's own repetition comes after a second.
type comingUp struct {
	up   time.Time
	syns int
}

func (g *comingUp) dial(ctx context.Context) (net.Conn, error) {
	for {
		g.syns++
		if !time.Now().Before(g.up) {
			return nil, syscall.ECONNREFUSED
		}
		select {
		case <-time.After(synAgain):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func TestTheFirstConnectionFindsAGuestThatComesUp(t *testing.T) {
	for name, tt := range map[string]struct {
		frame, up time.Duration // when its first frame comes, and when it takes a SYN; frame 0: none comes
		timeout   time.Duration
		most      time.Duration // by when the answer is there; 0: it is not in time
		syns      int
	}{
		"there":                     {frame: 1, up: 0, timeout: time.Minute, most: 1, syns: 1},
		"announced and up":          {frame: 300 * time.Millisecond, up: 300 * time.Millisecond, timeout: time.Minute, most: 300 * time.Millisecond, syns: 1},
		"a moment after its frame":  {frame: 300 * time.Millisecond, up: 302 * time.Millisecond, timeout: time.Minute, most: 350 * time.Millisecond, syns: 2},
		"later":                     {frame: 300 * time.Millisecond, up: 700 * time.Millisecond, timeout: time.Minute, most: 1050 * time.Millisecond, syns: 5},
		"without a frame":           {up: 100 * time.Millisecond, timeout: time.Minute, most: time.Second, syns: 1},
		"never, in a short time":    {frame: 10 * time.Millisecond, up: time.Hour, timeout: 100 * time.Millisecond, syns: 2},
		"no frame, in a short time": {up: time.Hour, timeout: 100 * time.Millisecond},
		"never":                     {frame: 10 * time.Millisecond, up: time.Hour, timeout: 10 * time.Second, syns: 14},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				seen := make(chan struct{})
				if tt.frame > 0 {
					time.AfterFunc(tt.frame, func() { close(seen) })
				}
				overdue := errors.New("overdue")
				ctx, cancel := context.WithTimeoutCause(t.Context(), tt.timeout, overdue)
				defer cancel()
				g := &comingUp{up: began.Add(tt.up)}
				_, err := firstDial(ctx, seen, g.dial)
				took := time.Since(began)
				if tt.most == 0 {
					if !errors.Is(err, overdue) || took != tt.timeout {
						t.Errorf("%v after %v, want %v after %v", err, took, overdue, tt.timeout)
					}
				} else if !errors.Is(err, syscall.ECONNREFUSED) || took > tt.most {
					t.Errorf("%v after %v, want the answer after %v", err, took, tt.most)
				}
				if g.syns != tt.syns {
					t.Errorf("%d SYNs, want %d", g.syns, tt.syns)
				}
			})
		})
	}
}
