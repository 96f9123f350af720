//go:build e2e

package e2e

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/halevm/hale/test/crash"
)

// TestCrashMachines kills daemons over real machines, which outlive them.
func TestCrashMachines(t *testing.T) {
	seed := rand.Uint64()
	if s := os.Getenv("HALE_CRASH_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("HALE_CRASH_SEED: %v", err)
		}
	}
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(kernels, filepath.Join(dir, "kernels")); err != nil {
		t.Fatal(err)
	}
	crash.Run(t, crash.Config{
		Binary: binary, Dir: dir, Seed: seed, Kills: 10, Names: 3, Boots: 30 * time.Second, Within: 8 * time.Second, Survive: true, Archive: tars[workload], Size: "128MB",
		Runs: []string{"/workload", "serve", ":80"}, Ends: []string{"/workload", "exit", "3"}, Command: []string{"/workload", "exit", "7"},
	})
}
