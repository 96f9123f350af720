//go:build e2e

package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/halevm/hale/api"
	hale "github.com/halevm/hale/sdk/go"
)

// listening is what the registry logs once it answers.
var listening = regexp.MustCompile(`listening on (127\.0\.0\.1:[0-9]+)`)

// startRegistry runs Debian's docker-registry on a free port of loopback and returns its address.
func startRegistry(t *testing.T) string {
	t.Helper()
	program := os.Getenv("HALE_E2E_REGISTRY")
	if program == "" {
		t.Fatal("run this test with `make e2e`, which gets what it needs")
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "config.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: info}\nstorage: {filesystem: {rootdirectory: %s}, delete: {enabled: true}}\nhttp: {addr: '127.0.0.1:0'}\n", filepath.Join(dir, "data"))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "serve", config)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	lines := bufio.NewReader(log)
	var said strings.Builder
	for {
		line, err := lines.ReadString('\n')
		said.WriteString(line)
		if m := listening.FindStringSubmatch(line); m != nil {
			go io.Copy(io.Discard, lines)
			return m[1]
		}
		if err != nil {
			t.Fatalf("the registry did not start: %v\n%s", err, said.String())
		}
	}
}

func push(t *testing.T, ref string, img remote.Taggable) {
	t.Helper()
	r, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	switch what := img.(type) {
	case v1.Image:
		err = remote.Write(r, what)
	case v1.ImageIndex:
		err = remote.WriteIndex(r, what)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// hale runs a command line against the host's daemon, as a person would.
func (h *host) hale(args ...string) (stdout, stderr string, err error) {
	cmd := exec.CommandContext(h.t.Context(), binary, args...)
	cmd.Env = append(os.Environ(), "HALE_DATA_DIR="+h.dir, "HALE_URL=", "HALE_TOKEN=")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

// TestRunFromARegistry: a push of the nginx image, and one command that pulls it, boots it and finds it healthy.
func TestRunFromARegistry(t *testing.T) {
	registry := startRegistry(t)
	img, err := tarball.ImageFromPath(tars[nginx], nil)
	if err != nil {
		t.Fatal(err)
	}
	push(t, registry+"/nginx:latest", img)
	// The same as one platform of two, under another name.
	other, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{OS: "linux", Architecture: "arm64"})
	if err != nil {
		t.Fatal(err)
	}
	push(t, registry+"/nginx:both", mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: other, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "arm64"}}},
		mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}}}))
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}

	h := newHost(t)
	start := time.Now()
	out, said, err := h.hale("run", "--name", "web", "-m", "256MB", "-p", "80", "--health-http", ":80/", "--health-interval", "500ms", "--wait", "--timeout", bootPatience.String(), registry+"/nginx")
	if err != nil || out != "web\n" {
		t.Fatalf("hale run: %v, %q\n%s\n%s", err, out, said, h.console("web"))
	}
	booted.Add(1)
	t.Logf("pulled, converted, booted and healthy in %s", time.Since(start).Round(100*time.Millisecond))
	for _, phase := range []string{"pulling " + registry + "/nginx:latest", "ready: " + registry + "/nginx:latest"} {
		if !strings.Contains(said, phase) {
			t.Errorf("the progress does not say %q:\n%s", phase, said)
		}
	}
	in, err := h.Instance(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	client := http.Client{Transport: transport, Timeout: time.Minute}
	resp, err := client.Get("http://" + published(in))
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK || !strings.Contains(string(body), "nginx") {
		t.Errorf("%d %.200s", resp.StatusCode, body)
	}

	// The same manifest by its digest and through the index: the disk is there already.
	for _, ref := range []string{registry + "/nginx@" + digest.String(), registry + "/nginx:both"} {
		start := time.Now()
		if out, said, err := h.hale("pull", ref); err != nil || strings.TrimSpace(out) != ref {
			t.Errorf("hale pull %s: %v, %q\n%s", ref, err, out, said)
		}
		t.Logf("pulled %s again in %s", ref, time.Since(start).Round(time.Millisecond))
		got, err := h.Image(t.Context(), ref, 0)
		if err != nil || got.Digest != digest.String() {
			t.Errorf("%s is %s, %v; want %s", ref, got.Digest, err, digest)
		}
	}
	if out, _, err := h.hale("tag", registry+"/nginx", "mine:v1"); err != nil || out != "docker.io/library/mine:v1\n" {
		t.Errorf("hale tag: %q, %v", out, err)
	}
	if out, _, err := h.hale("images"); err != nil || strings.Count(out, "   "+digest.Hex[:12]) != 4 {
		t.Errorf("hale images: %v\n%s", err, out)
	}
	if _, said, err := h.hale("pull", registry+"/nginx:absent"); err == nil || !strings.Contains(said, "not found") {
		t.Errorf("pull of what is not there: %v\n%s", err, said)
	}
	if _, said, err := h.hale("rmi", registry+"/nginx"); err == nil || !strings.Contains(said, `used by instance "web"`) {
		t.Errorf("rmi of an image in use: %v\n%s", err, said)
	}

	// A create pulls by itself, and a daemon that is killed in the middle goes on where it was.
	h.killAndStart()
	if img, err := h.Image(t.Context(), registry+"/nginx:both", 0); err != nil || img.Status != api.ImageStatusReady {
		t.Errorf("after a restart: %+v, %v", img, err)
	}
	if _, err := h.CreateInstance(t.Context(), api.CreateInstanceRequest{Name: "no", Image: registry + "/absent"}); !isCode(err, "image_not_found") {
		t.Errorf("a create of what the registry does not have: %v", err)
	}
}

func isCode(err error, code string) bool {
	e, ok := err.(*hale.Error)
	return ok && e.Code == code && e.NoRetry
}

// killAndStart ends the daemon without a word and starts the next.
func (h *host) killAndStart() {
	h.t.Helper()
	h.daemon.Process.Kill()
	h.daemon.Wait()
	h.start(nil)
}
