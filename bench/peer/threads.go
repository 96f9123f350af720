package peer

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Threads are those of the process that serves the targets. How long they waited for a processor is to a target what the delay of its
// virtual processors is to a machine: a server that the host has kept waiting for a second has not answered badly.
type threads struct {
	pid int

	mu     sync.Mutex
	looked time.Time
	known  map[string]bool
	files  []*os.File // schedstat of each, in the order in which they were found
	last   []time.Duration
}

const lookForThreads = time.Second // new ones are found so often

// runDelay is a probe.Target's RunDelay.
func (t *threads) runDelay(room []time.Duration) []time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now := time.Now(); now.Sub(t.looked) > lookForThreads {
		t.looked = now
		t.look()
	}
	var b [64]byte
	for i, f := range t.files {
		n, err := f.ReadAt(b[:], 0)
		var ran, waited int64
		if err == nil || errors.Is(err, io.EOF) {
			if _, err := fmt.Sscan(string(b[:n]), &ran, &waited); err == nil {
				t.last[i] = time.Duration(waited)
			}
		}
	}
	return append(room, t.last...)
}

func (t *threads) look() {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", t.pid))
	if err != nil {
		panic(err) // the pattern is a good one
	}
	for _, path := range tasks {
		if t.known[path] {
			continue
		}
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) { // it has ended
			continue
		}
		if err != nil {
			panic(err)
		}
		if t.known == nil {
			t.known = map[string]bool{}
		}
		t.known[path] = true
		t.files, t.last = append(t.files, f), append(t.last, 0)
	}
}
