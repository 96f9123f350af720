//go:build e2e

package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/halevm/hale/api"
)

// What a guest may cost its host, whatever it does, beside the bounds of any flood.
const (
	daemonBound = 16 << 20         // more private memory of the daemon than before
	logBound    = 3*10<<20 + 1<<20 // each of its logs on the disk
)

// A guest that floods its output, its console or the agent's channel disturbs nobody: the probes of another instance begin in time,
// and memory and disk stay within their bounds.
func TestFloods(t *testing.T) {
	h := newHost(t, workload)
	h.create(api.CreateInstanceRequest{Name: "bystander", HealthCheck: check(`{"http":{"port":80},"interval":"100ms","timeout":"5s"}`)})
	h.awaitHealth("bystander", api.HealthStateHealthy)
	booted.Add(1)
	// Beside all floods together: of the probes beside one, the latest one in a hundred is a single one, and as likely the host's business.
	var beside lags
	var worstHost time.Duration
	for _, what := range []string{"output", "console", "frames"} {
		t.Run(what, func(t *testing.T) {
			h := *h
			h.t = t
			in := h.create(api.CreateInstanceRequest{Name: "flood-" + what, Entrypoint: []string{"/workload", "spew", what, "30"}}) // until after all that is measured
			h.await(in.ID, api.InstanceStateRunning)
			daemon := h.daemon.Process.Pid
			quiet := privateMemory(t, daemon)
			late := lateness()
			lags := &lags{interval: 100 * time.Millisecond, since: time.Now(), seen: map[time.Time]bool{}}
			var shim, grown int64
			for end := time.Now().Add(18 * time.Second); time.Now().Before(end); time.Sleep(500 * time.Millisecond) {
				shim = max(shim, privateMemory(t, h.shimOf(in.ID)))
				grown = max(grown, privateMemory(t, daemon)-quiet)
				health, err := h.InstanceHealth(t.Context(), "bystander")
				if err != nil {
					t.Fatal(err)
				}
				lags.add(health.Results)
			}
			host, worst := late()
			n := len(lags.all)
			beside.all = append(beside.all, lags.all...)
			worstHost = max(worstHost, worst)
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
			t.Logf("%d probes beside it: lag p50 %v, p95 %v, at most %v (of a ticker in this process p99 %v, at most %v); its shim at most %.1f MB, the daemon at most %.1f MB more; logs of %v bytes",
				n, lags.percentile(50), lags.percentile(95), lags.percentile(100), host, worst, float64(shim)/1e6, float64(grown)/1e6, logs)
			if n < 50 {
				t.Errorf("only %d probes beside it", n)
			}
			if shim > floodPrivate || grown > daemonBound {
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
	if _, lag, _ := beside.percentiles(); lag > floodLag+worstHost {
		t.Errorf("of %d probes beside the floods one in a hundred began more than %v late, and the host keeps a ticker waiting %v", len(beside.all), lag, worstHost)
	}
	if health := h.awaitHealth("bystander", api.HealthStateHealthy); len(health.Transitions) > 2 {
		t.Errorf("the bystander's health flipped: %+v", health.Transitions)
	}
}

// However many connections a published port has, and however few descriptors a process may have: the shim lets the daemon in, and the next one.
func TestACrowdKeepsNoDaemonOut(t *testing.T) {
	h := newHost(t, nginx)
	const few = 400 // of a limit that machines are started with
	if err := unix.Prlimit(h.daemon.Process.Pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: few, Max: few}, nil); err != nil {
		t.Fatal(err)
	}
	h.create(api.CreateInstanceRequest{
		Name: "busy", Image: nginx, Network: &api.InstanceNetworkRequest{Ports: []api.PortMapping{{GuestPort: 80}}},
	})
	in := h.await("busy", api.InstanceStateRunning)
	booted.Add(1)
	for range few {
		go func() {
			for t.Context().Err() == nil {
				c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", in.Network.Ports[0].HostPort))
				if err != nil {
					return
				}
				c.Read(make([]byte, 1)) // until the server, or the shim, has had enough
				c.Close()
				time.Sleep(200 * time.Millisecond)
			}
		}()
	}
	time.Sleep(5 * time.Second)
	for _, daemon := range []string{"the daemon", "the next one"} {
		if out := h.run("busy", "echo", "well"); out != "well" {
			t.Errorf("%s is told %q", daemon, out)
		}
		h.killAndStart()
		h.await("busy", api.InstanceStateRunning)
	}
}
