package image

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/Microsoft/hcsshim/ext4/tar2ext4"
)

// Another writer of such file systems, hcsshim's, is the reference for ours: from the same tree, told as a tar, it makes the same disk, bit for bit.

// byReference is the disk that the reference makes of layers.
func byReference(t testing.TB, layers []*layer) *os.File {
	t.Helper()
	limits := Limits{}.withDefaults()
	p := must(newPlan(must(stack(t.Context(), layers, limits)), len(layers), limits))
	open := must(openLayers(p, layers))
	defer closeLayers(open)
	r, w := io.Pipe()
	go func() {
		tw := tar.NewWriter(w)
		for _, list := range append(append([][]*placed{p.dirs, p.others}, p.files...), p.links) {
			for _, n := range list {
				must(0, tw.WriteHeader(referenceHeader(n)))
				if n.kind == tar.TypeReg && n.first == nil {
					must(io.CopyN(tw, must(open[n.layer].entry(n.entry)), n.size))
				}
			}
		}
		must(0, tw.Close())
		must(0, w.Close())
	}()
	f := must(os.Create(filepath.Join(t.TempDir(), "reference")))
	t.Cleanup(func() { f.Close() })
	if err := tar2ext4.ConvertTarToExt4(r, f, tar2ext4.MaximumDiskSize(p.diskSize())); err != nil {
		t.Fatal(err)
	}
	setPadding(t, f)
	return f
}

// setPadding sets the bits behind the last inode of each group. The reference leaves them unset, which e2fsck takes for damage, though the kernel
// never looks at them.
func setPadding(t testing.TB, f *os.File) {
	t.Helper()
	d := &disk{f: f}
	must(0, d.open())
	for g := range (d.inodes-1)/d.perGroup + 1 {
		at := int64(le.Uint32(must(d.read(blockSize+int64(g)*descriptorSize+4, 4)))) * blockSize
		b := must(d.read(at, blockSize))
		setBits(b, d.perGroup, groupSize)
		must(f.WriteAt(b, at))
	}
}

func referenceHeader(n *placed) *tar.Header {
	h := &tar.Header{Format: tar.FormatPAX, Name: "./" + n.path(), PAXRecords: make(map[string]string)}
	if n.first != nil {
		h.Typeflag, h.Linkname = tar.TypeLink, n.first.path()
		return h
	}
	// It writes seconds as 34 bits where ext4 has the lower 32 with their sign and, beside them, how often 2³² is to be added: right until 2038, and
	// wrong after it and before 1970. This is the time that makes it write the right one.
	low, high := diskTime(n.mtime)
	at := time.Unix(int64(low)|int64(high&3)<<32, int64(high>>2))
	h.Typeflag, h.Mode, h.Uid, h.Gid = n.kind, n.mode, n.uid, n.gid
	h.ModTime, h.AccessTime, h.ChangeTime = at, at, at
	h.Linkname, h.Devmajor, h.Devminor, h.Size = n.link, n.major, n.minor, n.size
	for name, value := range n.xattrs {
		h.PAXRecords[xattrPrefix+name] = value
	}
	return h
}

// asReference compares the disk of tars with the reference's.
func asReference(t *testing.T, tars ...[]byte) {
	t.Helper()
	layers := written(t, false, tars...)
	got, want := diskOf(t, layers), byReference(t, layers)
	if g, w := must(got.Stat()).Size(), must(want.Stat()).Size(); g != w {
		t.Fatalf("%d bytes, and the reference has %d", g, w)
	}
	g, w := make([]byte, 256*blockSize), make([]byte, 256*blockSize)
	for at := int64(0); ; at += int64(len(g)) {
		n, err := got.ReadAt(g, at)
		m, _ := want.ReadAt(w, at)
		for i := 0; !bytes.Equal(g[:n], w[:m]); i++ {
			if g[i] != w[i] {
				t.Fatalf("block %d has %#x at %#x, and the reference %#x", (at+int64(i))/blockSize, g[i], i%blockSize, w[i])
			}
		}
		if err == io.EOF {
			return
		}
	}
}

