package kernel

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// What a killed process left of a fetch is removed by the next; what one is at is not.
func TestLeftoversAreRemoved(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{".apt-1/lists", ".unpack-2/boot", "linux-image-6/lib"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	work, err := newWorkDir(dir, aptWork)
	if err != nil {
		t.Fatal(err)
	}
	removeLeftovers(dir)
	if got, want := names(t, dir), []string{filepath.Base(work.path), "linux-image-6"}; !slices.Equal(got, want) {
		t.Errorf("%q are left, want %q", got, want)
	}
	work.remove()
	if got := names(t, dir); len(got) != 1 {
		t.Errorf("%q are left", got)
	}
}

// A fetched kernel stands in the place of one that is damaged, and not of one that is well.
func TestPlace(t *testing.T) {
	dir := t.TempDir()
	kernel := func(name, image string) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Join(path, "lib/modules/6.1"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(path, imageName), []byte(image), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	to := filepath.Join(dir, "linux-image-6.1")
	for _, tc := range []struct{ here, want string }{{"", "fetched"}, {"well", "well"}, {"none", "fetched"}} {
		switch os.RemoveAll(to); tc.here {
		case "none":
		default: // "" is what a crash of the host may leave
			kernel("linux-image-6.1", tc.here)
		}
		if _, err := place(kernel(".unpack-1", "fetched"), to); err != nil {
			t.Errorf("with %q: %v", tc.here, err)
		}
		if b, err := os.ReadFile(filepath.Join(to, imageName)); err != nil || string(b) != tc.want {
			t.Errorf("with %q: the kernel is %q, %v, want %q", tc.here, b, err, tc.want)
		}
	}
}

func names(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
