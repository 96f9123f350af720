package image

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
)

// A staging is a directory of files in work, named by a counter and never by an archive. It goes when the last holder
// releases it: the import that made it, or a conversion that outlives it.
type staging struct {
	dir string

	mu      sync.Mutex
	holders int
	n       int
}

func newStaging(parent string) (*staging, error) {
	dir, err := os.MkdirTemp(parent, "")
	if err != nil {
		return nil, err
	}
	return &staging{dir: dir, holders: 1}, nil
}

func (st *staging) hold() {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.holders++
}

func (st *staging) release() {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.holders--; st.holders == 0 {
		_ = os.RemoveAll(st.dir) // Open empties what stays behind
	}
}

// clear removes everything but one file: who needed it has it.
func (st *staging) clear(keep string) {
	files, _ := os.ReadDir(st.dir)
	for _, f := range files {
		if name := filepath.Join(st.dir, f.Name()); name != keep {
			_ = os.Remove(name) // release has another go
		}
	}
}

// create makes a new file, for reading and writing.
func (st *staging) create() (*os.File, error) {
	st.mu.Lock()
	st.n++
	name := filepath.Join(st.dir, fmt.Sprint(st.n))
	st.mu.Unlock()
	return os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
}

// A meter counts bytes and reports now and then: one call at a time, the first and the last included.
type meter struct {
	report func(Progress)

	mu   sync.Mutex
	p    Progress
	next int64 // of Done, when it is time to report again
}

func newMeter(phase Phase, total int64, report func(Progress)) *meter {
	m := &meter{report: report, p: Progress{Phase: phase, Total: total}}
	m.add(0)
	return m
}

func (m *meter) add(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.p.Done += n
	if m.p.Done < m.next && m.p.Done != m.p.Total {
		return
	}
	step := m.p.Total / 100
	if step == 0 {
		step = 4 << 20
	}
	m.next = m.p.Done + step
	m.report(m.p)
}

// A metered reader counts what passes, and ends with its context.
type metered struct {
	ctx context.Context
	r   io.Reader
	m   *meter
	n   int64 // bytes that passed
	err error // why r could not be read on, where that is not its end
}

func (r *metered) Read(b []byte) (int, error) {
	if r.ctx.Err() != nil {
		r.err = context.Cause(r.ctx)
		return 0, r.err
	}
	n, err := r.r.Read(b)
	if err != nil && err != io.EOF {
		r.err = err
	}
	r.n += int64(n)
	r.m.add(int64(n))
	return n, err
}
