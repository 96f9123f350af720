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
