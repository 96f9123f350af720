package hale

import (
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"

	"github.com/halevm/hale/api"
)

func TestImport(t *testing.T) {
	const size = 3 << 20
	data := func() io.Reader { return io.LimitReader(rand.NewChaCha8([32]byte{1}), size) }
	want := sha256.New()
	io.Copy(want, data())
	for name, given := range map[string]int64{"size known": size, "size unknown": 0} {
		t.Run(name, func(t *testing.T) {
			var length int64
			got := sha256.New()
			c := serve(t, func(w http.ResponseWriter, r *http.Request) {
				length = r.ContentLength
				if _, err := io.Copy(got, r.Body); err != nil {
					t.Error(err)
				}
				answer(http.StatusAccepted, `{"name":"docker.io/library/web:1","digest":"sha256:00","status":"converting","created_at":"2026-01-02T03:04:05Z"}`)(w, r)
			})
			var told []int64
			img, err := c.ImportImage(t.Context(), data(), Import{Size: given, Progress: func(n int64) { told = append(told, n) }})
			if err != nil || img.Status != api.ImageStatusConverting {
				t.Fatalf("%+v, %v", img, err)
			}
			if string(got.Sum(nil)) != string(want.Sum(nil)) {
				t.Error("the server got something else than was sent")
			}
			if given > 0 && length != given {
				t.Errorf("announced %d bytes, want %d", length, given)
			}
			for i, n := range told {
				if i > 0 && n <= told[i-1] {
					t.Errorf("progress went from %d to %d", told[i-1], n)
				}
			}
			if len(told) == 0 || told[len(told)-1] != size {
				t.Errorf("progress ended at %v, want %d", told, size)
			}
		})
	}
}

// TestImportFile: a file says itself how much of it is left, whatever was read of it.
func TestImportFile(t *testing.T) {
	var length int64
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		length = r.ContentLength
		io.Copy(io.Discard, r.Body)
		answer(http.StatusCreated, `{}`)(w, r)
	})
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, make([]byte, 100<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.CopyN(io.Discard, f, 1<<10); err != nil {
		t.Fatal(err)
	}
	if _, err := c.ImportImage(t.Context(), f, Import{}); err != nil || length != 99<<10 {
		t.Errorf("announced %d bytes of %d: %v", length, 99<<10, err)
	}
}

// TestImportIsRefusedFirst: what is refused at once is not read.
func TestImportIsRefusedFirst(t *testing.T) {
	c := serve(t, answer(http.StatusUnauthorized, `{"code":"unauthorized","message":"m"}`))
	var read atomic.Bool
	r := iotest.ErrReader(errors.New("read"))
	_, err := c.ImportImage(t.Context(), readerFunc(func(p []byte) (int, error) { read.Store(true); return r.Read(p) }), Import{})
	if !errors.Is(err, api.Unauthorized) || read.Load() {
		t.Errorf("%v, read %v; want the refusal, and nothing read", err, read.Load())
	}
}

// TestImportReader: a file that cannot be read is no fault of the server's.
func TestImportReader(t *testing.T) {
	broken := errors.New("bad sector")
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err == nil {
			t.Error("the server took half a file for a whole one")
		}
	})
	_, err := c.ImportImage(t.Context(), io.MultiReader(strings.NewReader("half"), iotest.ErrReader(broken)), Import{})
	if !errors.Is(err, broken) {
		t.Errorf("%v, want the reader's error", err)
	}
	if _, ok := errors.AsType[*UnreachableError](err); ok {
		t.Errorf("%v is an UnreachableError", err)
	}
}

// TestImportRefusedMidway: the server's reason comes through though it did not read to the end.
func TestImportRefusedMidway(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		io.CopyN(io.Discard, r.Body, 1<<10)
		answer(http.StatusBadRequest, `{"code":"invalid_image","message":"m"}`)(w, r)
	})
	_, err := c.ImportImage(t.Context(), io.LimitReader(rand.NewChaCha8([32]byte{}), 64<<10), Import{})
	if e, ok := errors.AsType[*Error](err); !ok || e.Code != "invalid_image" {
		t.Errorf("%v, want the server's reason", err)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestPullAndTag(t *testing.T) {
	var asked []string
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		asked = append(asked, r.Method+" "+r.URL.EscapedPath()+" "+strings.TrimSpace(string(b)))
		answer(http.StatusAccepted, `{"name":"docker.io/library/web:1","digest":"","status":"pending","queue_position":2,"created_at":"2026-01-02T03:04:05Z"}`)(w, r)
	})
	img, err := c.PullImage(t.Context(), api.CreateImageRequest{Name: "web:1", Credentials: &api.RegistryCredentials{Username: "u", Password: "p"}})
	if err != nil || img.Status != api.ImageStatusPending || *img.QueuePosition != 2 {
		t.Errorf("%+v, %v", img, err)
	}
	if _, err := c.TagImage(t.Context(), "docker.io/library/web:1", "web:2"); err != nil {
		t.Error(err)
	}
	want := []string{
		`POST /images {"credentials":{"password":"p","username":"u"},"name":"web:1"}`,
		`POST /images/docker.io%2Flibrary%2Fweb:1/tag {"target":"web:2"}`,
	}
	if strings.Join(asked, "\n") != strings.Join(want, "\n") {
		t.Errorf("asked %q", asked)
	}
	for status, kind := range map[string]api.Kind{"registry_forbidden": api.Denied, "registry_unauthorized": api.Denied} {
		c := serve(t, answer(http.StatusForbidden, `{"code":"`+status+`","message":"m"}`))
		if _, err := c.PullImage(t.Context(), api.CreateImageRequest{Name: "x"}); !errors.Is(err, kind) {
			t.Errorf("%s is %v", status, err)
		}
	}
	c = serve(t, answer(http.StatusTooManyRequests, `{"code":"rate_limited","message":"m"}`))
	if _, err := c.PullImage(t.Context(), api.CreateImageRequest{Name: "x"}); !errors.Is(err, api.RateLimited) {
		t.Error(err)
	}
}
