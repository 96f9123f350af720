package cli

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/halevm/hale/api"
)

// Events are said in the words of the other commands.
func TestEventText(t *testing.T) {
	for _, tt := range []struct{ kind, data, want string }{
		{"created", `{"image":"nginx"}`, "nginx"},
		{"state", `{"from":"Running","to":"Stopped","reason":"program_exited","exit_code":3}`, "Running → Stopped (exit 3): program_exited"},
		{"health", `{"from":"starting","to":"healthy"}`, "starting → healthy"},
		{"health", `{"from":"healthy","to":"unhealthy","reason":"refused","persisted":false}`, "healthy → unhealthy: refused (not on disk)"},
		{"health", `{"from":"healthy","to":"unhealthy","reason":"refused","persisted":true}`, "healthy → unhealthy: refused"},
		{"health", `{"from":"healthy","to":"healthy","stale":"no_conclusive_result","reason":"no conclusive result for 36s"}`, "healthy, stale: no conclusive result for 36s"},
		{"health", `{"from":"healthy","to":"healthy","stale":"daemon_restarted"}`, "healthy, stale: daemon restarted"},
		{"health", `{"from":"healthy","to":"unknown","stale":"daemon_restarted","reason":"not running","persisted":false}`, "healthy → unknown: not running (stale: daemon restarted) (not on disk)"},
		{"health", `{"from":"healthy","to":"healthy","stale":"no_conclusive_result","reason":"no agent","persisted":false}`, "healthy, stale: no conclusive result: no agent (not on disk)"},
		{"health", `{"from":"healthy","to":"healthy"}`, "healthy, no longer stale"},
		{"health", `{"from":"healthy","to":"healthy","reason":"status 200"}`, "healthy, no longer stale: status 200"},
		{"host", `{"host_suspect":true,"turned_unhealthy":5,"healthy_again":0,"watched":8}`, "suspected: 5 of 8 instances turned unhealthy at once"},
		{"host", `{"host_suspect":false,"turned_unhealthy":6,"healthy_again":3}`, "suspected no more: 6 turned unhealthy, 3 of them are healthy again"},
		{"host", `{"host_suspect":false,"turned_unhealthy":6,"healthy_again":0,"reason":"the daemon has ended"}`, "suspected no more: the daemon has ended"},
		{"updated", `{"fields":["env","health_check"]}`, "env, health_check"},
		{"boot_retry", `{"boot":2,"reason":"boot_timeout: silent"}`, "boot 2: boot_timeout: silent"},
		{"deleted", `{"reason":"expired"}`, "expired"},
		{"deleted", `{}`, ""},
		{"resync", "", "something was missed: list again"},
		{"of tomorrow", `{"reason":"why","n":1}`, `{"reason":"why","n":1}`},
	} {
		if got := eventText(api.Event{Type: tt.kind, Data: json.RawMessage(tt.data)}); got != tt.want {
			t.Errorf("%s %s: %q, want %q", tt.kind, tt.data, got, tt.want)
		}
	}
}

// A name is the beginning of an id only while nobody has that name.
func TestEventsOfOne(t *testing.T) {
	event := func(kind, instance, name string) string {
		return fmt.Sprintf("id: e-1\nevent: %[1]s\ndata: {\"id\":\"e-1\",\"type\":%[1]q,\"time\":\"2026-01-02T03:04:05.678Z\",\"instance\":%[2]q,\"name\":%[3]q}\n\n", kind, instance, name)
	}
	d := newDaemon(t)
	d.answer("GET /instances/s1", api.Instance{ID: "aaaa", Name: "s1"})
	d.answer("GET /instances/s1b", api.Instance{ID: "s1bb", Name: "other"})
	d.answer("GET /instances/s1bb", api.Instance{ID: "s1bb", Name: "other"})
	d.answer("GET /events", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, event("a", "aaaa", "s1"), event("b", "s1bb", "other"), event("c", "s1bbb", "longer"), event("d", "aaaa", "s1"))
		fmt.Fprint(w, event("updated", "newer", "x"), event("health", "bbbb", "new"), event("g", "newer", "x"), "data: the end\n\n")
	}))
	for args, want := range map[string]string{
		"s1":                      "a d",
		"s1b":                     "b c", // the beginning of ids
		"s1bb":                    "b",
		"aaa":                     "a d",
		"new":                     "updated health", // nobody has that name at first
		"nobody":                  "",
		"s1 new":                  "a d updated health",
		"new --type Health,state": "health",
		"--type updated":          "updated",
	} {
		code, out, stderr := d.hale(append([]string{"events"}, strings.Fields(args)...)...)
		var got []string
		for line := range strings.Lines(out) {
			got = append(got, strings.Fields(line)[2])
		}
		if s := strings.Join(got, " "); code != exitError || s != want {
			t.Errorf("events %s: exit %d, %q, %q; want %q", args, code, out, stderr, want)
		}
	}
	d.Close()
	if code, _, stderr := d.hale("events", "s1"); code != exitUnreachable {
		t.Errorf("without a daemon: exit %d, %q", code, stderr)
	}
}

func TestEventsAfterWhatIsNoID(t *testing.T) {
	d := newDaemon(t)
	d.answer("GET /events", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, 400, "invalid_request", "Last-Event-ID: an id of an event, EPOCH-SEQ")
	}))
	if code, _, stderr := d.hale("events", "--after", "x"); code != exitUsage || stderr != "hale: --after \"x\": an id of an event, as --json shows it\n" {
		t.Errorf("exit %d, %q", code, stderr)
	}
}
