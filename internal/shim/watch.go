package shim

import (
	"context"
	"errors"
	"sync"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/shim/protocol"
)

// A watcher tells the shim which port the daemon wants to hear of.
type watcher struct {
	mu     sync.Mutex
	port   uint16
	told   uint16 // what the shim took last
	saying bool   // a goroutine of wg tells it
	closed bool
	wg     sync.WaitGroup
}

// Watch names the one port of the guest whose beginning and ceasing to be listened on is told, as notices of kind machine.Hinted; 0: none
// is. It does not wait for the shim. One of before cannot be asked, and nothing is told.
func (m *Machine) Watch(port uint16) {
	w := &m.watched
	w.mu.Lock()
	defer w.mu.Unlock()
	w.port = port
	if !w.saying && !w.closed && w.port != w.told {
		w.saying = true
		w.wg.Go(m.sayWatch)
	}
}

// sayWatch tells the shim until it has heard the last word.
func (m *Machine) sayWatch() {
	w := &m.watched
	for {
		w.mu.Lock()
		port := w.port
		if port == w.told {
			w.saying = false
			w.mu.Unlock()
			return
		}
		w.mu.Unlock()
		err := m.call(context.Background(), requestTimeout, protocol.MethodWatch, protocol.Watch{Port: port}, nil)
		w.mu.Lock()
		if err != nil && !errors.Is(err, errGone) && !errors.Is(err, api.Unimplemented) { // the next Watch tries again
			m.log.Warn("the shim does not watch the checked port, which is probed at its pace only", "port", port, "err", err)
			w.saying = false
			w.mu.Unlock()
			return
		}
		w.told = port
		w.mu.Unlock()
	}
}

// end waits for what is being said; nothing is said any more.
func (w *watcher) end() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.wg.Wait()
}
