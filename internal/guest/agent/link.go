package agent

import (
	"context"
	"sync"
	"time"

	"github.com/halevm/hale/internal/guest/protocol"
)

// A link is a port that may be gone for a while. What is sent meanwhile waits, as long as its sender cares.
type link struct {
	mu     sync.Mutex
	writer *protocol.Writer
	ready  chan struct{} // closed while writer is set
}

func newLink() *link { return &link{ready: make(chan struct{})} }

// Send queues a frame once there is a port.
func (l *link) Send(ctx context.Context, f protocol.Frame) error {
	for {
		l.mu.Lock()
		w, ready := l.writer, l.ready
		l.mu.Unlock()
		if w != nil {
			return w.Send(ctx, f)
		}
		select {
		case <-ready:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (l *link) up(w *protocol.Writer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.writer = w
	close(l.ready)
}

func (l *link) down() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.writer = nil
	l.ready = make(chan struct{})
}

// serve keeps a framed port open and hands on what comes, until the agent ends. A port whose driver is unbound fails, and
// is opened again when it is back.
func (a *Agent) serve(name string, l *link, handle func(protocol.Frame)) {
	for complained := false; a.ctx.Err() == nil; a.pause(reopenPause) {
		port, err := a.c.Open(name)
		if err != nil {
			if !complained {
				complained = true
				a.log.Warn("no port to the host; trying on", "port", name, "err", err)
			}
			continue
		}
		complained = false
		w := protocol.NewWriter(port)
		l.up(w)
		// Closing the port is what ends a read.
		stop := context.AfterFunc(a.ctx, func() { port.Close() })
		r := protocol.NewReader(port)
		for {
			var f protocol.Frame
			if f, err = r.Next(); err != nil {
				break
			}
			handle(f)
		}
		stop()
		l.down()
		w.Close()
		port.Close()
		<-w.Done()
		if a.ctx.Err() == nil {
			a.portLost()
			a.log.Warn("the port to the host is gone", "port", name, "err", err)
		}
	}
}

func (a *Agent) pause(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-a.ctx.Done():
	}
}
