package pid1

import (
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const (
	maxRunData = 8 << 20 // bytes of all files in the image's /run
	maxRun     = 4096    // entries of it
)

// A runFS is /run: in memory, so that no socket and no pid of an earlier run is found there, and beginning as what the
// image has in it, because images make directories for their programs there.
type runFS struct {
	entries []runEntry
	inImage bool // /run stays the image's
}

type runEntry struct {
	path   string // below /run; "." is itself
	st     unix.Stat_t
	target string // of a link
	data   []byte // of a file
}

// imageRun takes down what the image has in /run. An image that has no directory there, or a large one, keeps it.
func imageRun(log *slog.Logger, top string) runFS {
	var r runFS
	left := int64(maxRunData)
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if len(r.entries) == maxRun {
			return fs.ErrInvalid
		}
		e := runEntry{}
		if e.path, err = filepath.Rel(top, path); err != nil {
			return err
		}
		if err := unix.Lstat(path, &e.st); err != nil {
			return err
		}
		switch e.st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
		case unix.S_IFLNK:
			e.target, err = os.Readlink(path)
		case unix.S_IFREG:
			if left -= e.st.Size; left < 0 { // the guest's memory is to be the program's
				return fs.ErrInvalid
			}
			e.data, err = os.ReadFile(path)
		default:
			return nil // sockets and pipes of a program that does not run
		}
		r.entries = append(r.entries, e)
		return err
	})
	switch {
	case os.IsNotExist(err):
		return runFS{}
	case err != nil, r.entries[0].st.Mode&unix.S_IFMT != unix.S_IFDIR:
		log.Info("/run stays as it is in the image", "err", err)
		return runFS{inImage: true}
	}
	return r
}

// mount puts it in place.
func (r runFS) mount() error {
	if r.inImage {
		return nil
	}
	if err := (mount{"tmpfs", "/run", nosuid | nodev, "mode=755"}).mount(); err != nil {
		return err
	}
	for _, e := range r.entries {
		path := filepath.Join("/run", e.path)
		var err error
		switch {
		case e.path == ".":
		case e.st.Mode&unix.S_IFMT == unix.S_IFDIR:
			err = os.Mkdir(path, 0o755)
		case e.target != "":
			err = os.Symlink(e.target, path)
		default:
			err = os.WriteFile(path, e.data, 0o600)
		}
		if err != nil {
			return err
		}
		if err := unix.Lchown(path, int(e.st.Uid), int(e.st.Gid)); err != nil {
			return err
		}
		if e.target != "" {
			continue
		}
		if err := unix.Chmod(path, e.st.Mode&0o7777); err != nil {
			return err
		}
	}
	return nil
}
