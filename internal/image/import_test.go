package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/halevm/hale/api"
)

var (
	base = layerTar(file("base", "base"), file("replaced", "old"))
	top  = layerTar(file("replaced", "new"))
)

func app(name string) picture { return picture{name: name, layers: [][]byte{base, top}} }

// tellsTree fails the test unless a disk holds what the layers base and top make.
func tellsTree(t *testing.T, disk string) {
	t.Helper()
	v := readDisk(t, disk)
	if len(v) != 3 || string(v["base"].data) != "base" || string(v["replaced"].data) != "new" {
		t.Errorf("the disk holds\n%s", strings.Join(v.lines(), "\n"))
	}
}

// Archives in every form that a tool writes.
func TestImportForms(t *testing.T) {
	const name = "docker.io/library/app:latest"
	forms := map[string][]byte{
		"docker-archive":                       dockerArchive(app("app")),
		"docker-archive, layers in gzip":       dockerArchive(picture{name: "app", layers: app("").layers, pack: gzipped}),
		"docker-archive in gzip":               gzipped(dockerArchive(app("app"))),
		"docker-archive in zstd":               zstded(dockerArchive(app("app"))),
		"docker-archive, manifest first":       reversed(dockerArchive(app("app"))),
		"docker-archive, layers linked":        linkedArchive(),
		"OCI layout":                           ociLayout(app("app")),
		"OCI layout, layers in gzip":           ociLayout(picture{name: "app", layers: app("").layers, pack: gzipped}),
		"OCI layout, layers in zstd":           ociLayout(picture{name: "app", layers: app("").layers, pack: zstded}),
		"OCI layout in gzip, in members":       gzipped(ociLayout(app("app"))),
		"OCI layout, two platforms":            platforms(),
		"OCI layout with manifest.json":        both(),
		"OCI layout, platforms side by side":   sideBySide(),
		"docker-archive, a layer twice":        dockerArchive(picture{name: "app", layers: [][]byte{base, top, top}}),
		"docker-archive in gzip, then in gzip": gzipped(dockerArchive(picture{name: "app", layers: app("").layers, pack: gzipped})),
	}
	for form, archive := range forms {
		t.Run(form, func(t *testing.T) {
			s := openStore(t, t.TempDir(), Options{})
			for _, r := range []io.Reader{bytes.NewReader(archive), iotest.OneByteReader(bytes.NewReader(archive))} {
				images, err := s.Import(t.Context(), r, ImportOptions{Tags: map[string]string{"k": "v"}})
				if err != nil {
					t.Fatal(err)
				}
				img := images[0]
				if len(images) != 1 || img.Ref != name || img.Status != Ready || img.Platform != amd64 || img.Tags["k"] != "v" || img.Size == 0 || img.CreatedAt.IsZero() {
					t.Errorf("%+v", images)
				}
				found, err := s.Find("app")
				if err != nil || found.Digest != img.Digest || found.Disk != img.Disk || len(s.List()) != 1 {
					t.Errorf("found %+v: %v", found, err)
				}
				tellsTree(t, img.Disk)
			}
		})
	}
}

// members are the entries of a tar.
func members(archive []byte) []entry {
	var all []entry
	for tr := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return all
		}
		all = append(all, entry{*must(h, err), string(must(io.ReadAll(tr)))})
	}
}

func reversed(archive []byte) []byte {
	all := members(archive)
	slices.Reverse(all)
	return tarOf(all...)
}

// linkedArchive is as old versions of docker save wrote it: a layer that is there already is a link to it.
func linkedArchive() []byte {
	all := members(dockerArchive(picture{name: "app", layers: [][]byte{base, top, base, top}}))
	for i, e := range all {
		switch e.Name {
		case "0-2/layer.tar":
			all[i] = symlink(e.Name, "../0-0/layer.tar")
		case "0-3/layer.tar":
			all[i] = hardlink(e.Name, "0-1/layer.tar")
		}
	}
	return tarOf(all...)
}

func arm(c map[string]any) { c["architecture"] = "arm64" }

func platforms() []byte {
	l := newLayout()
	other := l.add(picture{layers: [][]byte{base}, config: arm})
	other.Platform = &v1.Platform{OS: "linux", Architecture: "arm64"}
	ours := l.add(app(""))
	ours.Platform = &v1.Platform{OS: "linux", Architecture: "amd64"}
	attestation := l.blob([]byte("{}"), types.OCIManifestSchema1)
	attestation.Platform = &v1.Platform{OS: "unknown", Architecture: "unknown"}
	missing := v1.Descriptor{MediaType: types.OCIManifestSchema1, Digest: other.Digest, Size: 7, Platform: &v1.Platform{OS: "windows", Architecture: "amd64"}}
	index := l.blob(must(json.Marshal(v1.IndexManifest{SchemaVersion: 2, Manifests: []v1.Descriptor{attestation, missing, other, ours}})), types.OCIImageIndex)
	index.Annotations = map[string]string{ociRefName: "docker.io/library/app:latest"}
	l.index.Manifests = []v1.Descriptor{index}
	return l.tar()
}

