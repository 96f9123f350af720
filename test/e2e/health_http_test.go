//go:build e2e

package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/halevm/hale/api"
	hale "github.com/halevm/hale/sdk/go"
)

// judged asks by another policy, and waits for what comes of it: want, for a reason that holds these words.
func (h *host) judged(ref, policy string, want api.HealthState, reason string) api.InstanceHealth {
	h.t.Helper()
	if _, err := h.UpdateInstance(h.t.Context(), ref, api.UpdateInstanceRequest{HealthCheck: check(policy)}); err != nil {
		h.t.Fatalf("%s: %v", policy, err)
	}
	got := h.awaitHealth(ref, want)
	last := got.Results[len(got.Results)-1]
	if !strings.Contains(last.Reason, reason) {
		h.t.Errorf("%s: %s for %q, not %q", policy, want, last.Reason, reason)
	}
	return got
}

// newWeb is a machine with the workload's web.
func newWeb(t *testing.T) (*host, api.Instance) {
	t.Helper()
	h := newHost(t, workload)
	h.create(api.CreateInstanceRequest{
		Name: "web", Cmd: []string{"web"}, HealthCheck: check(`{"http":{"port":80}}`),
		Network: &api.InstanceNetworkRequest{Ports: []api.PortMapping{{GuestPort: 80}}},
	})
	h.awaitHealth("web", api.HealthStateHealthy)
	return h, h.await("web", api.InstanceStateRunning)
}

// What a server may answer, over a machine's own network.
func TestNetworkChecks(t *testing.T) {
	h, in := newWeb(t)
	// Another host, as the prober's process would reach it, and as the guest's network would.
	var contacts atomic.Int64
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	go func() {
		for {
			c, err := other.Accept()
			if err != nil {
				return
			}
			contacts.Add(1)
			c.Close()
		}
	}()
	quiet := privateMemory(t, h.shimOf(in.ID))
	const pace = `"interval":"200ms","timeout":"200ms","start_period":"0s","failure_threshold":3`
	const patient = `"interval":"200ms","timeout":"5s","start_period":"0s","failure_threshold":2`
	for _, c := range []struct {
		policy string
		want   api.HealthState
		reason string
	}{
		{`"http":{"port":80,"path":"/away?to=http://` + other.Addr().String() + `/","expected_status":302}`, api.HealthStateHealthy, "status 302"},
		{`"http":{"port":80,"path":"/away?to=http://localhost:83/"}`, api.HealthStateUnhealthy, "status 302, expected 200"},
		{`"http":{"port":80,"path":"/away?to=http://` + text(in.Network.IP) + `:83/","expected_statuses":["300-399"]}`, api.HealthStateHealthy, "status 302"},
		{`"http":{"port":80,"path":"/big"}`, api.HealthStateHealthy, "status 200"},
		{`"http":{"port":80,"path":"/big","body_contains":"needle"}`, api.HealthStateUnhealthy, "the first 64 KiB of the body do not contain"},
		{`"http":{"port":80,"path":"/big","body_contains":"f0123"}`, api.HealthStateHealthy, "the body contains"},
		{`"http":{"port":80,"path":"/big","method":"HEAD"}`, api.HealthStateHealthy, "status 200"},
		{`"http":{"port":80,"path":"/asked?a=b%20c&d=é","method":"POST","headers":{"X-Token":"t","Host":"example.org"},"expected_status":204}`, api.HealthStateHealthy, "status 204"},
		{`"http":{"port":80,"path":"/asked?a=b&d=é","method":"POST","headers":{"X-Token":"t","Host":"example.org"},"expected_status":204}`, api.HealthStateUnhealthy, "status 400"},
		{`"http":{"port":443,"scheme":"https"}`, api.HealthStateHealthy, "status 200"},
		{`"http":{"port":443,"scheme":"https","tls_skip_verify":false}`, api.HealthStateUnhealthy, "the certificate is refused"},
		{`"http":{"port":80,"scheme":"https"}`, api.HealthStateUnhealthy, "port 80 does not speak TLS"},
		{`"http":{"port":82}`, api.HealthStateUnhealthy, "the guest's own 127.0.0.1"},
		{`"tcp":{"port":81}`, api.HealthStateUnhealthy, "connection refused (port 81)"},
		{`"grpc":{"port":50051}`, api.HealthStateHealthy, "the server is SERVING"},
		{`"grpc":{"port":50051,"service":"db"}`, api.HealthStateUnhealthy, `service "db" is NOT_SERVING`},
		{`"grpc":{"port":50051,"service":"nope"}`, api.HealthStateUnhealthy, "NOT_FOUND"},
		{`"grpc":{"port":80}`, api.HealthStateUnhealthy, "speaks HTTP/1"},
		{`"grpc":{"port":443}`, api.HealthStateUnhealthy, "port 443"},
	} {
		h.judged("web", `{`+patient+`,`+c.policy+`}`, c.want, c.reason)
	}
	h.judged("web", `{`+pace+`,"http":{"port":80,"path":"/hang"}}`, api.HealthStateUnhealthy, "timeout after 200ms: no answer to GET /hang")

	// All kinds of checks, 64 MB bodies and TLS among them, leave the process beside the machine as small as it was meant to be.
	const bound = 16 << 20
	busy := privateMemory(t, h.shimOf(in.ID))
	t.Logf("the shim's private memory: %.1f MB before, %.1f MB after", float64(quiet)/1e6, float64(busy)/1e6)
	if busy > bound {
		t.Errorf("the shim has %d bytes of private memory, more than %d", busy, bound)
	}
	if n := schedstats(t, h.shimOf(in.ID)); n == 0 {
		t.Error("the shim does not read how long the guest's processors wait")
	}
	if n := contacts.Load(); n != 0 {
		t.Errorf("the redirect's host was contacted %d times", n)
	}
	resp, err := http.Get("http://" + published(in) + "/contacts")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if n, err := io.ReadAll(resp.Body); err != nil || string(n) != "0" {
		t.Errorf("the redirect's port was contacted %s times, %v", n, err)
	}
}

