package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
)

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(n)}).Read(b)
	return b
}

// Content around the sizes of blocks, windows and pieces.
func TestSizesOfContent(t *testing.T) {
	want := make(map[string][]byte)
	var lower, upper []entry
	for _, base := range []int{0, blockSize, windowSize / 4, windowSize, pieceSize, maxPieces*pieceSize + blockSize} {
		for _, more := range []int{-100, -1, 0, 1, 100} {
			if base+more < 0 {
				continue
			}
			name := fmt.Sprint("f", base+more)
			want[name] = randomBytes(base + more)
			if len(want)%2 == 0 {
				lower = append(lower, file(name, string(want[name])))
			} else {
				lower = append(lower, file(name, "below"))
				upper = append(upper, file(name, string(want[name])))
			}
		}
	}
	holes := append(append(randomBytes(10_000), make([]byte, 2<<20)...), randomBytes(10_000)...)
	want["holes"] = holes
	upper = append(upper, file("holes", string(holes)))
	s := openStore(t, t.TempDir(), Options{})
	v := readDisk(t, importLayers(t, s, layerTar(lower...), layerTar(upper...)))
	for name, data := range want {
		if !bytes.Equal(v[name].data, data) {
			t.Errorf("%s: %d bytes are on the disk that are not its content", name, len(v[name].data))
		}
	}
	for _, img := range s.List() {
		var all int64
		for _, data := range want {
			all += int64(len(data))
		}
		if img.Size > all-(2<<20)+(1<<20) {
			t.Errorf("the disk takes %d bytes for %d, of which 2 MiB are zeros", img.Size, all)
		}
	}
}

// flattened is the disk of layers; their trees are made while they are written, or after that.
func flattened(t *testing.T, early bool, tars ...[]byte) []byte {
	t.Helper()
	return must(os.ReadFile(diskOf(t, written(t, early, tars...)).Name()))
}

// written are layers that have arrived.
func written(t *testing.T, early bool, tars ...[]byte) []*layer {
	t.Helper()
	dir := t.TempDir()
	var layers []*layer
	for i, b := range tars {
		f := must(os.Create(filepath.Join(dir, fmt.Sprint(i))))
		l := &layer{number: i + 1, plain: f.Name()}
		w := follow(t.Context(), newEarlyBudget())
		side := newSideWriter(f, w.pass)
		must(io.Copy(side, bytes.NewReader(b)))
		must(side.finish())
		if l.early = w.finish(); (l.early.tree.Load() == nil) != !soundTar(b) {
			t.Errorf("layer %d: the tree that was made on the way is %v", i, l.early.tree.Load())
		}
		if !early {
			l.early = nil
		}
		must(0, f.Close())
		layers = append(layers, l)
	}
	return layers
}

func diskOf(t *testing.T, layers []*layer) *os.File {
	t.Helper()
	f := must(os.Create(filepath.Join(t.TempDir(), "disk")))
	t.Cleanup(func() { f.Close() })
	if err := flatten(t.Context(), layers, f, Limits{}.withDefaults(), func(Progress) {}); err != nil {
		t.Fatal(err)
	}
	return f
}

func soundTar(b []byte) bool {
	return readEntries(context.Background(), newWindow(bytes.NewReader(b)), newLayerTree(0, newEarlyBudget()).add) == nil
}

// A tree that is made while the layer arrives is the one that is made when it is there, and a disk is the same each time.
func TestEarlyTrees(t *testing.T) {
	for _, c := range stacks {
		if early, late := flattened(t, true, c.tars()...), flattened(t, false, c.tars()...); !bytes.Equal(early, late) {
			t.Errorf("%s: the disks differ", c.name)
		}
	}
	same := layerTar(dir("d"), file("d/f", string(randomBytes(100_000))), hardlink("d/g", "d/f"), whiteout("d/h"))
	disk := importLayers(t, openStore(t, t.TempDir(), Options{}), same, layerTar(whiteout("d/f")), same) // one tree, of one member
	if v := readDisk(t, disk); len(v["d/f"].data) != 100_000 || v["d/f"].ino != v["d/g"].ino {
		t.Errorf("a layer that is there twice: %v", v.lines())
	}
}

// A layer with more entries than early trees may have gets none, and leaves room for the next.
func TestEarlyTreeTooLarge(t *testing.T) {
	var entries []entry
	for i := range 20 {
		entries = append(entries, file(fmt.Sprint(i), "x"))
	}
	b := &budget{limits: Limits{Entries: 19, Names: 1000}}
	tree := func(entries []entry) *layerTree {
		w := follow(t.Context(), b)
		w.pass(layerTar(entries...))
		return w.finish().tree.Load()
	}
	if tree(entries) != nil {
		t.Error("there is a tree beyond the bound")
	}
	if tree(entries[:19]) == nil {
		t.Error("there is no tree within the bound")
	}
	if tree(entries[:1]) != nil {
		t.Error("there is a further tree beyond the bound")
	}
}

// A follower makes the same of a layer in whatever pieces it passes.
func TestFollowerPieces(t *testing.T) {
	for _, c := range stacks {
		for i, b := range c.tars() {
			want := newLayerTree(0, newEarlyBudget())
			must(0, readEntries(t.Context(), newWindow(bytes.NewReader(b)), want.add))
			for _, n := range []int{1, 511, 512, 513, 5000, len(b)} {
				w := follow(t.Context(), newEarlyBudget())
				for piece := range slices.Chunk(b, n) {
					w.pass(bytes.Clone(piece))
				}
				if got := w.finish().tree.Load(); !reflect.DeepEqual(got, want) {
					t.Errorf("%s, layer %d, in pieces of %d: %v", c.name, i, n, got)
				}
			}
		}
	}
}

