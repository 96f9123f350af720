package fake

import (
	"path"

	"github.com/halevm/hale/internal/machine"
)

// files is what Stat finds in a guest.
type files map[string]machine.FileInfo

func newFiles(hostname string) files {
	dir := machine.FileInfo{Exists: true, IsDir: true, Mode: 0o755, Size: 4096}
	file := func(size int) machine.FileInfo {
		return machine.FileInfo{Exists: true, IsFile: true, Mode: 0o644, Size: int64(size)}
	}
	return files{
		"/":             dir,
		"/bin":          {Exists: true, IsSymlink: true, LinkTarget: "/usr/bin", Mode: 0o777, Size: 8},
		"/etc":          dir,
		"/etc/hostname": file(len(hostname) + 1),
		"/tmp":          {Exists: true, IsDir: true, Mode: 0o1777, Size: 4096},
		"/usr":          dir,
		"/usr/bin":      dir,
		"/usr/bin/loop": {Exists: true, IsSymlink: true, LinkTarget: "/usr/bin/loop", Mode: 0o777, Size: 13},
	}
}

func (f files) stat(name string, follow bool) machine.FileInfo {
	name = path.Clean("/" + name)
	for range 40 {
		i := f[name]
		if !i.IsSymlink || !follow {
			return i
		}
		name = i.LinkTarget
	}
	return machine.FileInfo{Error: "too many levels of symbolic links"}
}
