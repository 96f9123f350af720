package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/registry"
	"github.com/halevm/hale/internal/registry/registrytest"
	"github.com/halevm/hale/internal/store"
)

func TestPull(t *testing.T) {
	for name, pack := range map[string]func([]byte) []byte{"plain": nil, "gzip": gzipped, "zstd": zstded} {
		t.Run(name, func(t *testing.T) {
			f := newRegistry()
			p := app("")
			p.pack = pack
			d := f.image("team/app", p, nil, "v1")
			dir := t.TempDir()
			s := pullFrom(t, dir, f, Options{})
			const ref = where + "/team/app:v1"
			img, err := s.Pull(t.Context(), ref, PullOptions{Tags: map[string]string{"k": "v"}})
			if err != nil || img.Digest != d.Digest.String() || img.Ref != ref || img.Platform != amd64 {
				t.Fatalf("%+v, %v", img, err)
			}
			img = finished(t, s, ref)
			if img.Status != Ready || img.Tags["k"] != "v" || img.Size == 0 || len(img.Cmd) != 1 {
				t.Fatalf("%+v", img)
			}
			tellsTree(t, img.Disk)

			// By its digest, and again: nothing is fetched twice.
			before := len(f.requests("/blobs/" + layerDigest(p, 0)))
			byDigest, err := pulled(t, s, where+"/team/app@"+d.Digest.String(), PullOptions{})
			if err != nil || byDigest.Disk != img.Disk || byDigest.Ref != where+"/team/app@"+d.Digest.String() {
				t.Errorf("%+v, %v", byDigest, err)
			}
			if again, err := pulled(t, s, ref, PullOptions{}); err != nil || again.Disk != img.Disk {
				t.Errorf("%+v, %v", again, err)
			}
			if after := len(f.requests("/blobs/" + layerDigest(p, 0))); before != 1 || after != 1 {
				t.Errorf("a layer was fetched %d times, and then %d", before, after)
			}
			for _, ref := range []string{ref, byDigest.Ref} {
				if err := s.Delete(t.Context(), ref); err != nil {
					t.Error(err)
				}
			}
			if left := leftIn(t, dir); len(left) != 0 {
				t.Errorf("%v is left", left)
			}
		})
	}
}

// leftIn are the files of a store beside its lists.
func leftIn(t testing.TB, dir string) []string {
	return slices.DeleteFunc(filesIn(t, dir), func(name string) bool { return name == pullsFile })
}

func amd(variant string) *v1.Platform {
	return &v1.Platform{OS: "linux", Architecture: "amd64", Variant: variant}
}

func index(ds ...v1.Descriptor) v1.IndexManifest {
	return v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: ds}
}

func of(d v1.Descriptor, p *v1.Platform) v1.Descriptor { d.Platform = p; return d }

func TestPullChoosesThePlatform(t *testing.T) {
	f := newRegistry()
	ours := f.image("app", app("ours"), nil)
	other := f.image("app", picture{name: "arm", layers: [][]byte{base}, config: arm}, nil)
	v3 := f.image("app", app("v3"), nil)
	attestation := of(f.blob([]byte("{}"), types.OCIManifestSchema1), &v1.Platform{OS: "unknown", Architecture: "unknown"})
	arm64, windows := &v1.Platform{OS: "linux", Architecture: "arm64"}, &v1.Platform{OS: "windows", Architecture: "amd64"}

	inner := f.manifest("app", index(of(other, arm64), of(ours, amd(""))), types.OCIImageIndex)
	deep := inner
	for range maxIndexDepth + 1 {
		deep = f.manifest("app", index(deep), types.OCIImageIndex)
	}
	for tag, tc := range map[string]struct {
		index any
		kind  types.MediaType
		want  v1.Descriptor
		code  string
		says  string
	}{
		"ours":          {index: index(attestation, of(other, arm64), of(ours, amd(""))), want: ours},
		"docker":        {index: v1.IndexManifest{SchemaVersion: 2, Manifests: []v1.Descriptor{of(ours, amd(""))}}, kind: types.DockerManifestList, want: ours},
		"plain-variant": {index: index(of(v3, amd("v3")), of(ours, amd("v1"))), want: ours},
		"one-variant":   {index: index(of(v3, amd("v3"))), want: v3},
		"unsaid":        {index: index(ours), want: ours},
		"nested":        {index: index(inner), want: ours},
		"none":          {index: index(attestation, of(other, arm64), of(other, windows)), code: "invalid_platform", says: `the image is for "linux/arm64", "windows/amd64"; only linux/amd64 runs here`},
		"lying":         {index: index(of(other, amd(""))), code: "invalid_platform", says: "the image is for linux/arm64"},
		"empty":         {index: index(), code: "invalid_image", says: "its index names none"},
		"deep":          {index: index(deep), code: "invalid_image", says: "nested deeper than 4"},
		"both":          {index: []byte(`{"schemaVersion":2,"manifests":[],"config":{},"layers":[]}`), code: "invalid_image", says: "an index as well"},
		"schema1":       {index: []byte(`{"schemaVersion":1,"fsLayers":[]}`), code: "invalid_image", says: "schema 1"},
		"a-size": {index: func() any {
			d := of(ours, amd(""))
			d.Size++
			return index(d)
		}(), code: "invalid_image", says: "size mismatch"},
		"missing": {index: index(of(v1.Descriptor{Digest: v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("1", 64)}}, amd(""))), code: "image_not_found", says: "manifest unknown"},
	} {
		t.Run(tag, func(t *testing.T) {
			if tc.kind == "" {
				tc.kind = types.OCIImageIndex
			}
			f.manifest("app", tc.index, tc.kind, tag)
			s := pullFrom(t, t.TempDir(), f, Options{})
			img, err := pulled(t, s, where+"/app:"+tag, PullOptions{Platform: "linux/amd64"})
			if tc.code != "" {
				refused(t, err, tc.code, tc.says)
				return
			}
			if err != nil || img.Digest != tc.want.Digest.String() || img.Status != Ready {
				t.Errorf("%+v, %v; want %s", img, err, tc.want.Digest)
			}
		})
	}
	s := pullFrom(t, t.TempDir(), f, Options{})
	_, err := s.Pull(t.Context(), where+"/app:ours", PullOptions{Platform: "linux/arm64"})
	refused(t, err, "invalid_platform", "linux/arm64")
}

