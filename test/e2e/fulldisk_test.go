//go:build e2e

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/health"
	hale "github.com/halevm/hale/sdk/go"
)

// mountNamespace is a command that becomes another in a mount namespace of its own, where an ordinary user is root.
func mountNamespace() []string {
	args := []string{"unshare", "--mount", "--propagation", "private"}
	if os.Getuid() != 0 {
		args = append(args, "--user", "--map-root-user")
	}
	return args
}

// inNamespace runs the calling test once more, in a mount namespace of its own, and reports whether this is that run.
func inNamespace(t *testing.T) bool {
	t.Helper()
	const mark = "HALE_E2E_NAMESPACE"
	if os.Getenv(mark) == t.Name() {
		return true
	}
	args := append(mountNamespace(), os.Args[0], "-test.v", "-test.run", "^"+t.Name()+"$", "-test.timeout", "15m")
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), mark+"="+t.Name())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("in a mount namespace of its own: %v\n%s", err, out)
	}
	if _, n, ok := bytes.Cut(out, []byte("machines booted: ")); ok {
		var count int64
		fmt.Sscan(string(n), &count)
		booted.Add(count)
	}
	return false
}

// A full disk is told as what it is, leaves nothing half-made, and is forgotten as soon as there is room.
func TestFullDisk(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	h := &host{t: t, dir: filepath.Join(t.TempDir(), "data")}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(h.dir, 0o755))
	must(syscall.Mount("tmpfs", h.dir, "tmpfs", 0, "size=400m,mode=0755"))
	t.Cleanup(func() { must(syscall.Unmount(h.dir, 0)) })
	copyTree(t, kernels, filepath.Join(h.dir, "kernels"))
	h.start(nil)
	t.Cleanup(h.end)
	ballast := filepath.Join(h.dir, "ballast")
	fill := func(leave int64) {
		t.Helper()
		var st syscall.Statfs_t
		must(syscall.Statfs(h.dir, &st))
		f, err := os.Create(ballast)
		must(err)
		must(errors.Join(syscall.Fallocate(int(f.Fd()), 0, 0, int64(st.Bavail)*st.Bsize-leave), f.Close()))
	}
	empty := func() { t.Helper(); must(os.Remove(ballast)) }
	full := func(err error, words string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("on a full disk: %v; want %q", err, words)
		}
	}

	// While an archive arrives, and while its disk is made.
	noise := make([]byte, 40<<20)
	src := rand.NewChaCha8([32]byte{})
	src.Read(noise)
	big := dockerArchive(layerOf(plain("noise", string(noise)))).Bytes()
	for _, leave := range []int64{20 << 20, 50 << 20} {
		fill(leave)
		img, err := h.ImportImage(t.Context(), bytes.NewReader(big), hale.Import{Name: "big"})
		if err == nil {
			img, err = h.Image(t.Context(), img.Name, imagePatience)
			if err == nil && img.Status == api.ImageStatusFailed && img.Error != nil {
				err = errors.New(*img.Error)
			}
		}
		full(err, "disk full")
		empty()
		if left := filesBelow(t, filepath.Join(h.dir, "images")); len(left) > 0 {
			t.Errorf("left of an import with %d MiB of room: %q", leave>>20, left)
		}
	}
	h.load(workload)

	// A create.
	fill(256 << 10)
	_, err := h.CreateInstance(t.Context(), api.CreateInstanceRequest{Name: "box", Image: workload, Size: "256MB"})
	full(err, "has 0 MB left; a new instance wants at least 64 MB")
	if list, err := h.Instances(t.Context(), hale.InstanceFilter{}); err != nil || len(list) > 0 {
		t.Errorf("after a refused create there is %v, %v", list, err)
	}
	empty()
	if left, err := os.ReadDir(filepath.Join(h.dir, "instances")); err != nil || len(left) > 0 {
		t.Errorf("left of a refused create: %v, %v", left, err)
	}

	// A machine that writes.
	h.create(api.CreateInstanceRequest{Name: "box", HealthCheck: check(`{"http":{"port":80},"interval":"1s"}`)})
	h.awaitHealth("box", api.HealthStateHealthy)
	booted.Add(1)
	asked := func() (full, failed int) {
		t.Helper()
		seen, err := h.InstanceHealth(t.Context(), "box")
		must(err)
		for _, r := range seen.Results {
			switch {
			case r.Cause == health.CauseDiskFull:
				full++
			case r.Outcome == string(health.Failure):
				failed++
			}
		}
		return full, failed
	}
	_, before := asked() // while the program came up
	fill(4 << 20)
	writing := make(chan string, 1)
	go func() {
		out, code := h.exec("box", "/workload", "fill", "/data", "16")
		writing <- fmt.Sprint(code, " ", out)
	}()
	const stands, goesOn = "the host's disk is full: the machine stands still", "the host's disk has room again"
	eventually(t, "the instance's log says that the disk is full", func() bool {
		return strings.Contains(h.logs("box", api.LogSourceHypeman), stands)
	})
	eventually(t, "checks say that the disk is full", func() bool { full, _ := asked(); return full >= 4 })
	if in, err := h.Instance(t.Context(), "box"); err != nil || in.State != api.InstanceStateRunning {
		t.Errorf("a machine that stands still is %s, %v", in.State, err)
	}
	empty()
	if out := <-writing; out != "0 wrote 16 MiB" {
		t.Errorf("the program that wrote to a full disk: %s", out)
	}
	eventually(t, "the instance's log says that it goes on", func() bool {
		return strings.Contains(h.logs("box", api.LogSourceHypeman), goesOn)
	})
	out := h.logs("box", api.LogSourceHypeman)
	if strings.Count(out, stands) != 1 || strings.Count(out, goesOn) != 1 {
		t.Errorf("its log says so more than once:\n%s", out)
	}
	h.awaitHealth("box", api.HealthStateHealthy)
	if full, failed := asked(); failed > before {
		t.Errorf("of its checks %d failed, and %d found the disk full", failed-before, full)
	}
	// A daemon that starts where no room is left at all, and the deletion that makes some.
	fill(0)
	h.killAndStart()
	if in := h.await("box", api.InstanceStateRunning); in.Name != "box" {
		t.Errorf("found %+v", in)
	}
	must(h.DeleteInstance(t.Context(), "box", false))
	empty()
}
