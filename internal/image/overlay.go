package image

import (
	"archive/tar"
	"path"
)

// apply lays a layer's tree over the merged one, which becomes what overlayfs would show of the two. Nodes of the layer
// become part of it. Hard links to what lies below are names for that as it was before this layer.
func (t *layerTree) apply(merged *inode) error {
	if err := t.resolve(t.root, merged); err != nil {
		return err
	}
	merged.merge(t.root)
	return nil
}

// resolve replaces the links of dir to lower layers, and of what is below it, by what they lead to.
func (t *layerTree) resolve(dir, merged *inode) error {
	for name, n := range dir.entries {
		switch n.kind {
		case tar.TypeDir:
			if err := t.resolve(n, merged); err != nil {
				return err
			}
		case lowerLink:
			target, err := t.lookup(merged, n.link)
			if err != nil {
				return err
			}
			dir.entries[name] = target
		}
	}
	return nil
}

// lookup finds what a hard link to lower layers leads to.
func (t *layerTree) lookup(merged *inode, name string) (*inode, error) {
	dir, err := t.walk(merged, path.Dir(name), nothing)
	if err != nil {
		return nil, err
	}
	if dir != nil {
		switch n := dir.entries[path.Base(name)]; {
		case n == nil:
		case n.kind == tar.TypeDir:
			return nil, badLayer("a hard link to the directory %s", quote(name))
		default:
			return n, nil
		}
	}
	return nil, badLayer("a hard link to %s, which is nowhere", quote(name))
}

// merge lays the directory upper over dir. An implicit one keeps dir's metadata.
func (dir *inode) merge(upper *inode) {
	if !upper.implicit {
		dir.mode, dir.uid, dir.gid, dir.mtime, dir.xattrs = upper.mode, upper.uid, upper.gid, upper.mtime, upper.xattrs
	}
	if upper.opaque {
		clear(dir.entries)
	}
	for name := range upper.white { // before the entries: what is both hidden and there is new
		delete(dir.entries, name)
	}
	for name, above := range upper.entries {
		below := dir.entries[name]
		if below != nil && below.kind == tar.TypeDir && above.kind == tar.TypeDir {
			below.merge(above)
			continue
		}
		above.settle()
		dir.entries[name] = above
	}
}

// settle forgets what a directory of a layer hides: there is nothing below it.
func (n *inode) settle() {
	if n.kind != tar.TypeDir {
		return
	}
	n.white, n.opaque, n.implicit = nil, false, false
	for _, child := range n.entries {
		child.settle()
	}
}
