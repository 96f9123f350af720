//go:build e2e

package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/halevm/hale/api"
)

// What a check's command may do to the machine that it runs in, and what it cannot.
func TestExecChecks(t *testing.T) {
	h := newHost(t, workload)
	h.create(api.CreateInstanceRequest{Name: "box", Cmd: []string{"sleep"}, HealthCheck: check(`{"exec":{"command":["/workload","print","ok"]}}`)})
	h.awaitHealth("box", api.HealthStateHealthy)
	booted.Add(1)
	const pace = `"interval":"200ms","timeout":"1s","start_period":"0s","failure_threshold":2`
	for _, c := range []struct {
		exec   string
		want   api.HealthState
		reason string
		long   time.Duration // no probe takes longer
	}{
		// A child in a session of its own holds the output open; without cgroups it would live on, and nobody would get an exit.
		{`"command":["/workload","linger"]`, api.HealthStateUnhealthy, "timeout after 1s: the command was killed", 3 * time.Second},
		{`"command":["/workload","abandon"]`, api.HealthStateHealthy, "exit code 0", time.Second},
		{`"command":["/workload","spew","output","100"]`, api.HealthStateUnhealthy, "timeout after 1s: the command was killed", 3 * time.Second},
		{`"command":["/no/such/program"]`, api.HealthStateUnhealthy, "command not found", time.Second},
		{`"command":["/workload","print"],"user":"nobody-of-this-name"`, api.HealthStateUnhealthy, `no user "nobody-of-this-name"`, time.Second},
		{`"command":["/workload","print"],"working_dir":"/no/such/directory"`, api.HealthStateUnhealthy, "/no/such/directory: no such file", time.Second},
		{`"command":["/workload","print","well"]`, api.HealthStateHealthy, "exit code 0", time.Second},
	} {
		got := h.judged("box", `{`+pace+`,"exec":{`+c.exec+`}}`, c.want, c.reason)
		window := got.Results[len(got.Results)-1].Window
		for _, r := range got.Results {
			if r.Window != window {
				continue
			}
			if r.DurationMs > float64(c.long.Milliseconds()) {
				t.Errorf("%s took %.0f ms", c.exec, r.DurationMs)
			}
			if strings.Contains(c.exec, "spew") && (len(r.Output) > 4096 || len(r.Output) < 2048) {
				t.Errorf("%s: %d bytes of output", c.exec, len(r.Output))
			}
		}
	}
	h.judged("box", `{"exec":{"command":["/workload","print","well"]}}`, api.HealthStateHealthy, "exit code 0")
	for _, left := range [][]string{{"/workload", "linger", "child"}, {"/workload", "linger"}, {"/workload", "abandon", "between"}, {"/workload", "spew", "output", "100"}} {
		if n := h.run("box", append([]string{"/workload", "processes"}, left...)...); n != "0" {
			t.Errorf("%s processes %q are left of checks that ended", n, left)
		}
	}
	// The guest is as it was: nothing was reaped that was not its own, and the program runs.
	if n := h.run("box", "/workload", "processes", "/workload", "sleep"); n != "1" {
		t.Errorf("the program runs %s times", n)
	}
}
