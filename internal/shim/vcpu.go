package shim

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/halevm/hale/internal/quiet"
)

// vcpus are the threads of the hypervisor that run the guest's processors: one for each, or one for all of them under emulation. The
// other threads of that process tell nothing of the guest.
type vcpus struct {
	pid int

	mu     sync.Mutex
	closed bool
	files  []*os.File // of their schedstat; nil: not looked for yet
}

// delays appends how long each was ready and did not run, for want of a processor of the host's, since it began. The files stay open,
// for they are read twice in each probe.
func (v *vcpus) delays(to []time.Duration) []time.Duration {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.files == nil && !v.closed {
		v.open()
	}
	var b [64]byte
	for _, f := range v.files {
		n, _ := quiet.ReadAt(f.Fd(), b[:], 0) // a thread that is gone has no delay
		to = append(to, readTurn(b[:n]).waited)
	}
	return to
}

// open looks for the threads, by their names. v.mu is held.
func (v *vcpus) open() {
	tasks := fmt.Sprintf("/proc/%d/task", v.pid)
	threads, _ := os.ReadDir(tasks) // a process that has ended has none
	for _, t := range threads {
		name, _ := os.ReadFile(filepath.Join(tasks, t.Name(), "comm"))
		if !isVCPU(name) {
			continue
		}
		if f, err := os.Open(filepath.Join(tasks, t.Name(), "schedstat")); err == nil {
			v.files = append(v.files, f)
		}
	}
}

func (v *vcpus) close() {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, f := range v.files {
		f.Close()
	}
	v.files, v.closed = nil, true
}

// isVCPU knows a thread by the name that QEMU gives it (debug-threads=on): "CPU 0/KVM", "CPU 3/TCG", "ALL CPUs/TCG".
func isVCPU(name []byte) bool {
	return bytes.HasPrefix(name, []byte("CPU ")) || bytes.HasPrefix(name, []byte("ALL CPUs/"))
}
