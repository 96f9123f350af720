package image

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/halevm/hale/api"
)

// When a registry is given up.
const (
	stallTime = 60 * time.Second // without a byte
	slowTime  = 5 * time.Minute  // in which at least
	slowBytes = 256 << 10        // come
)

// When a pull gives its turn to those that wait for theirs. What it has fetched stays, and it waits at the end of the line.
const (
	fairBytes = 16 << 20  // fewer than these in slowTime
	turnTime  = time.Hour // however fast it is
)

// errTurnOver ends a stretch whose turn is given away.
var errTurnOver = errors.New("the turn is given to another pull")

// life ends what waits for a registry when nothing comes from it any more, or next to nothing. It is watched in stretches:
// a pull that waits for its turn asks for nothing.
type life struct {
	mu     sync.Mutex
	timer  *time.Timer // nil between stretches
	cancel context.CancelCauseFunc
	host   string
	began  time.Time
	since  time.Time
	bytes  int64
	turn   func() bool // reports whether others wait for the turn of this stretch; nil where it has none
	busy   int         // with what is no matter of the registry's
	asked  int         // blobs that the registry is asked for in a stretch with a turn
}

// watch begins a stretch; its context ends, with the reason as its cause, when the registry shows no life. A stretch that has a
// turn knows whether others wait for it, and also ends, with errTurnOver, when it gives the turn to them.
func (l *life) watch(ctx context.Context, host string, turn func() bool) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.cancel, l.host, l.began, l.since, l.bytes, l.turn = cancel, host, now, now, 0, turn
	l.timer = time.AfterFunc(stallTime, l.stalled)
	return ctx, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.timer.Stop()
		l.timer = nil
		cancel(nil)
	}
}

// stalled is called when nothing came for stallTime.
func (l *life) stalled() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.timer == nil {
		return
	}
	if l.busy > 0 || l.waits() {
		l.timer.Reset(stallTime)
		return
	}
	l.cancel(gaveUp("the pull stalled: the registry %s sent no byte for %s", l.host, stallTime))
}

// during does what the registry is not to be blamed for, should it take long.
func (l *life) during(f func() error) error {
	count := func(n int) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.busy += n
	}
	count(1)
	defer l.shown(0)
	defer count(-1)
	return f()
}

// shown tells that n bytes came.
func (l *life) shown(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.timer == nil {
		return
	}
	l.timer.Reset(stallTime)
	l.bytes += int64(n)
	if now := time.Now(); now.Sub(l.since) >= slowTime {
		switch {
		case l.bytes < slowBytes && !l.waits():
			l.cancel(gaveUp("the pull is too slow: the registry %s sent %d bytes in %s; %d are expected", l.host, l.bytes, now.Sub(l.since).Round(time.Second), slowBytes))
		case l.turn != nil && (l.bytes < fairBytes || now.Sub(l.began) >= turnTime) && l.turn():
			l.cancel(errTurnOver)
		}
		l.since, l.bytes = now, 0
	}
}

// asks tells that n more blobs are asked for. Before the first of them nothing was expected of the registry.
func (l *life) asks(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.waits() {
		l.since, l.bytes = time.Now(), 0
	}
	l.asked += n
}

// waits reports whether all that is wanted in a stretch with a turn is on its way for other pulls, whose lives are watched. l.mu is held.
func (l *life) waits() bool { return l.turn != nil && l.asked == 0 }

// yield ends a stretch as the end of its turn does.
func (l *life) yield() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.timer != nil {
		l.cancel(errTurnOver)
	}
}

// heard tells of n bytes of an answer. In a stretch with a turn they are counted where they are kept.
func (l *life) heard(n int) {
	l.mu.Lock()
	if l.turn != nil {
		n = 0
	}
	l.mu.Unlock()
	l.shown(n)
}

func gaveUp(format string, args ...any) error {
	return &api.Error{Kind: api.Unavailable, Code: "pull_stalled", Message: fmt.Sprintf(format, args...)}
}
