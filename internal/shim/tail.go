package shim

import (
	"context"
	"sync"
)

// tail keeps the last bytes that were written to it.
type tail struct {
	mu   sync.Mutex
	keep int
	buf  []byte
}

// Write never fails.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if len(t.buf) > 2*t.keep {
		t.buf = append(t.buf[:0], t.buf[len(t.buf)-t.keep:]...)
	}
	return len(p), nil
}

// String is what was kept.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf[max(0, len(t.buf)-t.keep):])
}

// meter counts the bytes that were written to it.
type meter struct {
	mu    sync.Mutex
	n     uint64
	grown chan struct{} // closed at the next write, where somebody waits
}

// Write never fails.
func (m *meter) Write(p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.n += uint64(len(p))
	if m.grown != nil {
		close(m.grown)
		m.grown = nil
	}
	return len(p), nil
}

// await returns when n bytes have been written, or ctx is done.
func (m *meter) await(ctx context.Context, n uint64) {
	for {
		m.mu.Lock()
		if m.n >= n {
			m.mu.Unlock()
			return
		}
		if m.grown == nil {
			m.grown = make(chan struct{})
		}
		grown := m.grown
		m.mu.Unlock()
		select {
		case <-grown:
		case <-ctx.Done():
			return
		}
	}
}
