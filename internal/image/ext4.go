package image

import (
	"archive/tar"
	"encoding/binary"
	"time"

	"golang.org/x/sys/unix"
)

// An ext4 file system as a disk has it: with nothing but what is needed to read it. There is no journal, no checksum, no hole in a
// file, and one copy of everything. All offsets are those of the kernel's documentation (filesystems/ext4).
const (
	blockSize           = 4096
	groupSize           = 8 * blockSize // what one block of bits says of
	descriptorSize      = 32
	descriptorsPerBlock = blockSize / descriptorSize

	inodeSize      = 256
	inodesPerBlock = blockSize / inodeSize
	inodeUsed      = 152 // the rest is for attributes
	rootInode      = 2
	firstInode     = 11 // of lost+found; what is before it is the file system's own
	maxInlineLink  = 59

	extentSize       = 12
	maxExtent        = 1 << 15 // blocks
	maxInlineExtents = 4
	maxLeafExtents   = blockSize/extentSize - 1

	endSize = 12 // what a block of a directory ends with, at least

	superMagic  = 0xef53
	extentMagic = 0xf30a
	xattrMagic  = 0xea020000
)

var le = binary.LittleEndian

var modeOf = map[byte]uint16{
	tar.TypeReg: unix.S_IFREG, tar.TypeDir: unix.S_IFDIR, tar.TypeSymlink: unix.S_IFLNK,
	tar.TypeChar: unix.S_IFCHR, tar.TypeBlock: unix.S_IFBLK, tar.TypeFifo: unix.S_IFIFO,
}

// write writes everything, in the order of the blocks.
func (c *chart) write(d *diskFile) error {
	c.putSuper(d.block()[1024:])
	for first := range c.descriptors {
		c.putDescriptors(d.block(), first*descriptorsPerBlock)
	}
	for _, n := range c.laid {
		if n.attributes != 0 {
			n.putAttributes(d.block())
		}
		switch {
		case n.blocks == 0, n.kind == tar.TypeDir: // which comes later
		case n.kind == tar.TypeSymlink:
			copy(d.block(), n.link)
		case n.kind == tar.TypeReg:
			d.content(n)
			n.putLeaf(d)
		}
		if d.err != nil {
			return d.err
		}
	}
	for _, dir := range c.dirs {
		c.putDirectory(d, dir)
		dir.putLeaf(d)
	}
	for first := uint32(1); first <= c.groups*c.perGroup; first += inodesPerBlock {
		if first > c.lastInode() {
			d.skip(int64(c.groups*c.perGroup-first+1) / inodesPerBlock)
			break
		}
		c.putInodes(d.block(), first)
	}
	for g := range c.groups {
		c.putBlockBits(d.block(), g)
		c.putInodeBits(d.block(), g)
	}
	d.skip(int64(c.blocks - c.used))
	return d.err
}

func (c *chart) putSuper(b []byte) {
	free := c.groups * groupSize
	inodes := c.groups * c.perGroup
	for g := range c.groups {
		free -= c.blocksIn(g)
	}
	le.PutUint32(b[0x00:], inodes)
	le.PutUint32(b[0x04:], c.blocks)
	le.PutUint32(b[0x0c:], free)
	le.PutUint32(b[0x10:], inodes-c.lastInode())
	le.PutUint32(b[0x18:], 2) // blocks of 1024 << 2 bytes
	le.PutUint32(b[0x1c:], 2)
	le.PutUint32(b[0x20:], groupSize)
	le.PutUint32(b[0x24:], groupSize)
	le.PutUint32(b[0x28:], c.perGroup)
	le.PutUint16(b[0x38:], superMagic)
	le.PutUint16(b[0x3a:], 1) // unmounted
	le.PutUint16(b[0x3c:], 1) // go on after an error
	le.PutUint32(b[0x4c:], 1) // with inodes of any size
	le.PutUint32(b[0x54:], firstInode)
	le.PutUint16(b[0x58:], inodeSize)
	le.PutUint32(b[0x5c:], 0x8|0x200)           // attributes; no superblock but the first
	le.PutUint32(b[0x60:], 0x2|0x40|0x200)      // kinds in directories; extents; all groups' tables in one place
	le.PutUint32(b[0x64:], 0x2|0x8|0x40|0x1000) // large files, counted in blocks; large inodes; only read
	le.PutUint16(b[0x15c:], inodeUsed-128)
	le.PutUint16(b[0x15e:], inodeUsed-128)
	b[0x174] = 31 // so many groups, as a power of two, have their tables in one place
	le.PutUint32(b[0x268:], firstInode)
}

