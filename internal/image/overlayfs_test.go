package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// mountable gives the test's goroutine mounts of its own, or skips the test.
func mountable(t *testing.T) {
	t.Helper()
	runtime.LockOSThread() // for good: the thread ends with the goroutine
	err := unix.Unshare(unix.CLONE_NEWNS)
	if err == nil {
		err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	}
	if err != nil {
		t.Skipf("mounting is not permitted here: %v", err)
	}
	dir := t.TempDir()
	v, err := overlay(dir, nil)
	if err != nil {
		t.Skipf("overlayfs cannot be mounted here: %v", err)
	}
	if len(v) != 1 {
		t.Fatalf("an empty overlayfs shows %v", v.lines())
	}
}

// Every golden tree that can be is held against overlayfs, and the disk against the kernel's own ext4.
func TestOverlayfs(t *testing.T) {
	mountable(t)
	s := openStore(t, t.TempDir(), Options{})
	for _, c := range stacks {
		disk := importLayers(t, s, c.tars()...)
		got := readDisk(t, disk)
		if !c.alone {
			want, err := overlay(t.TempDir(), c.layers)
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
			} else if d := differences(got, want); d != "" {
				t.Errorf("%s: overlayfs shows it differently:\n%s", c.name, d)
			}
		}
		mounted, err := mountDisk(t.TempDir(), disk)
		if err != nil {
			t.Logf("%s: not held against the kernel's ext4: %v", c.name, err)
		} else if d := differences(got, mounted); d != "" {
			t.Errorf("%s: the kernel's ext4 shows it differently:\n%s", c.name, d)
		}
	}
}

// Layers that nobody thought of.
func TestOverlayfsRandom(t *testing.T) {
	mountable(t)
	s := openStore(t, t.TempDir(), Options{})
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			rt.Fatal(err)
		}
		defer os.RemoveAll(dir)
		var layers [][]entry
		for range rapid.IntRange(1, 4).Draw(rt, "layers") {
			layers = append(layers, extractable(rapid.SliceOfN(randomEntry, 0, 8).Draw(rt, "entries"), dir))
		}
		want, err := overlay(dir, layers)
		if err != nil {
			rt.Fatal(err)
		}
		img, err := s.Import(t.Context(), bytes.NewReader(dockerArchive(picture{name: "test", layers: stacked{layers: layers}.tars()})), ImportOptions{})
		if err != nil {
			rt.Fatal(err)
		}
		if d := differences(readDisk(t, img[0].Disk), want); d != "" {
			rt.Fatalf("overlayfs shows it differently:\n%s", d)
		}
	})
}

var randomPath = rapid.Custom(func(t *rapid.T) string {
	return strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "d"}), 1, 3).Draw(t, "path"), "/")
})

var randomEntry = rapid.Custom(func(t *rapid.T) entry {
	name := randomPath.Draw(t, "name")
	pick := func(of ...int64) int64 { return rapid.SampledFrom(of).Draw(t, "pick") }
	var e entry
	switch rapid.IntRange(0, 10).Draw(t, "kind") {
	case 0, 1, 2:
		e = file(name, rapid.StringN(0, 8, -1).Draw(t, "data")).xattr("user.k", strings.Repeat("v", int(pick(0, 1, 100, 300))))
	case 3, 4, 5:
		e = dir(name).xattr("user.d", "1")
	case 6:
		e = symlink(name, rapid.SampledFrom([]string{"a", "/b", "../d", "../../../../a", "/", ".", "d/a", "/a/b/d"}).Draw(t, "link"))
	case 7:
		return whiteout(name)
	case 8:
		return opaque("a/" + name) // overlayfs ignores that of the root; extractable sees that no link leads there
	case 9:
		e = device(tar.TypeChar, name, pick(0, 1), 0)
	case 10:
		return hardlink(name, randomPath.Draw(t, "to"))
	}
	return e.mode(pick(0o644, 0o4755, 0o1777, 0o700)).owner(int(pick(0, 1, 2)), int(pick(0, 3))).
		time(pick(0, 1, -100_000, 1_700_000_000, 2_200_000_000), pick(0, 5, 999_999_999))
})

