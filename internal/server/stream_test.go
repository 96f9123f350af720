package server_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/health"
	hale "github.com/halevm/hale/sdk/go"
)

// TestEvents follows what happens to an instance, and comes back to a place in the middle.
func TestEvents(t *testing.T) {
	w := newWorld(t)
	c := w.client()
	w.create("first")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var ids, types []string
	go func() {
		c.UpdateInstance(ctx, "first", api.UpdateInstanceRequest{TTL: new("1h")})
		c.DeleteInstance(ctx, "first", false)
	}()
	for e, err := range c.Events(ctx, w.beforeEvents()) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Instance == "" || e.Name != "first" || e.Time.IsZero() {
			t.Errorf("event %+v does not say whose it is", e)
		}
		ids, types = append(ids, e.ID), append(types, e.Type)
		if e.Type == "deleted" {
			break
		}
	}
	if want := []string{"created", "updated", "deleted"}; !contains(types, want) {
		t.Errorf("types %v: want %v in this order", types, want)
	}
	at := slices.Index(types, "updated")
	for e, err := range c.Events(ctx, ids[at]) {
		if err != nil || e.ID != ids[at+1] {
			t.Errorf("after %s comes %s, %v: want %s", ids[at], e.ID, err, ids[at+1])
		}
		break
	}
	for e, err := range c.Events(ctx, "anotherepoch-7") {
		if err != nil || e.Type != hale.EventResync {
			t.Errorf("after a place that is not known comes %+v, %v: want a resync", e, err)
		}
		break
	}
}

// TestEventsSayWhereTheyBegin: a stream that broke before its first event leaves nothing out when it goes on.
func TestEventsSayWhereTheyBegin(t *testing.T) {
	w := newWorld(t)
	c := w.client()
	w.create("first")
	w.call("GET", "/instances/first/wait?state=Running", w.bearer, nil) // after which nothing happens by itself
	ctx, cancel := context.WithCancel(t.Context())
	place := ""
	broken := make(chan struct{})
	go func() {
		defer close(broken)
		for range c.EventsFrom(ctx, &place) {
		}
	}()
	resp, err := http.DefaultClient.Do(w.request(ctx, "/events"))
	if err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(resp.Body).ReadString('\n')
	if id, ok := strings.CutPrefix(line, "id: "); !ok || strings.TrimSpace(id) != w.events.Last().String() {
		t.Errorf("the stream begins with %q, %v: want the id %s", line, err, w.events.Last())
	}
	cancel()
	<-broken
	c.UpdateInstance(t.Context(), "first", api.UpdateInstanceRequest{TTL: new("1h")})
	if place == "" { // it broke before it had begun
		return
	}
	for e, err := range c.EventsFrom(t.Context(), &place) {
		if err != nil || e.Type != "updated" {
			t.Errorf("from %s comes %+v, %v", place, e, err)
		}
		break
	}
}

// request asks for a stream.
func (w *world) request(ctx context.Context, path string) *http.Request {
	w.t.Helper()
	req, err := http.NewRequestWithContext(ctx, "GET", w.url+path, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+w.bearer)
	return req
}

// beforeEvents is the place before the first event.
func (w *world) beforeEvents() string {
	epoch, _, _ := strings.Cut(w.events.Last().String(), "-")
	return epoch + "-0"
}

// contains reports whether all has the elements of some in that order.
func contains(all, some []string) bool {
	for _, s := range all {
		if len(some) > 0 && s == some[0] {
			some = some[1:]
		}
	}
	return len(some) == 0
}