// A follower whose layer is never whole ends.
func TestFollowerDropped(t *testing.T) {
	b := newEarlyBudget()
	w := follow(t.Context(), b)
	w.pass(layerTar(file("a", "x"), file("b", "x"))[:1536])
	w.drop()
	if w.tree != nil || b.entries.Load() != 0 {
		t.Errorf("it left %v and %d entries", w.tree, b.entries.Load())
	}
}

func TestSideWriter(t *testing.T) {
	for _, n := range []int{0, 1, 4 << 10, sidePiece - 1, sidePiece, sidePiece + 1, 10*sidePiece + 5} {
		data := randomBytes(n)
		f := must(os.Create(filepath.Join(t.TempDir(), "f")))
		w := newSideWriter(f, nil)
		for rest, k := data, 1; len(rest) > 0; k = (k*3 + 1) % 100_000 { // pieces of many sizes
			m := min(k, len(rest))
			must(w.Write(rest[:m]))
			rest = rest[m:]
		}
		sum, err := w.finish()
		want := sha256.Sum256(data)
		if got := must(os.ReadFile(f.Name())); err != nil || sum != hex.EncodeToString(want[:]) || !bytes.Equal(got, data) || w.n != int64(n) {
			t.Errorf("%d bytes: %v, %s, %d in the file", n, err, sum, len(got))
		}
		must(0, f.Close())
	}
}

// What cannot be written is told, however much more comes.
func TestSideWriterFails(t *testing.T) {
	for _, n := range []int{1, 20 * sidePiece} {
		f := must(os.Open(os.DevNull)) // for reading only
		w := newSideWriter(f, nil)
		var err error
		for left := n; left > 0 && err == nil; left -= 1 << 10 {
			_, err = w.Write(make([]byte, min(left, 1<<10)))
		}
		for range 3 * sidePieces * sidePiece / (1 << 10) {
			_, _ = w.Write(make([]byte, 1<<10))
		}
		if _, err := w.finish(); !errors.As(err, new(*os.PathError)) {
			t.Errorf("%d bytes: %v", n, err)
		}
		w.stop()
		must(0, f.Close())
	}
}

// A diskFile holds what was written to it, block by block, with holes where there are zeros.
func TestDiskFile(t *testing.T) {
	dir := t.TempDir()
	data := randomBytes(3 * pieceSize / 2)
	must(0, os.WriteFile(filepath.Join(dir, "layer"), data, 0o600))
	l := &openLayer{f: must(os.Open(filepath.Join(dir, "layer")))}
	defer l.f.Close()
	f := must(os.Create(filepath.Join(dir, "disk")))
	defer f.Close()
	d := newDiskFile(t.Context(), f, []*openLayer{l}, newMeter(Writing, 0, func(Progress) {}))
	defer d.stop()
	random := rand.New(rand.NewPCG(1, 2))
	var want []byte
	for len(want) < 16<<20 {
		switch n := random.IntN(4); n {
		case 0:
			for range random.IntN(200) {
				b := randomBytes(random.IntN(blockSize))
				copy(d.block(), b)
				want = append(append(want, b...), make([]byte, blockSize-len(b))...)
			}
		case 1:
			n := random.IntN(200)
			d.skip(int64(n))
			want = append(want, make([]byte, n*blockSize)...)
		default:
			from := random.IntN(len(data))
			n := random.IntN(len(data) - from)
			d.content(&placed{inode: &inode{offset: int64(from), size: int64(n)}})
			want = append(append(want, data[from:from+n]...), make([]byte, -n&(blockSize-1))...)
		}
	}
	if err := d.finish(); err != nil {
		t.Fatal(err)
	}
	if got := must(os.ReadFile(f.Name())); !bytes.Equal(got, want) {
		t.Errorf("%d bytes are not the %d that were written", len(got), len(want))
	}
}

// What goes wrong with a layer, or with everything, ends a disk, however much of it is to come.
func TestDiskFileFails(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errAbandoned)
	for _, c := range []struct {
		ctx   context.Context
		files int
		size  int64
		want  error
	}{{t.Context(), 1, 6, io.EOF}, {t.Context(), 3, 100 << 20, io.EOF}, {ctx, 1, 5, errAbandoned}, {ctx, 10_000, 5, errAbandoned}} {
		dir := t.TempDir()
		must(0, os.WriteFile(filepath.Join(dir, "layer"), []byte("short"), 0o600)) // or it was cut off meanwhile
		l := &openLayer{f: must(os.Open(filepath.Join(dir, "layer")))}
		f := must(os.Create(filepath.Join(dir, "disk")))
		d := newDiskFile(c.ctx, f, []*openLayer{l}, newMeter(Writing, 0, func(Progress) {}))
		for range c.files {
			d.content(&placed{inode: &inode{size: c.size}})
		}
		if err := d.finish(); !errors.Is(err, c.want) {
			t.Errorf("%d files of %d bytes: %v, want %v", c.files, c.size, err, c.want)
		}
		d.stop()
		l.f.Close()
		f.Close()
	}
}
