package image

import (
	"archive/tar"
	"errors"
	"fmt"
	"path"
	"strings"
	"sync/atomic"
	"time"
)

// An inode is one file, directory, link or device. Two names for one inode are a hard link.
type inode struct {
	kind    byte // as tar.Header.Typeflag: TypeReg, TypeDir, TypeSymlink, TypeChar, TypeBlock, TypeFifo; or lowerLink
	mode    int64
	uid     int
	gid     int
	mtime   time.Time
	link    string // of a symbolic link, verbatim
	major   int64
	minor   int64
	size    int64
	xattrs  map[string]string
	layer   int   // of a regular file, where its content is: the index of the layer
	entry   int   // and that of the entry in it
	offset  int64 // and where its content begins; -1 where it does not lie there in one piece
	entries map[string]*inode

	// The rest is of a layer's directory only.
	implicit bool            // the layer holds something below it and not itself
	opaque   bool            // hides what lower layers have in it
	white    map[string]bool // names that lower layers have and this one hides
}

func newDir() *inode {
	return &inode{kind: tar.TypeDir, mode: 0o755, mtime: time.Unix(0, 0), entries: make(map[string]*inode)}
}

// lowerLink is an entry of a layer that is another name for something in the layers below.
const lowerLink = 'L'

// The names by which a layer says what it hides (OCI image-spec, layer.md, "Whiteouts").
const (
	whiteoutPrefix = ".wh."
	opaqueMarker   = ".wh..wh..opq"
	markerPrefix   = ".wh..wh." // others of its kind are a storage driver's own, and mean nothing
)

// Linux's own bounds.
const (
	maxName     = 255  // bytes of a name
	maxPath     = 4095 // bytes of a path, and of what a symbolic link leads to
	maxSymlinks = 40   // that one path may lead through
)

// errBadLayer is wrapped by what is wrong with a layer's entries.
var errBadLayer = errors.New("the layer is not sound")

func badLayer(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errBadLayer, fmt.Sprintf(format, args...))
}

// clean makes a name of an entry relative to the root, which no .. climbs above.
func clean(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

// A budget is what the trees of one image may still take.
type budget struct {
	limits  Limits
	entries atomic.Int64
	names   atomic.Int64
	steps   atomic.Int64 // these are time, and are never given back
}

// stepsPerEntry is how many parts of paths may be walked for each entry that is possible. One path may lead through
// maxSymlinks links of maxPath bytes, 80,000 parts, and a layer may have millions of such paths.
const stepsPerEntry = 64

func (b *budget) take(entries, names int) error {
	if b.entries.Add(int64(entries)) > int64(b.limits.Entries) {
		return tooLarge("the image's layers hold more than %d files", b.limits.Entries)
	}
	if b.names.Add(int64(names)) > b.limits.Names {
		return tooLarge("the names, link targets and extended attributes of the image take more than %d bytes, each attribute counted as %d more", b.limits.Names, xattrCost)
	}
	return nil
}

func (b *budget) walk(steps int) error {
	if most := stepsPerEntry * int64(b.limits.Entries); b.steps.Add(int64(steps)) > most {
		return tooLarge("the paths in the image's layers, and the links that they lead through, have more than %d parts in all", most)
	}
	return nil
}

// A layerTree is what one layer's entries make, in their order; the last of several with one name counts. What it keeps of a header's
// strings it clones: they are parts of longer ones, of up to a mebibyte, which would stay with them and are not counted.
type layerTree struct {
	root   *inode
	index  int // of the layer
	budget *budget

	entries, names, steps int // taken from it
}

func (t *layerTree) take(entries, names int) error {
	t.entries += entries
	t.names += names
	return t.budget.take(entries, names)
}

func newLayerTree(index int, b *budget) *layerTree {
	t := &layerTree{root: newDir(), index: index, budget: b}
	t.root.implicit = true
	return t
}

// add puts one entry into the tree. Its error is an *api.Error or wraps errBadLayer.
func (t *layerTree) add(h *tar.Header, entry int, offset int64) error {
	if err := t.put(h, entry, offset); err != nil {
		return fmt.Errorf("%s: %w", quote(h.Name), err)
	}
	return nil
}

func (t *layerTree) put(h *tar.Header, entry int, offset int64) error {
	name := clean(h.Name)
	if err := t.take(1, len(path.Base(name))+len(h.Linkname)); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeXGlobalHeader: // says something of what follows, which archive/tar leaves aside, as everybody does
		return nil
	}
	if name == "" {
		if h.Typeflag != tar.TypeDir {
			return badLayer("the root is not a directory")
		}
		return t.describe(t.root, h)
	}
	dirName, base := path.Split(name)
	if len(base) > maxName {
		return badLayer("a name of %d bytes (%d are possible)", len(base), maxName)
	}
	base = strings.Clone(base)
	dir, err := t.makeDirs(dirName)
	if err != nil {
		return err
	}
	if strings.HasPrefix(base, whiteoutPrefix) {
		dir.mark(base)
		return nil
	}
	if h.Typeflag == tar.TypeChar && h.Devmajor == 0 && h.Devminor == 0 { // overlayfs's own whiteout
		delete(dir.entries, base)
		dir.hide(base)
		return nil
	}
	old := dir.entries[base]
	if h.Typeflag == tar.TypeDir && old != nil && old.kind == tar.TypeDir {
		return t.describe(old, h)
	}
	n, err := t.newInode(h, entry, offset)
	if err != nil {
		return err
	}
	dir.entries[base] = n
	return nil
}

