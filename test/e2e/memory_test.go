//go:build e2e

package e2e

import (
	"errors"
	"testing"

	"github.com/halevm/hale/api"
)

// The least memory that a machine may be given is enough for it to boot and to run a program, with as many processors as it gets unless
// told.
func TestLeastMemory(t *testing.T) {
	h := newHost(t)
	h.load(workload)
	if _, err := h.CreateInstance(t.Context(), api.CreateInstanceRequest{Name: "less", Image: workload, Size: "127MB"}); !errors.Is(err, api.Invalid) {
		t.Errorf("less than that: %v", err)
	}
	h.create(api.CreateInstanceRequest{Name: "least", Size: "128MB"})
	h.await("least", api.InstanceStateRunning)
	if out := h.run("least", "/workload", "print", "hello"); out != "hello" {
		t.Errorf("it says %q", out)
	}
	if _, err := h.StopInstance(t.Context(), "least"); err != nil {
		t.Error(err)
	}
}
