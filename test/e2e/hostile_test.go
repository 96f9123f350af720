//go:build e2e

package e2e

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/halevm/hale/api"
	hale "github.com/halevm/hale/sdk/go"
)

// Archives made to harm: each becomes an image whose paths mean nothing to the host, or is refused for a reason. The kernel's own account
// of what the daemon did (strace) has nothing that was opened for writing, made, renamed or removed outside its data directory.
func TestHostileArchives(t *testing.T) {
	trace := filepath.Join(t.TempDir(), "trace")
	h := &host{
		t: t, dir: filepath.Join(t.TempDir(), "data"),
		// As a grandchild (-D), so that the daemon stays the child that is signalled and waited for.
		wrap: []string{"strace", "-D", "-f", "-y", "--seccomp-bpf", "-e", "trace=%file", "-o", trace},
	}
	h.start(nil)

	canary := filepath.Join(t.TempDir(), "canary")
	climb := strings.Repeat("../", 40) + strings.TrimPrefix(canary, "/")
	sparse := filepath.Join(t.TempDir(), "sparse.tar")
	makeSparse(t, sparse, 8<<30)
	sparseLayer, err := os.ReadFile(sparse)
	if err != nil {
		t.Fatal(err)
	}
	good := layerOf(plain("bin/app", "app"))
	for _, c := range []struct {
		name    string
		archive io.Reader
		refused string // what the refusal says; "": it becomes an image
	}{
		{"names that climb", dockerArchive(layerOf(plain(climb, "x"), plain("/"+climb, "y"))), ""},
		{"a member that climbs", bytes.NewReader(layerOf(plain(climb, "x"))), "manifest"},
		{"through a symbolic link", dockerArchive(layerOf(link(tar.TypeSymlink, "up", "/"), plain("up"+canary, "x"))), ""},
		{"through a link of a layer below", dockerArchive(layerOf(link(tar.TypeSymlink, "up", filepath.Dir(canary))), layerOf(plain("up/canary", "x"))), ""},
		{"a hard link to the outside", dockerArchive(layerOf(link(tar.TypeLink, "passwd", "/etc/passwd"))), "etc/passwd"},
		{"a hard link that climbs", dockerArchive(layerOf(link(tar.TypeLink, "passwd", strings.Repeat("../", 40)+"etc/passwd"))), "etc/passwd"},
		{"devices", dockerArchive(layerOf(device("sda", 8, 0), device("dev/kmem", 1, 2))), ""},
		{"odd whiteouts", dockerArchive(good, layerOf(plain(".wh.", ""), plain(".wh...", ""), plain("bin/.wh.../app", ""), plain(".wh..wh.app", ""))), ""},
		{"a hundred thousand files", dockerArchive(manyFiles(100_000)), ""},
		{"8 GiB of nothing", dockerArchive(sparseLayer), ""},
		{"a bomb", bomb(), "inflates"},
		{"indexes that multiply", multiplied(200), "linux/arm64"},
		{"cut off", bytes.NewReader(dockerArchive(good).Bytes()[:2048]), ""},
		{"not an archive", strings.NewReader(strings.Repeat("no archive ", 1000)), "archive"},
		{"a manifest that names what is not there", archiveOf(map[string][]byte{"manifest.json": []byte(`[{"Config":"c.json","Layers":["l.tar"]}]`)}), "c.json"},
		{"another layer than its digest says", forged(good), "digest"},
	} {
		t.Run(c.name, func(t *testing.T) {
			img, err := h.ImportImage(t.Context(), c.archive, hale.Import{Name: "hostile"})
			if err == nil {
				img, err = h.Image(t.Context(), img.Name, imagePatience)
			}
			if c.refused == "" && c.name != "cut off" {
				if err != nil || img.Status != api.ImageStatusReady {
					t.Fatalf("%v %v", img.Status, err)
				}
				if err := h.DeleteImage(t.Context(), img.Name); err != nil {
					t.Fatal(err)
				}
			} else if err == nil || !strings.Contains(err.Error(), c.refused) {
				t.Errorf("it is %s, %v; want a refusal that says %q", img.Status, err, c.refused)
			}
			for _, left := range filesBelow(t, filepath.Join(h.dir, "images")) {
				t.Errorf("left behind: %s", left)
			}
		})
	}
	h.end()
	if _, err := os.Lstat(canary); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the canary is there: %v", err)
	}
	outside(t, h, trace)
}

