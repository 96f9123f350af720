//go:build e2e

package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/halevm/hale/api"
)

// tries runs an exchange in a guest and says how it ended.
func (h *host) tries(ref, network, addr string) (answer string, took time.Duration) {
	h.t.Helper()
	start := time.Now()
	out, code := h.exec(ref, "/workload", "exchange", network, addr, "hello")
	if code != 0 && out == "" {
		out = fmt.Sprint("exit code ", code)
	}
	return out, time.Since(start)
}

// ownLog is the daemon's log of an instance.
func (h *host) ownLog(ref string) string {
	h.t.Helper()
	return h.logs(ref, api.LogSourceHypeman)
}

func outbound(n api.InstanceNetworkRequest) *api.InstanceNetworkRequest { return &n }

// What a guest may reach and what not, with somebody at every address who would answer.
func TestOutbound(t *testing.T) {
	inside, _ := newNamespaces(t)
	h := newHostIn(t, inside, workload)
	h.create(api.CreateInstanceRequest{Name: "plain", Cmd: []string{"serve", ":80"}})
	h.create(api.CreateInstanceRequest{Name: "allowed", Cmd: []string{"serve", ":80"}, Network: outbound(api.InstanceNetworkRequest{Allow: []string{"192.168.77.0/24"}})})
	h.create(api.CreateInstanceRequest{Name: "talk", Cmd: []string{"talk", "203.0.113.10:7"}})
	off := false
	h.create(api.CreateInstanceRequest{Name: "none", Cmd: []string{"sleep"}, Network: outbound(api.InstanceNetworkRequest{Outbound: &off})})
	h.await("plain", api.InstanceStateRunning)
	allowed := h.await("allowed", api.InstanceStateRunning)
	talks := h.await("talk", api.InstanceStateRunning)
	h.await("none", api.InstanceStateRunning)
	if n := allowed.Network; n.Outbound == nil || !*n.Outbound || len(n.Allow) != 1 || n.Allow[0] != "192.168.77.0/24" {
		t.Errorf("the network is shown as %+v", n)
	}

	t.Run("refused", func(t *testing.T) {
		h := *h
		h.t = t
		for _, at := range []string{
			"127.0.0.1", "203.0.113.1", "192.168.77.1", "0.0.0.0", "169.254.169.254", "192.168.77.10", "10.1.2.3", "172.16.0.9", "100.64.0.9", "10.77.0.200",
		} {
			for _, network := range []string{"tcp", "udp"} {
				addr := at + ":7"
				if got := inside.run(program, "exchange", network, addr, "hello"); got != "hello" {
					t.Fatalf("from the host itself %s %s answers %q: the test shows nothing", network, addr, got)
				}
				if at == "127.0.0.1" || at == "0.0.0.0" {
					continue // in the guest these are the guest's own
				}
				got, took := h.tries("plain", network, addr)
				if !strings.Contains(got, "connection refused") {
					t.Errorf("from a guest %s %s: %q", network, addr, got)
				}
				if took > 10*time.Second { // of which an exec takes some; who is not refused waits for five
					t.Errorf("%s %s is refused only after %v", network, addr, took)
				}
			}
		}
		// The guest's own kernel keeps these to itself unless its routes say otherwise.
		for _, at := range []string{"127.0.0.1:7", "0.0.0.0:7"} {
			if got, _ := h.tries("plain", "tcp", at); !strings.Contains(got, "connection refused") {
				t.Errorf("from a guest %s: %q", at, got)
			}
		}
		other := strings.TrimSpace(text(allowed.Network.IP))
		if got, _ := h.tries("plain", "tcp", other+":80"); !strings.Contains(got, "connection refused") {
			t.Errorf("another instance at %s: %q", other, got)
		}
		if got, _ := h.tries("plain", "tcp", "10.77.0.1:22"); !strings.Contains(got, "connection refused") {
			t.Errorf("the gateway's ssh: %q", got)
		}
		var log string
		eventually(t, "the refusals are in the instance's own log", func() bool {
			log = h.ownLog("plain")
			return strings.Contains(log, "outbound refused: tcp 192.168.77.10:7: it is a private address; make the instance with --allow-net 192.168.77.10/32")
		})
		for _, want := range []string{"it is an address of the host itself", "metadata"} {
			if !strings.Contains(log, want) {
				t.Errorf("the instance's log does not say %q:\n%s", want, log)
			}
		}
	})

	t.Run("allowed", func(t *testing.T) {
		h := *h
		h.t = t
		for _, c := range []struct{ ref, network, addr string }{
			{"plain", "tcp", "203.0.113.10:7"},
			{"plain", "udp", "203.0.113.10:7"},
			{"plain", "tcp", "outside.test:7"},
			{"allowed", "tcp", "203.0.113.10:7"},
			{"allowed", "tcp", "192.168.77.10:7"},
			{"allowed", "udp", "192.168.77.10:7"},
			{"allowed", "tcp", "private.test:7"},
		} {
			if got, _ := h.tries(c.ref, c.network, c.addr); got != "hello" {
				t.Errorf("%s %s %s: %q", c.ref, c.network, c.addr, got)
			}
		}
		for _, c := range []struct{ ref, network, addr string }{
			{"allowed", "tcp", "192.168.77.1:7"}, // the host's own, though the range is allowed
			{"allowed", "udp", "192.168.77.1:7"},
			{"allowed", "tcp", "10.1.2.3:7"},
			{"plain", "tcp", "203.0.113.10:8"}, // nobody listens
			{"plain", "udp", "203.0.113.10:8"},
			{"plain", "tcp", "private.test:7"},
			{"plain", "tcp", "cloud.test:7"}, // a name that leads to where nobody may
		} {
			if got, _ := h.tries(c.ref, c.network, c.addr); !strings.Contains(got, "connection refused") {
				t.Errorf("%s %s %s: %q", c.ref, c.network, c.addr, got)
			}
		}
	})

	t.Run("names", func(t *testing.T) {
		h := *h
		h.t = t
		if got := h.run("plain", "/workload", "resolve", "ip", "outside.test"); got != "203.0.113.10" {
			t.Errorf("outside.test is %q", got)
		}
		if got := h.run("plain", "/workload", "resolve", "ip", "cloud.test"); got != "169.254.169.254" {
			t.Errorf("cloud.test is %q", got)
		}
		if got := h.run("plain", "/workload", "resolve", "txt", "large.test"); strings.Count(got, "large") != 20*40 {
			t.Errorf("the text that needs TCP has %d bytes", len(got))
		}
		if got, code := h.exec("plain", "/workload", "resolve", "ip", "missing.test"); code == 0 || !strings.Contains(got, "no such host") {
			t.Errorf("missing.test: %q", got)
		}
	})

	t.Run("none", func(t *testing.T) {
		h := *h
		h.t = t
		if got, _ := h.tries("none", "tcp", "203.0.113.10:7"); !strings.Contains(got, "connection refused") {
			t.Errorf("without traffic to the outside: %q", got)
		}
		if got, code := h.exec("none", "/workload", "resolve", "ip", "outside.test"); code == 0 {
			t.Errorf("without traffic to the outside a name is %q", got)
		}
	})

	// An address that becomes the host's own while a guest talks to it is refused from then on.
	t.Run("becomes the host's own", func(t *testing.T) {
		h := *h
		h.t = t
		const addr = "198.51.100.7:7"
		for _, network := range []string{"tcp", "udp"} {
			if got, _ := h.tries("plain", network, addr); got != "hello" {
				t.Errorf("before: %s: %q", network, got)
			}
		}
		inside.run("ip", "addr", "add", "198.51.100.7/32", "dev", "lo")
		for _, network := range []string{"tcp", "udp"} {
			if got, _ := h.tries("plain", network, addr); !strings.Contains(got, "connection refused") {
				t.Errorf("after: %s: %q", network, got)
			}
		}
		inside.run("ip", "addr", "del", "198.51.100.7/32", "dev", "lo")
		if got, _ := h.tries("plain", "tcp", addr); got != "hello" {
			t.Errorf("after all: %q", got)
		}
	})

	// Beside three other machines under emulation; what it is worth is printed.
	t.Run("throughput", func(t *testing.T) {
		h := *h
		h.t = t
		for way, addr := range map[string]string{"up": "203.0.113.10:9", "down": "203.0.113.10:19"} {
			out := h.run("plain", "/workload", "move", way, addr, "256")
			rate, err := strconv.Atoi(out)
			if err != nil || rate < 5 {
				t.Errorf("%s: %q MB/s, %v", way, out, err)
			}
			t.Logf("%s: %d MB/s", way, rate)
		}
	})

	// A connection of a guest goes on under a daemon that is stopped and started again.
	t.Run("outlives the daemon", func(t *testing.T) {
		h.t = t
		said := func() int {
			b, err := os.ReadFile(filepath.Join(h.dir, "instances", talks.ID, "vm/log/app.log"))
			if err != nil {
				t.Fatal(err)
			}
			return strings.Count(string(b), "echo")
		}
		h.stop()
		before := said()
		eventually(t, "the guest goes on without a daemon", func() bool { return said() > before+5 })
		h.start(nil)
		before = said()
		eventually(t, "the guest goes on with the next daemon", func() bool { return said() > before+5 })
		if in, err := h.Instance(t.Context(), "talk"); err != nil || in.State != api.InstanceStateRunning {
			t.Errorf("it is %s, %v", in.State, err)
		}
	})

	t.Run("survives stop and start", func(t *testing.T) {
		h.t = t
		if _, err := h.StopInstance(t.Context(), "allowed"); err != nil {
			t.Fatal(err)
		}
		if _, err := h.StartInstance(t.Context(), "allowed", api.StartInstanceRequest{}); err != nil {
			t.Fatal(err)
		}
		h.await("allowed", api.InstanceStateRunning)
		if got, _ := h.tries("allowed", "tcp", "192.168.77.10:7"); got != "hello" {
			t.Errorf("what was allowed: %q", got)
		}
	})
	h.t = t
}

