package image

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// An entry is one entry of a layer's tar.
type entry struct {
	tar.Header
	data string
}

// at is the time of everything that a test does not give another.
var at = time.Unix(1_000_000_000, 123_456_789)

func entryOf(kind byte, name, link string, mode int64) entry {
	return entry{Header: tar.Header{Typeflag: kind, Name: name, Linkname: link, Mode: mode, ModTime: at}}
}

func file(name, data string) entry {
	e := entryOf(tar.TypeReg, name, "", 0o644)
	e.data = data
	return e
}
func dir(name string) entry           { return entryOf(tar.TypeDir, name+"/", "", 0o755) }
func symlink(name, link string) entry { return entryOf(tar.TypeSymlink, name, link, 0o777) }
func hardlink(name, to string) entry  { return entryOf(tar.TypeLink, name, to, 0o644) }
func whiteout(name string) entry {
	return file(filepath.Join(filepath.Dir(name), whiteoutPrefix+filepath.Base(name)), "")
}
func opaque(name string) entry { return file(name+"/"+opaqueMarker, "") }
func device(kind byte, name string, major, minor int64) entry {
	e := entryOf(kind, name, "", 0o600)
	e.Devmajor, e.Devminor = major, minor
	return e
}

func (e entry) mode(m int64) entry         { e.Mode = m; return e }
func (e entry) owner(uid, gid int) entry   { e.Uid, e.Gid = uid, gid; return e }
func (e entry) time(sec, nsec int64) entry { e.ModTime = time.Unix(sec, nsec); return e }
func (e entry) xattr(name, value string) entry {
	records := map[string]string{xattrPrefix + name: value}
	for k, v := range e.PAXRecords {
		records[k] = v
	}
	e.PAXRecords = records
	return e
}

// layerTar is the tar of a layer.
func layerTar(entries ...entry) []byte {
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for _, e := range entries {
		h := e.Header
		if h.Format == 0 {
			h.Format = tar.FormatPAX
		}
		h.Size = int64(len(e.data))
		if err := tw.WriteHeader(&h); err != nil {
			panic(fmt.Sprintf("%+v: %v", h, err))
		}
		must(io.WriteString(tw, e.data))
	}
	must(0, tw.Close())
	return buf.Bytes()
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func gzipped(data []byte) []byte {
	var buf bytes.Buffer
	zw := gzip.NewWriter(&buf)
	must(zw.Write(data))
	must(0, zw.Close())
	return buf.Bytes()
}

func zstded(data []byte) []byte {
	zw := must(zstd.NewWriter(nil))
	defer zw.Close()
	return zw.EncodeAll(data, nil)
}

// tarOf is a tar of files, in their order.
func tarOf(files ...entry) []byte { return layerTar(files...) }

// A picture is an image to be put into an archive.
type picture struct {
	name   string
	layers [][]byte // inflated
	pack   func([]byte) []byte
	config func(map[string]any) // changes the configuration
}

func (p picture) packed(layer []byte) []byte {
	if p.pack == nil {
		return layer
	}
	return p.pack(layer)
}

func (p picture) configuration() []byte {
	ids := []string{}
	for _, l := range p.layers {
		h, _ := digestOf(l)
		ids = append(ids, h.String())
	}
	c := map[string]any{
		"os": "linux", "architecture": "amd64",
		"rootfs": map[string]any{"type": "layers", "diff_ids": ids},
		"config": map[string]any{"Cmd": []string{"/bin/" + p.name}},
	}
	if p.config != nil {
		p.config(c)
	}
	return must(json.Marshal(c))
}

// dockerArchive is what docker save wrote before version 25, with manifest.json at the end.
func dockerArchive(pictures ...picture) []byte {
	var files []entry
	var manifest []dockerEntry
	for i, p := range pictures {
		e := dockerEntry{Config: fmt.Sprintf("%d.json", i)}
		if p.name != "" {
			e.RepoTags = []string{p.name}
		}
		for j, l := range p.layers {
			name := fmt.Sprintf("%d-%d/layer.tar", i, j)
			e.Layers = append(e.Layers, name)
			files = append(files, file(name, string(p.packed(l))))
		}
		files = append(files, file(e.Config, string(p.configuration())))
		manifest = append(manifest, e)
	}
	return tarOf(append(files, file(dockerManifest, string(must(json.Marshal(manifest)))))...)
}

// A layout is an OCI layout in the making.
type layout struct {
	files map[string]string
	order []string
	index v1.IndexManifest
}

func newLayout() *layout {
	l := &layout{files: make(map[string]string), index: v1.IndexManifest{SchemaVersion: 2}}
	l.put(layoutFile, `{"imageLayoutVersion":"1.0.0"}`)
	return l
}

func (l *layout) put(name, data string) {
	if _, ok := l.files[name]; !ok {
		l.order = append(l.order, name)
	}
	l.files[name] = data
}

func (l *layout) blob(data []byte, t types.MediaType) v1.Descriptor {
	h, n := digestOf(data)
	l.put("blobs/sha256/"+h.Hex, string(data))
	return v1.Descriptor{MediaType: t, Digest: h, Size: n}
}

// add adds an image's blobs and returns the descriptor of its manifest.
func (l *layout) add(p picture) v1.Descriptor {
	m := v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Layers: []v1.Descriptor{}}
	m.Config = l.blob(p.configuration(), types.OCIConfigJSON)
	for _, layer := range p.layers {
		m.Layers = append(m.Layers, l.blob(p.packed(layer), types.OCILayer))
	}
	d := l.blob(must(json.Marshal(m)), types.OCIManifestSchema1)
	if p.name != "" {
		d.Annotations = map[string]string{containerdName: p.name}
	}
	return d
}

func (l *layout) tar() []byte {
	l.put(indexFile, string(must(json.Marshal(l.index))))
	var files []entry
	for _, name := range l.order {
		files = append(files, file(name, l.files[name]))
	}
	return tarOf(files...)
}

// ociLayout is a layout of the images, each in index.json.
func ociLayout(pictures ...picture) []byte {
	l := newLayout()
	for _, p := range pictures {
		l.index.Manifests = append(l.index.Manifests, l.add(p))
	}
	return l.tar()
}

func openStore(t testing.TB, dir string, o Options) *Store {
	t.Helper()
	s, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// filesIn are all the files below a directory, refs.json aside.
func filesIn(t testing.TB, dir string) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		name := strings.TrimPrefix(path, dir+"/")
		if err != nil || d.IsDir() && filepath.Dir(name) != stagingDir || name == refsFile {
			return err
		}
		files = append(files, name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