// schedstats counts the threads whose waiting a process looks at.
func schedstats(t *testing.T, pid int) (n int) {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if to, err := os.Readlink(f); err == nil && strings.HasSuffix(to, "/schedstat") {
			n++
		}
	}
	return n
}

// A probe that hangs while the machine is stopped: the stop does not wait for it, and it is no failure.
func TestStopDuringAProbe(t *testing.T) {
	h, _ := newWeb(t)
	if _, err := h.UpdateInstance(t.Context(), "web", api.UpdateInstanceRequest{HealthCheck: check(`{"http":{"port":80,"path":"/hang"},"interval":"1s","timeout":"1h","start_period":"0s","failure_threshold":1}`)}); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	stopped, err := h.StopInstance(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); stopped.State != api.InstanceStateStopped || took > time.Minute { // of the probe's hour
		t.Errorf("it is %s after %v", stopped.State, took)
	}
	h.notFailed("web", api.HealthStateStarting)
}

// The program exits while a probe is in flight: its end is no matter of health.
func TestExitDuringAProbe(t *testing.T) {
	h, _ := newWeb(t)
	if _, err := h.UpdateInstance(t.Context(), "web", api.UpdateInstanceRequest{HealthCheck: check(`{"http":{"port":80,"path":"/exit"},"interval":"100ms","timeout":"30s","start_period":"0s","failure_threshold":1}`)}); err != nil {
		t.Fatal(err)
	}
	if in := h.await("web", api.InstanceStateStopped); in.ExitCode == nil || *in.ExitCode != 0 {
		t.Errorf("it ended with %v: %s", in.ExitCode, text(in.StateError))
	}
	h.notFailed("web", api.HealthStateStarting)
}

// notFailed checks that an instance which is no longer active had no failure in its last window, and what it was last.
func (h *host) notFailed(ref string, last api.HealthState) {
	h.t.Helper()
	w, err := h.WaitInstance(h.t.Context(), ref, hale.Wait{State: api.InstanceStateStopped, Timeout: bootPatience})
	if err != nil || w.State != api.InstanceStateStopped {
		h.t.Fatalf("%v, %v", w.State, err)
	}
	got, err := h.InstanceHealth(h.t.Context(), ref)
	if err != nil {
		h.t.Fatal(err)
	}
	if got.Status != api.HealthStateUnknown || got.LastStatus != last || got.ConsecutiveFailures != 0 {
		h.t.Errorf("its health is %s, and was %s, with %d failures", got.Status, got.LastStatus, got.ConsecutiveFailures)
	}
	window := got.Results[len(got.Results)-1].Window
	for _, r := range got.Results {
		if r.Window == window && r.Outcome == "failure" {
			h.t.Errorf("a failure: %+v\namong %+v", r, got.Results)
		}
	}
}