func sideBySide() []byte {
	l := newLayout()
	other := l.add(picture{name: "app", layers: [][]byte{base}, config: arm})
	l.index.Manifests = []v1.Descriptor{other, l.add(app("app"))}
	return l.tar()
}

// both is as docker save writes it now: an OCI layout whose names are in manifest.json too.
func both() []byte {
	p := app("app")
	config, _ := digestOf(p.configuration())
	e := dockerEntry{Config: "blobs/sha256/" + config.Hex, RepoTags: []string{p.name}}
	for _, l := range p.layers {
		h, _ := digestOf(l)
		e.Layers = append(e.Layers, "blobs/sha256/"+h.Hex)
	}
	l := newLayout()
	d := l.add(p)
	d.Annotations = nil
	l.index.Manifests = []v1.Descriptor{d}
	l.put(dockerManifest, string(must(json.Marshal([]dockerEntry{e}))))
	return l.tar()
}

// An image's own words, the healthcheck to the letter.
func TestConfig(t *testing.T) {
	const check = `{"Test":["CMD","true"],"Interval":30000000000,"StartInterval":250000000,"Unknown":1}`
	p := app("app")
	p.config = func(c map[string]any) {
		c["config"] = map[string]any{
			"Entrypoint": []string{"/e"}, "Cmd": []string{"c"}, "Env": []string{"A=1", "B="}, "WorkingDir": "/w", "User": "u:g", "StopSignal": "SIGQUIT",
			"ExposedPorts": map[string]any{"80/tcp": struct{}{}, "53/udp": struct{}{}}, "Labels": map[string]string{"l": "1"}, "Shell": []string{"/sh"},
			"Healthcheck": json.RawMessage(check),
		}
	}
	dir := t.TempDir()
	s := openStore(t, dir, Options{})
	if _, err := s.Import(t.Context(), bytes.NewReader(dockerArchive(p)), ImportOptions{}); err != nil {
		t.Fatal(err)
	}
	want := Config{
		Entrypoint: []string{"/e"}, Cmd: []string{"c"}, Env: []string{"A=1", "B="}, WorkingDir: "/w", User: "u:g", StopSignal: "SIGQUIT",
		ExposedPorts: []string{"53/udp", "80/tcp"}, Labels: map[string]string{"l": "1"}, Shell: []string{"/sh"}, Healthcheck: json.RawMessage(check),
	}
	for _, s := range []*Store{s, openStore(t, dir, Options{})} { // and as read again
		img, err := s.Find("app")
		if got := fmt.Sprintf("%+v", img.Config); err != nil || got != fmt.Sprintf("%+v", want) {
			t.Errorf("%s, %v", got, err)
		}
	}
}

func TestSeveralImages(t *testing.T) {
	one, other := app("one"), picture{name: "registry.example:5000/other:v2", layers: [][]byte{base}}
	for _, archive := range [][]byte{dockerArchive(one, other), ociLayout(one, other)} {
		s := openStore(t, t.TempDir(), Options{})
		_, err := s.Import(t.Context(), bytes.NewReader(archive), ImportOptions{Name: "x"})
		refused(t, err, "invalid_image", "2 images")
		images, err := s.Import(t.Context(), bytes.NewReader(archive), ImportOptions{})
		if err != nil || len(images) != 2 || images[0].Ref != "docker.io/library/one:latest" || images[1].Ref != "registry.example:5000/other:v2" {
			t.Errorf("%+v, %v", images, err)
		}
	}
}

// refused fails the test unless err is an *api.Error with this code whose message says so.
func refused(t *testing.T, err error, code, says string) {
	t.Helper()
	e, ok := errors.AsType[*api.Error](err)
	if !ok || e.Code != code || !strings.Contains(e.Message, says) {
		t.Errorf("%v (%T), where %s that says %q is expected", err, err, code, says)
	}
}

