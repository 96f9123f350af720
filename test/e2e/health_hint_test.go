//go:build e2e

package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/health"
)

// A toggled is a machine whose program listens where it is told to.
type toggled struct {
	*host
	in api.Instance
}

// newToggled starts one that listens at its control port only.
func newToggled(t *testing.T, policy string) toggled {
	t.Helper()
	h := newHost(t, workload)
	h.create(api.CreateInstanceRequest{
		Name: "web", Cmd: []string{"toggle", ":81"}, HealthCheck: check(policy),
		Network: &api.InstanceNetworkRequest{Ports: []api.PortMapping{{GuestPort: 81}}},
	})
	in := h.await("web", api.InstanceStateRunning)
	g := toggled{h, in}
	// Running is from the program's start on; it takes a moment to serve.
	eventually(t, "the program takes orders", func() bool { return g.post("/cease?at=nowhere") == http.StatusConflict })
	return g
}

func (g toggled) post(what string) int {
	resp, err := http.Post("http://"+published(g.in)+what, "", nil)
	if err != nil {
		return 0
	}
	resp.Body.Close()
	return resp.StatusCode
}

// order has the program do something, and returns when it was told to.
func (g toggled) order(what string) time.Time {
	g.t.Helper()
	told := time.Now()
	if code := g.post(what); code != http.StatusOK {
		g.t.Fatalf("%s: status %d", what, code)
	}
	return told
}

func (g toggled) health() api.InstanceHealth {
	g.t.Helper()
	health, err := g.InstanceHealth(g.t.Context(), "web")
	if err != nil {
		g.t.Fatal(err)
	}
	return health
}

func (g toggled) update(policy string) api.InstanceHealth {
	g.t.Helper()
	if _, err := g.UpdateInstance(g.t.Context(), "web", api.UpdateInstanceRequest{HealthCheck: check(policy)}); err != nil {
		g.t.Fatal(err)
	}
	return g.health()
}

// turned waits for a status, and returns when it was reached. A transition before `since` is an earlier one.
func (g toggled) turned(want api.HealthState, since time.Time) time.Time {
	g.t.Helper()
	health := g.awaitHealth("web", want)
	i := slices.IndexFunc(health.Transitions, func(tr api.HealthTransition) bool {
		return tr.To == want && !tr.Time.Before(since.Truncate(time.Millisecond))
	})
	if i < 0 {
		g.t.Fatalf("it is %s since before %v: %+v", want, since, health.Transitions)
	}
	return health.Transitions[i].Time
}

// events are those of the instance so far, of a type: an event is in the log before anybody sees what it tells, and in the order of what happened,
// so before that of a tag.
func (g toggled) events(typ string) (n int) {
	g.t.Helper()
	if _, err := g.UpdateInstance(g.t.Context(), "web", api.UpdateInstanceRequest{Tags: api.Tags{"asked": fmt.Sprint(time.Now().UnixNano())}}); err != nil {
		g.t.Fatal(err)
	}
	logs, err := filepath.Glob(filepath.Join(g.dir, "events", "*.log"))
	if err != nil || len(logs) == 0 {
		g.t.Fatalf("no log of events: %v", err)
	}
	for _, name := range logs {
		b, err := os.ReadFile(name)
		if err != nil {
			g.t.Fatal(err)
		}
		n += strings.Count(string(b), fmt.Sprintf(`"type":%q,"instance":%q`, typ, g.in.ID))
	}
	return n
}

