package image

import (
	"archive/tar"
	"cmp"
	"fmt"
	"iter"
	"slices"
	"time"
)

// A chart says where on the disk everything of a plan lies, before any of it is written. From the first block to the last there are: the
// superblock and the descriptors of the groups of blocks; attributes, long links and content; the directories; the table of the
// inodes; two bitmaps for each group. Content is in the order in which the layers have it, so that each layer is read in its order, and
// nothing is between two files but the rest of a block.
type chart struct {
	laid   []*placed // in the order of their blocks, and but for lost+found of their numbers
	inodes []*placed // by their numbers, from firstInode on
	root   *placed
	dirs   []*placed // in the order of their blocks

	descriptors uint32 // blocks that are kept for descriptors, needed or not
	table       uint32 // where the table of the inodes begins
	groups      uint32
	perGroup    uint32 // inodes
	bitmaps     uint32 // where they begin
	used        uint32 // blocks, from the first to the last that says something
	blocks      uint32 // of the disk
}

// A place is where on the disk an inode is.
type place struct {
	number     uint32 // of the inode
	linkCount  uint32 // its names; of a directory with its own . and the .. of others
	attributes uint32 // the block of those that the inode has no room for; 0 where there is none
	start      uint32 // of its content
	blocks     uint32 // of its content
	leaf       uint32 // the block that says where the content is, if the inode has no room for that; else 0
	children   []*placed
}

func newChart(p *plan) (*chart, error) {
	most := (p.diskSize()-1)/(blockSize*groupSize) + 1 // groups
	c := &chart{root: p.dirs[0], descriptors: uint32((most-1)/descriptorsPerBlock + 1)}
	c.laid = slices.Concat(append([][]*placed{p.dirs, p.others}, p.files...)...)
	lost := lostAndFound(p)
	c.inodes = append(make([]*placed, 0, len(c.laid)), lost)
	c.root.number, lost.number = rootInode, firstInode
	next := 1 + c.descriptors
	for _, n := range c.laid {
		if n != c.root && n != lost {
			c.inodes = append(c.inodes, n)
			n.number = c.lastInode()
		}
		next = n.allot(next)
	}
	c.link(p.links)
	c.listDirs(c.root)
	for _, d := range c.dirs {
		blocks := uint32(0)
		for range d.entriesByBlock() {
			blocks++
		}
		next = d.allotBlocks(next, blocks)
	}
	c.table = next
	c.groups, c.perGroup = groupsFor(c.table, c.lastInode())
	if c.groups > c.descriptors*descriptorsPerBlock {
		return nil, fmt.Errorf("the disk has %d groups of blocks, where at most %d were expected", c.groups, most)
	}
	c.bitmaps = c.table + c.groups*c.perGroup/inodesPerBlock
	c.used = c.bitmaps + 2*c.groups
	c.blocks = max(c.used, (c.groups-1)*groupSize+1)
	return c, nil
}

// lostAndFound is the directory that every ext4 file system has.
func lostAndFound(p *plan) *placed {
	for _, d := range p.dirs {
		if d.parent == p.dirs[0] && d.name == lostDir {
			return d
		}
	}
	return &placed{inode: &inode{kind: tar.TypeDir, mode: 0o700, mtime: time.Unix(0, 0)}, parent: p.dirs[0], name: lostDir}
}

func (c *chart) lastInode() uint32 { return firstInode - 1 + uint32(len(c.inodes)) }

// allot places what belongs to n, a directory's names aside, from the block next on, and returns what comes after it.
func (n *placed) allot(next uint32) uint32 {
	if _, rest, _ := splitXattrs(n.xattrs); len(rest) > 0 {
		n.attributes = next
		next++
	}
	size := n.size
	if n.kind == tar.TypeSymlink && len(n.link) > maxInlineLink {
		size = int64(len(n.link))
	}
	if size == 0 {
		return next
	}
	return n.allotBlocks(next, uint32((size+blockSize-1)/blockSize))
}

// allotBlocks places so many blocks of content, and behind them what says where they are, if the inode has no room for that.
func (n *placed) allotBlocks(next, blocks uint32) uint32 {
	n.start, n.blocks = next, blocks
	next += blocks
	if n.extents() > maxInlineExtents {
		n.leaf = next
		next++
	}
	return next
}

// extents is in how many pieces n's content is told.
func (n *placed) extents() uint32 { return (n.blocks + maxExtent - 1) / maxExtent }

// link tells the directories what is in them, and the inodes how many names they have.
func (c *chart) link(links []*placed) {
	c.root.linkCount = 2
	for _, n := range c.inodes {
		n.parent.children = append(n.parent.children, n)
		if n.kind == tar.TypeDir {
			n.parent.linkCount++
			n.linkCount++
		}
		n.linkCount++
	}
	for _, n := range links {
		n.parent.children = append(n.parent.children, n)
		n.number = n.first.number
		n.first.linkCount++
	}
}

// listDirs puts d and the directories below it into c.dirs.
func (c *chart) listDirs(d *placed) {
	c.dirs = append(c.dirs, d)
	slices.SortFunc(d.children, func(a, b *placed) int { // as e2fsck does
		return cmp.Or(cmp.Compare(a.number, b.number), cmp.Compare(a.name, b.name))
	})
	for _, n := range d.children {
		if n.kind == tar.TypeDir {
			c.listDirs(n)
		}
	}
}

// entriesByBlock are the names in a directory, as many at a time as a block has room for. In the first block there are two more, the
// directory's own and its parent's.
func (n *placed) entriesByBlock() iter.Seq[[]*placed] {
	return func(yield func([]*placed) bool) {
		left := n.children
		for room := blockSize - endSize - 2*entrySize("."); ; room = blockSize - endSize {
			i := 0
			for ; i < len(left) && entrySize(left[i].name) <= room; i++ {
				room -= entrySize(left[i].name)
			}
			if !yield(left[:i]) || i == len(left) {
				return
			}
			left = left[i:]
		}
	}
}

// groupsFor is the smallest number of groups that have room for so many blocks beside their own, and so many inodes in all.
func groupsFor(blocks, inodes uint32) (groups, perGroup uint32) {
	least := int64(1) << 32
	for per := int64(inodesPerBlock); per <= groupSize; per += inodesPerBlock {
		room := groupSize - per/inodesPerBlock - 2 // beside its part of the table, and its bitmaps
		needed := max(int64(blocks), (int64(inodes)-1)/per*room+1)
		if n := (needed + room - 1) / room; n < least {
			least, perGroup = n, uint32(per)
		}
	}
	return uint32(least), perGroup
}