// TestLogs reads every log, and follows one until its instance is gone.
func TestLogs(t *testing.T) {
	w := newWorld(t)
	w.create("web")
	for path, want := range map[string]string{
		"":                "data: \"serving\"\n\n",
		"?tail=0":         "",
		"?source=vmm":     "data: \"booting\"\n\ndata: \"agent ready\"\n\n",
		"?source=hypeman": "starting",
	} {
		resp, body := w.call("GET", "/instances/web/logs"+path, w.bearer, nil)
		if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" || !strings.Contains(string(body), want) || want == "" && len(body) > 0 {
			t.Errorf("%s: %d %q %q: want %q", path, resp.StatusCode, resp.Header.Get("Content-Type"), body, want)
		}
	}
	// With ids, from the place of each frame the log goes on.
	_, body := w.call("GET", "/instances/web/logs?source=vmm&ids=true", w.bearer, nil)
	frames := strings.SplitAfter(strings.TrimSuffix(string(body), "\n\n"), "\n\n")
	if len(frames) != 3 || strings.Contains(frames[0], "data") {
		t.Fatalf("with ids: %q", body)
	}
	for i, f := range frames {
		req := w.request(t.Context(), "/instances/web/logs?source=vmm&tail=0&ids=true")
		req.Header.Set("Last-Event-ID", strings.TrimPrefix(strings.SplitN(f, "\n", 2)[0], "id: "))
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		rest, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if want := strings.Join(frames[i+1:], ""); strings.TrimSpace(string(rest)) != strings.TrimSpace(want) {
			t.Errorf("behind %q: %q, want %q", f, rest, want)
		}
	}
	var lines []string
	for line, err := range w.client().InstanceLogs(t.Context(), "web", hale.Logs{Follow: true}) {
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, line)
		if err := w.client().DeleteInstance(t.Context(), "web", false); err != nil {
			t.Fatal(err)
		}
	}
	if len(lines) == 0 || lines[0] != "serving" {
		t.Errorf("followed %q: want serving first", lines)
	}
}

// TestWaitEndsEarly waits, each with minutes to spare, for what cannot come any more.
func TestWaitEndsEarly(t *testing.T) {
	w := newWorld(t)
	w.create("web")
	c := w.client()
	wait := func(x hale.Wait) api.WaitForStateResponse {
		t.Helper()
		x.Timeout = 4 * time.Minute
		got, err := c.WaitInstance(t.Context(), "web", x)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := wait(hale.Wait{Health: api.HealthStateHealthy}); got.TimedOut || got.HealthStatus == nil || got.HealthStatus.Status != api.HealthStateDisabled || got.StateError == nil {
		t.Errorf("without a check: %+v", got)
	}
	check := json.RawMessage(`{"http":{"port":81},"interval":"100ms","start_period":"0s"}`)
	if _, err := c.UpdateInstance(t.Context(), "web", api.UpdateInstanceRequest{HealthCheck: check}); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if got := wait(hale.Wait{Health: api.HealthStateUnhealthy}); got.TimedOut || got.HealthStatus == nil || got.HealthStatus.Status != api.HealthStateUnhealthy || got.HealthStatus.LastError == nil {
		t.Errorf("until it is unhealthy: %+v", got)
	}
	if took := time.Since(began); took > 9*time.Second { // three probes, and no heartbeat of the connection, which comes after ten
		t.Errorf("told only after %v", took)
	}
	stopped := make(chan error, 1)
	go func() { _, err := c.StopInstance(t.Context(), "web"); stopped <- err }()
	if got := wait(hale.Wait{Health: api.HealthStateHealthy}); got.TimedOut || got.State == api.InstanceStateRunning {
		t.Errorf("while it is stopped: %+v", got)
	}
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
	if got := wait(hale.Wait{State: api.InstanceStateRunning}); got.TimedOut || got.State != api.InstanceStateStopped || got.StateError == nil {
		t.Errorf("stopped: %+v", got)
	}
	if _, err := c.StartInstance(t.Context(), "web", api.StartInstanceRequest{}); err != nil {
		t.Fatal(err)
	}
	deleted := make(chan error, 1)
	go func() { deleted <- c.DeleteInstance(t.Context(), "web", false) }()
	got, err := c.WaitInstance(t.Context(), "web", hale.Wait{State: api.InstanceStateStandby, Timeout: 4 * time.Minute})
	if err := <-deleted; err != nil {
		t.Fatal(err)
	}
	if !errors.Is(err, api.NotFound) && (err != nil || got.TimedOut || got.State != api.InstanceStateStopped || got.StateError == nil) {
		t.Errorf("deleted: %+v, %v", got, err)
	}
}

// What the log holds of a health transition, with all that it may say, is what the contract says of a health event's data.
func TestHealthEventsKeepToTheContract(t *testing.T) {
	w := newWorld(t)
	persisted := false
	b, err := json.Marshal(health.Transition{
		Time: time.Now(), From: health.StatusHealthy, To: health.StatusUnhealthy, Reason: "r", Output: "o", Persisted: &persisted,
		Window: 1, N: 2, Run: 3, Policy: "abc", Uptime: time.Hour, Stale: health.StaleInconclusive,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, fault := range w.doc.check(w.doc.schema("HealthTransition"), decoded(t, b), "data") {
		t.Error(fault)
	}
}
