package agent

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/halevm/hale/internal/machine"
)

// fileInfo looks at a path. The agent's root is the image's, so no link leads out of it, and a path is only looked at,
// never opened: a pipe or a device cannot hold it up.
func fileInfo(path string, followLinks bool) machine.FileInfo {
	if !filepath.IsAbs(path) {
		path = "/" + path
	}
	look := os.Lstat
	if followLinks {
		look = os.Stat
	}
	fi, err := look(path)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return machine.FileInfo{}
	case err != nil:
		var errno syscall.Errno
		if errors.As(err, &errno) {
			err = errno
		}
		return machine.FileInfo{Error: err.Error()}
	}
	info := machine.FileInfo{
		Exists:    true,
		IsDir:     fi.IsDir(),
		IsFile:    fi.Mode().IsRegular(),
		IsSymlink: fi.Mode()&fs.ModeSymlink != 0,
		Size:      fi.Size(),
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		info.Mode = st.Mode & 0o7777
	}
	if info.IsSymlink {
		info.LinkTarget, _ = os.Readlink(path)
	}
	return info
}
