package pid1

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
)

// What an image has in /run is read into memory, unless it is more than a little.
func TestLargeRunStaysInTheImage(t *testing.T) {
	top := t.TempDir()
	fill := func(n int) {
		path := filepath.Join(top, fmt.Sprintf("file-%d", n))
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, 1<<20); err != nil {
			t.Fatal(err)
		}
	}
	for n := range maxRunData >> 20 {
		fill(n)
	}
	if r := imageRun(slog.New(slog.DiscardHandler), top); r.inImage || len(r.entries) != 1+maxRunData>>20 {
		t.Errorf("a small one: %v, %d entries", r.inImage, len(r.entries))
	}
	fill(maxRunData >> 20)
	if r := imageRun(slog.New(slog.DiscardHandler), top); !r.inImage || len(r.entries) != 0 {
		t.Errorf("a large one: %v, %d entries", r.inImage, len(r.entries))
	}
}
