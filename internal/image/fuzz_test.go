package image

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/halevm/hale/api"
)

// small keeps what a fuzzer can ask for within seconds.
var small = Limits{Plain: 1 << 20, Logical: 8 << 20, RatioMin: 1 << 20, Entries: 1000, Members: 100}

// Whatever comes as an archive: an image that is ready, or a refusal that says why; never anything left behind.
func FuzzArchive(f *testing.F) {
	f.Add(dockerArchive(app("app")))
	f.Add(ociLayout(app("app")))
	f.Add(gzipped(linkedArchive()))
	f.Add(zstded(both()))
	f.Add(platforms())
	f.Fuzz(func(t *testing.T, archive []byte) {
		dir := t.TempDir()
		s := openStore(t, dir, Options{Limits: small})
		images, err := s.Import(t.Context(), bytes.NewReader(archive), ImportOptions{})
		if err == nil {
			for _, img := range images {
				readDisk(t, img.Disk)
				if err := s.Delete(t.Context(), img.Ref); err != nil && !errors.Is(err, api.NotFound) {
					t.Error(err)
				}
			}
		} else if _, ok := errors.AsType[*api.Error](err); !ok {
			t.Errorf("%v is no refusal", err)
		}
		if left := filesIn(t, dir); len(left) != 0 {
			t.Errorf("%v is left", left)
		}
	})
}

// Whatever comes as a layer, on top of another: a disk that can be read, or a refusal.
func FuzzLayer(f *testing.F) {
	for _, c := range stacks {
		for _, l := range c.tars() {
			f.Add(l)
		}
	}
	for _, name := range []string{"gnu", "pax-0.0", "pax-0.1", "pax-1.0"} {
		raw := must(os.ReadFile(filepath.Join("testdata", "sparse-"+name+".tar.gz")))
		var plain bytes.Buffer
		must(plain.ReadFrom(must(decompress(bytes.NewReader(raw)))))
		f.Add(plain.Bytes())
	}
	lower := layerTar(dir("a"), file("a/b", "lower"), symlink("d", "a"), hardlink("e", "a/b"))
	f.Fuzz(func(t *testing.T, upper []byte) {
		s := openStore(t, t.TempDir(), Options{Limits: small})
		images, err := s.Import(t.Context(), bytes.NewReader(dockerArchive(picture{name: "app", layers: [][]byte{lower, upper}})), ImportOptions{})
		if err == nil {
			readDisk(t, images[0].Disk)
		} else if _, ok := errors.AsType[*api.Error](err); !ok {
			t.Errorf("%v is no refusal", err)
		}
	})
}
