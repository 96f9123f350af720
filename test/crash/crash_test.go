package crash

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

var binary string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "hale-crash")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "hale")
	build := exec.Command("go", "build", "-o", binary, "github.com/halevm/hale/cmd/hale")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "building hale (make builds the guest agent that it embeds):", err)
		return 1
	}
	return m.Run()
}

// TestCrash kills daemons over the fake driver: with one seed always, and with another each time; HALE_CRASH_SEED names one.
func TestCrash(t *testing.T) {
	seeds := map[string]uint64{"fixed": 1, "random": rand.Uint64()}
	if s := os.Getenv("HALE_CRASH_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("HALE_CRASH_SEED: %v", err)
		}
		seeds = map[string]uint64{"named": n}
	}
	for name, seed := range seeds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			Run(t, Config{
				Binary: binary, Args: []string{"--driver", "fake"}, Dir: filepath.Join(t.TempDir(), "data"), Seed: seed, Kills: 30, Names: 6,
				Boots: time.Second, Within: 300 * time.Millisecond, Runs: []string{"serve", "80"}, Ends: []string{"exit", "3"}, Command: []string{"exit", "7"}, Size: "128MB",
			})
		})
	}
}
