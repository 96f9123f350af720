package image

import (
	"archive/tar"
	"bytes"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// A flat is the naive model of a tree: paths, and no structure. It knows no links into directories.
type flat map[string]node

func (m flat) remove(name string, itself bool) {
	maps.DeleteFunc(m, func(p string, _ node) bool { return itself && p == name || strings.HasPrefix(p, name+"/") })
}

func (m flat) isDir(name string) bool { n, ok := m[name]; return ok && n.mode&typeMask == typeDir }

// A flatLayer is one layer: what it has, and what it hides.
type flatLayer struct {
	flat
	implicit, hidden, opaque map[string]bool
}

// node is what the model expects of an entry. Two names of one file share its ino.
func (e entry) node(ino uint64) node {
	kinds := map[byte]uint32{tar.TypeReg: typeReg, tar.TypeDir: typeDir, tar.TypeSymlink: typeLink, tar.TypeChar: typeChar, tar.TypeFifo: 0o010000}
	n := node{ino: ino, mode: kinds[e.Typeflag] | uint32(e.Mode), uid: uint32(e.Uid), gid: uint32(e.Gid), mtime: e.ModTime, xattrs: map[string]string{}}
	switch e.Typeflag {
	case tar.TypeReg:
		n.data = []byte(e.data)
	case tar.TypeSymlink:
		n.link, n.mode = e.Linkname, typeLink|0o777
	case tar.TypeChar:
		n.rdev = [2]uint32{uint32(e.Devmajor), uint32(e.Devminor)}
	}
	for k, v := range e.PAXRecords {
		n.xattrs[strings.TrimPrefix(k, xattrPrefix)] = v
	}
	return n
}

func (l *flatLayer) add(e entry, ino uint64) {
	name := strings.TrimSuffix(e.Name, "/")
	for i, c := range name {
		if dir := name[:i]; c == '/' && !l.isDir(dir) {
			l.put(dir, node{mode: typeDir | 0o755, mtime: time.Unix(0, 0), xattrs: map[string]string{}})
			l.implicit[dir] = true
		}
	}
	dir, base := path.Dir(name), path.Base(name)
	switch hides, ok := strings.CutPrefix(base, whiteoutPrefix); {
	case base == opaqueMarker:
		l.opaque[dir] = true
	case ok:
		l.hidden[path.Join(dir, hides)] = true
	case e.Typeflag == tar.TypeLink:
		if target, ok := l.flat[e.Linkname]; ok && target.mode&typeMask != typeDir {
			l.put(name, target)
		}
	case e.Typeflag == tar.TypeDir && l.isDir(name):
		l.flat[name] = e.node(l.flat[name].ino)
		delete(l.implicit, name)
	default:
		l.put(name, e.node(ino))
	}
}

// put puts something new in the place of what is there, with what was said of that.
func (l *flatLayer) put(name string, n node) {
	if !l.isDir(name) || n.mode&typeMask != typeDir {
		l.remove(name, true)
		for _, said := range []map[string]bool{l.implicit, l.hidden, l.opaque} {
			maps.DeleteFunc(said, func(p string, _ bool) bool { return strings.HasPrefix(p, name+"/") })
		}
		delete(l.implicit, name)
		delete(l.opaque, name)
	}
	l.flat[name] = n
}

// over lays the layer over m.
func (l *flatLayer) over(m flat) {
	for name := range l.opaque {
		m.remove(name, false)
	}
	for name := range l.hidden {
		m.remove(name, true)
	}
	for _, name := range slices.Sorted(maps.Keys(l.flat)) {
		n := l.flat[name]
		if n.mode&typeMask != typeDir || !m.isDir(name) {
			m.remove(name, true)
		}
		if !l.implicit[name] || !m.isDir(name) {
			m[name] = n
		}
	}
}

func TestModel(t *testing.T) {
	s := openStore(t, memory(t), Options{})
	rapid.Check(t, func(rt *rapid.T) {
		merged := flat{}
		var layers [][]byte
		var ino uint64
		for range rapid.IntRange(1, 5).Draw(rt, "layers") {
			l := &flatLayer{flat{}, map[string]bool{}, map[string]bool{}, map[string]bool{}}
			var entries []entry
			for _, e := range rapid.SliceOfN(randomEntry, 0, 10).Draw(rt, "entries") {
				if e.Typeflag == tar.TypeSymlink || e.Typeflag == tar.TypeChar {
					e.Name += "-leaf" // nothing lies below a symbolic link, and no device is a whiteout
				}
				if target := l.flat[e.Linkname]; e.Typeflag == tar.TypeLink && (target.mode == 0 || target.mode&typeMask == typeDir ||
					strings.HasPrefix(e.Linkname, e.Name+"/") || e.Name == e.Linkname || strings.HasPrefix(e.Name, e.Linkname+"/")) {
					continue
				}
				if e.Typeflag == tar.TypeChar {
					e.Devmajor = 1
				}
				ino++
				l.add(e, ino)
				entries = append(entries, e)
			}
			l.over(merged)
			layers = append(layers, layerTar(entries...))
		}
		img, err := s.Import(t.Context(), bytes.NewReader(dockerArchive(picture{name: "test", layers: layers})), ImportOptions{})
		if err != nil {
			rt.Fatal(err)
		}
		want := view(merged)
		want["."] = node{mode: typeDir | 0o755, mtime: time.Unix(0, 0)}
		if d := differences(readDisk(t, img[0].Disk), want); d != "" {
			rt.Fatalf("the model shows it differently:\n%s", d)
		}
	})
}
