package image

import (
	"archive/tar"
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// e2fsck is the last word on what a sound file system is: it knows things that the kernel puts up with.

// checked fails the test unless e2fsck finds nothing wrong with a disk.
func checked(t *testing.T, name string) {
	t.Helper()
	e2fsck := "/usr/sbin/e2fsck" // which Debian keeps where an ordinary user's PATH does not lead
	if p, err := exec.LookPath("e2fsck"); err == nil {
		e2fsck = p
	} else if _, err := os.Stat(e2fsck); err != nil {
		t.Skip("e2fsck is not installed (hale setup installs it)")
	}
	out, err := exec.Command(e2fsck, "-fn", name).CombinedOutput()
	if err != nil || bytes.Contains(out, []byte("? no")) || bytes.Contains(out, []byte("WARNING")) {
		t.Errorf("e2fsck: %v\n%.2000s", err, out)
	}
}

func TestFsck(t *testing.T) {
	for _, c := range append(stacks, stacked{name: "at the bounds", layers: [][]entry{atBounds()}}) {
		t.Run(c.name, func(t *testing.T) { checked(t, diskOf(t, written(t, false, c.tars()...)).Name()) })
	}
	for seed := range uint64(6) {
		t.Run(fmt.Sprint("random ", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 2))
			checked(t, diskOf(t, written(t, false, randomLayer(r), randomLayer(r))).Name())
		})
	}
}

// atBounds is a layer of links, attributes and times around what decides where and how they lie on the disk.
func atBounds() []entry {
	var entries []entry
	for _, n := range []int{maxInlineLink - 1, maxInlineLink, maxInlineLink + 1, maxInlineLink + 2, maxPath - 1, maxPath} {
		link := symlink(fmt.Sprint("l", n), strings.Repeat("t", n))
		attributes := symlink(fmt.Sprint("a", n), link.Linkname).xattr("security.x", strings.Repeat("v", 200))
		entries = append(entries, link, attributes)
	}
	for i, sec := range []int64{-1, -1 << 31, -1<<31 - 1, 1<<31 - 1, 1 << 31, 1<<32 - 1, 1 << 32, 1<<33 + 1<<31 - 1, 1<<33 + 1<<31, 1 << 40, -1 << 60} {
		entries = append(entries, file(fmt.Sprint("t", i), "").time(sec, 999_999_999))
	}
	for n := range 32 {
		entries = append(entries,
			file(fmt.Sprint("inode", n), "").xattr("user.bcd", strings.Repeat("v", 56+n)).xattr("user.zz", "1"),
			file(fmt.Sprint("block", n), "").xattr("user.bcd", strings.Repeat("v", 4008+n)),
		)
		many := file(fmt.Sprint("many", n), "")
		for i := range 4 * n {
			many = many.xattr(fmt.Sprint("user.k", i), "vvv")
		}
		entries = append(entries, many)
	}
	deep := strings.TrimSuffix(strings.Repeat("d/", 500), "/")
	return append(entries, file(deep+"/f", "deep"), file("empty", "").xattr("user.e", "").xattr("user."+strings.Repeat("n", 250), ""))
}

// treeOf is a tree of so many fifos, and of a file.
func treeOf(fifos int, blocks int64) *inode {
	root := newDir()
	for i := range fifos {
		root.entries[fmt.Sprint(i)] = &inode{kind: tar.TypeFifo, mtime: time.Unix(1, 0)}
	}
	root.entries["f"] = &inode{kind: tar.TypeReg, size: blocks * blockSize, mtime: time.Unix(1, 0)}
	return root
}

func chartOf(root *inode) *chart {
	return must(newChart(must(newPlan(root, 1, Limits{}.withDefaults()))))
}

// checkedChart is checked of the disk of c, whose files are nothing but zeros.
func checkedChart(t *testing.T, c *chart) {
	t.Helper()
	dir := t.TempDir()
	zeros := must(os.Create(filepath.Join(dir, "layer")))
	defer zeros.Close()
	must(0, zeros.Truncate(2*groupSize*blockSize))
	f := must(os.Create(filepath.Join(dir, "disk")))
	defer f.Close()
	w := newDiskFile(t.Context(), f, []*openLayer{{f: zeros}}, newMeter(Writing, 0, func(Progress) {}))
	defer w.stop()
	must(0, c.write(w))
	must(0, w.finish())
	checked(t, f.Name())
}

// Disks that use a group but for its last block, the whole of it, and more.
func TestLargeFullGroups(t *testing.T) {
	forLarge(t)
	left := []func(c *chart) bool{
		func(c *chart) bool { return c.groups == 1 && c.used == groupSize-1 },
		func(c *chart) bool { return c.groups == 1 && c.used == groupSize },
		func(c *chart) bool { return c.groups == 2 },
	}
	for blocks := int64(groupSize - 20); len(left) > 0; blocks++ {
		if c := chartOf(treeOf(0, blocks)); left[0](c) {
			checkedChart(t, c)
			left = left[1:]
		} else if c.groups > 2 {
			t.Fatalf("%d cases are not met", len(left))
		}
	}
}

func TestLargeFsck(t *testing.T) {
	forLarge(t)
	for _, fifos := range []int{groupSize - firstInode - 1, groupSize - firstInode, 2*groupSize - firstInode} {
		c := chartOf(treeOf(fifos, 0))
		checkedChart(t, c)
		if want := uint32(fifos+firstInode)/groupSize + 1; c.lastInode() != uint32(fifos+firstInode+1) || c.groups != want {
			t.Errorf("%d fifos: the last inode is %d, in %d groups; want %d", fifos, c.lastInode(), c.groups, want)
		}
	}
}
