package image

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
	"time"
)

// A node is what a test sees of one file, on a disk or below a mount.
type node struct {
	ino      uint64
	mode     uint32 // with the type, as in stat(2)
	uid, gid uint32
	mtime    time.Time
	data     []byte // of a regular file
	link     string // of a symbolic one
	rdev     [2]uint32
	xattrs   map[string]string
}

const (
	typeMask = 0o170000
	typeDir  = 0o040000
	typeReg  = 0o100000
	typeLink = 0o120000
	typeChar = 0o020000
	typeBlk  = 0o060000
)

// A view is a tree of nodes by their paths; "." is the root.
type view map[string]node

// lines describes a view, one line for each path, in order. Hard links are told by the first of their names.
func (v view) lines() []string {
	var lines []string
	first := make(map[uint64]string)
	for _, name := range slices.Sorted(maps.Keys(v)) {
		n := v[name]
		var b strings.Builder
		fmt.Fprintf(&b, "%s %06o %d:%d %s", name, n.mode, n.uid, n.gid, n.mtime.UTC().Format(time.RFC3339Nano))
		switch n.mode & typeMask {
		case typeReg:
			if sum := sha256.Sum256(n.data); len(n.data) > 40 {
				fmt.Fprintf(&b, " %d bytes %x", len(n.data), sum[:8])
			} else {
				fmt.Fprintf(&b, " %q", n.data)
			}
		case typeLink:
			fmt.Fprintf(&b, " -> %s", n.link)
		case typeChar, typeBlk:
			fmt.Fprintf(&b, " %d:%d", n.rdev[0], n.rdev[1])
		}
		for _, x := range slices.Sorted(maps.Keys(n.xattrs)) {
			fmt.Fprintf(&b, " %s=%q", x, n.xattrs[x])
		}
		if other, ok := first[n.ino]; ok && n.mode&typeMask != typeDir {
			fmt.Fprintf(&b, " = %s", other)
		} else {
			first[n.ino] = name
		}
		lines = append(lines, b.String())
	}
	return lines
}

// differences compares two views, for a message.
func differences(got, want view) string {
	g, w := got.lines(), want.lines()
	var b strings.Builder
	for _, l := range g {
		if !slices.Contains(w, l) {
			fmt.Fprintf(&b, "+ %s\n", l)
		}
	}
	for _, l := range w {
		if !slices.Contains(g, l) {
			fmt.Fprintf(&b, "- %s\n", l)
		}
	}
	return b.String()
}

// readDisk reads a disk back, in terms of the kernel's documentation (filesystems/ext4) and of nothing else.
// The directory lost+found, which every such disk has, is left out unless there is something in it.
func readDisk(t testing.TB, name string) view {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d := &disk{f: f, v: make(view)}
	err = d.open()
	if err == nil {
		err = d.walk(2, ".")
	}
	if err != nil {
		t.Fatalf("the disk %s: %v", name, err)
	}
	return d.v
}

type disk struct {
	f              *os.File
	perGroup       uint32
	v              view
	inodes, blocks uint32
}

func (d *disk) read(off int64, n int) ([]byte, error) {
	b := make([]byte, n)
	_, err := d.f.ReadAt(b, off)
	return b, err
}

func (d *disk) open() error {
	sb, err := d.read(1024, 1024)
	if err != nil {
		return err
	}
	if le.Uint16(sb[56:]) != 0xef53 || le.Uint32(sb[24:]) != 2 || le.Uint16(sb[88:]) != 256 {
		return errors.New("not an ext4 of blocks of 4096 and inodes of 256 bytes")
	}
	d.inodes, d.blocks, d.perGroup = le.Uint32(sb), le.Uint32(sb[4:]), le.Uint32(sb[40:])
	info, err := d.f.Stat()
	if err == nil && info.Size() < int64(d.blocks)*blockSize {
		err = fmt.Errorf("%d blocks in %d bytes", d.blocks, info.Size())
	}
	return err
}

func (d *disk) inode(n uint32) ([]byte, error) {
	if n == 0 || n > d.inodes {
		return nil, fmt.Errorf("inode %d of %d", n, d.inodes)
	}
	desc, err := d.read(blockSize+int64((n-1)/d.perGroup)*32, 32)
	if err != nil {
		return nil, err
	}
	return d.read(int64(le.Uint32(desc[8:]))*blockSize+int64((n-1)%d.perGroup)*256, 256)
}

