//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/halevm/hale/api"
	hale "github.com/halevm/hale/sdk/go"
)

// Rounds of the daemon, and what it may grow by from the first thousand to the last.
const (
	rounds      = 10_000
	roundsGrown = 8 << 20 // bytes of its own
	roundsCrew  = 64      // goroutines that wait for the next probe, at most: internal/health keeps their stacks
)

// Ten thousand instances are made, checked and deleted with machines of no substance: what the daemon holds for them goes with them.
func TestTenThousandRounds(t *testing.T) {
	// In memory where that can be: it is not the disk that is tried here.
	dir, err := os.MkdirTemp("/dev/shm", "hale-rounds-")
	if err != nil {
		dir = t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	h := &host{t: t, dir: filepath.Join(dir, "data")}
	h.start(nil, "HALE_DRIVER=fake", "HALE_LOG_LEVEL=warn")
	t.Cleanup(h.end)
	h.load(workload)
	c, err := hale.New(h.URL(), h.token()) // keeps its connections, unlike the others here
	if err != nil {
		t.Fatal(err)
	}
	var healthy atomic.Int64
	run := func(from, to int) {
		var workers sync.WaitGroup
		var next atomic.Int64
		next.Store(int64(from))
		for range 16 {
			workers.Go(func() {
				for n := next.Add(1) - 1; n < int64(to) && !t.Failed(); n = next.Add(1) - 1 {
					in, err := c.CreateInstance(t.Context(), api.CreateInstanceRequest{
						Name: fmt.Sprint("round-", n), Image: workload, Size: "128MB", Entrypoint: []string{"serve", "80"},
						HealthCheck: check(`{"http":{"port":80},"interval":"100ms"}`),
					})
					if err != nil {
						t.Errorf("round %d: %v", n, err)
						return
					}
					if n%8 == 0 { // the others are deleted while they start
						w, err := c.WaitInstance(t.Context(), in.ID, hale.Wait{Health: api.HealthStateHealthy, Timeout: time.Minute})
						if err != nil || w.HealthStatus == nil || w.HealthStatus.Status != api.HealthStateHealthy {
							t.Errorf("round %d: %+v, %v", n, w, err)
							return
						}
						healthy.Add(1)
					}
					if err := c.DeleteInstance(t.Context(), in.ID, n%2 == 0); err != nil {
						t.Errorf("round %d: %v", n, err)
						return
					}
				}
			})
		}
		workers.Wait()
	}
	pid := h.daemon.Process.Pid
	begun := time.Now()
	run(0, rounds/10)
	goroutines, files, memory := h.goroutines(), len(h.descriptors()), privateMemory(t, pid)
	run(rounds/10, rounds)
	took := time.Since(begun)
	eventually(t, "as many goroutines as after the first thousand", func() bool { return h.goroutines() <= goroutines+roundsCrew })
	eventually(t, "as many descriptors as after the first thousand", func() bool { return len(h.descriptors()) <= files })
	grown := privateMemory(t, pid) - memory
	t.Logf("%d rounds in %v, %d of them to healthy: goroutines %d and %d, descriptors %d and %d, private memory %.1f and %.1f MB",
		rounds, took.Round(time.Millisecond), healthy.Load(), goroutines, h.goroutines(), files, len(h.descriptors()), float64(memory)/1e6, float64(memory+grown)/1e6)
	if grown > roundsGrown {
		t.Errorf("the daemon grew by %d bytes", grown)
	}
	h.noLeftovers()
}