// extractable leaves out what cannot be extracted into a directory: loops, and hard links to nothing.
func extractable(entries []entry, dir string) []entry {
	var layer []entry
	for _, e := range entries {
		try, err := os.MkdirTemp(dir, "try")
		if err != nil {
			panic(err)
		}
		x := &extraction{dir: try}
		if x.all(append(slices.Clone(layer), e)) == nil && !x.rootOpaque {
			layer = append(layer, e)
		}
		os.RemoveAll(try)
	}
	return layer
}

// overlay extracts each layer into a directory of its own, as the drivers of overlayfs do, mounts them over each other
// and returns what is to be seen.
func overlay(dir string, layers [][]entry) (view, error) {
	bottom, at := filepath.Join(dir, "bottom"), filepath.Join(dir, "view")
	dirs := []string{bottom}
	for _, d := range []string{bottom, at} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return nil, err
		}
	}
	if err := describe(bottom, tar.Header{Mode: 0o755, ModTime: time.Unix(0, 0)}); err != nil {
		return nil, err
	}
	var seen view
	for i := 0; ; i++ {
		dirs = append([]string{filepath.Join(dir, strconv.Itoa(i))}, dirs...)
		x := &extraction{dir: dirs[0], below: seen}
		if err := os.Mkdir(x.dir, 0o755); err != nil {
			return nil, err
		}
		if i < len(layers) {
			if err := x.all(layers[i]); err != nil {
				return nil, err
			}
		}
		if err := x.finish(); err != nil {
			return nil, err
		}
		if err := unix.Mount("overlay", at, "overlay", unix.MS_RDONLY, "lowerdir="+strings.Join(dirs, ":")); err != nil {
			return nil, fmt.Errorf("mount overlayfs: %w", err)
		}
		var err error
		seen, err = look(at)
		if err := errors.Join(err, unix.Unmount(at, 0)); err != nil {
			return nil, err
		}
		if i+1 >= len(layers) {
			return seen, nil
		}
	}
}

// mountDisk shows a disk as the kernel does.
func mountDisk(dir, disk string) (view, error) {
	if out, err := exec.Command("mount", "-t", "ext4", "-o", "ro,loop", disk, dir).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("mount: %s: %w", out, err)
	}
	v, err := look(dir)
	if _, empty := v[lostDir+"/x"]; !empty {
		delete(v, lostDir)
	}
	return v, errors.Join(err, unix.Unmount(dir, 0))
}

// look reads what is below a directory.
func look(root string) (view, error) {
	v := make(view)
	err := filepath.WalkDir(root, func(name string, _ fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil {
			err = unix.Lstat(name, &st)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a whiteout of the lowest layer is listed, and not there
		}
		if err != nil {
			return err
		}
		n := node{ino: st.Ino, mode: st.Mode, uid: st.Uid, gid: st.Gid, mtime: time.Unix(st.Mtim.Unix())}
		switch st.Mode & typeMask {
		case typeReg:
			n.data, err = os.ReadFile(name)
		case typeLink:
			n.link, err = os.Readlink(name)
		case typeChar, typeBlk:
			n.rdev = [2]uint32{unix.Major(st.Rdev), unix.Minor(st.Rdev)}
		}
		if err == nil {
			n.xattrs, err = attributes(name)
		}
		rel, _ := filepath.Rel(root, name)
		v[rel] = n
		return err
	})
	return v, err
}

func attributes(name string) (map[string]string, error) {
	b := make([]byte, 64<<10)
	n, err := unix.Llistxattr(name, b)
	if err != nil {
		return nil, err
	}
	found := make(map[string]string)
	for _, x := range strings.Split(strings.TrimSuffix(string(b[:n]), "\x00"), "\x00") {
		if x == "" || strings.HasPrefix(x, overlayXattrs) {
			continue
		}
		n, err := unix.Lgetxattr(name, x, b)
		if err != nil {
			return nil, err
		}
		found[x] = string(b[:n])
	}
	return found, nil
}