// What is refused, in which words; and nothing of it stays.
func TestRefusals(t *testing.T) {
	good := dockerArchive(app("app"))
	with := func(archive []byte, change func(e entry) []entry) []byte {
		var all []entry
		for _, e := range members(archive) {
			all = append(all, change(e)...)
		}
		return tarOf(all...)
	}
	without := func(archive []byte, suffix string) []byte {
		return with(archive, func(e entry) []entry {
			if strings.HasSuffix(e.Name, suffix) {
				return nil
			}
			return []entry{e}
		})
	}
	saying := func(archive []byte, name, data string) []byte {
		return with(archive, func(e entry) []entry {
			if path.Base(e.Name) == name {
				e.data = data
			}
			return []entry{e}
		})
	}
	layer := func(data []byte) []byte { return dockerArchive(picture{name: "app", layers: [][]byte{data}}) }
	in := func(entries ...entry) []byte { return layer(layerTar(entries...)) }
	firstBlob := func(l *layout) string { return l.order[2] }
	broken := newLayout()
	broken.index.Manifests = []v1.Descriptor{broken.add(app("app"))}
	broken.files[firstBlob(broken)] += " "

	for name, c := range map[string]struct {
		archive    []byte
		code, says string
	}{
		"nothing":                     {nil, "invalid_image", "holds no image"},
		"no tar":                      {bytes.Repeat([]byte("no tar "), 1000), "invalid_image", "not an archive"},
		"gzip of nothing":             {gzipped(nil), "invalid_image", "holds no image"},
		"half a gzip header":          {gzipped(good)[:5], "invalid_image", "cut off"},
		"a tar of a root":             {base, "invalid_image", "holds no image"},
		"cut off":                     {good[:2000], "invalid_image", "cut off"},
		"cut off, in gzip":            {gzipped(good)[:300], "invalid_image", "cut off"},
		"damaged gzip":                {damaged(gzipped(good)), "invalid_image", "damaged"},
		"no configuration":            {without(good, "0.json"), "invalid_image", "lacks the configuration"},
		"no layer":                    {without(good, "0-1/layer.tar"), "invalid_image", "lacks the layer"},
		"another layer":               {saying(good, "layer.tar", string(top)), "invalid_image", "layer 1: its content has the digest"},
		"half a layout":               {without(ociLayout(app("app")), indexFile), "invalid_image", "half an OCI layout"},
		"an empty index":              {ociLayout(), "invalid_image", "names no image"},
		"a blob that is another":      {broken.tar(), "invalid_image", "is damaged"},
		"manifest.json of no JSON":    {saying(good, dockerManifest, "["), "invalid_image", "manifest.json in the archive is not readable"},
		"a name that is none":         {dockerArchive(app("UPPER")), "invalid_image_name", "UPPER"},
		"no name":                     {dockerArchive(app("")), "invalid_image", "give it a name"},
		"another platform":            {dockerArchive(picture{name: "app", config: arm}), "invalid_platform", "linux/arm64"},
		"another platform, in layout": {ociLayout(picture{name: "app", config: arm}), "invalid_platform", "linux/arm64"},
		"an index of its own":         {selfIndex(), "invalid_image", "lacks the blob"},
		"a layer that is no tar":      {layer([]byte(strings.Repeat("no tar", 500))), "invalid_image", "layer 1"},
		"a layer cut off":             {layer(base[:1100]), "invalid_image", "layer 1"},
		"a hard link to nothing":      {in(hardlink("a", "b")), "invalid_image", "nowhere"},
		"a hard link to a directory":  {in(dir("d"), hardlink("a", "d")), "invalid_image", "directory"},
		"a loop of links":             {in(symlink("a", "b"), symlink("b", "a"), file("a/x", "x")), "invalid_image", "symbolic links"},
		"an owner that cannot be":     {in(file("a", "x").owner(1<<32-1, 0)), "invalid_image", "owner"},
		"a device that cannot be":     {in(device(tar.TypeChar, "a", 4096, 0)), "invalid_image", "no device"},
		"a long name":                 {in(file(strings.Repeat("n", 256), "")), "invalid_image", "256 bytes"},
		"a long path":                 {in(file(strings.Repeat("dir/", 1100)+"f", "")), "invalid_image", "too long"},
		"a long link":                 {in(symlink("a", strings.Repeat("l", 4096))), "invalid_image", "4096 bytes"},
		"attributes without room":     {in(file("a", "").xattr("user.a", strings.Repeat("v", 4050))), "invalid_image", "do not fit"},
		"an access list that is none": {in(file("a", "").xattr(aclAccess, "acl")), "invalid_image", "access control list"},
		"an access list of no kind":   {in(dir("a").xattr(aclDefault, acl+"\x40\x00\x07\x00\xff\xff\xff\xff")), "invalid_image", "unknown kind 0x40"},
		"lost+found a file":           {in(file("lost+found", "x")), "invalid_image", "lost+found"},
		"an unknown kind":             {in(entryOf('Z', "a", "", 0o644)), "invalid_image", "unknown type"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := openStore(t, dir, Options{})
			images, err := s.Import(t.Context(), bytes.NewReader(c.archive), ImportOptions{})
			refused(t, err, c.code, c.says)
			if left := filesIn(t, dir); len(images) != 0 || len(s.List()) != 0 || len(left) != 0 {
				t.Errorf("%v, %v and %v are left", images, s.List(), left)
			}
		})
	}
}

