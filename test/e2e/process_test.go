//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// processesOf are the shims and hypervisors whose working directory lies in a data directory. QEMU inherits its shim's.
func processesOf(dir string) []string {
	var found []string
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		cwd, err := os.Readlink(d + "/cwd")
		if err != nil || !strings.HasPrefix(cwd, dir+"/") {
			continue
		}
		args, _ := os.ReadFile(d + "/cmdline")
		if stat, err := os.ReadFile(d + "/stat"); err != nil || strings.Contains(string(stat), ") Z ") {
			continue
		}
		found = append(found, filepath.Base(d)+" "+strings.ReplaceAll(string(args), "\x00", " "))
	}
	return found
}

// shimOf is the pid of an instance's shim, by its record.
func (h *host) shimOf(id string) int {
	h.t.Helper()
	b, err := os.ReadFile(filepath.Join(h.dir, "instances", id, "shim.json"))
	if err != nil {
		h.t.Fatal(err)
	}
	var r struct{ PID int }
	if err := json.Unmarshal(b, &r); err != nil || r.PID == 0 {
		h.t.Fatalf("the shim's record %s: %v", b, err)
	}
	return r.PID
}

// qemuOf is the pid of an instance's hypervisor: its shim's child.
func (h *host) qemuOf(id string) int {
	h.t.Helper()
	shim := h.shimOf(id)
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", shim))
	for _, t := range tasks {
		b, _ := os.ReadFile(t)
		for _, f := range strings.Fields(string(b)) {
			if pid, err := strconv.Atoi(f); err == nil {
				return pid
			}
		}
	}
	h.t.Fatalf("shim %d has no child", shim)
	return 0
}

func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(b), ") Z ")
}

// eventually waits for something that has no event to wait for, such as a process's end. How long that takes is up to what the host gives to
// whom it waits for: who wants to know whether it came soon measures it.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not after a minute: %s", what)
		}
	}
}

// descriptors are what the daemon's lead to: paths, and the kinds of what has none.
func (h *host) descriptors() []string {
	h.t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", h.daemon.Process.Pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		h.t.Fatal(err)
	}
	var open []string
	for _, e := range entries {
		if to, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil {
			open = append(open, to)
		}
	}
	slices.Sort(open)
	return open
}

// goroutines asks the daemon's metrics.
func (h *host) goroutines() int {
	h.t.Helper()
	b := h.metrics()
	for line := range strings.Lines(b) {
		if v, ok := strings.CutPrefix(line, "go_goroutines "); ok {
			n, err := strconv.ParseFloat(strings.TrimSpace(v), 64)
			if err != nil {
				h.t.Fatal(err)
			}
			return int(n)
		}
	}
	h.t.Fatalf("no go_goroutines in\n%s", b)
	return 0
}

func (h *host) metrics() string {
	h.t.Helper()
	return h.metricsIn(h.t.Context())
}

// metricsIn is metrics for a cleanup, by when the test's own context is done.
func (h *host) metricsIn(ctx context.Context) string {
	h.t.Helper()
	req, err := http.NewRequestWithContext(ctx, "GET", h.URL()+"/metrics", nil)
	if err != nil {
		h.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+h.token())
	resp, err := h.ns.transport().RoundTrip(req)
	if err != nil {
		h.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	return string(b)
}

func copyTree(t *testing.T, from, to string) {
	t.Helper()
	if err := os.MkdirAll(to, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cp", "-a", from+"/.", to).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func itoa(n int) string { return strconv.Itoa(n) }
