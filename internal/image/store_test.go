package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/halevm/hale/api"
)

func TestNormalize(t *testing.T) {
	digest := "sha256:" + strings.Repeat("a", 64)
	for in, want := range map[string]string{
		"nginx":                              "docker.io/library/nginx:latest",
		"nginx:1.27":                         "docker.io/library/nginx:1.27",
		"halevm/app":                         "docker.io/halevm/app:latest",
		"docker.io/nginx":                    "docker.io/library/nginx:latest",
		"index.docker.io/library/nginx":      "docker.io/library/nginx:latest",
		"docker.io/library/nginx:latest":     "docker.io/library/nginx:latest",
		"registry.example/app":               "registry.example/app:latest",
		"localhost:5000/app:v1":              "localhost:5000/app:v1",
		"nginx@" + digest:                    "docker.io/library/nginx@" + digest,
		"nginx:1.27@" + digest:               "docker.io/library/nginx@" + digest,
		"":                                   "",
		"UPPER":                              "",
		"nginx:":                             "",
		"a b":                                "",
		"nginx@sha256:1":                     "",
		"../../etc/passwd":                   "",
		strings.Repeat("n", 300):             "",
		"docker.io/library/nginx:\x00latest": "",
	} {
		got, err := Normalize(in)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q is %q, %v; want %q", in, got, err, want)
		}
		if want == "" {
			refused(t, err, "invalid_image_name", "")
		}
	}
}

func FuzzNormalize(f *testing.F) {
	f.Add("nginx")
	f.Add("localhost:5000/a/b:v1@sha256:" + strings.Repeat("a", 64))
	f.Fuzz(func(t *testing.T, ref string) {
		name, err := Normalize(ref)
		if err != nil {
			return
		}
		if again, err := Normalize(name); err != nil || again != name {
			t.Errorf("%q is %q, and that is %q, %v", ref, name, again, err)
		}
	})
}

