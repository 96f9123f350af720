package image

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// maze is a layer of 40 links, each through the same directory 800 times to the next; the last leads to the directory.
func maze() []entry {
	entries := []entry{dir("x")}
	for i := range maxSymlinks - 1 {
		entries = append(entries, symlink(fmt.Sprint("l", i), strings.Repeat("x/../", 800)+fmt.Sprint("l", i+1)))
	}
	return append(entries, symlink(fmt.Sprint("l", maxSymlinks-1), "x"))
}

// Paths that lead through long links cost time for each entry below them, and that has an end, wherever they are walked.
func TestWalksHaveAnEnd(t *testing.T) {
	const steps = 2 * 800 * (maxSymlinks - 1) // of one path through the maze, at least
	limits := Limits{Entries: 3 * steps / stepsPerEntry}
	says := fmt.Sprintf("more than %d parts in all", stepsPerEntry*limits.Entries)
	var below, links, lower []entry
	for i := range 5 {
		below = append(below, file(fmt.Sprint("l0/f", i), ""))
		links = append(links, hardlink(fmt.Sprint("h", i), fmt.Sprint("l0/f", i)))
		lower = append(lower, file(fmt.Sprint("x/f", i), ""))
	}
	for name, c := range map[string]struct {
		layers [][]byte
		says   string // nothing where it is possible
	}{
		"two files":                  {[][]byte{layerTar(append(maze(), below[:2]...)...)}, ""},
		"files":                      {[][]byte{layerTar(append(maze(), below...)...)}, says},
		"files of two layers":        {[][]byte{layerTar(append(maze(), below[:2]...)...), layerTar(append(maze(), below[2:]...)...)}, says},
		"links":                      {[][]byte{layerTar(append(maze(), append(lower, links...)...)...)}, says},
		"two links to a layer below": {[][]byte{layerTar(append(maze(), lower...)...), layerTar(links[:2]...)}, ""},
		"links to a layer below":     {[][]byte{layerTar(append(maze(), lower...)...), layerTar(links...)}, says},
	} {
		for form, pack := range map[string]func([]byte) []byte{"plain": nil, "gzip": gzipped} {
			t.Run(name+", "+form, func(t *testing.T) {
				s := openStore(t, t.TempDir(), Options{Limits: limits})
				images, err := s.Import(t.Context(), bytes.NewReader(dockerArchive(picture{name: "app", layers: c.layers, pack: pack})), ImportOptions{})
				if c.says == "" {
					if err != nil || readDisk(t, images[0].Disk)["x/f1"].mode&typeMask != typeReg {
						t.Error(err)
					}
					return
				}
				refused(t, err, "image_too_large", c.says)
			})
		}
	}
}

// The same of trees that are made early; and however many layers get none, they have no more time together.
func TestEarlyWalksHaveAnEnd(t *testing.T) {
	b := newEarlyBudget()
	entries := maze()
	for i := range 60 {
		entries = append(entries, file(fmt.Sprint("l0/f", i), ""))
	}
	layer := layerTar(entries...)
	for range 10 {
		w := follow(t.Context(), b)
		w.pass(layer)
		if w.finish().tree.Load() != nil {
			t.Error("there is a tree beyond the bound")
		}
	}
	if n := b.steps.Load(); n < stepsPerEntry*earlyEntries || n > stepsPerEntry*earlyEntries+20 {
		t.Errorf("%d parts were walked", n)
	}
	if n := b.entries.Load(); n != 0 {
		t.Errorf("%d entries are still counted", n)
	}
}
