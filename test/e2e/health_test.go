//go:build e2e

package e2e

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/halevm/hale/api"
	hale "github.com/halevm/hale/sdk/go"
)

func check(policy string) json.RawMessage { return json.RawMessage(policy) }

// persisted is the status in an instance's record on disk.
func (h *host) persisted(id string) string {
	h.t.Helper()
	b, err := os.ReadFile(filepath.Join(h.dir, "instances", id, "health.json"))
	if os.IsNotExist(err) {
		return ""
	}
	if err != nil {
		h.t.Fatal(err)
	}
	for _, status := range []string{"healthy", "unhealthy", "starting", "unknown", "disabled"} {
		if strings.Contains(string(b), `"status":"`+status+`"`) || strings.Contains(string(b), `"status": "`+status+`"`) {
			return status
		}
	}
	h.t.Fatalf("no status in %s", b)
	return ""
}

func TestNginxIsHealthyOnDisk(t *testing.T) {
	h := newHost(t, nginx)
	in := h.create(api.CreateInstanceRequest{
		Name: "web", Image: nginx, HealthCheck: check(`{"http":{"port":80}}`),
		Network: &api.InstanceNetworkRequest{Ports: []api.PortMapping{{GuestPort: 80}}},
	})
	health := h.awaitHealth("web", api.HealthStateHealthy)
	booted.Add(1)
	if len(health.Transitions) == 0 || len(health.Results) == 0 {
		t.Errorf("the history is empty: %+v", health)
	}
	eventually(t, "the healthy status is on disk", func() bool { return h.persisted(in.ID) == "healthy" })

	in = h.await("web", api.InstanceStateRunning)
	resp, err := http.Get("http://" + published(in) + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || !strings.Contains(string(body), "nginx") {
		t.Errorf("the published port answers %q, %v", body, err)
	}
	if out := h.run("web", "/bin/sh", "-c", "cat /proc/1/comm; id -u"); !strings.Contains(out, "0") {
		t.Errorf("inside: %q", out)
	}

	// An orderly stop: nginx's own stop signal, and a code of 0.
	stopped, err := h.StopInstance(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	if stopped.State != api.InstanceStateStopped || stopped.ExitCode == nil || *stopped.ExitCode != 0 {
		t.Errorf("after its stop it is %s with %v: %s", stopped.State, stopped.ExitCode, stopped.ExitMessage)
	}
	if s := stopped.HealthStatus.Status; s != api.HealthStateUnknown {
		t.Errorf("stopped, its health is %s", s)
	}
}

func TestTCPAndExecChecks(t *testing.T) {
	h := newHost(t, workload)
	h.create(api.CreateInstanceRequest{Name: "tcp", Cmd: []string{"listen", ":5432"}, HealthCheck: check(`{"tcp":{"port":5432},"interval":"1s"}`)})
	exec := h.create(api.CreateInstanceRequest{Name: "exec", Cmd: []string{"sleep"}, HealthCheck: check(`{"exec":{"command":["/workload","exists","/ok"]},"interval":"1s","start_period":"1s","failure_threshold":2}`)})
	h.awaitHealth("tcp", api.HealthStateHealthy)
	booted.Add(1)

	h.await("exec", api.InstanceStateRunning)
	if got := h.awaitHealth("exec", api.HealthStateUnhealthy); !strings.Contains(text(got.LastError), "exit code 1") {
		t.Errorf("the reason is %q", text(got.LastError))
	}
	h.run("exec", "/workload", "write", "/ok", "x")
	h.awaitHealth("exec", api.HealthStateHealthy)
	eventually(t, "the healthy status is on disk", func() bool { return h.persisted(exec.ID) == "healthy" })
}

func TestBreakAndMend(t *testing.T) {
	h := newHost(t, workload)
	in := h.create(api.CreateInstanceRequest{
		Name: "web", HealthCheck: check(`{"http":{"port":80,"path":"/healthz"},"interval":"500ms"}`),
		Network: &api.InstanceNetworkRequest{Ports: []api.PortMapping{{GuestPort: 80}}},
	})
	h.awaitHealth("web", api.HealthStateHealthy)
	booted.Add(1)
	post := func(what string) {
		resp, err := http.Post("http://"+published(in)+"/"+what, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	post("break")
	if got := h.awaitHealth("web", api.HealthStateUnhealthy); !strings.Contains(text(got.LastError), "500") {
		t.Errorf("the reason is %q", text(got.LastError))
	}
	post("mend")
	h.awaitHealth("web", api.HealthStateHealthy)

	// A policy that really changes begins a new window; an equal one changes nothing.
	before, err := h.InstanceHealth(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.UpdateInstance(t.Context(), "web", api.UpdateInstanceRequest{HealthCheck: check(`{"http":{"port":80,"path":"/healthz"},"interval":"0.5s"}`)}); err != nil {
		t.Fatal(err)
	}
	same, err := h.InstanceHealth(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	if !same.WindowStartedAt.Equal(*before.WindowStartedAt) {
		t.Error("an equal policy began a new window")
	}
	changed, err := h.UpdateInstance(t.Context(), "web", api.UpdateInstanceRequest{HealthCheck: check(`{"tcp":{"port":81},"interval":"500ms","start_period":"3s","failure_threshold":1}`)})
	if err != nil {
		t.Fatal(err)
	}
	if s := changed.HealthStatus; s.Status != api.HealthStateStarting || s.WindowStartedAt.Equal(*before.WindowStartedAt) {
		t.Errorf("after a new policy: %+v", s)
	}
	if got := h.awaitHealth("web", api.HealthStateUnhealthy); !strings.Contains(text(got.LastError), "refused") {
		t.Errorf("the reason is %q", text(got.LastError))
	}
}

// A daemon that ends leaves its machines running; the next one goes on with them.
func TestTheNextDaemonTakesItsMachinesBack(t *testing.T) {
	h := newHost(t, workload)
	in := h.create(api.CreateInstanceRequest{
		Name: "web", HealthCheck: check(`{"http":{"port":80},"interval":"500ms"}`),
		Network: &api.InstanceNetworkRequest{Ports: []api.PortMapping{{GuestPort: 80}}},
	})
	before := h.awaitHealth("web", api.HealthStateHealthy)
	booted.Add(1)
	qemu := h.qemuOf(in.ID)
	h.stop()
	resp, err := http.Get("http://" + published(in) + "/")
	if err != nil {
		t.Fatalf("the published port without a daemon: %v", err)
	}
	resp.Body.Close()
	h.start(nil)
	if !alive(qemu) {
		t.Fatal("the machine ended with its daemon")
	}
	after := h.awaitHealth("web", api.HealthStateHealthy)
	if !after.WindowStartedAt.Equal(*before.WindowStartedAt) || len(after.Transitions) != len(before.Transitions) {
		t.Errorf("a restart of the daemon was more than none: %+v", after.Transitions)
	}
	if out := h.run("web", "/workload", "print", "still here"); out != "still here" {
		t.Errorf("exec: %q", out)
	}
}

// A machine whose agent has gone says so once, not at every probe.
func TestAgentUnbound(t *testing.T) {
	h := newHost(t, workload)
	in := h.create(api.CreateInstanceRequest{
		Name: "web", Cmd: []string{"serve", ":80"},
		Network:     &api.InstanceNetworkRequest{Ports: []api.PortMapping{{GuestPort: 80}}},
		HealthCheck: check(`{"exec":{"command":["/workload","print","ok"]},"interval":"200ms","timeout":"5s","failure_threshold":3}`),
	})
	h.awaitHealth("web", api.HealthStateHealthy)
	booted.Add(1)
	// That commands run in the guest does not say that the program has come to serve.
	eventually(t, "it serves", func() bool { _, err := h.ask("GET", in, "/"); return err == nil })
	resp, err := http.Post("http://"+published(in)+"/agent-away", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	got := h.awaitHealth("web", api.HealthStateUnhealthy)
	if !strings.Contains(text(got.LastError), "agent") {
		t.Errorf("the reason is %q", text(got.LastError))
	}
	checked := func() int {
		health, err := h.InstanceHealth(t.Context(), "web")
		if err != nil {
			t.Fatal(err)
		}
		return len(health.Results)
	}
	eventually(t, "more probes", func() bool { return checked() >= 20 })
	complaints := 0
	for line := range strings.Lines(h.log.String()) {
		if strings.Contains(line, "level=WARN") && strings.Contains(line, "agent") {
			complaints++
		}
	}
	if complaints != 1 {
		t.Errorf("the daemon complained of the agent %d times, not once:\n%s", complaints, h.log)
	}
	// And when the port is bound again, the agent is back.
	w, err := h.WaitInstance(t.Context(), "web", hale.Wait{Health: api.HealthStateHealthy, Timeout: time.Minute})
	if err != nil || w.HealthStatus.Status != api.HealthStateHealthy {
		t.Errorf("after it came back: %+v, %v", w.HealthStatus, err)
	}
}
