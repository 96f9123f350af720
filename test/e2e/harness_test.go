//go:build e2e

// Package e2e boots real virtual machines: the program in bin/hale, QEMU, real images. test/e2e/run.sh gets what is
// missing and says where it is. A machine that does not boot fails its test; nothing is tried twice.
package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/halevm/hale/api"
	hale "github.com/halevm/hale/sdk/go"
)

// booted counts the machines that came up, over all tests.
var booted atomic.Int64

// Names of the images.
const (
	workload = "e2e/workload"
	nginx    = "e2e/nginx"
)

var (
	binary  string
	program string // the workload, for what runs outside of machines
	kernels string
	tars    = map[string]string{} // docker-archives by image
)

func TestMain(m *testing.M) {
	code := 1
	dir, err := os.MkdirTemp("", "hale-e2e-images-")
	if err == nil {
		err = prepare(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
	} else {
		code = m.Run()
	}
	os.RemoveAll(dir)
	fmt.Printf("machines booted: %d\n", booted.Load())
	os.Exit(code)
}

// prepare makes the images in dir, once for all tests.
func prepare(dir string) error {
	binary, kernels = os.Getenv("HALE_E2E_BIN"), os.Getenv("HALE_E2E_KERNELS")
	rootfs := os.Getenv("HALE_E2E_NGINX")
	if binary == "" || kernels == "" || rootfs == "" {
		return fmt.Errorf("run these tests with `make e2e`, which gets what they need")
	}
	program = filepath.Join(dir, "workload")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, "./workload")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the workload: %w: %s", err, out)
	}
	if err := makeImage(dir, workload, program, v1.Config{Entrypoint: []string{"/workload"}, Cmd: []string{"serve", ":80"}}); err != nil {
		return err
	}
	return makeImage(dir, nginx, rootfs, v1.Config{
		Cmd: []string{"/usr/sbin/nginx", "-g", "daemon off; error_log /dev/stderr;"}, StopSignal: "SIGQUIT",
		Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
	})
}

// makeImage writes a docker-archive of one layer: a root file system's tar, or a single program.
func makeImage(dir, ref, content string, config v1.Config) error {
	if !strings.HasSuffix(content, ".tar") {
		tar := content + ".tar"
		cmd := exec.Command("tar", "-cf", tar, "-C", filepath.Dir(content), "--owner=0", "--group=0", filepath.Base(content))
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("tar: %w: %s", err, out)
		}
		content = tar
	}
	layer, err := tarball.LayerFromFile(content)
	if err != nil {
		return err
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return err
	}
	file, err := img.ConfigFile()
	if err != nil {
		return err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Config = "linux", "amd64", config
	if img, err = mutate.ConfigFile(img, file); err != nil {
		return err
	}
	tag, err := name.NewTag(ref + ":latest")
	if err != nil {
		return err
	}
	tars[ref] = filepath.Join(dir, strings.ReplaceAll(ref, "/", "-")+".tar")
	return tarball.WriteToFile(tars[ref], tag, img)
}

// transport keeps no connection, so that none is among what a daemon holds when it is looked at.
var transport = &http.Transport{DisableKeepAlives: true}

// A host is one daemon with a data directory of its own.
type host struct {
	*hale.Client
	t      *testing.T
	dir    string
	uid    int      // the daemon's
	wrap   []string // what the daemon is started by; it becomes the daemon
	daemon *exec.Cmd
	log    *bytes.Buffer
	ns     *namespace // where it runs; nil: in ours
}

// newHost starts a daemon and imports the images. At the end of the test nothing of it may be left.
func newHost(t *testing.T, images ...string) *host { return newHostIn(t, nil, images...) }