// filesBelow are the files of a directory but those that are always there.
func filesBelow(t *testing.T, dir string) (found []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && d.Name() != "refs.json" {
			found = append(found, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

var (
	unfinished = regexp.MustCompile(`^(\d+) +(.*) <unfinished \.\.\.>$`)
	resumed    = regexp.MustCompile(`^(\d+) +<\.\.\. \w+ resumed>(.*)$`)
	call       = regexp.MustCompile(`^\d+ +(\w+)\((.*)\) += (-?\d+)(?:<([^>]*)>)?`)
	target     = regexp.MustCompile(`(?:(?:AT_FDCWD|\d+)(?:<([^>]*)>)?, )?"((?:[^"\\]|\\.)*)"`)
	writes     = regexp.MustCompile(`O_WRONLY|O_RDWR|O_CREAT|O_TRUNC`)
	mapping    = regexp.MustCompile(`^/proc/(self|\d+)/(uid_map|gid_map|setgroups)$`)
	slack      = regexp.MustCompile(`^/proc/\d+/timerslack_ns$`)
	looks      = regexp.MustCompile(`^(open|openat|openat2|stat|lstat|newfstatat|statx|access|faccessat2?|readlink|readlinkat|execve|chdir|getcwd|statfs|getxattr|lgetxattr|name_to_handle_at)$`)
)

// wholeCalls joins what strace tells of a call in two lines, since another thread came in between. What was under way when the process
// ended has no second line, and did nothing.
func wholeCalls(trace string) (calls []string) {
	open := map[string]string{} // by thread
	for line := range strings.Lines(trace) {
		line = strings.TrimSuffix(line, "\n")
		if m := unfinished.FindStringSubmatch(line); m != nil {
			open[m[1]] = m[1] + " " + m[2]
			continue
		}
		if m := resumed.FindStringSubmatch(line); m != nil {
			line = open[m[1]] + m[2]
			delete(open, m[1])
		}
		calls = append(calls, line)
	}
	return calls
}

// outside reads the account of the daemon's system calls.
func outside(t *testing.T, h *host, trace string) {
	t.Helper()
	b, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	inside := 0
	for _, line := range wholeCalls(string(b)) {
		m := call.FindStringSubmatch(line)
		if m == nil || m[3] == "-1" {
			continue
		}
		name, args, opened := m[1], m[2], m[4]
		if looks.MatchString(name) && !(strings.HasPrefix(name, "open") && writes.MatchString(args)) {
			continue
		}
		var paths []string
		for _, p := range target.FindAllStringSubmatch(args, -1) {
			path := p[2]
			if !filepath.IsAbs(path) {
				path = filepath.Join(p[1], path)
			}
			paths = append(paths, filepath.Clean(path))
		}
		if strings.HasPrefix(name, "open") { // what it led to, links followed
			paths = []string{strings.TrimSuffix(opened, " (deleted)")}
		}
		for _, path := range paths {
			switch {
			case strings.HasPrefix(path, h.dir+"/") || path == h.dir:
				inside++
			case path == "/dev/null", path == "/dev/kvm":
			case path == "/run/hale", path == "/run/hale/uids.lock", mapping.MatchString(path): // it tries the sandbox when it starts
			case slack.MatchString(path): // how late its own timers may be
			default:
				t.Errorf("outside of its data directory: %s", line)
			}
		}
	}
	if inside < 100 {
		t.Errorf("the account has only %d writes inside the data directory: it is not whole", inside)
	}
}

// An item is one entry of a tar.
type item struct {
	tar.Header
	data string
}

func plain(name, data string) item {
	return item{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}, data}
}

func link(kind byte, name, to string) item {
	return item{tar.Header{Typeflag: kind, Name: name, Linkname: to, Mode: 0o777}, ""}
}

func device(name string, major, minor int64) item {
	return item{tar.Header{Typeflag: tar.TypeBlock, Name: name, Mode: 0o666, Devmajor: major, Devminor: minor}, ""}
}

func layerOf(items ...item) []byte {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, i := range items {
		i.Size = int64(len(i.data))
		if err := errors.Join(w.WriteHeader(&i.Header), second(io.WriteString(w, i.data))); err != nil {
			panic(err)
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return buf.Bytes()
}

func second[T any](_ T, err error) error { return err }

func manyFiles(n int) []byte {
	items := make([]item, n)
	for i := range items {
		items[i] = plain(fmt.Sprintf("d%03d/f%d", i%100, i), "x")
	}
	return layerOf(items...)
}

// makeSparse writes a tar with one file that is a hole.
func makeSparse(t *testing.T, out string, size int64) {
	t.Helper()
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "hole"))
	if err == nil {
		err = errors.Join(f.Truncate(size), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("tar", "--sparse", "-cf", out, "-C", dir, "hole").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func archiveOf(files map[string][]byte) *bytes.Buffer {
	var items []item
	for name, data := range files {
		items = append(items, plain(name, string(data)))
	}
	return bytes.NewBuffer(layerOf(items...))
}

// dockerArchive is what `docker save` would write of an image of these layers.
func dockerArchive(layers ...[]byte) *bytes.Buffer {
	var names, diffs []string
	files := map[string][]byte{}
	for i, l := range layers {
		name := fmt.Sprintf("layer%d.tar", i)
		files[name], names = l, append(names, name)
		diffs = append(diffs, fmt.Sprintf("sha256:%x", sha256.Sum256(l)))
	}
	marshal := func(v any) []byte {
		b, err := json.Marshal(v)
		if err != nil {
			panic(err)
		}
		return b
	}
	files["config.json"] = marshal(map[string]any{
		"architecture": "amd64", "os": "linux", "config": map[string]any{"Cmd": []string{"/bin/app"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffs},
	})
	files["manifest.json"] = marshal([]any{map[string]any{"Config": "config.json", "RepoTags": []string{"hostile:latest"}, "Layers": names}})
	return archiveOf(files)
}

// forged is an archive whose layer is not what its configuration says.
func forged(layer []byte) io.Reader {
	b := dockerArchive(layer).Bytes()
	return bytes.NewReader(bytes.Replace(b, []byte(fmt.Sprintf("%x", sha256.Sum256(layer))), bytes.Repeat([]byte("0"), 64), 1))
}

// bomb is some hundred kilobytes that inflate to 15 GiB, which an honest image may have.
func bomb() io.Reader {
	w, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		panic(err)
	}
	header := layerOf(item{tar.Header{Typeflag: tar.TypeReg, Name: "layer.tar", Mode: 0o644, Format: tar.FormatGNU}, ""})[:512]
	frame := w.EncodeAll(make([]byte, 64<<20), nil)
	return io.MultiReader(bytes.NewReader(w.EncodeAll(sized(header, 15<<30), nil)), bytes.NewReader(bytes.Repeat(frame, 240)))
}

// multiplied is some kilobytes of indexes within indexes that lead n⁵ times to one image, which is for another platform.
func multiplied(n int) io.Reader {
	files := map[string][]byte{"oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`)}
	blob := func(kind, data string) string {
		sum := fmt.Sprintf("%x", sha256.Sum256([]byte(data)))
		files["blobs/sha256/"+sum] = []byte(data)
		return fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.%s.v1+json","digest":"sha256:%s","size":%d}`, kind, sum, len(data))
	}
	config := blob("config", `{"os":"linux","architecture":"arm64","rootfs":{"type":"layers","diff_ids":[]}}`)
	d := blob("manifest", `{"schemaVersion":2,"config":`+config+`,"layers":[]}`)
	names := func() string {
		return `{"schemaVersion":2,"manifests":[` + strings.TrimSuffix(strings.Repeat(d+",", n), ",") + `]}`
	}
	for range 4 {
		d = blob("index", names())
	}
	files["index.json"] = []byte(names())
	return archiveOf(files)
}

// sized says another size in a tar's header.
func sized(header []byte, size int64) []byte {
	h := bytes.Clone(header)
	copy(h[124:136], []byte{0x80})
	for i, s := 135, size; i > 124; i, s = i-1, s>>8 {
		h[i] = byte(s)
	}
	sum := int64(0)
	copy(h[148:156], "        ")
	for _, c := range h {
		sum += int64(c)
	}
	copy(h[148:156], fmt.Sprintf("%06o\x00 ", sum))
	return h
}