func (d *disk) walk(number uint32, name string) error {
	raw, err := d.inode(number)
	if err != nil {
		return err
	}
	sec, extra := int64(int32(le.Uint32(raw[16:]))), le.Uint32(raw[136:])
	n := node{
		ino: uint64(number), mode: uint32(le.Uint16(raw)),
		uid:   uint32(le.Uint16(raw[2:])) | uint32(le.Uint16(raw[120:]))<<16,
		gid:   uint32(le.Uint16(raw[24:])) | uint32(le.Uint16(raw[122:]))<<16,
		mtime: time.Unix(sec+int64(extra&3)<<32, int64(extra>>2)),
	}
	if n.xattrs, err = d.xattrs(raw); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	size := int64(le.Uint32(raw[4:])) | int64(le.Uint32(raw[108:]))<<32
	switch n.mode & typeMask {
	case typeReg:
		n.data, err = d.content(raw, size)
	case typeLink:
		if n.link = string(raw[40 : 40+min(size, 60)]); size >= 60 {
			var b []byte
			b, err = d.content(raw, size)
			n.link = string(b)
		}
	case typeChar, typeBlk:
		dev := le.Uint32(raw[44:])
		n.rdev = [2]uint32{dev >> 8 & 0xfff, dev&0xff | dev>>12&0xfff00}
	case typeDir:
		var b []byte
		if b, err = d.content(raw, size); err == nil {
			err = d.children(b, name)
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	d.v[name] = n
	if name == lostDir && !slices.ContainsFunc(slices.Collect(maps.Keys(d.v)), func(p string) bool { return strings.HasPrefix(p, lostDir+"/") }) {
		delete(d.v, name)
	}
	return nil
}

func (d *disk) children(b []byte, dir string) error {
	for len(b) > 0 {
		ino, length, name := le.Uint32(b), int(le.Uint16(b[4:])), string(b[8:8+int(b[6])])
		if length < 8 || length > len(b) {
			return fmt.Errorf("a directory entry of %d bytes", length)
		}
		b = b[length:]
		if ino == 0 || name == "." || name == ".." {
			continue
		}
		if err := d.walk(ino, path.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// content reads what the extents of an inode hold.
func (d *disk) content(raw []byte, size int64) ([]byte, error) {
	data := make([]byte, size)
	if size == 0 {
		return data, nil
	}
	return data, d.extents(raw[40:100], data)
}

func (d *disk) extents(b, data []byte) error {
	if le.Uint16(b) != 0xf30a {
		return errors.New("no extents")
	}
	entries, depth := int(le.Uint16(b[2:])), le.Uint16(b[6:])
	for e := b[12:]; entries > 0; e, entries = e[12:], entries-1 {
		if depth > 0 {
			below, err := d.read(int64(le.Uint32(e[4:]))*blockSize, blockSize)
			if err == nil {
				err = d.extents(below, data)
			}
			if err != nil {
				return err
			}
			continue
		}
		from := int64(le.Uint32(e)) * blockSize
		n := min(int64(le.Uint16(e[4:]))*blockSize, int64(len(data))-from)
		if n < 0 {
			return fmt.Errorf("an extent at %d of %d bytes", from, len(data))
		}
		if _, err := d.f.ReadAt(data[from:from+n], int64(le.Uint32(e[8:]))*blockSize); err != nil {
			return err
		}
	}
	return nil
}

func (d *disk) xattrs(raw []byte) (map[string]string, error) {
	found := make(map[string]string)
	if in := raw[128+le.Uint16(raw[128:]):]; le.Uint32(in) == 0xea020000 {
		readXattrEntries(in[4:], in[4:], found)
	}
	if block := le.Uint32(raw[104:]); block != 0 {
		b, err := d.read(int64(block)*blockSize, blockSize)
		if err != nil {
			return nil, err
		}
		if le.Uint32(b) != 0xea020000 {
			return nil, errors.New("a block of attributes that is none")
		}
		if last := readXattrEntries(b[32:], b, found); last != "" {
			return nil, fmt.Errorf("the kernel would not find the attribute %s: they are out of order", last)
		}
	}
	return found, nil
}

// readXattrEntries returns the first name that is not where the kernel's search in a block would look for it.
func readXattrEntries(e, values []byte, found map[string]string) (misplaced string) {
	prefixes := map[byte]string{1: "user.", 2: aclAccess, 3: aclDefault, 4: "trusted.", 6: "security."}
	var before []byte
	for le.Uint32(e) != 0 {
		n := int(e[0])
		prefix, ok := prefixes[e[1]]
		name, size := prefix+string(e[16:16+n]), int(le.Uint32(e[8:]))
		value := values[le.Uint16(e[2:]):][:size]
		key := append([]byte{e[1], e[0]}, e[16:16+n]...)
		if !ok || bytes.Compare(before, key) >= 0 {
			misplaced = name
		}
		before = key
		found[name] = string(value)
		if e[1] == 2 || e[1] == 3 {
			found[name] = kernelACL(value)
		}
		e = e[16+(n+3)&^3:]
	}
	return misplaced
}

// kernelACL is an access control list as the kernel shows the one on the disk.
func kernelACL(b []byte) string {
	out := le.AppendUint32(nil, 2)
	for b = b[4:]; len(b) > 0; {
		tag := le.Uint16(b)
		out = append(out, b[:4]...)
		b = b[4:]
		if id := uint32(1<<32 - 1); tag == aclUser || tag == aclGroup {
			out, b = append(out, b[:4]...), b[4:]
		} else {
			out = le.AppendUint32(out, id)
		}
	}
	return string(out)
}
