//go:build e2e

package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	ggcr "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/halevm/hale/api"
	hale "github.com/halevm/hale/sdk/go"
)

// A gate is a registry that sends the first half of every large blob, and the rest once it is opened.
type gate struct {
	http.Handler
	mu     sync.Mutex
	shut   chan struct{} // nil: open
	halves chan struct{} // one for each half that was sent
	ranges []string
}

func newGate(t *testing.T) (*gate, string) {
	g := &gate{Handler: ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0))), halves: make(chan struct{}, 10)}
	srv := httptest.NewServer(g)
	t.Cleanup(srv.Close)
	t.Cleanup(g.open)
	return g, strings.TrimPrefix(srv.URL, "http://")
}

func (g *gate) close() { g.mu.Lock(); defer g.mu.Unlock(); g.shut = make(chan struct{}) }
func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut != nil {
		close(g.shut)
		g.shut = nil
	}
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/blobs/") {
		g.Handler.ServeHTTP(w, r)
		return
	}
	g.mu.Lock()
	shut := g.shut
	if h := r.Header.Get("Range"); h != "" {
		g.ranges = append(g.ranges, h)
	}
	g.mu.Unlock()
	rec := httptest.NewRecorder()
	g.Handler.ServeHTTP(rec, r)
	for k, v := range rec.Header() {
		w.Header()[k] = v
	}
	w.WriteHeader(rec.Code)
	body := rec.Body.Bytes()
	half := 0
	if shut != nil && len(body) > 1<<20 {
		half = len(body) / 2
		w.Write(body[:half])
		w.(http.Flusher).Flush()
		g.halves <- struct{}{}
		select {
		case <-shut:
		case <-r.Context().Done():
			return
		}
	}
	w.Write(body[half:])
}

// noise is an image of data that does not compress.
func noise(t *testing.T, size int64) v1.Image {
	t.Helper()
	img, err := random.Image(size, 1)
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Config.Cmd = "linux", "amd64", []string{"/x"}
	if img, err = mutate.ConfigFile(img, config); err != nil {
		t.Fatal(err)
	}
	return img
}

// A smallDisk is a daemon whose data directory is a small tmpfs of its own mount namespace.
type smallDisk struct {
	*hale.Client
	t   *testing.T
	dir string // as it is seen from here
}

func newSmallDisk(t *testing.T, size string) *smallDisk {
	t.Helper()
	dir := t.TempDir()
	args := append(mountNamespace(), "sh", "-c", `mount -t tmpfs -o size=`+size+` tmpfs "$1" && exec "$2" serve --driver fake --registry-config none --data-dir "$1" --listen 127.0.0.1:0`, "sh", dir, binary)
	cmd := exec.Command(args[0], args[1:]...)
	var log bytes.Buffer
	cmd.Stderr = &log
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil || t.Failed() {
			t.Logf("the daemon ended with %v\n%s", err, &log)
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the daemon did not start: %v\n%s", err, &log)
	}
	d := &smallDisk{t: t, dir: fmt.Sprintf("/proc/%d/root%s", cmd.Process.Pid, dir)}
	token, err := exec.Command(binary, "token", "--data-dir", d.dir).Output()
	if err != nil {
		t.Fatal(err)
	}
	if d.Client, err = hale.New(strings.Fields(line)[4], strings.TrimSpace(string(token)), hale.WithTransport(transport)); err != nil {
		t.Fatal(err)
	}
	return d
}

// fill leaves so many bytes free. Its result gives the room back.
func (d *smallDisk) fill(leave int64) func() {
	d.t.Helper()
	filler := filepath.Join(d.dir, "filler")
	f, err := os.Create(filler)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	for err = syscall.ENOSPC; err == syscall.ENOSPC; { // again where the daemon has written since the room was measured
		var st syscall.Statfs_t
		if err := syscall.Statfs(d.dir, &st); err != nil {
			d.t.Fatal(err)
		}
		if room := int64(st.Bavail)*st.Bsize - leave; room > 0 {
			err = syscall.Fallocate(int(f.Fd()), 0, 0, room)
		} else {
			err = nil
		}
	}
	if err != nil {
		d.t.Fatal(err)
	}
	return func() {
		if err := os.Remove(filler); err != nil {
			d.t.Error(err)
		}
	}
}

// nothingHalfMade fails the test if the images take more than their lists.
func (d *smallDisk) nothingHalfMade() {
	d.t.Helper()
	for _, name := range []string{"staging", "partial", "blobs/sha256", "disks"} {
		entries, err := os.ReadDir(filepath.Join(d.dir, "images", name))
		if err != nil || len(entries) != 0 {
			d.t.Errorf("%s holds %v, %v", name, entries, err)
		}
	}
}

