package event

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"sync"
)

// files is where segments are kept: a directory, or memory. Everything above it is the same code for both.
type files interface {
	list() ([]string, error)
	create(name string) (file, error)     // new, or emptied
	openAppend(name string) (file, error) // written at its end
	readAt(name string, p []byte, off int64) (int, error)
	rename(from, to string) error // on disk on return
	remove(name string) error
	close() error
}

// file is a segment that is being written.
type file interface {
	io.Writer
	Sync() error
	Truncate(size int64) error // and goes on writing there
	Close() error
}

// A directory keeps segments on disk.
type directory struct{ root *os.Root }

func openDirectory(dir string) (*directory, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return &directory{root}, nil
}

func (d *directory) list() ([]string, error) {
	entries, err := fs.ReadDir(d.root.FS(), ".")
	var names []string
	for _, e := range entries {
		if e.Type().IsRegular() {
			names = append(names, e.Name())
		}
	}
	return names, err
}

func (d *directory) create(name string) (file, error) {
	return d.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o600)
}

func (d *directory) openAppend(name string) (file, error) {
	return d.root.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0)
}

func (d *directory) readAt(name string, p []byte, off int64) (int, error) {
	f, err := d.root.Open(name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return f.ReadAt(p, off)
}

func (d *directory) rename(from, to string) error {
	return errors.Join(d.root.Rename(from, to), d.sync())
}

func (d *directory) remove(name string) error { return d.root.Remove(name) }

func (d *directory) close() error { return d.root.Close() }

func (d *directory) sync() error {
	f, err := d.root.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// memory keeps segments for as long as the process lives.
type memory struct {
	mu    sync.Mutex
	files map[string]*bytes.Buffer
}

func newMemory() *memory { return &memory{files: map[string]*bytes.Buffer{}} }

func (m *memory) list() ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var names []string
	for name := range m.files {
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

func (m *memory) create(name string) (file, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.files[name] = new(bytes.Buffer)
	return &memoryFile{m, m.files[name]}, nil
}

func (m *memory) openAppend(name string) (file, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.files[name] == nil {
		return nil, fs.ErrNotExist
	}
	return &memoryFile{m, m.files[name]}, nil
}

func (m *memory) readAt(name string, p []byte, off int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.files[name] == nil {
		return 0, fs.ErrNotExist
	}
	return bytes.NewReader(m.files[name].Bytes()).ReadAt(p, off)
}

func (m *memory) rename(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.files[to] = m.files[from]
	delete(m.files, from)
	return nil
}

func (m *memory) remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.files, name)
	return nil
}

func (m *memory) close() error { return nil }

type memoryFile struct {
	m *memory
	b *bytes.Buffer
}

func (f *memoryFile) Write(p []byte) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	return f.b.Write(p)
}

func (f *memoryFile) Truncate(size int64) error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	f.b.Truncate(int(size))
	return nil
}

func (f *memoryFile) Sync() error  { return nil }
func (f *memoryFile) Close() error { return nil }
