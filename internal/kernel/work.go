package kernel

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Directories of work in progress, below DIR/kernels. Each is locked for as long as somebody works in it, so that what a process
// left that was killed is told from what another is at.
const (
	aptWork    = ".apt-*"
	unpackWork = ".unpack-*"
)

// A workDir is one of them.
type workDir struct {
	path string
	lock *os.File
}

func newWorkDir(dir, pattern string) (workDir, error) {
	for {
		path, err := os.MkdirTemp(dir, pattern)
		if err != nil {
			return workDir{}, err
		}
		lock, err := lockDir(path)
		if err == nil {
			return workDir{path, lock}, nil
		}
		if os.RemoveAll(path); !errors.Is(err, errTaken) {
			return workDir{}, err
		}
		// It was taken for a leftover before it was locked.
	}
}

// remove removes what is there still, and the lock.
func (w workDir) remove() {
	os.RemoveAll(w.path)
	w.lock.Close()
}

var errTaken = errors.New("somebody else has the directory")

// lockDir locks a directory that is there, for as long as the file is open.
func lockDir(path string) (*os.File, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, errTaken
	}
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		if _, err = os.Lstat(path); err == nil {
			return f, nil
		}
	}
	f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, os.ErrNotExist) {
		err = errTaken
	}
	return nil, err
}

// removeLeftovers removes the work of processes that are no more.
func removeLeftovers(dir string) {
	for _, pattern := range []string{aptWork, unpackWork} {
		paths, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			continue
		}
		for _, path := range paths {
			if lock, err := lockDir(path); err == nil {
				workDir{path, lock}.remove()
			}
		}
	}
}
