//go:build e2e

package e2e

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/halevm/hale/api"
)

// lookUps are the requests for one instance that the daemon has answered.
var lookUps = regexp.MustCompile(`hale_http_requests_total\{[^}]*method="GET",route="/instances/\{id\}"[^}]*\} \d+`)

// TestWaitAcrossARestart: who waits for a machine to be healthy goes on with the next daemon, and the machine never stopped.
func TestWaitAcrossARestart(t *testing.T) {
	g := newToggled(t, `{"tcp":{"port":80},"interval":"500ms","start_period":"5m"}`)
	asked := func() string { return strings.Join(lookUps.FindAllString(g.metrics(), -1), "\n") }
	before := asked()
	type ended struct {
		stderr string
		err    error
	}
	done := make(chan ended, 1)
	go func() {
		_, stderr, err := g.hale("wait", "web", "--healthy", "--timeout", "60s")
		done <- ended{stderr, err}
	}()
	eventually(t, "hale wait has found the instance", func() bool { return asked() != before })
	g.stop()
	g.start(nil)
	started := time.Now()
	g.order("/listen?at=:80")
	end := <-done
	if end.err != nil || strings.Count(end.stderr, "the daemon went away; waiting for it") != 1 {
		t.Errorf("hale wait: %v, %q", end.err, end.stderr)
	}
	t.Logf("healthy %v after the daemon was back", time.Since(started).Round(time.Millisecond))
	if in := g.await("web", api.InstanceStateRunning); !in.RunningAt.Equal(*g.in.RunningAt) {
		t.Errorf("it runs since %v, and ran since %v", in.RunningAt, g.in.RunningAt)
	}
}