func answers(status int, code, message string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		fails(w, status, code, message)
	}
}

// What the registry says of the manifest is the error, and nothing is left.
func TestPullIsRefused(t *testing.T) {
	huge := func(w http.ResponseWriter, _ *http.Request) { w.Write(bytes.Repeat([]byte(" "), 5<<20)) }
	for name, tc := range map[string]struct {
		answer http.HandlerFunc
		path   string // "": of the manifest
		kind   api.Kind
		code   string
		says   []string
		after  time.Duration
	}{
		"not found":     {answer: answers(404, "MANIFEST_UNKNOWN", "no such tag"), kind: api.NotFound, code: "image_not_found", says: []string{"not found", where, "app:v1", `"no such tag"`}},
		"unauthorized":  {answer: answers(401, "UNAUTHORIZED", "who are you"), kind: api.Denied, code: "registry_unauthorized", says: []string{"unauthorized", "wants credentials", "who are you"}},
		"forbidden":     {answer: answers(403, "DENIED", "not you\x1b[2J"), kind: api.Denied, code: "registry_forbidden", says: []string{"forbidden", `"not you [2J"`}},
		"rate limited":  {answer: answers(429, "TOOMANYREQUESTS", "slow down", "Retry-After", "37"), kind: api.RateLimited, code: "rate_limited", says: []string{"rate limited", "try again in 37s (at ", "slow down"}, after: 37 * time.Second},
		"limited, when": {answer: answers(429, "", ""), kind: api.RateLimited, code: "rate_limited", says: []string{"it did not say when"}},
		"broken":        {answer: answers(500, "UNKNOWN", "database"), kind: api.Unavailable, code: "registry_unavailable", says: []string{"answered 500 Internal Server Error", "database"}},
		"teapot":        {answer: answers(418, "", ""), kind: api.Invalid, code: "registry_refused", says: []string{"418"}},
		"a page": {answer: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			io.WriteString(w, "<html>")
		}, kind: api.Invalid, code: "invalid_image", says: []string{"not an image", "text/html"}},
		"too large": {answer: huge, kind: api.TooLarge, code: "image_too_large", says: []string{"too large", "4194304"}},
		"a loop":    {answer: func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, http.StatusFound) }, kind: api.Invalid, code: "registry_refused", says: []string{"redirects more than 5 times"}},
		"to a file": {answer: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "file:///etc/passwd")
			w.WriteHeader(302)
		}, kind: api.Invalid, code: "registry_refused", says: []string{"only HTTPS is followed"}},
		"to plain HTTP": {answer: func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://registry.example/x", http.StatusFound)
		}, kind: api.Invalid, code: "registry_refused", says: []string{"only HTTPS is followed"}},
		"many images": {answer: func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"manifests":[{}%s]}`, strings.Repeat(",{}", 4096))
		}, kind: api.TooLarge, code: "image_too_large", says: []string{"names 4097 images; 4096 are possible"}},
		"many layers": {answer: func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"config":{},"layers":[{}%s]}`, strings.Repeat(",{}", 512))
		}, kind: api.TooLarge, code: "image_too_large", says: []string{"513 layers; 512 are possible"}},
		"a large layer": {answer: func(w http.ResponseWriter, _ *http.Request) {
			w.Write(must(json.Marshal(v1.Manifest{Config: v1.Descriptor{MediaType: types.OCIConfigJSON, Digest: v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("1", 64)}}, Layers: []v1.Descriptor{{Digest: v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("1", 64)}, Size: 1 << 60}}})))
		}, kind: api.TooLarge, code: "image_too_large", says: []string{"more than 17179869184 bytes"}},
		"a chart": {answer: func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, `{"config":{"mediaType":"application/vnd.cncf.helm.config.v1+json","digest":"sha256:`+strings.Repeat("1", 64)+`"},"layers":[]}`)
		}, kind: api.Invalid, code: "invalid_image", says: []string{"not an image: its configuration is of the type", "helm"}},
		"no config": {path: "/blobs/", answer: answers(404, "", ""), kind: api.Invalid, code: "invalid_image", says: []string{"lacks the blob"}},
		"false config": {path: "/blobs/", answer: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Transfer-Encoding", "identity")
			w.Write([]byte("{}"))
		}, kind: api.Invalid, code: "invalid_image", says: []string{"size mismatch"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newRegistry()
				f.image("app", app(""), nil, "v1")
				path := tc.path
				if path == "" {
					path = "/manifests/"
				}
				f.spoil = spoilt(path, tc.answer)
				dir := t.TempDir()
				s := pullFrom(t, dir, f, Options{})
				_, err := s.Pull(t.Context(), where+"/app:v1", PullOptions{})
				e, ok := errors.AsType[*api.Error](err)
				if !ok || e.Kind != tc.kind || e.Code != tc.code || e.RetryAfter != tc.after {
					t.Fatalf("%#v", err)
				}
				for _, says := range tc.says {
					if !strings.Contains(e.Message, says) {
						t.Errorf("%q does not say %q", e.Message, says)
					}
				}
				if left, list := leftIn(t, dir), s.List(); len(left) != 0 || len(list) != 0 {
					t.Errorf("%v and %+v are left", left, list)
				}
			})
		})
	}
}