func damaged(b []byte) []byte {
	b = bytes.Clone(b)
	for i := len(b) / 2; i < len(b)/2+20; i++ {
		b[i] ^= 0x55
	}
	return b
}

// selfIndex is a layout of an index that names itself, as well as that can be done.
func selfIndex() []byte {
	l := newLayout()
	d := l.blob([]byte(`{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.index.v1+json","size":3,"digest":"sha256:`+strings.Repeat("0", 64)+`"}]}`), types.OCIImageIndex)
	l.index.Manifests = []v1.Descriptor{d}
	return l.tar()
}

// multiplied is a layout of indexes within indexes, each of which names the next one n times; no image for this platform is below.
func multiplied(n int) []byte {
	l := newLayout()
	d := l.add(picture{layers: [][]byte{base}, config: arm})
	for range maxIndexDepth {
		d = l.blob(must(json.Marshal(index(slices.Repeat([]v1.Descriptor{d}, n)...))), types.OCIImageIndex)
	}
	l.index.Manifests = slices.Repeat([]v1.Descriptor{d}, n)
	return l.tar()
}

// wide is a layout whose one index names three images.
func wide() []byte {
	l := newLayout()
	d := l.add(app("app"))
	l.index.Manifests = []v1.Descriptor{l.blob(must(json.Marshal(index(d, d, d))), types.OCIImageIndex)}
	return l.tar()
}

// Indexes that name each other many times are each followed once, and an import that is cancelled follows no more.
func TestIndexesDoNotMultiply(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	_, err := s.Import(t.Context(), bytes.NewReader(multiplied(200)), ImportOptions{})
	refused(t, err, "invalid_platform", "linux/arm64")

	st := must(newStaging(t.TempDir()))
	a, err := receive(t.Context(), bytes.NewReader(multiplied(2)), st, Limits{}.withDefaults(), newMeter(Receiving, 0, func(Progress) {}))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := a.images(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestLimits(t *testing.T) {
	zeros := strings.Repeat("\x00", 1<<20)
	many := dockerArchive(app("app"))
	deep := picture{name: "app", layers: [][]byte{layerTar(file("zeros", zeros))}, pack: gzipped}
	for name, c := range map[string]struct {
		limits  Limits
		archive []byte
		says    string
	}{
		"members":                {Limits{Members: 2}, many, "more than 2 members"},
		"JSON":                   {Limits{JSON: 100}, many, "100 are possible"},
		"JSON of an archive":     {Limits{Parsed: 100}, many, "have more than 100 bytes"},
		"images in index.json":   {Limits{Listed: 2}, multiplied(3), "index.json of the archive names 3 images; 2 are possible"},
		"images in an index":     {Limits{Listed: 2}, wide(), "names 3 images; 2 are possible"},
		"layers":                 {Limits{Layers: 1}, many, "2 layers"},
		"entries":                {Limits{Entries: 2}, many, "more than 2 files"},
		"entries of one layer":   {Limits{Entries: 1}, dockerArchive(picture{name: "app", layers: app("").layers, pack: gzipped}), "more than 1 entries"},
		"names":                  {Limits{Names: 10}, many, "more than 10 bytes"},
		"plain layers":           {Limits{Plain: 2000}, many, "more than 2000 bytes"},
		"inflated layers":        {Limits{Plain: 1 << 19}, dockerArchive(deep), "more than 524288 bytes"},
		"holes":                  {Limits{Logical: 3}, many, "holes counted"},
		"an archive":             {Limits{Plain: 1, Ratio: 1 << 40}, dockerArchive(picture{name: "app", layers: [][]byte{make([]byte, maxArchiveSlack)}}), "archive holds more than"},
		"a layer's ratio":        {Limits{RatioMin: 1000}, dockerArchive(deep), "inflate to more than"},
		"an archive's ratio":     {Limits{RatioMin: 1000}, gzipped(dockerArchive(picture{name: "app", layers: deep.layers})), "200 times"},
		"a layer's ratio, zstd":  {Limits{RatioMin: 1000}, dockerArchive(picture{name: "app", layers: deep.layers, pack: zstded}), "inflate to more than"},
		"an archive's ratio too": {Limits{RatioMin: 1000}, zstded(dockerArchive(picture{name: "app", layers: deep.layers})), "200 times"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := openStore(t, dir, Options{Limits: c.limits})
			_, err := s.Import(t.Context(), bytes.NewReader(c.archive), ImportOptions{})
			refused(t, err, "image_too_large", c.says)
			if left := filesIn(t, dir); !errors.Is(err, api.TooLarge) || len(left) != 0 {
				t.Errorf("%v; %v is left", err, left)
			}
		})
	}
}

// What says that it is too large is refused at its header, before its data is written.
func TestHeadersFirst(t *testing.T) {
	var body bytes.Buffer
	src := &bounded{r: bytes.NewReader(layerTar(file("small", "x"), file("large", strings.Repeat("x", 1<<20)))), plain: 1 << 19, max: 1 << 30}
	src.left = new(atomic.Int64)
	src.left.Store(1 << 19)
	err := copyJudged(&body, src, 10)
	if refused(t, err, "image_too_large", "more than 524288 bytes"); body.Len() > 8192 {
		t.Errorf("%d bytes were written first", body.Len())
	}
}

// A reader that fails is not the archive's fault.
func TestBrokenReader(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{})
	broken := errors.New("the connection was reset")
	for _, n := range []int{0, 3, 5000} {
		r := io.MultiReader(bytes.NewReader(dockerArchive(app("app"))[:n]), iotest.ErrReader(broken))
		if _, err := s.Import(t.Context(), r, ImportOptions{}); !errors.Is(err, broken) || errors.Is(err, api.Invalid) {
			t.Errorf("after %d bytes: %v", n, err)
		}
	}
	if left := filesIn(t, dir); len(left) != 0 {
		t.Errorf("%v is left", left)
	}
}