// putDescriptors describes the groups from first on.
func (c *chart) putDescriptors(b []byte, first uint32) {
	dirs := make(map[uint32]uint16)
	for _, d := range c.dirs {
		dirs[(d.number-1)/c.perGroup]++
	}
	for g := first; g < min(c.groups, first+descriptorsPerBlock); g++ {
		le.PutUint32(b[0x00:], c.bitmaps+2*g)
		le.PutUint32(b[0x04:], c.bitmaps+2*g+1)
		le.PutUint32(b[0x08:], c.table+g*c.perGroup/inodesPerBlock)
		le.PutUint16(b[0x0c:], uint16(groupSize-c.blocksIn(g)))
		le.PutUint16(b[0x0e:], uint16(c.perGroup-c.inodesIn(g)))
		le.PutUint16(b[0x10:], dirs[g])
		b = b[descriptorSize:]
	}
}

// inodesIn is how many inodes of a group are in use: the first ones.
func (c *chart) inodesIn(g uint32) uint32 {
	return min(c.perGroup, c.lastInode()-min(c.lastInode(), g*c.perGroup))
}

// putInodeBits says which inodes of a group are in use. What is behind the last one counts as that: e2fsck insists on it.
func (c *chart) putInodeBits(b []byte, g uint32) {
	setBits(b, 0, c.inodesIn(g))
	setBits(b, c.perGroup, groupSize)
}

// putBlockBits says which blocks of a group are in use.
func (c *chart) putBlockBits(b []byte, g uint32) {
	for _, s := range c.spans(g) {
		setBits(b, s[0], s[1])
	}
}

// blocksIn is how many that are.
func (c *chart) blocksIn(g uint32) (n uint32) {
	for _, s := range c.spans(g) {
		n += s[1] - s[0]
	}
	return n
}

// spans are the blocks of a group that are in use: [from, to). What is behind the end of the disk counts as that.
func (c *chart) spans(g uint32) [][2]uint32 {
	inGroup := func(block uint32) uint32 { return min(groupSize, block-min(block, g*groupSize)) }
	spans := [][2]uint32{{0, inGroup(c.used)}, {inGroup(c.blocks), groupSize}}
	if g == 0 {
		needed := (c.groups + descriptorsPerBlock - 1) / descriptorsPerBlock
		spans = append(spans[1:], [2]uint32{0, 1 + needed}, [2]uint32{1 + c.descriptors, inGroup(c.used)})
	}
	return spans
}

func setBits(b []byte, from, to uint32) {
	for i := from; i < to; i++ {
		b[i/8] |= 1 << (i % 8)
	}
}

// putInodes writes a block of the table, from the inode first on.
func (c *chart) putInodes(b []byte, first uint32) {
	for i := first; i < first+inodesPerBlock; i, b = i+1, b[inodeSize:] {
		switch {
		case i == rootInode:
			c.root.putInode(b)
		case i >= firstInode && i <= c.lastInode():
			c.inodes[i-firstInode].putInode(b)
		}
	}
}

func (n *placed) putInode(b []byte) {
	size, owned := n.size, n.blocks
	switch n.kind {
	case tar.TypeDir:
		size = int64(n.blocks) * blockSize
	case tar.TypeSymlink:
		size = int64(len(n.link))
	}
	for _, block := range []uint32{n.attributes, n.leaf} {
		if block != 0 {
			owned++
		}
	}
	flags := uint32(0x40000) // its blocks are blocks, and not sectors
	if n.blocks > 0 {
		flags |= 0x80000 // which extents say
	}
	seconds, rest := diskTime(n.mtime)
	le.PutUint16(b[0x00:], modeOf[n.kind]|uint16(n.mode))
	le.PutUint16(b[0x02:], uint16(n.uid))
	le.PutUint32(b[0x04:], uint32(size))
	for _, at := range []int{0x08, 0x0c, 0x10, 0x90} { // read, changed, written, made
		le.PutUint32(b[at:], seconds)
	}
	le.PutUint16(b[0x18:], uint16(n.gid))
	le.PutUint16(b[0x1a:], uint16(n.linkCount))
	le.PutUint32(b[0x1c:], owned)
	le.PutUint32(b[0x20:], flags)
	n.putBlockField(b[0x28:0x64])
	le.PutUint32(b[0x68:], n.attributes)
	le.PutUint32(b[0x6c:], uint32(size>>32))
	le.PutUint16(b[0x78:], uint16(n.uid>>16))
	le.PutUint16(b[0x7a:], uint16(n.gid>>16))
	le.PutUint16(b[0x80:], inodeUsed-128)
	for _, at := range []int{0x84, 0x88, 0x8c, 0x94} {
		le.PutUint32(b[at:], rest)
	}
	if here, _, _ := splitXattrs(n.xattrs); len(here) > 0 {
		le.PutUint32(b[inodeUsed:], xattrMagic)
		putXattrs(b[inodeUsed+4:inodeSize], here, 0)
	}
}

