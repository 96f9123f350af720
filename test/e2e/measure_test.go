//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/halevm/hale/api"
)

// lags are by how much probes began after their time: the end of the one before, and the interval, which is at least 95% of what was
// asked for. So each is up to a tenth of the interval too large, and none too small.
type lags struct {
	interval time.Duration
	since    time.Time          // what was before, the guest's boot among it, does not count
	seen     map[time.Time]bool // starts
	all      []time.Duration
}

func (l *lags) add(results []api.HealthResult) {
	results = slices.Clone(results)
	slices.SortFunc(results, func(a, b api.HealthResult) int { return a.Time.Compare(b.Time) })
	for i := 1; i < len(results); i++ {
		if l.seen[results[i].Time] || results[i-1].Time.Before(l.since) {
			continue
		}
		l.seen[results[i].Time] = true
		before := results[i-1]
		due := before.Time.Add(time.Duration(before.DurationMs*float64(time.Millisecond)) + l.interval*95/100)
		l.all = append(l.all, max(0, results[i].Time.Sub(due)))
	}
}

func (l *lags) percentiles() (p50, p99, worst time.Duration) {
	return l.percentile(50), l.percentile(99), l.percentile(100)
}

func (l *lags) percentile(n int) time.Duration {
	if len(l.all) == 0 {
		return 0
	}
	slices.Sort(l.all)
	return l.all[min(len(l.all)*n/100, len(l.all)-1)]
}

// privateMemory is what a process has for itself, in bytes.
func privateMemory(t *testing.T, pid int) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Fatal(err)
	}
	var total int64
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) == 3 && strings.HasPrefix(f[0], "Private_") {
			n, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			total += n << 10
		}
	}
	return total
}

// diskUse is what the files below a directory take, in bytes.
func diskUse(t *testing.T, dir string) (sum int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it goes while we look
		}
		if err != nil {
			return err
		}
		if st, err := d.Info(); err == nil && st.Mode().IsRegular() {
			sum += st.Sys().(*syscall.Stat_t).Blocks * 512
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// lateness measures how late a ticker of this process is, until the function that it returns is called: the 99th percentile, and the latest. It is what
// the host keeps from everyone, whoever they are.
func lateness() func() (p99, worst time.Duration) {
	const every = 10 * time.Millisecond
	done, result := make(chan struct{}), make(chan []time.Duration, 1)
	go func() {
		var late []time.Duration
		defer func() { result <- late }()
		for due := time.Now().Add(every); ; due = time.Now().Add(every) {
			select {
			case <-time.After(time.Until(due)):
				late = append(late, time.Since(due))
			case <-done: // before the tick came, which it may be late by now
				late = append(late, max(time.Since(due), 0))
				return
			}
		}
	}()
	return func() (p99, worst time.Duration) {
		close(done)
		late := <-result
		slices.Sort(late)
		return late[len(late)*99/100], late[len(late)-1]
	}
}
