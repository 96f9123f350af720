package daemon

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/halevm/hale/internal/instance/fake"
)

// A daemon that was killed between a disk and its name leaves a disk that is nobody's. While images are opened it is not yet known
// which disks the instances need; the next daemon has none too many once it is ready.
func TestDiskWithoutANameIsRemoved(t *testing.T) {
	dir := t.TempDir()
	disks := filepath.Join(dir, "images", "disks")
	if err := os.MkdirAll(disks, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(disks, "2c99.ext4"), []byte("half an image"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, stop := run(t, dir, fake.New(fake.Config{}))
	defer stop()
	if left, err := os.ReadDir(disks); err != nil || len(left) != 0 {
		t.Errorf("disks holds %v, %v", left, err)
	}
}
