package host

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Looking at a kernel makes nothing, neither beside it nor in its place.
func TestDoctorChangesNothing(t *testing.T) {
	dir := t.TempDir()
	kernel := filepath.Join(dir, "kernels", "linux-image-6.1")
	modules := filepath.Join(kernel, "lib", "modules", "6.1")
	if err := os.MkdirAll(filepath.Join(modules, "kernel"), 0o755); err != nil {
		t.Fatal(err)
	}
	builtin := ""
	for _, name := range strings.Fields("virtio_pci virtio_blk virtio_net virtio_console overlay virtio_rng") {
		builtin += "kernel/" + name + ".ko\n"
	}
	for name, content := range map[string]string{filepath.Join(kernel, "vmlinuz"): "a kernel", filepath.Join(modules, "modules.builtin"): builtin} {
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	before := tree(t, dir)
	if c := checkKernel(dir); c.Verdict != OK || c.Detail != "6.1" {
		t.Errorf("%+v", c)
	}
	if after := tree(t, dir); !slices.Equal(after, before) {
		t.Errorf("before: %q, after: %q", before, after)
	}
}

func tree(t *testing.T, dir string) (paths []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		paths = append(paths, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// A device that this user may not open is no want of virtualisation.
func TestKVMMend(t *testing.T) {
	if s := kvmMend("/dev/kvm may not be opened by this user"); !strings.Contains(s, "usermod") {
		t.Errorf("%q", s)
	}
	if s := kvmMend("/dev/kvm is not there"); !strings.Contains(s, "enable virtualisation") {
		t.Errorf("%q", s)
	}
}

// What is missing is told as a person says it, and little room is not none.
func TestChecksOfADirectory(t *testing.T) {
	dir := t.TempDir()
	if c := checkKernel(dir); c.Verdict != Fail || c.Detail != "none is here yet" {
		t.Errorf("%+v", c)
	}
	if c := checkDataDir(dir); !strings.HasSuffix(c.Detail, " free") || strings.Contains(c.Detail, " 0.0 GB") {
		t.Errorf("%+v", c)
	}
}