// mark takes down what a name that begins with .wh. says of its directory.
func (dir *inode) mark(base string) {
	switch {
	case base == opaqueMarker:
		dir.opaque = true
	case strings.HasPrefix(base, markerPrefix):
	default:
		dir.hide(strings.TrimPrefix(base, whiteoutPrefix))
	}
}

// hide takes down a whiteout. One that names nothing, or the directory itself or its parent, hides nothing.
func (dir *inode) hide(name string) {
	if name == "" || name == "." || name == ".." {
		return
	}
	if dir.white == nil {
		dir.white = make(map[string]bool)
	}
	dir.white[name] = true
}

// newInode makes what an entry describes; for a hard link, what it leads to.
func (t *layerTree) newInode(h *tar.Header, entry int, offset int64) (*inode, error) {
	n := &inode{kind: h.Typeflag}
	switch h.Typeflag {
	case tar.TypeLink:
		return t.linked(clean(h.Linkname))
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeCont:
		n.kind, n.size, n.layer, n.entry, n.offset = tar.TypeReg, h.Size, t.index, entry, offset
		if isSparse(h) {
			n.offset = -1
		}
	case tar.TypeDir:
		n = newDir()
	case tar.TypeSymlink:
		if h.Linkname == "" || len(h.Linkname) > maxPath {
			return nil, badLayer("a symbolic link to %d bytes (1 to %d are possible)", len(h.Linkname), maxPath)
		}
		n.link = strings.Clone(h.Linkname)
	case tar.TypeChar, tar.TypeBlock:
		if h.Devmajor < 0 || h.Devmajor > maxMajor || h.Devminor < 0 || h.Devminor > maxMinor {
			return nil, badLayer("there is no device %d:%d", h.Devmajor, h.Devminor)
		}
		n.major, n.minor = h.Devmajor, h.Devminor
	case tar.TypeFifo:
	default:
		return nil, badLayer("an entry of the unknown type %q", h.Typeflag)
	}
	return n, t.describe(n, h)
}

// linked finds what a hard link leads to: in this layer, else it is left to the layers below. The target's own name is
// not followed when it is a symbolic link, as link(2) does not.
func (t *layerTree) linked(target string) (*inode, error) {
	dir, err := t.walk(t.root, path.Dir(target), nothing)
	if err != nil {
		return nil, err
	}
	if dir != nil {
		switch n := dir.entries[path.Base(target)]; {
		case n == nil:
		case n.kind == tar.TypeDir:
			return nil, badLayer("a hard link to the directory %s", quote(target))
		default:
			return n, nil
		}
	}
	return &inode{kind: lowerLink, link: strings.Clone(target)}, nil
}

// describe gives n the metadata of h.
func (t *layerTree) describe(n *inode, h *tar.Header) error {
	if h.Uid < 0 || h.Uid > maxID || h.Gid < 0 || h.Gid > maxID {
		return badLayer("an owner %d:%d that cannot be", h.Uid, h.Gid)
	}
	n.mode, n.uid, n.gid, n.mtime = h.Mode&0o7777, h.Uid, h.Gid, h.ModTime
	n.implicit = false
	if n.kind == tar.TypeSymlink {
		n.mode = 0o777
	}
	var err error
	if n.xattrs, err = readXattrs(h.PAXRecords, n.kind); err != nil {
		return err
	}
	bytes := 0
	for k, v := range n.xattrs {
		bytes += len(k) + len(v) + xattrCost
	}
	return t.take(0, bytes)
}

// makeDirs returns the directory that name is in this layer, and makes what is missing of it. Symbolic links of the
// same layer are followed, and never lead out of the root; what is no directory is replaced by one.
func (t *layerTree) makeDirs(name string) (*inode, error) {
	return t.walk(t.root, name, func(dir *inode, part string) (*inode, error) {
		n := newDir()
		n.implicit = true
		dir.entries[strings.Clone(part)] = n
		return n, t.take(1, len(part))
	})
}

// nothing is missing where a directory that is not there is not made: walk returns nil.
func nothing(*inode, string) (*inode, error) { return nil, nil }

// walk goes from root, of this tree or of the layers below it, down to the directory name, following symbolic links as if root
// were /. Where there is no directory it takes what missing returns.
func (t *layerTree) walk(root *inode, name string, missing func(dir *inode, part string) (*inode, error)) (*inode, error) {
	type step struct {
		dir    *inode
		length int // of the path to it
	}
	at := []step{{dir: root}}
	ahead := []string{name} // the last of them first; below a link's target is what follows the link
	for links := 0; len(ahead) > 0; {
		t.steps++
		if err := t.budget.walk(1); err != nil {
			return nil, err
		}
		part, rest, more := strings.Cut(ahead[len(ahead)-1], "/")
		if ahead = ahead[:len(ahead)-1]; more {
			ahead = append(ahead, rest)
		}
		here := at[len(at)-1]
		switch part {
		case "", ".":
			continue
		case "..":
			at = at[:max(1, len(at)-1)]
			continue
		}
		length := here.length + 1 + len(part)
		if len(part) > maxName || length > maxPath {
			return nil, badLayer("a path that is too long (%d bytes are possible, %d for each name)", maxPath, maxName)
		}
		n := here.dir.entries[part]
		if n != nil && n.kind == tar.TypeSymlink {
			if links++; links > maxSymlinks {
				return nil, badLayer("a path leads through more than %d symbolic links", maxSymlinks)
			}
			if strings.HasPrefix(n.link, "/") {
				at = at[:1]
			}
			ahead = append(ahead, n.link)
			continue
		}
		if n == nil || n.kind != tar.TypeDir {
			var err error
			if n, err = missing(here.dir, part); n == nil || err != nil {
				return nil, err
			}
		}
		at = append(at, step{n, length})
	}
	return at[len(at)-1].dir, nil
}
