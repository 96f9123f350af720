package image

import (
	"archive/tar"
	"cmp"
	"slices"
)

// What an ext4 file system, as it is written here, cannot hold.
const (
	maxMajor = 1<<12 - 1
	maxMinor = 1<<20 - 1
	maxID    = 1<<32 - 2
	maxLinks = 65000                                  // names of one file, and directories in one directory
	maxFile  = maxLeafExtents * maxExtent * blockSize // bytes of one file
	lostDir  = "lost+found"
)

// A plan is a tree in the order in which it is written.
type plan struct {
	dirs   []*placed   // parents first
	others []*placed   // links, devices and fifos, each under its first name
	files  [][]*placed // of each layer, in its order
	links  []*placed   // further names of others and files

	bytes  int64 // of the files
	blocks int64 // at most
	inodes int64
}

// A placed inode is one name in the plan.
type placed struct {
	*inode
	parent *placed // nil for the root
	name   string
	first  *placed // of a further name: the one that was written before
	place          // on the disk
}

func newPlan(root *inode, layers int, limits Limits) (*plan, error) {
	p := &plan{files: make([][]*placed, layers)}
	if n := root.entries[lostDir]; n != nil && n.kind != tar.TypeDir {
		return nil, invalid("/%s is not a directory, and every ext4 file system has one of that name", lostDir)
	}
	seen := make(map[*inode]*placed)
	names := make(map[*inode]int)
	if err := p.addDir(&placed{inode: root}, seen, names); err != nil {
		return nil, err
	}
	for _, files := range p.files {
		slices.SortFunc(files, func(a, b *placed) int { return cmp.Compare(a.entry, b.entry) })
	}
	if p.bytes > limits.Logical {
		return nil, tooLarge("the image's files have %d bytes, holes counted; %d are possible", p.bytes, limits.Logical)
	}
	return p, nil
}

// addDir adds a directory and what is in it, in the order of the names.
func (p *plan) addDir(d *placed, seen map[*inode]*placed, names map[*inode]int) error {
	p.dirs = append(p.dirs, d)
	p.inodes++
	p.blocks += 2 // its own, and one of attributes
	var used, dirs int64
	for _, name := range sortedKeys(d.entries) {
		n := &placed{inode: d.entries[name], parent: d, name: name}
		used += 16 + int64(len(name))
		if n.kind == tar.TypeDir {
			if dirs++; dirs > maxLinks-3 {
				return invalid("the directory /%s has more than %d directories in it, which ext4 cannot hold", d.path(), maxLinks-3)
			}
			if err := p.addDir(n, seen, names); err != nil {
				return err
			}
			continue
		}
		if first, ok := seen[n.inode]; ok {
			if names[n.inode]++; names[n.inode] > maxLinks {
				return invalid("/%s has more than %d names, which ext4 cannot hold", first.path(), maxLinks)
			}
			n.first = first
			p.links = append(p.links, n)
			continue
		}
		seen[n.inode], names[n.inode] = n, 1
		if err := p.add(n); err != nil {
			return err
		}
	}
	p.blocks += used / (blockSize - 300) // the rest of a block where the next name does not fit stays empty
	return nil
}

// add adds what is no directory, under its first name.
func (p *plan) add(n *placed) error {
	p.inodes++
	p.blocks += 2 // attributes, and a symbolic link's target or a large file's extents
	if n.kind != tar.TypeReg {
		p.others = append(p.others, n)
		return nil
	}
	if n.size > maxFile {
		return tooLarge("/%s has %d bytes; %d are possible", n.path(), n.size, int64(maxFile))
	}
	p.bytes += n.size
	p.blocks += n.size/blockSize + 1
	p.files[n.layer] = append(p.files[n.layer], n)
	return nil
}

// diskSize is a size in bytes that the disk cannot exceed. What is not used costs nothing but a few descriptors.
func (p *plan) diskSize() int64 {
	const group = groupSize * blockSize
	size := p.blocks*blockSize + p.inodes*inodeSize
	return size + size/8 + 4*group
}

// path is the name from the root.
func (n *placed) path() string {
	if n.parent == nil {
		return ""
	}
	length := -1
	for at := n; at.parent != nil; at = at.parent {
		length += 1 + len(at.name)
	}
	b := make([]byte, length)
	for at := n; at.parent != nil; at = at.parent {
		length -= len(at.name)
		copy(b[length:], at.name)
		if length > 0 {
			length--
			b[length] = '/'
		}
	}
	return string(b)
}
