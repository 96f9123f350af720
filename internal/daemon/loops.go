package daemon

import (
	"context"
	"errors"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// loopPause is how long a loop that failed is left alone before it is started again.
const loopPause = time.Second

// loops are the controllers. One that panics or fails is logged with its stack, counted, and started again.
type loops struct {
	log    *slog.Logger
	panics *prometheus.CounterVec
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu    sync.Mutex
	again map[string]int  // how often each was started again
	up    map[string]bool // those that run now
}

func newLoops(log *slog.Logger, panics *prometheus.CounterVec) *loops {
	l := &loops{log: log, panics: panics, again: make(map[string]int), up: make(map[string]bool)}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l
}

// start runs a loop until stop.
func (l *loops) start(name string, run func(context.Context) error) {
	l.log.Info("controller started", "controller", name)
	l.wg.Go(func() {
		for {
			err := l.contain(name, run)
			if l.ctx.Err() != nil {
				return
			}
			l.mu.Lock()
			l.again[name]++
			l.mu.Unlock()
			l.log.Error("a controller failed; it is started again", "controller", name, "err", err, "in", loopPause)
			select {
			case <-time.After(loopPause):
			case <-l.ctx.Done():
				return
			}
		}
	})
}

func (l *loops) contain(name string, run func(context.Context) error) (err error) {
	l.running(name, true)
	defer l.running(name, false)
	defer func() {
		if v := recover(); v != nil {
			l.panics.WithLabelValues(name).Inc()
			l.log.Error("a controller panicked", "controller", name, "panic", v, "stack", string(debug.Stack()))
			err = errors.New("panic")
		}
	}()
	return run(l.ctx)
}

func (l *loops) running(name string, up bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.up[name] = up
}

// isUp tells whether a loop runs now: not before it was started, and not while it waits to be started again.
func (l *loops) isUp(name string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.up[name]
}

// restarts tells how often a loop was started again.
func (l *loops) restarts(name string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.again[name]
}

// stop ends all loops and waits for them.
func (l *loops) stop() {
	l.cancel()
	l.wg.Wait()
}