// Wherever an import is cancelled, nothing of it stays.
func TestCancel(t *testing.T) {
	enough := errors.New("enough")
	dir := t.TempDir()
	s := openStore(t, dir, Options{})
	archive := dockerArchive(picture{name: "app", layers: app("").layers, pack: gzipped})
	for n := 1; ; n++ {
		ctx, cancel := context.WithCancelCause(t.Context())
		calls := 0
		_, err := s.Import(ctx, bytes.NewReader(archive), ImportOptions{Progress: func(Progress) {
			if calls++; calls == n {
				cancel(enough)
			}
		}})
		cancel(nil)
		if calls < n {
			if err != nil || n < 5 {
				t.Errorf("%d calls, %v", calls, err)
			}
			return
		}
		// The last report may come when everything is done.
		if left := filesIn(t, dir); err != nil && (!errors.Is(err, enough) || len(left) != 0 || len(s.List()) != 0) {
			t.Fatalf("cancelled at report %d: %v; %v is left", n, err, left)
		}
		if err == nil {
			if err := s.Delete(t.Context(), "app"); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A gate is a reader that ends when all of them have come to their end.
type gate struct {
	io.Reader
	all *sync.WaitGroup
}

func (g *gate) Read(b []byte) (int, error) {
	n, err := g.Reader.Read(b)
	if err == io.EOF && g.all != nil {
		g.all.Done()
		g.all.Wait()
		g.all = nil
	}
	return n, err
}

// Ten imports of one image at once make one disk, whoever of them goes away.
func TestTogether(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{})
	archive := dockerArchive(picture{name: "app", layers: [][]byte{layerTar(file("f", strings.Repeat("data", 1<<18)))}})
	var gates, imports sync.WaitGroup
	gates.Add(10)
	disks := make(chan os.FileInfo, 10) // as it was when an import ended: another conversion would have replaced it
	for i := range 10 {
		imports.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			images, err := s.Import(ctx, &gate{bytes.NewReader(archive), &gates}, ImportOptions{Progress: func(p Progress) {
				if p.Phase == Writing && i%3 == 0 {
					cancel()
				}
			}})
			if err != nil {
				if i%3 != 0 || !errors.Is(err, context.Canceled) {
					t.Errorf("import %d: %v", i, err)
				}
				return
			}
			info, err := os.Stat(images[0].Disk)
			if err != nil {
				t.Error(err)
				return
			}
			disks <- info
		})
	}
	imports.Wait()
	close(disks)
	first := <-disks
	for other := range disks {
		if !os.SameFile(first, other) {
			t.Error("the disk was made more than once")
		}
	}
	if err := s.Delete(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	if left := filesIn(t, dir); len(left) != 0 {
		t.Errorf("%v is left", left)
	}
}