// An extraction writes one layer into a directory in the form of overlayfs. It shares nothing with the tree that is
// tested: the kernel keeps the books.
type extraction struct {
	dir        string
	below      view // what the layers below show
	given      map[string]tar.Header
	hidden     map[string]bool
	rootOpaque bool
}

func (x *extraction) all(entries []entry) error {
	x.given, x.hidden = make(map[string]tar.Header), make(map[string]bool)
	for _, e := range entries {
		if err := x.one(e); err != nil {
			return fmt.Errorf("%s: %w", e.Name, err)
		}
	}
	return nil
}

func (x *extraction) path(rel string) string { return filepath.Join(x.dir, rel) }

// parent returns the directory rel within the layer, its symbolic links followed as if the layer were the root, and
// makes what is missing.
func (x *extraction) parent(rel string) (string, error) {
	at := ""
	parts := strings.Split(rel, "/")
	for links := 0; len(parts) > 0; {
		next := path.Join("/", at, parts[0])[1:]
		part := parts[0]
		parts = parts[1:]
		if part == "" || part == "." || part == ".." {
			at = next
			continue
		}
		info, err := os.Lstat(x.path(next))
		switch {
		case err == nil && info.IsDir():
			at = next
		case err == nil && info.Mode().Type() == fs.ModeSymlink:
			if links++; links > 40 {
				return "", unix.ELOOP
			}
			link, _ := os.Readlink(x.path(next))
			if strings.HasPrefix(link, "/") {
				at = ""
			}
			parts = append(strings.Split(link, "/"), parts...)
		default:
			if err := errors.Join(os.RemoveAll(x.path(next)), os.Mkdir(x.path(next), 0o755)); err != nil {
				return "", err
			}
			at = next
		}
	}
	return at, nil
}

func (x *extraction) one(e entry) error {
	name := path.Join("/", e.Name)[1:]
	if name == "" {
		x.given[""] = e.Header
		return nil
	}
	in, err := x.parent(path.Dir(name))
	if err != nil {
		return err
	}
	base := path.Base(name)
	rel := path.Join(in, base)
	switch hides, ok := strings.CutPrefix(base, ".wh."); {
	case base == ".wh..wh..opq":
		x.rootOpaque = x.rootOpaque || in == ""
		return unix.Lsetxattr(x.path(in), "trusted.overlay.opaque", []byte("y"), 0)
	case strings.HasPrefix(base, ".wh..wh."), ok && (hides == "" || hides == "." || hides == ".."):
		return nil
	case ok:
		x.hidden[path.Join(in, hides)] = true
		return nil
	case e.Typeflag == tar.TypeChar && e.Devmajor == 0 && e.Devminor == 0:
		x.remove(rel)
		x.hidden[rel] = true
		return nil
	case e.Typeflag == tar.TypeLink:
		return x.link(e, rel)
	}
	if info, err := os.Lstat(x.path(rel)); e.Typeflag != tar.TypeDir || err != nil || !info.IsDir() {
		x.remove(rel)
		if err := x.create(e, x.path(rel)); err != nil {
			return err
		}
	}
	if e.Typeflag == tar.TypeDir {
		x.given[rel] = e.Header // described at the end, when nothing changes its time any more
		return nil
	}
	return describe(x.path(rel), e.Header)
}

func (x *extraction) link(e entry, rel string) error {
	target := path.Join("/", e.Linkname)[1:]
	in, err := x.parent(path.Dir(target))
	if err != nil {
		return err
	}
	temporary := x.path(".link")
	if err := os.Link(x.path(path.Join(in, path.Base(target))), temporary); err != nil {
		return err
	}
	x.remove(rel)
	return os.Rename(temporary, x.path(rel))
}

// remove makes room for something else, and forgets what was said of what was there.
func (x *extraction) remove(rel string) {
	if err := os.RemoveAll(x.path(rel)); err != nil {
		panic(err)
	}
	for p := range x.given {
		if p == rel || strings.HasPrefix(p, rel+"/") {
			delete(x.given, p)
		}
	}
	for p := range x.hidden {
		if strings.HasPrefix(p, rel+"/") {
			delete(x.hidden, p)
		}
	}
}