// newHostIn is newHost in a network namespace.
func newHostIn(t *testing.T, ns *namespace, images ...string) *host {
	t.Helper()
	h := &host{t: t, dir: filepath.Join(t.TempDir(), "data"), ns: ns}
	if err := os.MkdirAll(h.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(kernels, filepath.Join(h.dir, "kernels")); err != nil {
		t.Fatal(err)
	}
	h.start(nil)
	t.Cleanup(h.end)
	for _, ref := range images {
		h.load(ref)
	}
	return h
}

// start starts the daemon, as somebody else where attr says so.
func (h *host) start(attr *syscall.SysProcAttr, env ...string) {
	h.t.Helper()
	h.log = new(bytes.Buffer)
	command := append(slices.Clone(h.wrap), binary, "serve", "--data-dir", h.dir, "--listen", "127.0.0.1:0")
	h.daemon = h.ns.command(command[0], command[1:]...)
	h.daemon.Stderr = h.log
	h.daemon.SysProcAttr = attr
	h.daemon.Env = append(os.Environ(), env...)
	out, err := h.daemon.StdoutPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	if err := h.daemon.Start(); err != nil {
		h.t.Fatal(err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		h.daemon.Wait()
		h.t.Fatalf("the daemon did not start: %v\n%s", err, h.log)
	}
	var where struct{ URL string }
	b, err := os.ReadFile(filepath.Join(h.dir, "hale.json"))
	if err == nil {
		err = json.Unmarshal(b, &where)
	}
	if err != nil {
		h.t.Fatal(err)
	}
	if h.Client, err = hale.New(where.URL, h.token(), hale.WithTransport(h.ns.transport())); err != nil {
		h.t.Fatal(err)
	}
}

// token is one for the daemon.
func (h *host) token() string {
	h.t.Helper()
	out, err := exec.Command(binary, "token", "--data-dir", h.dir).Output()
	if err != nil {
		h.t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// stop ends the daemon in order; machines go on.
func (h *host) stop() {
	h.daemon.Process.Signal(syscall.SIGTERM)
	if err := h.daemon.Wait(); err != nil {
		h.t.Errorf("the daemon ended with %v\n%s", err, h.log)
	}
}

// end deletes everything, ends the daemon, and looks for leftovers.
func (h *host) end() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	list, err := h.Instances(ctx, hale.InstanceFilter{})
	if err != nil {
		h.t.Errorf("list what is left: %v", err)
	}
	for _, in := range list {
		if err := h.DeleteInstance(ctx, in.ID, false); err != nil {
			h.t.Errorf("delete %s: %v", in.Name, err)
		}
	}
	h.noRetries(ctx)
	h.stop()
	if h.t.Failed() {
		h.t.Logf("the daemon's log:\n%s", h.log)
	}
	for _, p := range processesOf(h.dir) {
		h.t.Errorf("left running: %s", p)
	}
}

// load imports an image.
func (h *host) load(ref string) {
	h.t.Helper()
	f, err := os.Open(tars[ref])
	if err != nil {
		h.t.Fatal(err)
	}
	defer f.Close()
	img, err := h.ImportImage(h.t.Context(), f, hale.Import{})
	if err == nil {
		img, err = h.Image(h.t.Context(), img.Name, imagePatience)
	}
	if err != nil || img.Status != api.ImageStatusReady {
		h.t.Fatalf("import %s: %v %v", ref, img.Status, err)
	}
}

// create makes an instance of 256 MB, which is enough for everything here.
func (h *host) create(r api.CreateInstanceRequest) api.Instance {
	h.t.Helper()
	if r.Size == "" {
		r.Size = "256MB"
	}
	if r.Image == "" {
		r.Image = workload
	}
	in, err := h.CreateInstance(h.t.Context(), r)
	if err != nil {
		h.t.Fatal(err)
	}
	if in.State != api.InstanceStateInitializing {
		h.t.Errorf("after its create %s is %s", in.Name, in.State)
	}
	return in
}

// bootPatience is how long a machine may take to come up here: under emulation, beside others. One that hangs is given up by its shim before.
const bootPatience = 6 * time.Minute

// imagePatience is how long an image may take to become one.
const imagePatience = 5 * time.Minute

// await waits for a state, and counts a machine that came up.
func (h *host) await(ref string, state api.InstanceState) api.Instance {
	h.t.Helper()
	w, err := h.WaitInstance(h.t.Context(), ref, hale.Wait{State: state, Timeout: bootPatience})
	if err != nil {
		h.t.Fatal(err)
	}
	if w.State != state {
		h.t.Fatalf("%s is %s (%s), not %s\n%s", ref, w.State, text(w.StateError), state, h.console(ref))
	}
	if state == api.InstanceStateRunning {
		booted.Add(1)
	}
	in, err := h.Instance(h.t.Context(), ref)
	if err != nil {
		h.t.Fatal(err)
	}
	return in
}

// awaitHealth waits for a health status, and counts a machine that became healthy.
func (h *host) awaitHealth(ref string, want api.HealthState) api.InstanceHealth {
	h.t.Helper()
	w, err := h.WaitInstance(h.t.Context(), ref, hale.Wait{Health: want, Timeout: bootPatience})
	if err != nil {
		h.t.Fatal(err)
	}
	if w.HealthStatus == nil || w.HealthStatus.Status != want {
		h.t.Fatalf("%s is %s and %+v (%s), not %s\n%s", ref, w.State, w.HealthStatus, text(w.StateError), want, h.console(ref))
	}
	health, err := h.InstanceHealth(h.t.Context(), ref)
	if err != nil {
		h.t.Fatal(err)
	}
	return health
}

// exec runs a program in the guest and returns what it printed and its exit code.
func (h *host) exec(ref string, command ...string) (string, int) {
	h.t.Helper()
	e, err := h.Exec(h.t.Context(), ref, api.ExecRequest{Command: command, Timeout: 60})
	if err != nil {
		h.t.Fatal(err)
	}
	defer e.Close()
	e.CloseWrite()
	var out bytes.Buffer
	exit, err := e.Copy(&out, &out)
	if err != nil {
		h.t.Fatalf("exec %q: %v", command, err)
	}
	return strings.TrimSpace(out.String()), exit.Code
}

// run is exec of something that must succeed.
func (h *host) run(ref string, command ...string) string {
	h.t.Helper()
	out, code := h.exec(ref, command...)
	if code != 0 {
		h.t.Fatalf("exec %q: exit code %d: %s", command, code, out)
	}
	return out
}

// logs are the last lines of an instance's output.
func (h *host) logs(ref string, source api.LogSource) string {
	h.t.Helper()
	var lines []string
	for line, err := range h.InstanceLogs(h.t.Context(), ref, hale.Logs{Source: source}) {
		if err != nil {
			h.t.Fatal(err)
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

// console is for a failure's report.
func (h *host) console(ref string) string {
	in, err := h.Instance(context.Background(), ref)
	if err != nil {
		return ""
	}
	f, err := os.Open(filepath.Join(h.dir, "instances", in.ID, "vm/log/vmm.log"))
	if err != nil {
		return ""
	}
	defer f.Close()
	b, _ := io.ReadAll(io.LimitReader(f, 64<<10))
	return "its console:\n" + string(b)
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// published is the address of the host that leads to an instance's first published port.
func published(in api.Instance) string {
	p := in.Network.Ports[0]
	return fmt.Sprintf("%s:%d", p.HostAddr, p.HostPort)
}