// What is wrong with a layer is found out behind the answer: the image has failed, says why, and nothing false is kept.
func TestPullFails(t *testing.T) {
	p := big("")
	digest := layerDigest(p, 1)
	data := gzipped(p.layers[1])
	other := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		w.Write(noise(9, len(data)))
	}
	chunks := func(b []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			var from int
			fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from)
			if from > 0 {
				w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/*", from, len(data)-1))
				w.WriteHeader(206)
			}
			w.(http.Flusher).Flush()
			w.Write(b[min(from, len(b)):])
		}
	}
	for name, tc := range map[string]struct {
		answer http.HandlerFunc
		edit   func(*v1.Manifest)
		config func(map[string]any)
		code   string
		says   string
		kept   bool
	}{
		"another digest":    {answer: other, code: "invalid_image", says: "layer 2: digest mismatch: the registry delivers a blob with the digest sha256:"},
		"another size":      {answer: func(w http.ResponseWriter, _ *http.Request) { w.Write(data[:100]) }, code: "invalid_image", says: "size mismatch: the registry has 100 bytes"},
		"more than it says": {answer: chunks(append(slices.Clone(data), 1)), code: "invalid_image", says: "size mismatch: the registry sends more"},
		"less than it says": {answer: chunks(data[:1000]), code: "invalid_image", says: "size mismatch: the registry ends the blob"},
		"not there":         {answer: answers(404, "BLOB_UNKNOWN", "gone"), code: "image_not_found", says: "lacks the blob"},
		"elsewhere":         {answer: answers(404, "BLOB_UNKNOWN", "gone"), edit: func(m *v1.Manifest) { m.Layers[1].URLs = []string{"http://localhost:6000/x"} }, code: "image_not_found", says: "elsewhere (urls), which is not followed"},
		"limited half-way":  {answer: answers(429, "", "", "Retry-After", "5"), code: "rate_limited", says: "try again in 5s", kept: true},
		"broken":            {answer: answers(503, "", ""), code: "registry_unavailable", says: "503 Service Unavailable", kept: true},
		"another part":      {answer: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(206) }, code: "registry_refused", says: "answered 206"},
		"content not as said": {config: func(c map[string]any) {
			c["rootfs"] = map[string]any{"diff_ids": []string{"sha256:" + strings.Repeat("1", 64), "sha256:" + strings.Repeat("2", 64)}}
		}, code: "invalid_image", says: "its content has the digest"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newRegistry()
				p := p
				p.config = tc.config
				f.image("app", p, tc.edit, "v1")
				if tc.answer != nil {
					f.spoil = spoilt(digest, tc.answer)
				}
				dir := t.TempDir()
				var outcomes []string
				s := pullFrom(t, dir, f, Options{Pulled: func(outcome string, _ int64, _ time.Duration) { outcomes = append(outcomes, outcome) }})
				img, err := pulled(t, s, where+"/app:v1", PullOptions{})
				code := tc.code
				if code == "image_not_found" { // of a blob: the image is there, and is not whole
					code = "invalid_image"
				}
				refused(t, err, code, tc.says)
				synctest.Wait()
				if img.Status != Failed || !strings.Contains(img.Error, tc.says) || !slices.Equal(outcomes, []string{code}) || len(s.List()) != 1 {
					t.Errorf("%+v, outcomes %q", img, outcomes)
				}
				left := leftIn(t, dir)
				if tc.kept != (len(left) > 0) {
					t.Errorf("%v is left", left)
				}
				if err := s.Delete(t.Context(), where+"/app:v1"); err != nil {
					t.Error(err)
				}
				if left := leftIn(t, dir); len(left) != 0 || len(s.List()) != 0 {
					t.Errorf("%v is left after the deletion", left)
				}
			})
		})
	}
}

// A registry that breaks off in mid-layer is asked for the rest, also by a later pull and a later daemon.
func TestPullResumes(t *testing.T) {
	p := big("")
	digest, size := layerDigest(p, 0), len(gzipped(p.layers[0]))
	data := gzipped(p.layers[0])
	cutting := func(f *fakeRegistry, times *atomic.Int64) func(http.ResponseWriter, *http.Request) bool {
		return spoilt(digest, func(w http.ResponseWriter, r *http.Request) {
			most := len(data)
			if times.Add(-1) >= 0 {
				most = 300_000
			}
			f.deliver(w, r, digest, data, most)
		})
	}
	t.Run("by ranges", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f, cuts := newRegistry(), new(atomic.Int64)
			f.image("app", p, nil, "v1")
			cuts.Store(2)
			f.spoil = cutting(f, cuts)
			s := pullFrom(t, t.TempDir(), f, Options{})
			if img, err := pulled(t, s, where+"/app:v1", PullOptions{}); err != nil || img.Status != Ready {
				t.Fatalf("%+v, %v", img, err)
			}
			asked := f.requests(digest)
			if len(asked) != 3 || !strings.HasSuffix(asked[1], fmt.Sprintf("bytes=300000-%d", size-1)) || !strings.HasSuffix(asked[2], fmt.Sprintf("bytes=600000-%d", size-1)) || f.bytes(digest) != size {
				t.Errorf("asked %q for %d bytes, which sent %d", asked, size, f.bytes(digest))
			}
		})
	})
	t.Run("without ranges", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f, cuts := newRegistry(), new(atomic.Int64)
			f.image("app", p, nil, "v1")
			cuts.Store(1)
			f.noRanges, f.spoil = true, cutting(f, cuts)
			s := pullFrom(t, t.TempDir(), f, Options{})
			if img, err := pulled(t, s, where+"/app:v1", PullOptions{}); err != nil || img.Status != Ready || f.bytes(digest) != size+300_000 {
				t.Fatalf("%+v, %v, %d bytes sent", img, err, f.bytes(digest))
			}
		})
	})
	t.Run("another time", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := newRegistry()
			f.image("app", p, nil, "v1")
			var down atomic.Bool
			f.spoil = func(w http.ResponseWriter, r *http.Request) bool {
				switch {
				case down.Load():
					fails(w, 503, "", "")
				case strings.Contains(r.URL.Path, digest):
					down.Store(true)
					f.deliver(w, r, digest, data, 300_000)
				default:
					return false
				}
				return true
			}
			dir := t.TempDir()
			s := pullFrom(t, dir, f, Options{})
			_, err := pulled(t, s, where+"/app:v1", PullOptions{})
			refused(t, err, "registry_unavailable", "503")
			synctest.Wait()
			// The failure and what is here of the layers outlive the daemon.
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			n := registrytest.New(t)
			n.Serve(where, f)
			s2, err := Open(dir, Options{Registry: n.Client()})
			if err != nil {
				t.Fatal(err)
			}
			defer s2.Close()
			if img, err := s2.Find(where + "/app:v1"); err != nil || img.Status != Failed || !strings.Contains(img.Error, "503") {
				t.Errorf("%+v, %v", img, err)
			}
			f.mu.Lock()
			f.spoil, f.asked = nil, nil
			f.mu.Unlock()
			if img, err := pulled(t, s2, where+"/app:v1", PullOptions{}); err != nil || img.Status != Ready {
				t.Fatalf("%+v, %v", img, err)
			}
			if asked := f.requests(digest); len(asked) != 1 || !strings.Contains(asked[0], "bytes=300000-") {
				t.Errorf("asked %q", asked)
			}
			if left, err := os.ReadDir(filepath.Join(dir, partialDir)); err != nil || len(left) != 0 {
				t.Errorf("%v is left, %v", left, err)
			}
		})
	})
	t.Run("what is here is false", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := newRegistry()
			f.image("app", p, nil, "v1")
			dir := t.TempDir()
			s := pullFrom(t, dir, f, Options{})
			h, _ := digestOf(data)
			if err := os.WriteFile(filepath.Join(dir, partialDir, h.Hex), noise(7, 1000), 0o600); err != nil {
				t.Fatal(err)
			}
			if img, err := pulled(t, s, where+"/app:v1", PullOptions{}); err != nil || img.Status != Ready {
				t.Fatalf("%+v, %v", img, err)
			}
			if asked := f.requests(digest); len(asked) != 2 || !strings.Contains(asked[0], "bytes=1000-") || strings.Contains(asked[1], "bytes") {
				t.Errorf("asked %q", asked)
			}
		})
	})
}

// A registry that hangs is given up after a minute without a byte, one that trickles after five minutes, at any point.
func TestPullGivesUp(t *testing.T) {
	p := big("")
	hang := func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	halfway := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100000")
		w.Write(make([]byte, 1000))
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}
	trickle := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(gzipped(p.layers[1]))))
		for r.Context().Err() == nil {
			if _, err := w.Write([]byte("x")); err != nil {
				return
			}
			w.(http.Flusher).Flush()
			select {
			case <-r.Context().Done():
			case <-time.After(20 * time.Second):
			}
		}
	}
	for name, tc := range map[string]struct {
		path   string
		answer http.HandlerFunc
		after  time.Duration
		says   string
	}{
		"hangs at the manifest": {"/manifests/", hang, time.Minute, "sent no byte for 1m0s"},
		"hangs at a layer":      {layerDigest(p, 1), hang, time.Minute, "sent no byte for 1m0s"},
		"stops in the manifest": {"/manifests/", halfway, time.Minute, "sent no byte for 1m0s"},
		"trickles a layer":      {layerDigest(p, 1), trickle, 10 * time.Minute, "too slow: the registry localhost:5000 sent 15 bytes"},
		"trickles the manifest": {"/manifests/", trickle, 5 * time.Minute, "too slow: the registry localhost:5000 sent 16 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newRegistry()
				f.image("app", p, nil, "v1")
				f.spoil = spoilt(tc.path, tc.answer)
				s := pullFrom(t, t.TempDir(), f, Options{})
				start := time.Now()
				// Who asks is answered within its patience, and the pull goes on.
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				img, err := s.Pull(ctx, where+"/app:v1", PullOptions{})
				if err != nil || img.Status != Pulling || (img.Digest == "") != (tc.path == "/manifests/") || time.Since(start) > 10*time.Second {
					t.Fatalf("%+v, %v, after %s", img, err, time.Since(start))
				}
				img = finished(t, s, where+"/app:v1")
				refused(t, img.Cause, "pull_stalled", tc.says)
				if took := time.Since(start); img.Status != Failed || took < tc.after || took > tc.after+30*time.Second {
					t.Errorf("%+v after %s", img, took)
				}
			})
		})
	}
}

// A registry that is slow does not keep others from their turn: the pull waits in line again, and goes on from where it was.
func TestPullGivesItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newRegistry()
		p := big("")
		data := gzipped(p.layers[1])
		f.image("slow", p, nil, "v1")
		f.image("app", picture{layers: [][]byte{layerTar(file("f", "app"))}}, nil, "v1")
		var mu sync.Mutex
		sent := 0
		f.spoil = spoilt(layerDigest(p, 1), func(w http.ResponseWriter, r *http.Request) {
			var from int
			fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from)
			if from > 0 {
				w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(data)-1, len(data)))
				w.WriteHeader(206)
			}
			for from < len(data) && r.Context().Err() == nil {
				n, err := w.Write(data[from:min(from+1024, len(data))]) // more than slowBytes, fewer than fairBytes
				if err != nil {
					return
				}
				from += n
				mu.Lock()
				sent += n
				mu.Unlock()
				w.(http.Flusher).Flush()
				select {
				case <-time.After(time.Second):
				case <-r.Context().Done():
				}
			}
		})
		s := pullFrom(t, t.TempDir(), f, Options{Pulls: 1})
		start := time.Now()
		slow, app := where+"/slow:v1", where+"/app:v1"
		for _, name := range []string{slow, app} {
			if _, err := s.Pull(t.Context(), name, PullOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		if img := finished(t, s, app); img.Status != Ready || time.Since(start) > slowTime+time.Minute {
			t.Errorf("%+v after %s", img, time.Since(start))
		}
		if img := finished(t, s, slow); img.Status != Ready || time.Since(start) > 20*time.Minute {
			t.Errorf("%+v after %s", img, time.Since(start))
		}
		if mu.Lock(); sent > len(data)+10<<10 {
			t.Errorf("of %d bytes %d were sent", len(data), sent)
		}
		mu.Unlock()
	})
}

// A layer that another registry brings slowly, or hardly at all, is fetched from the one that was asked for this image.
func TestSlowRegistryHoldsNoOther(t *testing.T) {
	for name, perSecond := range map[string]int{"slowly": 1024, "hardly": 1} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := big("")
				data := gzipped(p.layers[1])
				slow, good := newRegistry(), newRegistry()
				slow.image("slow", p, nil, "v1")
				good.image("app", p, nil, "v1")
				slow.spoil = spoilt(layerDigest(p, 1), func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Content-Length", fmt.Sprint(len(data)))
					for at := 0; at < len(data) && r.Context().Err() == nil; at += perSecond {
						if _, err := w.Write(make([]byte, min(perSecond, len(data)-at))); err != nil { // not even what was asked for
							return
						}
						w.(http.Flusher).Flush()
						select {
						case <-time.After(time.Second):
						case <-r.Context().Done():
						}
					}
				})
				n := registrytest.New(t)
				n.Serve(where, slow)
				n.Serve("localhost:6000", good)
				dir := t.TempDir()
				s := openStore(t, dir, Options{Registry: n.Client()})
				if _, err := s.Pull(t.Context(), where+"/slow:v1", PullOptions{}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Millisecond) // the layer is on its way
				start := time.Now()
				img, err := pulled(t, s, "localhost:6000/app:v1", PullOptions{})
				if took := time.Since(start); err != nil || img.Status != Ready || took > slowTime+time.Minute {
					t.Errorf("%+v, %v, after %s", img, err, took)
				}
				if img := finished(t, s, where+"/slow:v1"); name == "slowly" && img.Status != Ready { // what it wants is here
					t.Errorf("%+v", img)
				}
				s.Sweep()
				if left := must(os.ReadDir(filepath.Join(dir, partialDir))); len(left) > 0 {
					t.Errorf("%d partial blobs are left", len(left))
				}
			})
		})
	}
}

// Who waits for what is fetched already is given up with that: a layer that an image names twice, and two pulls that wait for each other.
func TestWaitingForEachOtherEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := layerTar(file("a", "a")), layerTar(file("b", "b"))
		n := registrytest.New(t)
		names := []string{"localhost:5000/twice:v1", "localhost:5001/app:v1", "localhost:5002/app:v1"}
		for i, layers := range [][][]byte{{a, a}, {b, layerTar(file("c", "c"))}, {layerTar(file("c", "c")), b}} {
			f := newRegistry()
			f.image(strings.Split(names[i][len("localhost:5000/"):], ":")[0], picture{layers: layers}, nil, "v1")
			f.spoil = spoilt("/blobs/", func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
			spoil, config := f.spoil, picture{layers: layers}.configuration()
			h, _ := digestOf(config)
			f.spoil = func(w http.ResponseWriter, r *http.Request) bool {
				return !strings.Contains(r.URL.Path, h.Hex) && spoil(w, r)
			}
			n.Serve(names[i][:len("localhost:5000")], f)
		}
		s := openStore(t, t.TempDir(), Options{Registry: n.Client()})
		start := time.Now()
		for _, name := range names {
			if _, err := s.Pull(t.Context(), name, PullOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		for _, name := range names {
			img := finished(t, s, name)
			if refused(t, img.Cause, "pull_stalled", "sent no byte"); time.Since(start) > 4*time.Minute {
				t.Errorf("%s after %s", name, time.Since(start))
			}
		}
	})
}

// A turn ends when others wait, for what is slow soon, for what is not after an hour; where nobody waits it does not.
func TestTurn(t *testing.T) {
	for name, tc := range map[string]struct {
		perMinute int
		wait      bool
		after     time.Duration // 0: it does not end
	}{
		"slow":                 {fairBytes / 10, true, slowTime},
		"slow, and nobody":     {fairBytes / 10, false, 0},
		"not slow":             {fairBytes, true, turnTime},
		"not slow, and nobody": {fairBytes, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var l life
				ctx, stop := l.watch(t.Context(), where, func() bool { return tc.wait })
				defer stop()
				var ended time.Duration
				for m := time.Minute / 2; m < 2*turnTime && ctx.Err() == nil; m += time.Minute / 2 {
					time.Sleep(time.Minute / 2)
					if l.shown(tc.perMinute / 2); ctx.Err() != nil {
						ended = m
					}
				}
				if ended != tc.after || tc.after > 0 && context.Cause(ctx) != errTurnOver {
					t.Errorf("it ended after %s: %v; want %s", ended, context.Cause(ctx), tc.after)
				}
			})
		})
	}
}

// Nothing is stuck: what waits has a position, and moves up when one before it ends or is deleted.
func TestPullQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newRegistry()
		var names []string
		for i := range 4 {
			name := fmt.Sprintf("app%d", i)
			f.image(name, picture{name: name, layers: [][]byte{layerTar(file("f", name))}}, nil, "v1")
			names = append(names, where+"/"+name+":v1")
		}
		release := make(chan struct{})
		var held sync.Once
		f.spoil = func(w http.ResponseWriter, r *http.Request) bool {
			if h, _ := digestOf(layerTar(file("f", "app0"))); strings.Contains(r.URL.Path, h.Hex) {
				held.Do(func() { <-release })
			}
			return false
		}
		dir := t.TempDir()
		s := pullFrom(t, dir, f, Options{Pulls: 1})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		for i, name := range names {
			img, err := s.Pull(ctx, name, PullOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if i == 0 && (img.Status != Pulling || img.QueuePosition != nil) || i > 0 && (img.Status != Pending || img.QueuePosition == nil || *img.QueuePosition != i || img.Digest == "") {
				t.Errorf("%s: %+v", name, img)
			}
		}
		if err := s.Delete(t.Context(), names[1]); err != nil {
			t.Error(err)
		}
		if img, err := s.Find(names[2]); err != nil || *img.QueuePosition != 1 {
			t.Errorf("%+v, %v", img, err)
		}
		close(release)
		for _, name := range []string{names[0], names[2], names[3]} {
			if img := finished(t, s, name); img.Status != Ready {
				t.Errorf("%+v", img)
			}
		}
		if _, err := s.Find(names[1]); !errors.Is(err, api.NotFound) {
			t.Error(err)
		}
	})
}

// A name whose pull could not be ended any more is deleted all the same, and one that was ended in time is not given.
func TestDeleteWhileCommitting(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{})
	img := put(t, s, "app", "1")
	name := where + "/app:v1"
	commit := func(p *pull, ctx context.Context) error {
		imp := &importing{candidates: []*candidate{{names: []string{name}, digest: img.Digest}}}
		_, err := s.name(ctx, imp)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.close(p, err)
		return err
	}
	begin := func() *pull {
		s.mu.Lock()
		defer s.mu.Unlock()
		p := s.newPull(name, registry.Auth{}, pullRecord{Digest: img.Digest})
		s.pulls[name] = p
		return p
	}
	for late, want := range map[bool]error{true: nil, false: errDeleted} {
		p := begin()
		result := make(chan error, 1)
		go func() {
			<-p.ctx.Done()
			if late { // it had looked before
				result <- commit(p, context.Background())
			} else {
				result <- commit(p, p.ctx)
			}
		}()
		if err := s.Delete(t.Context(), name); err != nil {
			t.Error(err)
		}
		if err := <-result; !errors.Is(err, want) {
			t.Errorf("the pull ended with %v; want %v", err, want)
		}
		if found, err := s.Find(name); !errors.Is(err, api.NotFound) {
			t.Errorf("after the deletion %+v, %v", found, err)
		}
	}
}

// Ten pulls of one image at once, and of other names of it, fetch and convert it once.
func TestTenPulls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newRegistry()
		p := big("")
		f.image("app", p, nil, "v1", "v2", "v3")
		conversions := 0
		s := pullFrom(t, t.TempDir(), f, Options{Pulls: 10, Converted: func(error, time.Duration) { conversions++ }})
		var wg sync.WaitGroup
		for i := range 10 {
			wg.Go(func() {
				tag := []string{"v1", "v1", "v1", "v2", "v3"}[i%5]
				if img, err := pulled(t, s, where+"/app:"+tag, PullOptions{}); err != nil || img.Status != Ready {
					t.Errorf("%+v, %v", img, err)
				}
			})
		}
		wg.Wait()
		if n := len(f.requests(layerDigest(p, 0))); n != 1 || conversions != 1 || len(s.List()) != 3 {
			t.Errorf("a layer was fetched %d times, and there were %d conversions of %d images", n, conversions, len(s.List()))
		}
	})
}

// Images that have a layer in common fetch it once, at the same time and later.
func TestPullSharesLayers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newRegistry()
		one := big("")
		two := picture{pack: gzipped, layers: [][]byte{one.layers[0], layerTar(file("x", "x"))}}
		three := picture{pack: gzipped, layers: [][]byte{one.layers[0], layerTar(file("y", "y"))}}
		f.image("one", one, nil, "v1")
		f.image("two", two, nil, "v1")
		f.image("three", three, nil, "v1")
		s := pullFrom(t, t.TempDir(), f, Options{})
		var wg sync.WaitGroup
		for _, name := range []string{"one", "two"} {
			wg.Go(func() {
				if _, err := pulled(t, s, where+"/"+name+":v1", PullOptions{}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		img, err := pulled(t, s, where+"/three:v1", PullOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if v := readDisk(t, img.Disk); string(v["y"].data) != "y" || len(v["one"].data) != 1<<20 {
			t.Errorf("the disk holds\n%s", strings.Join(v.lines(), "\n"))
		}
		if n := f.requests(layerDigest(one, 0)); len(n) != 1 {
			t.Errorf("asked %q", n)
		}
	})
}

// A name that moves stands for the old image until the new one is ready, which is found by its digest meanwhile; a failure
// leaves the old one.
func TestPullAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newRegistry()
		const ref = where + "/app:v1"
		f.image("app", app("old"), nil, "v1")
		s := pullFrom(t, t.TempDir(), f, Options{})
		old, err := pulled(t, s, ref, PullOptions{})
		if err != nil {
			t.Fatal(err)
		}
		next := f.image("app", picture{name: "new", layers: [][]byte{base}}, nil, "v1")
		release := make(chan struct{})
		h, _ := digestOf(base)
		s.mu.Lock()
		_ = os.Remove(s.path(blobsDir, h.Hex)) // so that it is fetched again
		s.mu.Unlock()
		f.mu.Lock()
		f.spoil = func(w http.ResponseWriter, r *http.Request) bool {
			if strings.Contains(r.URL.Path, h.Hex) {
				<-release
				return false
			}
			return false
		}
		f.mu.Unlock()
		img, err := s.Pull(t.Context(), ref, PullOptions{})
		if err != nil || img.Digest != next.Digest.String() || img.Status != Pulling {
			t.Fatalf("%+v, %v, asked %q", img, err, f.asked)
		}
		if now, err := s.Find(ref); err != nil || now.Digest != old.Digest || now.Status != Ready || len(s.List()) != 1 {
			t.Errorf("%+v, %v", now, err)
		}
		if now, err := s.Find(where + "/app@" + next.Digest.String()); err != nil || now.Status != Pulling {
			t.Errorf("%+v, %v", now, err)
		}
		close(release)
		if now := finished(t, s, where+"/app@"+next.Digest.String()); now.Status != Ready {
			t.Errorf("%+v", now)
		}
		if now, err := s.Find(ref); err != nil || now.Digest != next.Digest.String() {
			t.Errorf("%+v, %v", now, err)
		}
	})
}

// A daemon that ends in the middle of pulls goes on with them, but for those whose credentials it does not keep.
func TestPullAfterRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newRegistry()
		p := big("")
		f.image("app", p, nil, "v1")
		f.image("private", p, nil, "v1")
		f.image("slow", p, nil, "v1")
		digest := layerDigest(p, 1)
		f.spoil = func(w http.ResponseWriter, r *http.Request) bool {
			if strings.Contains(r.URL.Path, digest) || strings.Contains(r.URL.Path, "/slow/") {
				<-r.Context().Done()
				return true
			}
			return false
		}
		dir := t.TempDir()
		var log bytes.Buffer
		n := registrytest.New(t)
		n.Serve(where, f)
		s, err := Open(dir, Options{Registry: n.Client(), Log: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		for name, auth := range map[string]registry.Auth{"app": {}, "slow": {}, "private": {Username: "me", Password: "s3cret"}} {
			if _, err := s.Pull(ctx, where+"/"+name+":v1", PullOptions{Auth: auth, Tags: map[string]string{"name": name}}); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		written, err := os.ReadFile(filepath.Join(dir, pullsFile))
		if err != nil || strings.Contains(string(written)+log.String(), "s3cret") {
			t.Errorf("%s\n%s, %v", written, &log, err)
		}

		f.mu.Lock()
		f.spoil, f.asked = nil, nil
		f.mu.Unlock()
		n = registrytest.New(t)
		n.Serve(where, f)
		again, err := Open(dir, Options{Registry: n.Client()})
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"app", "slow"} {
			if img := finished(t, again, where+"/"+name+":v1"); img.Status != Ready || img.Tags["name"] != name {
				t.Errorf("%+v", img)
			}
		}
		if img := finished(t, again, where+"/private:v1"); img.Status != Failed || !strings.Contains(img.Error, "credentials that it was given are not kept") {
			t.Errorf("%+v", img)
		}
		if asked := f.requests(layerDigest(p, 0)); len(asked) != 0 {
			t.Errorf("the layer that was here was fetched again: %q", asked)
		}
		if err := again.Close(); err != nil {
			t.Error(err)
		}
	})
}

// A pull that was refused to one's credentials is tried with those of who joined it.
func TestPullJoinedByOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newRegistry()
		f.image("app", app(""), nil, "v1")
		f.spoil = func(w http.ResponseWriter, r *http.Request) bool {
			time.Sleep(time.Second)
			if user, _, _ := r.BasicAuth(); user != "me" {
				w.Header().Set("WWW-Authenticate", `Basic realm="here"`)
				fails(w, 401, "UNAUTHORIZED", "")
				return true
			}
			return false
		}
		s := pullFrom(t, t.TempDir(), f, Options{})
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := s.Pull(t.Context(), where+"/app:v1", PullOptions{})
			refused(t, err, "registry_unauthorized", "wants credentials")
		})
		synctest.Wait()
		wg.Go(func() {
			if _, err := pulled(t, s, where+"/app:v1", PullOptions{Auth: registry.Auth{Username: "me", Password: "x"}}); err != nil {
				t.Error(err)
			}
		})
		wg.Wait()
	})
}

// What the host has is used where a pull brings nothing.
func TestPullWithTheHostsCredentials(t *testing.T) { synctest.Test(t, pullWithTheHostsCredentials) }

func pullWithTheHostsCredentials(t *testing.T) {
	f := newRegistry()
	f.image("team/app", app(""), nil, "v1")
	f.spoil = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") == "Bearer good" {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="http://localhost:5000/token"`)
		fails(w, 401, "UNAUTHORIZED", "")
		return true
	}
	s := pullFrom(t, t.TempDir(), f, Options{Credentials: func(_ context.Context, host, repository string) (registry.Auth, error) {
		if host != where || repository != "team/app" {
			t.Errorf("asked for %s/%s", host, repository)
		}
		return registry.Auth{RegistryToken: "good"}, nil
	}})
	if _, err := pulled(t, s, where+"/team/app:v1", PullOptions{}); err != nil {
		t.Error(err)
	}
	synctest.Wait() // or the second would join the first
	_, err := pulled(t, s, where+"/team/app:v1", PullOptions{Auth: registry.Auth{RegistryToken: "bad"}})
	refused(t, err, "registry_unauthorized", "does not accept the credentials")
	broken := pullFrom(t, t.TempDir(), f, Options{Credentials: func(context.Context, string, string) (registry.Auth, error) {
		return registry.Auth{}, errors.New("config.json is not readable")
	}})
	_, err = broken.Pull(t.Context(), where+"/team/app:v1", PullOptions{})
	refused(t, err, "registry_credentials", "not readable")
}

func TestTag(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{})
	one := put(t, s, "app:1", "1")
	img, err := s.Tag("app:1", "registry.example/other:stable")
	if err != nil || img.Digest != one.Digest || img.Ref != "registry.example/other:stable" || img.Status != Ready {
		t.Errorf("%+v, %v", img, err)
	}
	for target, code := range map[string]string{"UPPER": "invalid_image_name", "x@" + one.Digest: "invalid_image_name"} {
		_, err := s.Tag("app:1", target)
		refused(t, err, code, "")
	}
	if _, err := s.Tag("absent", "x"); !errors.Is(err, api.NotFound) {
		t.Error(err)
	}
	if err := s.Delete(t.Context(), "app:1"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(img.Disk); err != nil {
		t.Error(err)
	}
	put(t, s, "app:2", "2")
	if _, err := s.Tag("app:2", "registry.example/other:stable"); err != nil { // it was the last name of the first
		t.Error(err)
	}
	if _, err := os.Stat(one.Disk); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// A configuration's lists are bounded: they stay in memory.
func TestConfigIsBounded(t *testing.T) {
	p := app("app")
	p.config = func(c map[string]any) { c["config"] = map[string]any{"Env": make([]string, 4097)} }
	s := openStore(t, t.TempDir(), Options{})
	_, err := s.Import(t.Context(), bytes.NewReader(dockerArchive(p)), ImportOptions{})
	refused(t, err, "image_too_large", "4097 entries in Env; 4096 are possible")
}

// There is an end to what can be pulled at a time, and to what is remembered of it.
func TestPullsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newRegistry()
		f.spoil = func(_ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true }
		s := pullFrom(t, t.TempDir(), f, Options{})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for i := range maxPulls {
			if _, err := s.Pull(ctx, fmt.Sprintf("%s/app%d", where, i), PullOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		_, err := s.Pull(ctx, where+"/more", PullOptions{})
		refused(t, err, "unavailable", fmt.Sprintf("%d images are being pulled", maxPulls))
		for _, img := range s.List() {
			if img.Status != Pulling && (img.Status != Pending || img.QueuePosition == nil) {
				t.Errorf("%+v", img)
			}
		}
		time.Sleep(stallTime)
		synctest.Wait()
		for _, img := range s.List() {
			if img.Status != Failed {
				t.Errorf("%+v", img)
			}
		}
		time.Sleep(failedStays + time.Second)
		if list := s.List(); len(list) != 0 {
			t.Errorf("after a day %d images are listed", len(list))
		}
		if _, err := s.Pull(ctx, where+"/more", PullOptions{}); err != nil || len(s.List()) != 1 {
			t.Errorf("%d images, %v", len(s.List()), err)
		}
	})
}

// What is written of the pulls can be read again: what failed gives way.
func TestPullsFileIsBounded(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{})
	s.most.pulls = 16 << 10
	now := time.Now()
	remember := func(name string, failed time.Time) *pull {
		p := s.newPull(where+"/"+name+":v1", registry.Auth{}, pullRecord{Tags: map[string]string{"k": strings.Repeat("v", s.most.pulls/4)}})
		if !failed.IsZero() {
			p.rec.Error, p.rec.FailedAt = "failed", failed
			close(p.done)
		}
		s.pulls[p.name] = p
		return p
	}
	for i := range 6 {
		remember(fmt.Sprint("app", i), now.Add(time.Duration(i-6)*time.Minute))
	}
	if err := s.savePulls(); err != nil {
		t.Fatal(err)
	}
	recs, err := store.ReadJSON[map[string]pullRecord](s.files, pullsFile, pullsVersion, int64(s.most.pulls))
	if err != nil || len(recs) != 3 || recs[where+"/app5:v1"].Error == "" || len(s.List()) != 3 {
		t.Errorf("%d records, %v", len(recs), err)
	}
	for i := range 5 {
		p := remember(fmt.Sprint("under", i), time.Time{})
		defer p.cancel(nil)
	}
	refused(t, s.savePulls(), "insufficient_resources", "16384 are possible")
}

// What is our own fault fails the pull with its detail in the log, and is not forgotten.
func TestPullFailsHere(t *testing.T) {
	f := newRegistry()
	p := big("")
	f.image("app", p, nil, "v1")
	dir := t.TempDir()
	var log bytes.Buffer
	s := pullFrom(t, dir, f, Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	h, _ := digestOf(p.packed(p.layers[0]))
	if err := os.Mkdir(filepath.Join(dir, partialDir, h.Hex), 0o700); err != nil { // where the layer is to lie
		t.Fatal(err)
	}
	img, err := pulled(t, s, where+"/app:v1", PullOptions{})
	if img.Status != Failed || strings.Contains(img.Error, dir) || !strings.Contains(img.Error, "the daemon's log says what") || err == nil {
		t.Errorf("%+v, %v", img, err)
	}
	if !strings.Contains(log.String(), "level=ERROR") || !strings.Contains(log.String(), h.Hex) {
		t.Errorf("the log says %s", &log)
	}
}
