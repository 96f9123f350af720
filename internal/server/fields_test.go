package server_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/halevm/hale/api"
)

// TestFieldsAreNamed: what is refused is named by its field, all of it, in words that say what is accepted.
func TestFieldsAreNamed(t *testing.T) {
	w := newWorld(t)
	w.create("web")
	long := func(n int) string { return strings.Repeat("x", n) }
	var env []string
	for i := range 20 {
		env = append(env, fmt.Sprintf(`"K%d":%q`, i, long(30_000)))
	}
	large := strings.Join(env, ",")
	for _, tc := range []struct{ method, path, body, fields, says string }{
		{"POST", "/instances", `{"image":"UPPER//x"}`, "image", "with the path in lower case"},
		{"POST", "/images/import?name=UPPER%2F%2Fx", "", "name", "with the path in lower case"},
		{"POST", "/instances", `{"image":"app","network":{"ports":[{"guest_port":1},{"guest_port":"80"}]}}`, "network.ports[1].guest_port", "string"},
		{"POST", "/instances", `{"image":"app","cmd":["a",7]}`, "cmd[1]", "number"},
		{"POST", "/instances", `{"image":"app","expires_at":"9999-12-31T23:59:59-12:00"}`, "expires_at", "before the year 10000"},
		{"PATCH", "/instances/web", `{"expires_at":"9999-12-31T23:59:59-12:00"}`, "expires_at", "before the year 10000"},
		{"POST", "/instances", `{"image":"app","env":{` + large + `}}`, "env", "at most 196608"},
		{"PATCH", "/instances/web", `{"env":{` + large + `}}`, "env", "at most 196608"},
		{"PATCH", "/instances/web", `{"health_check":{"exec":{"command":["x","` + long(900_000) + `"]}}}`, "health_check.exec.command", "at most 32768 bytes together"},
		{"PATCH", "/instances/web", `{"health_check":{"http":{"port":80,"body_contains":"` + long(900_000) + `"}}}`, "health_check.http.body_contains", "at most 65536 bytes"},
		{"PUT", "/instances/web", `{"ttl":7,"env":"x"}`, "env ttl", "string"},
		{"PUT", "/instances/web", `{"ttl":7,"colour":"red"}`, "colour ttl", "there is no such field"},
		{"PUT", "/instances/web", `{"restart_policy":{"attempts":1},"auto_standby":{"a \"b\"":2}}`, "auto_standby.a \"b\" restart_policy.attempts", "there is no such field"},
		{"POST", "/instances/web/health/check", `{"timeout":"1s"}`, "timeout", "there is no such field"},
		{"GET", "/instances/web/logs?tail=x", "", "tail", "a whole number"},
		{"GET", "/instances/web/logs?follow=maybe", "", "follow", "true or false"},
	} {
		resp, body := w.call(tc.method, tc.path, w.bearer, strings.NewReader(tc.body))
		var e api.ErrorBody
		if err := json.Unmarshal(body, &e); err != nil {
			t.Errorf("%s %s: %s: %v", tc.method, tc.path, body, err)
			continue
		}
		var fields []string
		for _, d := range e.Details {
			fields = append(fields, d.Field)
		}
		slices.Sort(fields)
		if got := strings.Join(fields, " "); resp.StatusCode != http.StatusBadRequest || got != tc.fields || !strings.Contains(e.Message, tc.says) {
			t.Errorf("%s %s %.80s: %d, fields %q, %.200q: want 400, %q, %q", tc.method, tc.path, tc.body, resp.StatusCode, got, e.Message, tc.fields, tc.says)
		}
	}
}

// TestImportTellsAll: the answer to an import names every image that the file held.
func TestImportTellsAll(t *testing.T) {
	w := newWorld(t)
	resp, body := w.call("POST", "/images/import", w.bearer, archiveOf(t, "one:v1", "two:v2"))
	var img api.Image
	if err := json.Unmarshal(body, &img); err != nil || resp.StatusCode != http.StatusCreated {
		t.Fatalf("%d %s, %v", resp.StatusCode, body, err)
	}
	names := slices.Sorted(slices.Values(img.Imported))
	if want := []string{"docker.io/library/one:v1", "docker.io/library/two:v2"}; !slices.Equal(names, want) || img.Name != img.Imported[0] {
		t.Errorf("%s of %q: want one of %q", img.Name, names, want)
	}
}
