//go:build e2e

package e2e

import (
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/health"
	hale "github.com/halevm/hale/sdk/go"
)

// A shim that does not answer the next daemon for a while holds it up for no longer than that bears, and keeps its machine.
func TestShimIsSilentAtARestart(t *testing.T) {
	h := newHost(t, workload)
	in := h.create(api.CreateInstanceRequest{Name: "web"})
	h.await("web", api.InstanceStateRunning)
	shim, qemu := h.shimOf(in.ID), h.qemuOf(in.ID)
	h.stop()
	if err := syscall.Kill(shim, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Kill(shim, syscall.SIGCONT) })
	h.start(nil)
	w, err := h.WaitInstance(t.Context(), "web", hale.Wait{State: api.InstanceStateUnknown, Timeout: time.Minute})
	if err != nil || w.State != api.InstanceStateUnknown {
		t.Fatalf("while its shim is silent it is %s, %v", w.State, err)
	}
	if err := syscall.Kill(shim, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	w, err = h.WaitInstance(t.Context(), "web", hale.Wait{State: api.InstanceStateRunning, Timeout: time.Minute})
	if err != nil || w.State != api.InstanceStateRunning || !alive(qemu) {
		t.Fatalf("afterwards it is %s, %v", w.State, err)
	}
	if out := h.run("web", "/workload", "print", "still here"); out != "still here" {
		t.Errorf("exec: %q", out)
	}
}

// A guest that hangs fails its check; the host is not blamed.
func TestHungGuestFailsItsCheck(t *testing.T) {
	h := newHost(t, workload)
	in := h.create(api.CreateInstanceRequest{
		Name: "web", HealthCheck: check(`{"exec":{"command":["/workload","print","ok"]},"interval":"1s","timeout":"1s","failure_threshold":1}`),
	})
	h.awaitHealth("web", api.HealthStateHealthy)
	booted.Add(1)
	qemu := h.qemuOf(in.ID)
	if err := syscall.Kill(qemu, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Kill(qemu, syscall.SIGCONT) })
	got := h.awaitHealth("web", api.HealthStateUnhealthy)
	if e := text(got.LastError); !strings.Contains(e, "timeout after 1s") {
		t.Errorf("the reason is %q", e)
	}
	if !slices.ContainsFunc(got.Results, func(r api.HealthResult) bool {
		return r.Outcome == string(health.Failure) && strings.Contains(r.Reason, "timeout after 1s")
	}) {
		t.Errorf("its check found %+v", got.Results)
	}
}