func (d *smallDisk) pulled(ref string) api.Image {
	d.t.Helper()
	img, err := d.PullImage(d.t.Context(), api.CreateImageRequest{Name: ref})
	if err == nil {
		img, err = d.Image(d.t.Context(), ref, imagePatience)
	}
	if err != nil {
		d.t.Fatal(err)
	}
	return img
}

// TestPullOnAFullDisk: what fills the disk is refused with that reason, at whatever point it does, leaves nothing half-made, and
// works when there is room again.
func TestPullOnAFullDisk(t *testing.T) {
	d := newSmallDisk(t, "160m")
	g, where := newGate(t)
	ref := where + "/noise:v1"
	const size = 24 << 20
	img := noise(t, size)
	push(t, ref, img)
	full := func(step string, img api.Image) {
		t.Helper()
		if img.Status != api.ImageStatusFailed || !strings.Contains(text(img.Error), "disk full") {
			t.Errorf("%s: %s, %s", step, img.Status, text(img.Error))
		}
		d.nothingHalfMade()
		if err := d.DeleteImage(t.Context(), ref); err != nil {
			t.Errorf("%s: forget it: %v", step, err)
		}
	}

	room := d.fill(10 << 20)
	full("before a byte is fetched", d.pulled(ref))
	room()

	g.close()
	if img, err := d.PullImage(t.Context(), api.CreateImageRequest{Name: ref}); err != nil || img.Status != api.ImageStatusPulling {
		t.Fatalf("%+v, %v", img, err)
	}
	<-g.halves
	arrived(t, d.Client, ref, size/2)
	room = d.fill(0)
	g.open()
	got, err := d.Image(t.Context(), ref, imagePatience)
	if err != nil {
		t.Fatal(err)
	}
	full("while it is fetched", got)
	room()

	room = d.fill(size + 6<<20)
	full("while it is converted", d.pulled(ref))
	room()

	tag, err := name.NewTag("noise:imported")
	if err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	if err := tarball.Write(tag, img, &archive); err != nil {
		t.Fatal(err)
	}
	for _, leave := range []int64{8 << 20, size + 8<<20} { // while it is received, and while it is converted
		room = d.fill(leave)
		_, err = d.ImportImage(t.Context(), bytes.NewReader(archive.Bytes()), hale.Import{})
		if !isCode(err, "insufficient_resources") || !strings.Contains(err.Error(), "disk full") {
			t.Errorf("an import with %d bytes free: %v", leave, err)
		}
		d.nothingHalfMade()
		room()
	}

	if img := d.pulled(ref); img.Status != api.ImageStatusReady {
		t.Fatalf("with room again: %+v", img)
	}
	room = d.fill(0)
	if _, err := d.CreateInstance(t.Context(), api.CreateInstanceRequest{Name: "no", Image: ref}); !isCode(err, "insufficient_resources") {
		t.Errorf("a create on a full disk: %v", err)
	}
	if entries, err := os.ReadDir(filepath.Join(d.dir, "instances")); err != nil || len(entries) != 0 {
		t.Errorf("instances holds %v, %v", entries, err)
	}
	room()
	if _, err := d.CreateInstance(t.Context(), api.CreateInstanceRequest{Name: "yes", Image: ref, OverlaySize: "16MB"}); err != nil {
		t.Errorf("a create with room again: %v", err)
	} else if err := d.DeleteInstance(t.Context(), "yes", false); err != nil {
		t.Error(err)
	}
}

// arrived waits until so many bytes of an image are on disk, which its progress tells within a hundredth.
func arrived(t *testing.T, c *hale.Client, ref string, bytes int64) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		img, err := c.Image(t.Context(), ref, 0)
		if err != nil {
			t.Fatal(err)
		}
		if img.Progress != nil && img.Progress.DoneBytes >= bytes-bytes/20 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the half does not arrive: %+v", img)
		}
	}
}

// TestKilledInMidPull: the next daemon goes on with the layer where the last one was killed.
func TestKilledInMidPull(t *testing.T) {
	g, where := newGate(t)
	ref := where + "/noise:v1"
	push(t, ref, noise(t, 8<<20))
	h := newHost(t)
	g.close()
	if img, err := h.PullImage(t.Context(), api.CreateImageRequest{Name: ref, Tags: api.Tags{"k": "v"}}); err != nil || img.Status != api.ImageStatusPulling {
		t.Fatalf("%+v, %v", img, err)
	}
	<-g.halves
	arrived(t, h.Client, ref, 4<<20)
	h.daemon.Process.Kill()
	h.daemon.Wait()
	g.open()
	h.start(nil)
	img, err := h.Image(t.Context(), ref, imagePatience)
	if err != nil || img.Status != api.ImageStatusReady || img.Tags["k"] != "v" {
		t.Errorf("%+v, %v", img, err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.ranges) != 1 {
		t.Errorf("the rest was asked for as %q", g.ranges)
	}
}
