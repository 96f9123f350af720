//go:build e2e

package e2e

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/halevm/hale/api"
)

// What a guest may cost its host, whatever it does.
const (
	lagBound    = 100 * time.Millisecond // of 99 in 100 probes of its neighbours; where the host keeps a ticker of ours waiting for longer, as long as that
	shimBound   = 32 << 20               // private memory of its own shim
	daemonBound = 16 << 20               // more private memory of the daemon than before
	logBound    = 3*10<<20 + 1<<20       // each of its logs on the disk
)

// A guest that floods its output, its console or the agent's channel disturbs nobody: the probes of another instance begin in time,
// and memory and disk stay within their bounds.
func TestFloods(t *testing.T) {
	h := newHost(t, workload)
	h.create(api.CreateInstanceRequest{Name: "bystander", HealthCheck: check(`{"http":{"port":80},"interval":"100ms","timeout":"5s"}`)})
	h.awaitHealth("bystander", api.HealthStateHealthy)
	booted.Add(1)
	for _, what := range []string{"output", "console", "frames"} {
		t.Run(what, func(t *testing.T) {
			h := *h
			h.t = t
			in := h.create(api.CreateInstanceRequest{Name: "flood-" + what, Entrypoint: []string{"/workload", "flood", what, "15"}})
			h.await(in.ID, api.InstanceStateRunning)
			daemon, before := h.daemon.Process.Pid, h.lags()
			quiet := private(t, daemon)
			late := lateness(t, 10*time.Millisecond)
			var shim, grown int64
			for end := time.Now().Add(12 * time.Second); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
				shim = max(shim, private(t, h.shimOf(in.ID)))
				grown = max(grown, private(t, daemon)-quiet)
			}
			lag, n := before.quantile(h.lags(), 0.99)
			host := late()
			logs := map[string]int64{}
			files, err := os.ReadDir(filepath.Join(h.dir, "instances", in.ID, "vm/log"))
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range files {
				st, err := f.Info()
				if err != nil {
					t.Fatal(err)
				}
				name, _, _ := strings.Cut(f.Name(), ".")
				logs[name] += st.Size()
			}
			t.Logf("p99 of the lag of %d probes beside it: at most %v (of a ticker in this process: %v); its shim at most %.1f MB, the daemon at most %.1f MB more; logs of %v bytes",
				n, lag, host, float64(shim)/1e6, float64(grown)/1e6, logs)
			if lag > max(lagBound, 2*host) || n < 50 {
				t.Errorf("%d probes beside it began up to %v late, and the host keeps a ticker waiting %v", n, lag, host)
			}
			if shim > shimBound || grown > daemonBound {
				t.Errorf("its shim has %d bytes of its own, and the daemon %d more than before", shim, grown)
			}
			for name, size := range logs {
				if size > logBound {
					t.Errorf("%s.log takes %d bytes", name, size)
				}
			}
			h.await(in.ID, api.InstanceStateStopped)
		})
	}
	if health := h.awaitHealth("bystander", api.HealthStateHealthy); len(health.Transitions) > 2 {
		t.Errorf("the bystander's health flipped: %+v", health.Transitions)
	}
}

// lateness measures how late a ticker of this process is, until the function that it returns is called: the 99th percentile. It is what
// the host keeps from everyone, whoever they are.
func lateness(t *testing.T, every time.Duration) func() time.Duration {
	done, result := make(chan struct{}), make(chan []time.Duration, 1)
	go func() {
		var late []time.Duration
		defer func() { result <- late }()
		for due := time.Now().Add(every); ; due = time.Now().Add(every) {
			select {
			case <-time.After(time.Until(due)):
				late = append(late, time.Since(due))
			case <-done:
				return
			}
		}
	}()
	return func() time.Duration {
		close(done)
		late := <-result
		if len(late) == 0 {
			t.Fatal("no tick came")
		}
		slices.Sort(late)
		return late[len(late)*99/100]
	}
}

// private is the memory that a process shares with no other, in bytes.
func private(t *testing.T, pid int) (sum int64) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if !strings.HasPrefix(line, "Private_") {
			continue
		}
		kb, err := strconv.ParseInt(strings.Fields(line)[1], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		sum += kb << 10
	}
	return sum
}

// buckets are a histogram's: how many were at most so long.
type buckets struct {
	bounds []time.Duration
	counts []int
	all    int
}

// lags is the daemon's histogram of how late probes began.
func (h *host) lags() (b buckets) {
	h.t.Helper()
	const name = "hale_health_probe_lag_seconds"
	for s := bufio.NewScanner(strings.NewReader(h.metrics())); s.Scan(); {
		key, value, _ := strings.Cut(s.Text(), " ")
		n, err := strconv.Atoi(value)
		if err != nil {
			continue
		}
		if le, ok := strings.CutPrefix(key, name+`_bucket{le="`); ok {
			if bound, err := strconv.ParseFloat(strings.TrimSuffix(le, `"}`), 64); err == nil && bound < 1e6 {
				b.bounds, b.counts = append(b.bounds, time.Duration(bound*float64(time.Second))), append(b.counts, n)
			}
		} else if key == name+"_count" {
			b.all = n
		}
	}
	if len(b.bounds) == 0 {
		h.t.Fatalf("no %s among the metrics", name)
	}
	return b
}

// quantile is the least bound that this share of what came between b and after keeps to, and how many came.
func (b buckets) quantile(after buckets, share float64) (time.Duration, int) {
	n := after.all - b.all
	for i, bound := range after.bounds {
		if float64(after.counts[i]-b.counts[i]) >= share*float64(n) {
			return bound, n
		}
	}
	return time.Hour, n
}