func (x *extraction) create(e entry, name string) error {
	node := func(kind uint32) error {
		return unix.Mknod(name, kind|0o600, int(unix.Mkdev(uint32(e.Devmajor), uint32(e.Devminor))))
	}
	switch e.Typeflag {
	case tar.TypeReg:
		return os.WriteFile(name, []byte(e.data), 0o600)
	case tar.TypeDir:
		return os.Mkdir(name, 0o755)
	case tar.TypeSymlink:
		return os.Symlink(e.Linkname, name)
	case tar.TypeChar:
		return node(unix.S_IFCHR)
	case tar.TypeBlock:
		return node(unix.S_IFBLK)
	case tar.TypeFifo:
		return node(unix.S_IFIFO)
	}
	return errors.ErrUnsupported
}

// finish makes the whiteouts and describes the directories, the deepest first.
func (x *extraction) finish() error {
	for rel := range x.hidden {
		// What is there beside its whiteout is new: the image-spec says that whiteouts are for lower layers only.
		info, err := os.Lstat(x.path(rel))
		switch {
		case err != nil:
			err = unix.Mknod(x.path(rel), unix.S_IFCHR, 0)
		case info.IsDir():
			err = unix.Lsetxattr(x.path(rel), "trusted.overlay.opaque", []byte("y"), 0)
		}
		if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR) {
			return err
		}
	}
	var dirs []string
	if err := filepath.WalkDir(x.dir, func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			rel, _ := filepath.Rel(x.dir, name)
			dirs = append(dirs, path.Join("/", rel)[1:])
		}
		return err
	}); err != nil {
		return err
	}
	for _, rel := range slices.Backward(dirs) {
		h, ok := x.given[rel]
		if !ok {
			h = x.inherited(rel)
		}
		if err := describe(x.path(rel), h); err != nil {
			return fmt.Errorf("%s: %w", rel, err)
		}
	}
	return nil
}

// inherited is what a directory that the layer does not name has of the directory that it is merged with.
func (x *extraction) inherited(rel string) tar.Header {
	h := tar.Header{Mode: 0o755, ModTime: time.Unix(0, 0)}
	for p := rel; p != ""; p = path.Join("/", path.Dir(p))[1:] {
		above := path.Join("/", path.Dir(p))[1:]
		n, _ := unix.Lgetxattr(x.path(above), "trusted.overlay.opaque", make([]byte, 8))
		if n > 0 || x.hidden[p] || x.below[p].mode&typeMask != typeDir {
			return h
		}
	}
	if n, _ := unix.Lgetxattr(x.path(rel), "trusted.overlay.opaque", make([]byte, 8)); n > 0 && x.hidden[rel] {
		return h
	}
	name := rel
	if name == "" {
		name = "."
	}
	if n, ok := x.below[name]; ok {
		h.Mode, h.Uid, h.Gid, h.ModTime = int64(n.mode&0o7777), int(n.uid), int(n.gid), n.mtime
		h.PAXRecords = make(map[string]string)
		for k, v := range n.xattrs {
			h.PAXRecords[xattrPrefix+k] = v
		}
	}
	return h
}

func describe(name string, h tar.Header) error {
	if err := os.Lchown(name, h.Uid, h.Gid); err != nil {
		return err
	}
	if h.Typeflag != tar.TypeSymlink {
		if err := unix.Chmod(name, uint32(h.Mode&0o7777)); err != nil {
			return err
		}
	}
	for k, v := range h.PAXRecords {
		x, ok := strings.CutPrefix(k, xattrPrefix)
		if !ok || strings.HasPrefix(x, overlayXattrs) {
			continue
		}
		if err := unix.Lsetxattr(name, x, []byte(v), 0); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
			return fmt.Errorf("%s: %w", x, err)
		}
	}
	when := unix.NsecToTimespec(h.ModTime.UnixNano())
	return unix.UtimesNanoAt(unix.AT_FDCWD, name, []unix.Timespec{when, when}, unix.AT_SYMLINK_NOFOLLOW)
}