func TestAsReference(t *testing.T) {
	for _, c := range stacks {
		t.Run(c.name, func(t *testing.T) { asReference(t, c.tars()...) })
	}
	seeds := uint64(40)
	if raceDetector {
		seeds = 6
	}
	for seed := range seeds {
		t.Run(fmt.Sprint("random ", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			asReference(t, randomLayer(r), randomLayer(r))
		})
	}
}

// Disks of several groups: for their blocks, with inodes in each of them; for more extents than an inode has room for; for their inodes.
func TestGroupsAsReference(t *testing.T) {
	asReference(t, manyFiles(200), sparse(maxExtent*blockSize))
}

func TestLargeAsReference(t *testing.T) {
	forLarge(t)
	t.Run("blocks", func(t *testing.T) { asReference(t, sparse((maxInlineExtents*maxExtent+1)*blockSize)) })
	t.Run("inodes", func(t *testing.T) { asReference(t, manyFiles(groupSize+100)) })
}

// manyFiles is a layer of a directory with so many files.
func manyFiles(n int) []byte {
	entries := []entry{dir("d")}
	for i := range n {
		e := file(fmt.Sprintf("d/%d", i), "")
		e.Format, e.ModTime = tar.FormatUSTAR, time.Unix(1, 0)
		entries = append(entries, e)
	}
	return layerTar(entries...)
}

// sparse is a layer of one file that is all hole but for its last bytes, as GNU tar tells of it.
func sparse(size int64) []byte {
	const tail = "tail"
	e := file("sparse", tail)
	e.Format, e.ModTime = tar.FormatGNU, time.Unix(1, 0)
	b := layerTar(e)
	b[156] = tar.TypeGNUSparse
	copy(b[386:], fmt.Sprintf("%011o\x00%011o\x00", size-int64(len(tail)), len(tail)))
	copy(b[483:], fmt.Sprintf("%011o\x00", size))
	copy(b[148:], "        ")
	sum := 0
	for _, c := range b[:512] {
		sum += int(c)
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	return b
}

// randomLayer is a layer of some hundred entries of all kinds, some of which replace or hide others.
func randomLayer(r *rand.Rand) []byte {
	dirs, files := []string{"."}, []string{}
	var entries []entry
	for i := range r.IntN(400) {
		name := filepath.Join(dirs[r.IntN(len(dirs))], strings.Repeat("n", r.IntN(60))+fmt.Sprint(i%150))
		var e entry
		switch r.IntN(9) {
		case 0, 1:
			e = dir(name)
			dirs = append(dirs, name)
		case 2:
			e = symlink(name, strings.Repeat("l", 1+r.IntN(120)))
		case 3:
			e = device(tar.TypeChar, name, int64(1+r.IntN(maxMajor)), int64(r.IntN(maxMinor)))
		case 4:
			e = entryOf(tar.TypeFifo, name, "", 0o600)
		case 5:
			if len(files) > 0 {
				entries = append(entries, hardlink(name, files[r.IntN(len(files))]))
			}
			continue
		case 6:
			entries = append(entries, whiteout(name))
			continue
		default:
			e = file(name, string(randomBytes(r.IntN(3)*r.IntN(10_000))))
			files = append(files, name)
		}
		e = e.mode(r.Int64N(0o10000)).owner(r.IntN(1<<17), r.IntN(1<<17)).time(r.Int64N(1<<33)-1<<31, r.Int64N(1e9))
		for range r.IntN(8) * r.IntN(2) {
			space := []string{"user", "trusted", "security"}[r.IntN(3)]
			e = e.xattr(space+"."+strings.Repeat("x", r.IntN(20))+fmt.Sprint(r.IntN(100)), string(randomBytes(r.IntN(200))))
		}
		entries = append(entries, e)
	}
	if r.IntN(2) == 0 {
		entries = append(entries, dir(lostDir).xattr("user.large", strings.Repeat("v", 200)), dir(lostDir+"/below"), file(lostDir+"/below/f", "x"))
	}
	return layerTar(entries...)
}
