package image

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/halevm/hale/internal/registry/registrytest"
)

// where the registry of the tests is.
const where = "localhost:5000"

// A fakeRegistry delivers what was put into it, as long as nobody spoils the answer.
type fakeRegistry struct {
	mu        sync.Mutex
	blobs     map[string][]byte // by digest
	manifests map[string][]byte // by repository@digest and repository:tag
	types     map[string]string // of the manifests
	asked     []string          // "PATH RANGE"
	sent      map[string]int    // bytes of blobs, by digest
	spoil     func(w http.ResponseWriter, r *http.Request) bool
	noRanges  bool
}

func newRegistry() *fakeRegistry {
	return &fakeRegistry{blobs: map[string][]byte{}, manifests: map[string][]byte{}, types: map[string]string{}, sent: map[string]int{}}
}

func (f *fakeRegistry) blob(data []byte, t types.MediaType) v1.Descriptor {
	h, n := digestOf(data)
	f.blobs[h.String()] = data
	return v1.Descriptor{MediaType: t, Digest: h, Size: n}
}

// manifest puts a manifest or an index into a repository and returns its descriptor.
func (f *fakeRegistry) manifest(repo string, v any, t types.MediaType, tags ...string) v1.Descriptor {
	raw, ok := v.([]byte)
	if !ok {
		raw = must(json.Marshal(v))
	}
	h, n := digestOf(raw)
	for _, at := range append(slices.Clone(tags), "") {
		key := repo + ":" + at
		if at == "" {
			key = repo + "@" + h.String()
		}
		f.manifests[key], f.types[key] = raw, string(t)
	}
	return v1.Descriptor{MediaType: t, Digest: h, Size: n}
}

// image puts an image into a repository. edit changes the manifest.
func (f *fakeRegistry) image(repo string, p picture, edit func(*v1.Manifest), tags ...string) v1.Descriptor {
	m := v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Layers: []v1.Descriptor{}}
	m.Config = f.blob(p.configuration(), types.OCIConfigJSON)
	for _, l := range p.layers {
		m.Layers = append(m.Layers, f.blob(p.packed(l), types.OCILayer))
	}
	if edit != nil {
		edit(&m)
	}
	return f.manifest(repo, m, types.OCIManifestSchema1, tags...)
}

func (f *fakeRegistry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	line := strings.TrimSpace(r.URL.Path + " " + r.Header.Get("Range"))
	f.mu.Lock()
	f.asked = append(f.asked, line)
	spoil := f.spoil
	f.mu.Unlock()
	if spoil != nil && spoil(w, r) {
		return
	}
	path := strings.TrimPrefix(r.URL.Path, "/v2/")
	if repo, at, ok := strings.Cut(path, "/manifests/"); ok {
		key := repo + ":" + at
		if strings.HasPrefix(at, "sha256:") {
			key = repo + "@" + at
		}
		raw, ok := f.manifests[key]
		if !ok {
			fails(w, http.StatusNotFound, "MANIFEST_UNKNOWN", "manifest unknown")
			return
		}
		w.Header().Set("Content-Type", f.types[key])
		w.Write(raw)
		return
	}
	_, digest, _ := strings.Cut(path, "/blobs/")
	data, ok := f.blobs[digest]
	if !ok {
		fails(w, http.StatusNotFound, "BLOB_UNKNOWN", "blob unknown to registry")
		return
	}
	f.deliver(w, r, digest, data, len(data))
}

// deliver sends a blob, or the first most bytes of what is asked for.
func (f *fakeRegistry) deliver(w http.ResponseWriter, r *http.Request, digest string, data []byte, most int) {
	total := len(data)
	if h := r.Header.Get("Range"); h != "" && !f.noRanges {
		var from, to int
		must(fmt.Sscanf(h, "bytes=%d-%d", &from, &to))
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to, total))
		data = data[from : to+1]
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		w.WriteHeader(http.StatusPartialContent)
	} else {
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
	}
	n, _ := w.Write(data[:min(most, len(data))])
	f.mu.Lock()
	f.sent[digest] += n
	f.mu.Unlock()
	if n < len(data) {
		if fl, ok := w.(http.Flusher); ok {
			fl.Flush()
		}
		panic(http.ErrAbortHandler)
	}
}

// bytes is how much was sent of a blob.
func (f *fakeRegistry) bytes(digest string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sent[digest]
}

// requests are what was asked for that contains text.
func (f *fakeRegistry) requests(text string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var found []string
	for _, a := range f.asked {
		if strings.Contains(a, text) {
			found = append(found, a)
		}
	}
	return found
}

func fails(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]any{"errors": []any{map[string]string{"code": code, "message": message}}})
}

// spoilt makes what matches be answered otherwise.
func spoilt(text string, answer http.HandlerFunc) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, text) {
			answer(w, r)
			return true
		}
		return false
	}
}

// pullFrom opens a store that knows the one registry.
func pullFrom(t testing.TB, dir string, f http.Handler, o Options) *Store {
	t.Helper()
	n := registrytest.New(t)
	n.Serve(where, f)
	o.Registry = n.Client()
	return openStore(t, dir, o)
}

// noise is data that does not compress.
func noise(seed byte, n int) []byte {
	b := make([]byte, n)
	x := uint32(seed) + 1
	for i := range b {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		b[i] = byte(x)
	}
	return b
}

// big is an image whose layers are of a megabyte.
func big(name string) picture {
	return picture{name: name, pack: gzipped, layers: [][]byte{layerTar(file("one", string(noise(1, 1<<20)))), layerTar(file("two", string(noise(2, 1<<20))))}}
}

// layerDigest is the digest of a picture's layer as it is stored.
func layerDigest(p picture, n int) string {
	h, _ := digestOf(p.packed(p.layers[n]))
	return h.String()
}

// finished waits until an image is ready or has failed.
func finished(t testing.TB, s *Store, ref string) Image {
	t.Helper()
	for {
		changed := s.Changed()
		img, err := s.Find(ref)
		if err != nil {
			t.Fatal(err)
		}
		if img.Status == Ready || img.Status == Failed {
			return img
		}
		<-changed
	}
}

// pulled pulls an image until it is ready or has failed.
func pulled(t testing.TB, s *Store, ref string, o PullOptions) (Image, error) {
	t.Helper()
	img, err := s.Pull(t.Context(), ref, o)
	if err != nil {
		return img, err
	}
	if img.Status != Ready && img.Status != Failed {
		img = finished(t, s, ref)
	}
	return img, img.Cause
}
