//go:build e2e

package e2e

import (
	"errors"
	"testing"

	"github.com/halevm/hale/api"
)

// The least memory that a machine may be given is enough for it to boot and to run a program, with few processors and with as many as
// there may be.
func TestLeastMemory(t *testing.T) {
	h := newHost(t)
	h.load(workload)
	if _, err := h.CreateInstance(t.Context(), api.CreateInstanceRequest{Name: "less", Image: workload, Size: "127MB"}); !errors.Is(err, api.Invalid) {
		t.Errorf("less than that: %v", err)
	}
	for _, least := range []struct {
		vcpus int
		size  string
	}{{2, "128MB"}, {64, "256MB"}} {
		h.create(api.CreateInstanceRequest{Name: "least", VCPUs: &least.vcpus, Size: least.size})
		h.await("least", api.InstanceStateRunning)
		if out := h.run("least", "/workload", "print", "hello"); out != "hello" {
			t.Errorf("it says %q", out)
		}
		if err := h.DeleteInstance(t.Context(), "least", true); err != nil {
			t.Error(err)
		}
	}
}