// The bounds of a flood, and how long it lasts.
const (
	floodTime    = 40 * time.Second
	floodPrivate = 32 << 20               // bytes of the shim's private memory
	floodLag     = 100 * time.Millisecond // p99 of another instance's probes, beyond that of a ticker of ours, which the host keeps waiting too
)

// A guest that opens ten thousand connections, fills those that it gets and sends datagrams as fast as it can harms neither its
// shim nor the probes of another.
func TestOutboundFlood(t *testing.T) {
	inside, _ := newNamespaces(t)
	h := newHostIn(t, inside, workload)
	const interval = 100 * time.Millisecond
	watched := h.create(api.CreateInstanceRequest{Name: "watched", Cmd: []string{"serve", ":80"},
		HealthCheck: []byte(`{"http":{"port":80,"path":"/healthz"},"interval":"100ms","timeout":"5s"}`)})
	flood := h.create(api.CreateInstanceRequest{Name: "flood", Cmd: []string{"serve", ":80"}})
	h.awaitHealth("watched", api.HealthStateHealthy)
	h.await("flood", api.InstanceStateRunning)
	shim := h.shimOf(flood.ID)
	quiet, daemon := privateMemory(t, shim), h.daemon.Process.Pid
	daemonQuiet, disk := privateMemory(t, daemon), diskUse(t, h.dir)

	seconds := fmt.Sprint(int(floodTime / time.Second))
	var wg sync.WaitGroup
	defer wg.Wait()
	outs := make([]string, 2)
	for i, command := range [][]string{
		{"/workload", "many", "203.0.113.10:19", "10000", seconds},
		{"/workload", "flood", "203.0.113.10", seconds},
	} {
		wg.Go(func() {
			e, err := h.Exec(t.Context(), "flood", api.ExecRequest{Command: command, Timeout: 120})
			if err != nil {
				t.Error(err)
				return
			}
			defer e.Close()
			e.CloseWrite()
			var out bytes.Buffer
			if _, err := e.Copy(&out, &out); err != nil {
				t.Errorf("%v: %v", command, err)
			}
			outs[i] = strings.TrimSpace(out.String())
		})
	}
	var most, grown int64
	late := lateness()
	lags := &lags{interval: interval, since: time.Now(), seen: map[time.Time]bool{}}
	for end := time.Now().Add(floodTime); time.Now().Before(end); time.Sleep(500 * time.Millisecond) {
		most, grown = max(most, privateMemory(t, shim)), max(grown, privateMemory(t, daemon)-daemonQuiet)
		health, err := h.InstanceHealth(t.Context(), watched.ID)
		if err != nil {
			t.Fatal(err)
		}
		lags.add(health.Results)
	}
	_, host := late()
	wg.Wait()
	p50, p99, worst := lags.percentiles()
	t.Logf("connections: %s; datagrams: %s", outs[0], outs[1])
	disk = diskUse(t, h.dir) - disk
	t.Logf("the flood's shim: %.1f MB private before, %.1f MB at most; the daemon %.1f MB more; the disk %.1f MB more",
		float64(quiet)/(1<<20), float64(most)/(1<<20), float64(grown)/(1<<20), float64(disk)/(1<<20))
	t.Logf("the other instance: %d probes, lag p50 %v, p99 %v, at most %v (5%% of the interval among it), a ticker in this process is late by at most %v; status %s",
		len(lags.all), p50, p99, worst, host, h.awaitHealth("watched", api.HealthStateHealthy).Status)
	if most > floodPrivate {
		t.Errorf("the shim has %d bytes of private memory, more than %d", most, floodPrivate)
	}
	if grown > daemonBound || disk > logBound {
		t.Errorf("the daemon has %d bytes of private memory more than before, and %d bytes more are on the disk", grown, disk)
	}
	if p99 > floodLag+host {
		t.Errorf("the lag's p99 is %v, more than %v, and the host keeps a ticker waiting %v", p99, floodLag, host)
	}
	if n := len(lags.all); n < 100 {
		t.Errorf("%d probes are too few to say anything", n)
	}
	// An emulated guest may be too slow for the bound on new connections a second, which internal/network's tests reach.
	const bound = "connections to the outside are open, which is the most at a time"
	if log := h.ownLog("flood"); !strings.Contains(log, bound) {
		t.Errorf("the instance's log does not tell of the bound %q:\n%s", bound, log)
	}
	if got, _ := h.tries("watched", "tcp", "203.0.113.10:7"); got != "hello" {
		t.Errorf("the other instance reaches the outside no more: %q", got)
	}
	eventually(t, "the flood's own way out is open again", func() bool {
		got, _ := h.tries("flood", "tcp", "203.0.113.10:7")
		return got == "hello"
	})
}