// One machine through all that its listener can do. Intervals are so long that only a hint can be the reason of what comes soon.
func TestHintsOnARealMachine(t *testing.T) {
	const slow = `{"http":{"port":80},"interval":"1m","start_period":"30s"}`
	g := newToggled(t, `{"http":{"port":80},"start_period":"60s"}`)

	// A start of 20 s, with a grace of 60: healthy soon after, and never unhealthy.
	time.Sleep(time.Until(g.in.StartedAt.Add(20 * time.Second)))
	before := g.health()
	if before.Status != api.HealthStateStarting || before.GraceFailures == 0 {
		t.Errorf("before anybody listens: %+v", before)
	}
	began := g.order("/listen?at=:80")
	t.Logf("healthy %v after it began to listen", g.turned(api.HealthStateHealthy, began).Sub(began))
	for _, tr := range g.health().Transitions {
		if tr.To == api.HealthStateUnhealthy {
			t.Errorf("in the grace it was unhealthy: %+v", tr)
		}
	}

	// The same policy again, in other words: no window, no event, no probe.
	before, events := g.health(), g.events("health")
	same := g.update(`{"http":{"port":80,"path":"/"},"interval":"10000ms","start_period":"1m"}`)
	time.Sleep(time.Second)
	if now := g.health(); events == 0 || !same.WindowStartedAt.Equal(*before.WindowStartedAt) || !now.LastCheckedAt.Equal(*before.LastCheckedAt) || g.events("health") != events {
		t.Errorf("an equal policy was more than none:\n%+v\n%+v", before, now)
	}

	// Another one: a new window, which begins in starting and is healthy at once.
	changed := time.Now()
	g.update(slow)
	g.turned(api.HealthStateHealthy, changed)
	now := g.health()
	if now.WindowStartedAt.Equal(*before.WindowStartedAt) || now.WindowStartedAt.Before(changed.Add(-time.Second)) {
		t.Errorf("the window began at %v, and before at %v", now.WindowStartedAt, before.WindowStartedAt)
	}
	if i := slices.IndexFunc(now.Transitions, func(tr api.HealthTransition) bool {
		return tr.To == api.HealthStateStarting && tr.Time.After(changed.Add(-time.Second))
	}); i < 0 {
		t.Errorf("it was not starting: %+v", now.Transitions)
	}

	// Nobody listens any more: the hint, and two failures at the edge's pace, long before the interval is over.
	ceased := g.order("/cease?at=:80")
	took := g.turned(api.HealthStateUnhealthy, ceased).Sub(ceased)
	t.Logf("unhealthy %v after it ceased to listen", took)
	if took > 40*time.Second {
		t.Errorf("unhealthy only after %v", took)
	}
	if reason := text(g.health().LastError); !strings.Contains(reason, "refused") || strings.Contains(reason, "127.0.0.1") {
		t.Errorf("the reason is %q", reason)
	}

	// A daemon's restart: hints go on.
	g.stop()
	g.start(nil)
	began = g.order("/listen?at=:80")
	took = g.turned(api.HealthStateHealthy, began).Sub(began)
	t.Logf("with the next daemon healthy %v after it began to listen", took)
	if took > 30*time.Second {
		t.Errorf("healthy only after %v", took)
	}

	// On loopback only: it is refused, and the reason says why.
	g.order("/cease?at=:80")
	g.order("/listen?at=127.0.0.1:80")
	g.update(`{"http":{"port":80},"interval":"1s","start_period":"1s"}`)
	g.awaitHealth("web", api.HealthStateUnhealthy)
	if reason := text(g.health().LastError); !strings.Contains(reason, "refused") || !strings.Contains(reason, "127.0.0.1") {
		t.Errorf("the reason is %q", reason)
	}
}

// Before the guest can have a network nothing is sent to it: one inconclusive result, and then nothing until its agent has said HELLO or a
// frame came from it.
func TestNothingIsSentBeforeTheGuestHasANetwork(t *testing.T) {
	h := newHost(t, workload)
	in := h.create(api.CreateInstanceRequest{Name: "web", HealthCheck: check(`{"http":{"port":80}}`)})
	h.awaitHealth("web", api.HealthStateHealthy)
	booted.Add(1)
	seen, err := h.InstanceHealth(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	ready := h.agentReady(in)
	results := slices.Clone(seen.Results)
	slices.SortFunc(results, func(a, b api.HealthResult) int { return a.Time.Compare(b.Time) })
	inconclusive := 0 // for want of what is to be waited for: that a host was starved is another matter
	for i, r := range results {
		t.Logf("%v after its start: %s in %.1f ms: %s", r.Time.Sub(in.CreatedAt).Round(time.Millisecond), r.Outcome+r.Cause, r.DurationMs, r.Reason)
		if r.Outcome == "inconclusive" {
			if r.Cause != health.CauseStarved {
				inconclusive++
			}
		} else if r.Time.Before(ready.Add(-10 * time.Millisecond)) { // two clocks' readings, of one host
			t.Errorf("result %d is of a probe at %v, before the agent's HELLO at %v", i, r.Time, ready)
		}
	}
	if inconclusive != 1 {
		t.Errorf("%d inconclusive results, want 1", inconclusive)
	}
}

// agentReady is when the agent of an instance said HELLO, by the instance's own log, whose line may be written later than that: "after" is its shim's word.
func (h *host) agentReady(in api.Instance) time.Time {
	h.t.Helper()
	b, err := os.ReadFile(filepath.Join(h.dir, "instances", in.ID, "hale.log"))
	if err != nil {
		h.t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if !strings.Contains(line, "guest agent ready") {
			continue
		}
		_, said, _ := strings.Cut(strings.TrimSpace(line), " after=")
		after, err := time.ParseDuration(said)
		if err != nil {
			h.t.Fatalf("%q: %v", line, err)
		}
		return h.find(in.ID).StartedAt.Add(after)
	}
	h.t.Fatalf("no HELLO in\n%s", b)
	return time.Time{}
}