// put imports an image of one file.
func put(t *testing.T, s *Store, name, content string) Image {
	t.Helper()
	images, err := s.Import(t.Context(), bytes.NewReader(dockerArchive(picture{name: name, layers: [][]byte{layerTar(file("f", content))}})), ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return images[0]
}

func TestFind(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	one, two := put(t, s, "app:1", "1"), put(t, s, "registry.example/app:2", "2")
	for ref, want := range map[string]Image{
		"app:1": one, "docker.io/library/app:1": one, one.Digest: one, "app@" + one.Digest: one, "app:9@" + one.Digest: one,
		"registry.example/app:2": two, two.Digest: two,
	} {
		if got, err := s.Find(ref); err != nil || got.Ref != want.Ref || got.Digest != want.Digest {
			t.Errorf("%s is %+v, %v", ref, got, err)
		}
	}
	for _, ref := range []string{"app", "app:2", "app@" + two.Digest, "sha256:" + strings.Repeat("0", 64)} {
		if _, err := s.Find(ref); !errors.Is(err, api.NotFound) {
			t.Errorf("%s: %v", ref, err)
		}
		if err := s.Delete(t.Context(), ref); !errors.Is(err, api.NotFound) {
			t.Errorf("delete %s: %v", ref, err)
		}
	}
	if _, err := s.Find("UPPER"); !errors.Is(err, api.Invalid) {
		t.Errorf("%v", err)
	}
}

// The disk goes with the last name, and waits for who uses it.
func TestDelete(t *testing.T) {
	dir := t.TempDir()
	used := make(map[string]bool)
	s := openStore(t, dir, Options{InUse: func(digest string) bool { return used[digest] }})
	one, again := put(t, s, "app:1", "1"), put(t, s, "app:again", "1")
	if one.Disk == again.Disk {
		t.Error("two configurations share a digest")
	}
	images, err := s.Import(t.Context(), bytes.NewReader(ociLayout(app("x"), app("x"))), ImportOptions{Name: "app:x"})
	if err != nil || len(images) != 1 {
		t.Fatal(images, err)
	}
	for _, ref := range []string{"app:again", "app:x"} {
		if err := s.Delete(t.Context(), ref); err != nil {
			t.Error(err)
		}
	}
	if left := filesIn(t, dir); len(left) != 3 || !slices.Contains(left, "disks/"+filepath.Base(one.Disk)) {
		t.Errorf("%v is left", left)
	}

	used[one.Digest] = true
	moved := put(t, s, "app:1", "2") // the name moves on
	if _, err := os.Stat(one.Disk); err != nil {
		t.Errorf("a disk in use: %v", err)
	}
	used[one.Digest] = false
	if err := s.Delete(t.Context(), "app:1"); err != nil {
		t.Error(err)
	}
	if left := filesIn(t, dir); len(left) != 0 {
		t.Errorf("%v is left; the name stood for %s", left, moved.Digest)
	}
}

// What a pull or an import has claimed stays when its last name goes, and its layers are not needed again.
func TestClaimedImageStays(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{})
	img := put(t, s, "app:1", "1")
	if s.claim("sha256:another") || !s.claim(img.Digest) {
		t.Error("a claim does not say what is here")
	}
	if err := s.Delete(t.Context(), "app:1"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(img.Disk); err != nil {
		t.Errorf("a disk that is claimed: %v", err)
	}
	if err := s.convertOnce(t.Context(), &candidate{digest: img.Digest}, nil, nil); err != nil {
		t.Errorf("an image that is here is made anew: %v", err)
	}
	s.unclaim(img.Digest) // what convertOnce claimed
	s.Sweep()
	if len(filesIn(t, dir)) == 0 {
		t.Error("what is still claimed is gone")
	}
	s.unclaim(img.Digest)
	s.Sweep()
	if left := filesIn(t, dir); len(left) != 0 {
		t.Errorf("%v is left", left)
	}
}

func TestSameImageTwice(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	before := put(t, s, "app", "1")
	was, err := os.Stat(before.Disk)
	if err != nil {
		t.Fatal(err)
	}
	after := put(t, s, "app", "1")
	if is, err := os.Stat(after.Disk); err != nil || !os.SameFile(was, is) {
		t.Errorf("the disk was made again: %v", err)
	}
	if !after.CreatedAt.After(before.CreatedAt) {
		t.Errorf("imported at %s, and again at %s", before.CreatedAt, after.CreatedAt)
	}
}

// What a crash leaves behind goes at the next Open, and what is there stays.
func TestReopen(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	kept := put(t, s, "kept", "1")
	lost := put(t, s, "lost", "2")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	whole := filesIn(t, dir)
	if err := os.Remove(lost.Disk); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"staging/x/1", "blobs/sha256/" + strings.Repeat("1", 64), "blobs/sha256/" + strings.Repeat("2", 64) + ".next", "disks/" + strings.Repeat("1", 64) + ".ext4", "disks/x"} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte("half"), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	var log bytes.Buffer
	s = openStore(t, dir, Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	got, err := s.Find("kept")
	if err != nil || got.Disk != kept.Disk || got.Status != Ready || len(got.Cmd) != 1 || !got.CreatedAt.Equal(kept.CreatedAt) || got.Size != kept.Size {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := s.Find("lost"); !errors.Is(err, api.NotFound) || !strings.Contains(log.String(), "lost") {
		t.Errorf("%v; the log says %s", err, &log)
	}
	for _, name := range filesIn(t, dir) {
		if !slices.Contains(whole, name) || name == "disks/"+filepath.Base(lost.Disk) {
			t.Errorf("%s is left", name)
		}
	}
}

// Names that cannot be read are set aside, and no disk that somebody uses goes with them.
func TestNamesLost(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	img := put(t, s, "app", "1")
	if err := errors.Join(s.Close(), os.WriteFile(filepath.Join(dir, refsFile), []byte(`{"version":1,"val`), 0o600)); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	s = openStore(t, dir, Options{Log: slog.New(slog.NewTextHandler(&log, nil)), InUse: func(d string) bool { return d == img.Digest }})
	if len(s.List()) != 0 || !strings.Contains(log.String(), "level=ERROR") {
		t.Errorf("%v; the log says %s", s.List(), &log)
	}
	if _, err := os.Stat(img.Disk); err != nil {
		t.Error(err)
	}
	if put(t, s, "app", "1").Disk != img.Disk {
		t.Error("the disk was not found again")
	}
}

// The images whose names are lost stay for as long as the list that was set aside, which a person may mend.
func TestDisksOfLostNamesStay(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	one, two := put(t, s, "one", "1"), put(t, s, "two", "2")
	if err := errors.Join(s.Close(), os.WriteFile(filepath.Join(dir, refsFile), []byte(`{"version":1,"val`), 0o600)); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the names are lost, and are still lost
		if s, err = Open(dir, Options{}); err != nil {
			t.Fatal(err)
		}
		put(t, s, "other", "3")
		if err := errors.Join(s.Delete(t.Context(), "other"), s.Close()); err != nil {
			t.Fatal(err)
		}
		for _, img := range []Image{one, two} {
			if _, err := os.Stat(img.Disk); err != nil {
				t.Error(err)
			}
		}
	}
	s = openStore(t, dir, Options{})
	put(t, s, "one", "1")
	if err := s.Delete(t.Context(), "one"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(one.Disk); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an image that has a name again goes with it: %v", err)
	}
	aside, err := filepath.Glob(filepath.Join(dir, refsFile+".*"))
	if err != nil || len(aside) != 1 {
		t.Fatal(aside, err)
	}
	if err := os.Remove(aside[0]); err != nil {
		t.Fatal(err)
	}
	openStore(t, dir, Options{})
	if _, err := os.Stat(two.Disk); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without the list nothing keeps it: %v", err)
	}
}