// putBlockField says where the content is, or what it is.
func (n *placed) putBlockField(b []byte) {
	switch {
	case n.leaf != 0:
		putExtentHeader(b, 1, maxInlineExtents, 1)
		le.PutUint32(b[extentSize+4:], n.leaf)
	case n.blocks > 0:
		n.putExtents(b, maxInlineExtents)
	case n.kind == tar.TypeSymlink:
		copy(b, n.link)
	case n.kind == tar.TypeChar, n.kind == tar.TypeBlock:
		le.PutUint32(b[4:], uint32(n.minor&0xff|n.major<<8|n.minor&^0xff<<12))
	}
}

func putExtentHeader(b []byte, entries, most, depth uint16) {
	le.PutUint16(b[0:], extentMagic)
	le.PutUint16(b[2:], entries)
	le.PutUint16(b[4:], most)
	le.PutUint16(b[6:], depth)
}

func (n *placed) putExtents(b []byte, most uint16) {
	putExtentHeader(b, uint16(n.extents()), most, 0)
	for at := uint32(0); at < n.blocks; at += maxExtent {
		b = b[extentSize:]
		le.PutUint32(b[0:], at)
		le.PutUint16(b[4:], uint16(min(maxExtent, n.blocks-at)))
		le.PutUint32(b[8:], n.start+at)
	}
}

func (n *placed) putLeaf(d *diskFile) {
	if n.leaf != 0 {
		n.putExtents(d.block(), maxLeafExtents)
	}
}

func (n *placed) putAttributes(b []byte) {
	_, there, _ := splitXattrs(n.xattrs)
	le.PutUint32(b[0:], xattrMagic)
	le.PutUint32(b[4:], 1) // its reference count
	le.PutUint32(b[8:], 1) // in one block
	putXattrs(b[xattrHeader:], there, xattrHeader)
}

func entrySize(name string) int { return (8 + len(name) + 3) &^ 3 }

func (c *chart) putDirectory(d *diskFile, dir *placed) {
	parent := dir.parent
	if parent == nil {
		parent = dir
	}
	first := true
	for names := range dir.entriesByBlock() {
		b := d.block()
		if first {
			b = putEntry(b, ".", dir)
			b = putEntry(b, "..", parent)
			first = false
		}
		for _, n := range names {
			b = putEntry(b, n.name, n)
		}
		le.PutUint16(b[4:], uint16(len(b))) // a name of nothing
	}
}

// The kinds as directories tell them.
var kindOf = map[byte]byte{tar.TypeReg: 1, tar.TypeDir: 2, tar.TypeChar: 3, tar.TypeBlock: 4, tar.TypeFifo: 5, tar.TypeSymlink: 7}

func putEntry(b []byte, name string, n *placed) (rest []byte) {
	size := entrySize(name)
	le.PutUint32(b[0:], n.number)
	le.PutUint16(b[4:], uint16(size))
	b[6], b[7] = byte(len(name)), kindOf[n.kind]
	copy(b[8:], name)
	return b[size:]
}

// diskTime is t in an inode's two fields. The first has the lower 32 bits of the seconds, with their sign; the second how often 2³² is to be
// added, and the nanoseconds. Times before 1901 and after 2310 are told as those: ext4 would reach 2446, but what is there of it beyond 2310 e2fsck takes
// for times before 1970, as some old kernels wrote them.
func diskTime(t time.Time) (seconds, rest uint32) {
	const first, last = -1 << 31, 1<<33 + 1<<31 - 1
	sec := min(max(t.Unix(), first), last)
	epoch := (sec - int64(int32(sec))) >> 32
	return uint32(sec), uint32(epoch) | uint32(t.Nanosecond())<<2
}
