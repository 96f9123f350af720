package image

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/halevm/hale/api"
)

// small keeps what a fuzzer can ask for within seconds.
var small = Limits{Plain: 1 << 20, Logical: 8 << 20, RatioMin: 1 << 20, Entries: 1000, Members: 100}

// memory is a directory that is in memory where the host has one: most of an import's time is the disk's, which has
// to have everything before it counts.
func memory(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "hale-fuzz-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// Whatever comes as an archive: an image that is ready, or a refusal that says why; never anything left behind.
func FuzzArchive(f *testing.F) {
	f.Add(dockerArchive(app("app")))
	f.Add(ociLayout(app("app")))
	f.Add(gzipped(linkedArchive()))
	f.Add(zstded(both()))
	f.Add(platforms())
	f.Fuzz(func(t *testing.T, archive []byte) {
		dir := memory(t)
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
	f.Add(layerTar(append(maze(), file("l0/f", ""), hardlink("h", "l0/f"), hardlink("i", "l3/f"))...))
	lower := layerTar(dir("a"), file("a/b", "lower"), symlink("d", "a"), hardlink("e", "a/b"))
	f.Fuzz(func(t *testing.T, upper []byte) {
		s := openStore(t, memory(t), Options{Limits: small})
		images, err := s.Import(t.Context(), bytes.NewReader(dockerArchive(picture{name: "app", layers: [][]byte{lower, upper}})), ImportOptions{})
		if err == nil {
			readDisk(t, images[0].Disk)
		} else if _, ok := errors.AsType[*api.Error](err); !ok {
			t.Errorf("%v is no refusal", err)
		}
	})
}

// Whatever a registry delivers as a manifest, with whatever configuration: an index of which one image is chosen, a manifest
// whose parts can be asked for, or a refusal that says why.
func FuzzManifest(f *testing.F) {
	reg := newRegistry()
	ours := reg.image("app", app("app"), nil)
	config := app("app").configuration()
	for _, raw := range reg.manifests {
		f.Add(raw, string(types.OCIManifestSchema1), config)
	}
	for _, i := range []v1.IndexManifest{index(), index(ours), index(of(ours, amd(""))), index(of(ours, amd("v3")), of(ours, &v1.Platform{OS: "linux", Architecture: "arm64"}))} {
		f.Add(must(json.Marshal(i)), string(types.OCIImageIndex), config)
	}
	f.Add([]byte(`{"schemaVersion":1,"fsLayers":[{"blobSum":"sha256:0"}]}`), string(types.DockerManifestSchema1Signed), []byte("{}"))
	f.Add([]byte(`{"manifests":[],"config":{},"layers":null}`), "", []byte("null"))
	f.Fuzz(func(t *testing.T, raw []byte, kind string, config []byte) {
		refusedOr := func(err error) bool {
			if _, ok := errors.AsType[*api.Error](err); err != nil && !ok {
				t.Errorf("%v is no refusal", err)
			}
			return err != nil
		}
		index, m, err := readManifest(raw, types.MediaType(kind), small)
		if refusedOr(err) {
			return
		}
		if (index == nil) == (m == nil) {
			t.Fatal("neither an index nor a manifest, or both")
		}
		if index != nil {
			d, err := choose(index)
			if refusedOr(err) {
				return
			}
			if p := d.Platform; p != nil && p.OS+p.Architecture != "" && p.OS+"/"+p.Architecture != amd64 || !isHex(d.Digest.Hex) || d.Size < 0 {
				t.Errorf("chose %+v", d)
			}
			return
		}
		var blobs []member
		var total int64
		for _, d := range m.Layers {
			if d.Digest.Algorithm != "sha256" || !isHex(d.Digest.Hex) || d.Size < 0 || strings.ContainsAny(d.Digest.Hex, "/.") {
				t.Errorf("takes %+v", d)
			}
			total += d.Size
			blobs = append(blobs, member{size: d.Size, sha256: d.Digest.Hex})
		}
		if total > small.Plain {
			t.Errorf("takes %d bytes", total)
		}
		if layers, err := pairLayers(config, blobs, small); !refusedOr(err) && len(layers) != len(blobs) {
			t.Errorf("%d layers of %d blobs", len(layers), len(blobs))
		}
	})
}
