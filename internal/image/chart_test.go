package image

import (
	"archive/tar"
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// forLarge skips a test of much where the race detector makes it long. make unit runs these once more without.
func forLarge(t *testing.T) {
	if raceDetector {
		t.Skip("it takes too long with the race detector")
	}
}

// What an inode has no room for to say where it is has a block more for that, whatever it is.
func TestLeaf(t *testing.T) {
	for _, kind := range []byte{tar.TypeReg, tar.TypeDir} {
		n := &placed{inode: &inode{kind: kind}}
		if next := n.allotBlocks(10, maxInlineExtents*maxExtent); n.leaf != 0 || next != 10+maxInlineExtents*maxExtent {
			t.Errorf("four extents: %+v, and block %d comes next", n.place, next)
		}
		const blocks = maxInlineExtents*maxExtent + 1
		next := n.allotBlocks(10, blocks)
		if n.start != 10 || n.leaf != 10+blocks || next != n.leaf+1 {
			t.Errorf("five extents: %+v, and block %d comes next", n.place, next)
		}
		inode, leaf := make([]byte, inodeSize), make([]byte, blockSize)
		n.putInode(inode)
		n.putExtents(leaf, maxLeafExtents)
		if b := inode[0x28:]; le.Uint16(b[2:]) != 1 || le.Uint16(b[6:]) != 1 || le.Uint32(b[extentSize+4:]) != n.leaf || le.Uint32(inode[0x1c:]) != blocks+1 {
			t.Errorf("the inode says %x", inode)
		}
		if last := leaf[5*extentSize:]; le.Uint16(leaf[2:]) != 5 || le.Uint32(last) != 4*maxExtent || le.Uint16(last[4:]) != 1 || le.Uint32(last[8:]) != n.leaf-1 {
			t.Errorf("the leaf says %x", leaf[:6*extentSize])
		}
	}
}

// The leaf of a directory is written behind its names. One that needs it is too large for here, and so a small one is given one.
func TestLeafOfDirectory(t *testing.T) {
	write := func(leaf bool) []byte {
		root := newDir()
		root.entries["d"] = newDir()
		p := must(newPlan(root, 0, Limits{}.withDefaults()))
		c := must(newChart(p))
		if d := p.dirs[1]; leaf {
			d.leaf = d.start + 1
		}
		f := must(os.Create(filepath.Join(t.TempDir(), "disk")))
		defer f.Close()
		w := newDiskFile(t.Context(), f, nil, newMeter(Writing, 0, func(Progress) {}))
		defer w.stop()
		must(0, c.write(w))
		must(0, w.finish())
		return must(os.ReadFile(f.Name()))
	}
	without, with := write(false), write(true)
	if len(with) != len(without)+blockSize {
		t.Errorf("%d bytes, and %d without a leaf", len(with), len(without))
	}
	header := []byte{0x0a, 0xf3, 1, 0, maxLeafExtents & 0xff, maxLeafExtents >> 8, 0, 0}
	if n := bytes.Count(with, header); n != 1 || bytes.Contains(without, header) {
		t.Errorf("there are %d leaves", n)
	}
}

// 15 names of 245 bytes are in a block, and four extents have 131,072 blocks.
func TestLargeDirectory(t *testing.T) {
	forLarge(t)
	const blocks = maxInlineExtents*maxExtent + 1
	root := &placed{inode: newDir()}
	d := &placed{inode: newDir(), parent: root, name: "d"}
	first := &placed{inode: &inode{kind: tar.TypeFifo}, parent: root, name: "p"}
	p := &plan{dirs: []*placed{root, d}, others: []*placed{first}, blocks: blocks + 100, inodes: 3}
	name := &placed{inode: first.inode, parent: d, name: strings.Repeat("n", 245), first: first}
	for range 15*(blocks-1) + 1 { // one name so often: only how long it is matters here
		p.links = append(p.links, name)
	}
	c := must(newChart(p))
	if d.blocks != blocks || d.leaf != d.start+blocks {
		t.Errorf("it is in the %d blocks from %d on, and block %d says so", d.blocks, d.start, d.leaf)
	}
	f := must(os.OpenFile(os.DevNull, os.O_WRONLY, 0))
	defer f.Close()
	w := newDiskFile(t.Context(), f, nil, newMeter(Writing, 0, func(Progress) {}))
	defer w.stop()
	if err := c.write(w); err != nil || w.size != int64(c.blocks)*blockSize {
		t.Errorf("%d blocks of %d are written: %v", w.size/blockSize, c.blocks, err)
	}
}

// groupsFor is asked for the fewest groups, and of those with as few inodes as possible.
func TestGroupsFor(t *testing.T) {
	slowly := func(blocks, inodes uint32) (uint32, uint32) {
		for groups := max(1, blocks/groupSize); ; groups++ {
			for per := uint32(inodesPerBlock); per <= groupSize; per += inodesPerBlock {
				if groups*per >= inodes && blocks+groups*(per/inodesPerBlock+2) <= groups*groupSize {
					return groups, per
				}
			}
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	around := func(n uint32) uint32 { return max(2, n*r.Uint32N(5)+r.Uint32N(40)) - 2 }
	for range 1000 {
		blocks, inodes := 3+r.Uint32N(4_000_000), firstInode+r.Uint32N(2_000_000)
		switch r.IntN(4) {
		case 0:
			blocks = 3 + around(groupSize)
		case 1:
			blocks, inodes = 3+around(groupSize-3), firstInode+r.Uint32N(200)
		case 2:
			inodes = firstInode + around(groupSize)
		}
		groups, per := groupsFor(blocks, inodes)
		if wantGroups, wantPer := slowly(blocks, inodes); groups != wantGroups || per != wantPer {
			t.Fatalf("%d blocks and %d inodes: %d groups with %d inodes, want %d with %d", blocks, inodes, groups, per, wantGroups, wantPer)
		}
	}
}
