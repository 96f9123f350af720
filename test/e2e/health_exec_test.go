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
	const pace = `"interval":"200ms","start_period":"0s","failure_threshold":2`
	// What is not to run into its timeout has a long one, which whoever waited for what was left behind would run into all the same: that is there
	// for an hour.
	const soon, patient = `,"timeout":"1s"`, `,"timeout":"30s"`
	for _, c := range []struct {
		exec   string // the command, and the timeout
		want   api.HealthState
		reason string
		long   time.Duration // no probe takes longer
	}{
		// A child in a session of its own holds the output open; without cgroups it would live on, and nobody would get an exit.
		{`{"command":["/workload","linger"]}` + soon, api.HealthStateUnhealthy, "timeout after 1s: the command was killed", 15 * time.Second},
		{`{"command":["/workload","abandon"]}` + patient, api.HealthStateHealthy, "exit code 0", 15 * time.Second},
		{`{"command":["/workload","spew","output","100"]}` + soon, api.HealthStateUnhealthy, "timeout after 1s: the command was killed", 15 * time.Second},
		{`{"command":["/no/such/program"]}` + patient, api.HealthStateUnhealthy, "command not found", 15 * time.Second},
		{`{"command":["/workload","print"],"user":"nobody-of-this-name"}` + patient, api.HealthStateUnhealthy, `no user "nobody-of-this-name"`, 15 * time.Second},
		{`{"command":["/workload","print"],"working_dir":"/no/such/directory"}` + patient, api.HealthStateUnhealthy, "/no/such/directory: no such file", 15 * time.Second},
		{`{"command":["/workload","print","well"]}` + patient, api.HealthStateHealthy, "exit code 0", 15 * time.Second},
	} {
		got := h.judged("box", `{`+pace+`,"exec":`+c.exec+`}`, c.want, c.reason)
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
