package event

import (
	"bytes"
	"syscall"
)

// A fault is a disk in trouble.
type fault struct {
	room                         int // bytes that can still be written
	noTruncate, noSync, noCreate bool
	noRename                     bool          // a file has its new name, and whether that is on the disk nobody knows
	gate                         chan struct{} // nil, or what a sync waits for
}

// faulty is a memory whose disk may be in trouble. It is guarded by the memory's mutex.
type faulty struct {
	*memory
	fault *fault
	syncs int
}

func newFaulty() *faulty { return &faulty{memory: newMemory()} }

func (d *faulty) set(f *fault) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fault = nil
	if f != nil {
		copied := *f
		d.fault = &copied
	}
}

func (d *faulty) create(name string) (file, error) {
	d.mu.Lock()
	fails := d.fault != nil && d.fault.noCreate
	d.mu.Unlock()
	if fails {
		return nil, syscall.ENOSPC
	}
	f, err := d.memory.create(name)
	return &faultyFile{d, f.(*memoryFile).b}, err
}

func (d *faulty) openAppend(name string) (file, error) {
	f, err := d.memory.openAppend(name)
	if err != nil {
		return nil, err
	}
	return &faultyFile{d, f.(*memoryFile).b}, nil
}

func (d *faulty) rename(from, to string) error {
	if err := d.memory.rename(from, to); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fault != nil && d.fault.noRename {
		return syscall.EIO
	}
	return nil
}

type faultyFile struct {
	d *faulty
	b *bytes.Buffer
}

func (f *faultyFile) Write(p []byte) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if f.d.fault != nil && f.d.fault.room < len(p) {
		n := f.d.fault.room
		f.b.Write(p[:n])
		f.d.fault.room = 0
		return n, syscall.ENOSPC
	}
	if f.d.fault != nil {
		f.d.fault.room -= len(p)
	}
	return f.b.Write(p)
}

func (f *faultyFile) Sync() error {
	f.d.mu.Lock()
	var gate chan struct{}
	if f.d.fault != nil {
		gate = f.d.fault.gate
	}
	f.d.mu.Unlock()
	if gate != nil {
		<-gate
	}
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	f.d.syncs++
	if f.d.fault != nil && f.d.fault.noSync {
		return syscall.EIO
	}
	return nil
}

func (f *faultyFile) Truncate(size int64) error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if f.d.fault != nil && f.d.fault.noTruncate {
		return syscall.EIO
	}
	f.b.Truncate(int(size))
	return nil
}

func (f *faultyFile) Close() error { return nil }