// There is an end to the names, and what is written of them can be read again.
func TestNamesAreBounded(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{})
	if s.most != (bounds{10_000, 64 << 20, 16 << 20}) { // docs/images.md
		t.Errorf("%+v", s.most)
	}
	s.most.names, s.most.refs = 100, 64<<10
	img := put(t, s, "app", "1")
	many := make([]string, maxArchiveNames+1)
	for i := range many {
		many[i] = fmt.Sprintf("app:%d", i)
	}
	_, err := normalizeAll(many)
	refused(t, err, "image_too_large", "gives 1001 names to its images; 1000 are possible")
	_, err = some([]*candidate{{names: many[:600]}, {names: many[600:]}}, indexFile)
	refused(t, err, "image_too_large", "gives 1001 names to its images; 1000 are possible")
	_, err = s.Import(t.Context(), bytes.NewReader(tarOf(file(dockerManifest, "["+strings.Repeat("{},", 4096)+"{}]"))), ImportOptions{})
	refused(t, err, "image_too_large", "names 4097 images; 4096 are possible")

	err = s.update(func(refs map[string]record) error {
		refs["large"] = record{Digest: img.Digest, Tags: map[string]string{"k": strings.Repeat("v", s.most.refs)}}
		return nil
	})
	refused(t, err, "insufficient_resources", "65536 are possible")
	err = s.update(func(refs map[string]record) error {
		for i := range s.most.names - len(refs) {
			refs[fmt.Sprintf("docker.io/library/app:%d", i)] = record{Digest: img.Digest}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Tag("app", "app:more")
	refused(t, err, "insufficient_resources", "101 names here; 100 are possible")
	if _, err := s.Tag("app", "app:1"); err != nil { // which is there
		t.Error(err)
	}
	if err := s.Delete(t.Context(), "app:1"); err != nil {
		t.Error(err)
	}
	if _, err := s.Tag("app", "app:more"); err != nil {
		t.Error(err)
	}
	if n := len(openStore(t, dir, Options{}).List()); n != s.most.names {
		t.Errorf("%d names are read again", n)
	}
}

// One conversion at a time: the second waits as pending, and both are seen before they are ready.
func TestQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := Open(t.TempDir(), Options{Parallel: 1})
		if err != nil {
			t.Fatal(err)
		}
		held, release := make(chan struct{}), make(chan struct{})
		results := make(chan error, 2)
		importing := func(name string, progress func(Progress)) {
			archive := dockerArchive(picture{name: name, layers: [][]byte{layerTar(file("f", name))}})
			_, err := s.Import(t.Context(), bytes.NewReader(archive), ImportOptions{Progress: progress})
			results <- err
		}
		// The slot is taken by a conversion that is not done: its turn is held open from within.
		s.mu.Lock()
		s.running++
		s.mu.Unlock()
		go importing("first", nil)
		synctest.Wait()
		go importing("second", func(p Progress) {
			if p.Phase == Writing && held != nil {
				close(held)
				held = nil
				<-release
			}
		})
		synctest.Wait()
		position := func(name string) int {
			img, err := s.Find(name)
			if err != nil || img.Status != Pending || img.QueuePosition == nil {
				t.Fatalf("%+v, %v", img, err)
			}
			return *img.QueuePosition
		}
		if position("first") != 1 || position("second") != 2 {
			t.Errorf("%+v", s.List())
		}
		if err := s.Delete(t.Context(), "second"); !errors.Is(err, api.Conflict) {
			t.Errorf("delete what is being imported: %v", err)
		}
		changed, wait := s.Changed(), held
		s.mu.Lock()
		s.running--
		s.dispatch()
		s.mu.Unlock()
		<-wait
		if img, err := s.Find("second"); err != nil || img.Status == Ready {
			t.Errorf("%+v, %v", img, err)
		}
		close(release)
		for range 2 {
			if err := <-results; err != nil {
				t.Error(err)
			}
		}
		<-changed
		if list := s.List(); len(list) != 2 || list[0].Status != Ready || list[1].Status != Ready {
			t.Errorf("%+v", list)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

// An import that Close meets ends with a reason, and leaves nothing.
func TestClose(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	archive := dockerArchive(app("app"))
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		_, err := s.Import(context.Background(), r, ImportOptions{})
		done <- err
	}()
	if _, err := w.Write(archive[:1000]); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	go func() {
		w.Write(archive[1000:])
		w.Close() // for what of it was read before the import learnt of the end
	}()
	if err := <-done; !errors.Is(err, api.Unavailable) {
		t.Errorf("%v", err)
	}
	r.Close()
	if _, err := s.Import(t.Context(), bytes.NewReader(archive), ImportOptions{}); !errors.Is(err, api.Unavailable) {
		t.Errorf("%v", err)
	}
	if left := filesIn(t, dir); len(left) != 0 {
		t.Errorf("%v is left", left)
	}
}

// A refusal of a name gives a reason where there is one, and never the name as its reason.
func TestNormalizeSaysWhy(t *testing.T) {
	if _, err := Normalize("UP"); err == nil || strings.Count(err.Error(), "UP") != 1 {
		t.Errorf("%v", err)
	}
	if _, err := Normalize("-a/b"); err == nil || !strings.Contains(err.Error(), "begin and end with") {
		t.Errorf("%v", err)
	}
}
