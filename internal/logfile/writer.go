// Package logfile writes and reads the bounded log files of an instance: NAME, NAME.1, NAME.2, the newest first.
// A Writer rotates by size and never grows past its bound; a Reader gives the last lines and follows across rotations.
//
// A Writer belongs to one process and may be used from several goroutines. Readers are independent of it: they see
// files only. Files are opened without following links, and only regular ones, for a machine's files are written by a
// process that is not trusted.
package logfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Defaults of the bound: three files of 10 MiB.
const (
	DefaultMaxSize = 10 << 20
	DefaultKeep    = 3
)

// A Writer appends to a file and rotates it. A write is never split over two files.
type Writer struct {
	root    *os.Root
	name    string
	maxSize int64
	keep    int

	mu   sync.Mutex
	file *os.File
	size int64
}

// Create opens name below root for appending, and makes it where it is missing. maxSize is the size of one file in
// bytes and keep the number of files; zero means the default. The Writer does not close root.
func Create(root *os.Root, name string, maxSize int64, keep int) (*Writer, error) {
	if maxSize == 0 {
		maxSize = DefaultMaxSize
	}
	if keep == 0 {
		keep = DefaultKeep
	}
	w := &Writer{root: root, name: name, maxSize: maxSize, keep: keep}
	if err := w.open(); err != nil {
		return nil, err
	}
	return w, nil
}

func (w *Writer) open() error {
	f, err := OpenRegular(w.root, w.name, os.O_WRONLY|os.O_APPEND|os.O_CREATE)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	w.file, w.size = f, st.Size()
	return nil
}

// Write appends p. Where the disk refuses, the bytes are lost and the error says so; a later write tries again.
func (w *Writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.file == nil {
		if err := w.open(); err != nil {
			return 0, err
		}
	}
	if w.size > 0 && w.size+int64(len(p)) > w.maxSize {
		if err := w.rotate(); err != nil {
			return 0, err
		}
	}
	n, err := w.file.Write(p)
	w.size += int64(n)
	return n, err
}

func (w *Writer) rotate() error {
	w.file.Close()
	w.file = nil
	for i := w.keep - 1; i > 0; i-- {
		if err := w.root.Rename(rotated(w.name, i-1), rotated(w.name, i)); err != nil && !os.IsNotExist(err) {
			return fmt.Errorf("rotate %s: %w", w.name, err)
		}
	}
	if w.keep == 1 {
		if err := w.root.Remove(w.name); err != nil && !os.IsNotExist(err) {
			return fmt.Errorf("rotate %s: %w", w.name, err)
		}
	}
	return w.open()
}

// Close closes the file.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.file == nil {
		return nil
	}
	err := w.file.Close()
	w.file = nil
	return err
}

func rotated(name string, i int) string {
	if i == 0 {
		return name
	}
	return fmt.Sprintf("%s.%d", name, i)
}

// OpenRegular opens a regular file below root that has no other name, or with O_CREATE makes it (0600). No link in name is
// followed, not even one that stays within root (os.Root's own OpenFile follows those), and nobody waits for the other end of a FIFO.
func OpenRegular(root *os.Root, name string, flag int) (*os.File, error) {
	fail := func(err error) (*os.File, error) { return nil, &fs.PathError{Op: "open", Path: name, Err: err} }
	dir, err := root.Open(".")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	at := int(dir.Fd())
	parents, base := path.Split(path.Clean(name))
	for _, p := range strings.Split(strings.Trim(parents, "/"), "/") {
		if p == "" {
			continue
		}
		fd, err := unix.Openat(at, p, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return fail(err)
		}
		defer unix.Close(fd)
		at = fd
	}
	fd, err := unix.Openat(at, base, flag|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fail(err)
	}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil {
		switch {
		case st.Mode&unix.S_IFMT != unix.S_IFREG:
			err = errors.New("not a regular file")
		case st.Nlink > 1: // it may be anybody's
			err = errors.New("a file with several names")
		}
	}
	if err != nil {
		unix.Close(fd)
		return fail(err)
	}
	return os.NewFile(uintptr(fd), name), nil
}
