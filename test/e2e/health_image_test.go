//go:build e2e

package e2e

import (
	"os"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/health"
)

// The image's own HEALTHCHECK, through the image's own shell, is what an instance is checked by without a word of whoever made it.
func TestTheImagesOwnCheck(t *testing.T) {
	const checked = "e2e/checked"
	if err := makeImage(t.TempDir(), checked, os.Getenv("HALE_E2E_NGINX"), v1.Config{
		Cmd:   []string{"/usr/sbin/nginx", "-g", "daemon off; error_log /dev/stderr;"},
		Env:   []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "BROKEN=/tmp/broken"},
		Shell: []string{"/bin/bash", "-c"},
		Healthcheck: &v1.HealthConfig{
			// [[ ]] is bash's own: it says that the image's shell was used.
			Test:     []string{"CMD-SHELL", `[[ ! -e $BROKEN ]] || { echo "broken by $(cat "$BROKEN")"; exit 3; }`},
			Interval: time.Second, Timeout: 10 * time.Second, Retries: 2,
		},
	}); err != nil {
		t.Fatal(err)
	}
	h := newHost(t, checked)
	in := h.create(api.CreateInstanceRequest{Name: "web", Image: checked})
	if in.HealthCheckSource != api.HealthCheckSourceImage || in.HealthStatus.Status != api.HealthStateStarting {
		t.Errorf("made with a check by %q, and %s", in.HealthCheckSource, in.HealthStatus.Status)
	}
	for _, r := range h.awaitHealth("web", api.HealthStateHealthy).Results {
		if r.Outcome == string(health.Failure) { // a guest that is still booting runs no commands, and that is no fault of the workload's
			t.Errorf("it was asked too soon: %+v", r)
		}
	}
	booted.Add(1)

	h.run("web", "/bin/sh", "-c", "echo a test >/tmp/broken")
	got := h.awaitHealth("web", api.HealthStateUnhealthy)
	last := got.Transitions[len(got.Transitions)-1]
	if !strings.Contains(text(got.LastError), "exit code 3") || !strings.Contains(last.Output, "broken by a test") {
		t.Errorf("it is unhealthy for %q, with the output %q", text(got.LastError), last.Output)
	}
	if got.HealthCheckSource != api.HealthCheckSourceImage {
		t.Errorf("the check is by %q", got.HealthCheckSource)
	}

	// Switched off, changed in one field, and back to the image's.
	for _, step := range []struct {
		change api.UpdateInstanceRequest
		source api.HealthCheckSource
		status api.HealthState
	}{
		{api.UpdateInstanceRequest{HealthCheck: check(`{"type":"none"}`)}, api.HealthCheckSourceRequest, api.HealthStateDisabled},
		{api.UpdateInstanceRequest{HealthCheckOverride: check(`{"start_period":"0s","failure_threshold":1}`)}, api.HealthCheckSourceRequest, api.HealthStateUnhealthy},
		{api.UpdateInstanceRequest{HealthCheck: check(`null`)}, api.HealthCheckSourceImage, api.HealthStateUnhealthy},
	} {
		now, err := h.UpdateInstance(t.Context(), "web", step.change)
		if err != nil {
			t.Fatal(err)
		}
		if now.HealthCheckSource != step.source {
			t.Errorf("after %s%s the check is by %q, want %q", step.change.HealthCheck, step.change.HealthCheckOverride, now.HealthCheckSource, step.source)
		}
		h.awaitHealth("web", step.status)
	}
	h.run("web", "rm", "/tmp/broken")
	h.awaitHealth("web", api.HealthStateHealthy)
}
