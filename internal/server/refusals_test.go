package server_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/halevm/hale/api"
)

// refusals are health checks that are wrong, one for each rule and each bound, with the fields that must be named.
func refusals() map[string]string {
	const ok = `"tcp":{"port":80}`
	all := map[string]string{ // policy: fields
		// What is no policy, and how its parts go together.
		`7`: "health_check", `true`: "health_check", `[]`: "health_check", `"http"`: "health_check",
		`{}`: "health_check", `{"interval":"1s"}`: "health_check", `{"http":null}`: "health_check",
		`{"tcp":{"port":80},"http":{"port":80}}`:                     "health_check",
		`{"exec":{"command":["x"]},"grpc":{"port":80}}`:              "health_check",
		`{"type":"http","tcp":{"port":80},"exec":{"command":["x"]}}`: "health_check",
		`{"type":"ping",` + ok + `}`:                                 "health_check.type",
		`{"type":"HTTP",` + ok + `}`:                                 "health_check.type",
		`{"type":1,` + ok + `}`:                                      "health_check.type",
		`{"type":"http"}`:                                            "health_check.http",
		`{"type":"tcp"}`:                                             "health_check.tcp",
		`{"type":"exec"}`:                                            "health_check.exec",
		`{"type":"grpc"}`:                                            "health_check.grpc",
		`{"type":"http",` + ok + `}`:                                 "health_check.tcp",
		`{"retries":3,` + ok + `}`:                                   "health_check.retries",
		`{"Interval":"1s",` + ok + `}`:                               "health_check.Interval",
		`{"tcp":{"port":80,"host":"x"}}`:                             "health_check.tcp.host",
		`{"http":{"port":80,"url":"/"}}`:                             "health_check.http.url",
		`{"exec":{"command":["x"],"shell":true}}`:                    "health_check.exec.shell",
		`{"grpc":{"port":80,"tls":true}}`:                            "health_check.grpc.tls",
		`{"http":"/healthz"}`:                                        "health_check.http health_check.http.port",
		`{"exec":["true"]}`:                                          "health_check.exec health_check.exec.command",

		// The interval bounds two others.
		`{"start_interval":"10001ms",` + ok + `}`:                    "health_check.start_interval",
		`{"confirm_interval":"10001ms",` + ok + `}`:                  "health_check.confirm_interval",
		`{"interval":"1s","start_interval":"1s1ms",` + ok + `}`:      "health_check.start_interval",
		`{"interval":"100ms","confirm_interval":"200ms",` + ok + `}`: "health_check.confirm_interval",

		`{"tcp":{}}`: "health_check.tcp.port", `{"http":{}}`: "health_check.http.port", `{"grpc":{}}`: "health_check.grpc.port",
		`{"grpc":{"port":80,"service":7}}`: "health_check.grpc.service",

		`{"exec":{}}`:                                      "health_check.exec.command",
		`{"exec":{"command":null}}`:                        "health_check.exec.command",
		`{"exec":{"command":[]}}`:                          "health_check.exec.command",
		`{"exec":{"command":[""]}}`:                        "health_check.exec.command",
		`{"exec":{"command":"true"}}`:                      "health_check.exec.command",
		`{"exec":{"command":["x",1]}}`:                     "health_check.exec.command",
		`{"exec":{"command":["x",null]}}`:                  "health_check.exec.command",
		`{"exec":{"command":["x"],"working_dir":1}}`:       "health_check.exec.working_dir",
		`{"exec":{"command":["x"],"env":["A=b"]}}`:         "health_check.exec.env",
		`{"exec":{"command":["x"],"env":{"A":1}}}`:         "health_check.exec.env",
		`{"exec":{"command":["x"],"user":0}}`:              "health_check.exec.user",
		`{"exec":{"command":[]},"interval":"1"}`:           "health_check.interval health_check.exec.command",
		`{"tcp":{"port":0,"x":1},"failure_threshold":-1}`:  "health_check.failure_threshold health_check.tcp.port health_check.tcp.x",
		`{"type":"x","y":1,"timeout":2,"http":{"port":1}}`: "health_check.type health_check.timeout health_check.y",
	}
	for field, bad := range map[string][]string{
		"interval":          {`10`, `"10"`, `"soon"`, `"-1s"`, `"99ms"`, `"24h0m1s"`, `["10s"]`},
		"timeout":           {`2`, `"2"`, `"-1s"`, `"999us"`, `"1h0m1s"`},
		"start_period":      {`0`, `30`, `"-1ms"`, `"24h0m1s"`},
		"start_interval":    {`1`, `"1"`, `"-1s"`, `"49ms"`},
		"confirm_interval":  {`1`, `"1"`, `"-1s"`, `"49ms"`},
		"failure_threshold": {`-1`, `1001`, `1.5`, `"3"`, `1e30`},
		"success_threshold": {`-1`, `1001`, `1.5`, `"1"`, `true`},
	} {
		for _, value := range bad {
			all[fmt.Sprintf(`{%q:%s,%s}`, field, value, ok)] = "health_check." + field
		}
	}
	for _, block := range []string{"http", "tcp", "grpc"} {
		for _, port := range []string{`0`, `-1`, `65536`, `80.5`, `"80"`, `null`} {
			all[fmt.Sprintf(`{%q:{"port":%s}}`, block, port)] = "health_check." + block + ".port"
		}
	}
	many := map[string]string{}
	for i := range 65 {
		many[fmt.Sprint("x-", i)] = "v"
	}
	tooMany, _ := json.Marshal(many)
	for field, bad := range map[string][]string{
		"path":              {`"healthz"`, `"http://x/"`, `"/a b"`, `"/a\tb"`, `"/a\r\nX: y"`, `"/a\u0000"`, `"/a\u007f"`, `1`},
		"scheme":            {`"ftp"`, `"HTTPS"`, `1`},
		"method":            {`"PUT"`, `"get"`, `1`},
		"headers":           {`{"A":1}`, `["A: b"]`, string(tooMany), `{"A":"` + strings.Repeat("v", 8<<10) + `"}`},
		"expected_status":   {`0`, `199`, `600`, `"200"`, `204.5`},
		"expected_statuses": {`"200-299"`, `["2xx"]`, `["199"]`, `["600"]`, `["299-200"]`, `["200-600"]`, `[""]`, `[null]`, `[199]`},
		"body_contains":     {`1`, `["ok"]`},
		"tls_skip_verify":   {`"true"`, `1`},
		"tls_server_name":   {`1`},
	} {
		for _, value := range bad {
			all[fmt.Sprintf(`{"http":{"port":80,%q:%s}}`, field, value)] = "health_check.http." + field
		}
	}
	all[`{"http":{"port":80,"expected_status":200,"expected_statuses":["200-299"]}}`] = "health_check.http.expected_statuses"
	all[`{"http":{"port":80,"method":"HEAD","body_contains":"ok"}}`] = "health_check.http.body_contains"
	// What no guest can be told, or no answer can hold.
	long := func(n int) string { return strings.Repeat("v", n) }
	all[`{"http":{"port":80,"body_contains":"`+long(64<<10+1)+`"}}`] = "health_check.http.body_contains"
	all[`{"exec":{"command":["x","`+long(32<<10)+`"]}}`] = "health_check.exec.command"
	all[`{"exec":{"command":["x"],"env":{"A":"`+long(16<<10)+`","B":"`+long(16<<10)+`"}}}`] = "health_check.exec.env"
	all[`{"exec":{"command":["x"],"working_dir":"/`+long(32<<10)+`"}}`] = "health_check.exec.working_dir"
	all[`{"exec":{"command":["x"],"user":"`+long(32<<10)+`"}}`] = "health_check.exec.user"
	for name, value := range map[string]string{
		"a b": "v", "": "v", "a:b": "v", "é": "v", "A": `v\r`, "B": `v\n`, "C": `v\u0000`,
		"Content-Length": "1", "transfer-encoding": "chunked", "CONNECTION": "close",
	} {
		all[fmt.Sprintf(`{"http":{"port":80,"headers":{"%s":"%s"}}}`, name, value)] = "health_check.http.headers." + name
	}
	return all
}

// left is what there is of instances: in the list, on the disk, in the log of events.
func (w *world) left() string {
	w.t.Helper()
	_, list := w.call("GET", "/instances", w.bearer, nil)
	here := filepath.Dir(w.t.TempDir()) // of all directories of this test
	if stores, _ := filepath.Glob(filepath.Join(here, "*", "instances")); len(stores) != 1 {
		w.t.Fatalf("the directory of instances is not where it is looked for: %q", stores)
	}
	dirs, _ := filepath.Glob(filepath.Join(here, "*", "instances", "*"))
	mark, err := w.events.Append(w.t.Context(), "mark", "", "", nil) // what the list shows already may be an event only now
	if err != nil {
		w.t.Fatal(err)
	}
	w.marks++
	return fmt.Sprintf("%s\n%q\nevents up to %d", list, dirs, mark.ID.Seq-w.marks)
}

// refuse posts a body, or patches with it, and checks that it is refused with this code for these fields and no other.
func (w *world) refuse(method, path, body, code, fields string) {
	w.t.Helper()
	label := fmt.Sprintf("%s %s %.150s", method, path, body)
	resp, answer := w.call(method, path, w.bearer, strings.NewReader(body))
	var told api.ErrorBody
	if err := json.Unmarshal(answer, &told); err != nil {
		w.t.Errorf("%s: %v", label, err)
		return
	}
	if resp.StatusCode != http.StatusBadRequest || told.Code != code {
		w.t.Errorf("%s is %d %s: want 400 %s", label, resp.StatusCode, told.Code, code)
	}
	for _, fault := range w.doc.check(w.doc.schema("Error"), decoded(w.t, answer), "error") {
		w.t.Errorf("%s: %s", label, fault)
	}
	var named []string
	for _, d := range told.Details {
		named = append(named, d.Field)
		if d.Code != code || d.Message == "" || !strings.Contains(told.Message, d.Field+": "+d.Message) {
			w.t.Errorf("%s: %+v is not what %q says", label, d, told.Message)
		}
	}
	if got := strings.Join(named, " "); got != fields {
		w.t.Errorf("%s names %q: want %q", label, got, fields)
	}
}

// TestRefusedHealthCheckLeavesNothing sends every health check that is wrong, with a create and with an update: each is a
// 400 that names every fault, and nothing is made or changed by it.
func TestRefusedHealthCheckLeavesNothing(t *testing.T) {
	w := newWorld(t)
	w.create("kept")
	before := w.left()
	all := refusals()
	for i, policy := range slices.Sorted(maps.Keys(all)) {
		w.refuse("POST", "/instances", fmt.Sprintf(`{"image":"app","name":"refused-%d","health_check":%s}`, i, policy), "invalid_health_check", all[policy])
		w.refuse("PATCH", "/instances/kept", `{"health_check":`+policy+`}`, "invalid_health_check", all[policy])
	}
	for _, kind := range []string{"http", "tcp", "grpc"} {
		w.refuse("POST", "/instances", fmt.Sprintf(`{"image":"app","name":"refused","network":{"enabled":false},"health_check":{%q:{"port":80}}}`, kind),
			"invalid_health_check", "health_check."+kind)
	}
	if after := w.left(); after != before {
		t.Errorf("the refused requests left\n%s\nwhere there was\n%s", after, before)
	}
	// What was refused was refused for its health check: the same request without a fault is taken, and seen here.
	if resp, body := w.call("POST", "/instances", w.bearer, strings.NewReader(`{"image":"app","name":"refused-0","health_check":{"tcp":{"port":80}}}`)); resp.StatusCode != http.StatusCreated {
		t.Fatalf("create: %d %s", resp.StatusCode, body)
	}
	if after := w.left(); after == before || !strings.Contains(after, "refused-0") {
		t.Errorf("an instance that was made is not seen:\n%s", after)
	}
}

// A refusal of a health check is one also where something else is wrong, too: each fault has its own code, and the whole that of the check.
func TestRefusedWithSomethingElse(t *testing.T) {
	w := newWorld(t)
	w.create("kept")
	const bad = `"health_check":{"http":{"port":0}}`
	for _, c := range []struct{ method, path, body, fields string }{
		{"POST", "/instances", `{"image":"app","name":"NO",` + bad + `}`, "name health_check.http.port"},
		{"POST", "/instances", `{"image":"app","gpu":{"profile":"x"},` + bad + `}`, "gpu health_check.http.port"},
		{"POST", "/instances", `{"image":"app","name":"NO","network":{"enabled":false},"health_check":{"tcp":{"port":80}}}`, "name health_check.tcp"},
		{"POST", "/instances", `{"image":"app","vcpus":-1,"health_check":{"tcp":{"port":80}},"health_check_override":{"interval":"1s"}}`, "vcpus health_check_override"},
		{"PATCH", "/instances/kept", `{"env":{"=":"x"},` + bad + `}`, "health_check.http.port env.="},
		{"PATCH", "/instances/kept", `{"restart_policy":{"policy":"always"},` + bad + `}`, "restart_policy health_check.http.port"},
	} {
		resp, body := w.call(c.method, c.path, w.bearer, strings.NewReader(c.body))
		var told api.ErrorBody
		if err := json.Unmarshal(body, &told); err != nil {
			t.Fatal(err)
		}
		var fields []string
		for _, d := range told.Details {
			fields = append(fields, d.Field)
			if (d.Code == "invalid_health_check") != strings.HasPrefix(d.Field, "health_check") {
				t.Errorf("%s: %+v", c.body, d)
			}
		}
		if got := strings.Join(fields, " "); resp.StatusCode != http.StatusBadRequest || told.Code != "invalid_health_check" || got != c.fields {
			t.Errorf("%s: %d %s of %q, want %q", c.body, resp.StatusCode, told.Code, got, c.fields)
		}
	}
	_, metrics := w.call("GET", "/metrics", w.bearer, nil)
	if want := `hale_http_requests_total{code="invalid_health_check",method="POST",route="/instances",status="400"} 4`; !strings.Contains(string(metrics), want) {
		t.Errorf("the metrics lack %s", want)
	}
}

// TestHealthChecksAtTheirBounds sends what is just within the rules, and what means "unset".
func TestHealthChecksAtTheirBounds(t *testing.T) {
	w := newWorld(t)
	w.create("web")
	const ok = `"tcp":{"port":80}`
	for _, policy := range []string{
		`null`, `{"type":"none"}`, `{"type":"none","http":7,"interval":3,"what":true}`, `{` + ok + `}`, `{"type":"tcp",` + ok + `,"http":null}`,
		`{"type":"","interval":"","timeout":"","start_period":"","start_interval":"","confirm_interval":"","failure_threshold":0,"success_threshold":0,` + ok + `}`,
		`{"interval":"0s","timeout":"0s","start_period":"0s","start_interval":"0s","confirm_interval":"0s",` + ok + `}`,
		`{"interval":"100ms","start_interval":"50ms","confirm_interval":"100ms","timeout":"1ms","start_period":"24h",` + ok + `}`,
		`{"interval":"24h","start_interval":"24h","confirm_interval":"50ms","timeout":"1h","failure_threshold":1000,"success_threshold":1000,` + ok + `}`,
		`{"tcp":{"port":1}}`, `{"tcp":{"port":65535}}`, `{"exec":{"command":["x",""],"working_dir":"","env":{},"user":""}}`,
		`{"http":{"port":80,"path":"/a?b=c%20d","scheme":"https","method":"HEAD","body_contains":"","headers":{"Host":"x","X-A":"b c"},"expected_status":599,"tls_skip_verify":false,"tls_server_name":"x"}}`,
		`{"http":{"port":80,"path":"","scheme":"","method":"","headers":{},"expected_statuses":["200-299","404",418],"body_contains":"ok"}}`,
		`{"http":{"port":80,"body_contains":"` + strings.Repeat("v", 64<<10) + `"}}`, `{"exec":{"command":["x","` + strings.Repeat("<", 32<<10-3) + `"]}}`,
	} {
		resp, body := w.call("PATCH", "/instances/web", w.bearer, strings.NewReader(`{"health_check":`+policy+`}`))
		if resp.StatusCode != http.StatusOK {
			t.Errorf("%s is %d: %s", policy, resp.StatusCode, body)
			continue
		}
		// A policy as answered is accepted back, and changes nothing.
		var in struct {
			HealthCheck json.RawMessage `json:"health_check"`
		}
		if err := json.Unmarshal(body, &in); err != nil {
			t.Fatal(err)
		}
		if in.HealthCheck == nil {
			continue
		}
		before := w.events.Last()
		resp, again := w.call("PATCH", "/instances/web", w.bearer, strings.NewReader(`{"health_check":`+string(in.HealthCheck)+`}`))
		if after := w.events.Last(); resp.StatusCode != http.StatusOK || after != before {
			t.Errorf("%s was answered as %s; sent back it is %d, and the last event is %v, before it was %v\n%s", policy, in.HealthCheck, resp.StatusCode, after, before, again)
		}
	}
}

// A body that is wrong in a hundred thousand places is refused at once, and its answer is no longer than the body.
func TestRefusalsAreBounded(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct{ method, path, before, each, after string }{
		{"PUT", "/instances/x", `{`, `"%06x":1,`, `"x":1}`},
		{"POST", "/instances", `{"image":"app","env":{`, `"=%06x":"",`, `"x":""}}`},
		{"POST", "/instances", `{"image":"app","health_check":{`, `"%06x":1,`, `"x":1}}`},
		{"POST", "/instances", `{"image":"app","health_check_override":{`, `"%06x":1,`, `"x":1}}`},
	} {
		b := bytes.NewBufferString(c.before)
		for i := 0; b.Len() < 1<<20-100; i++ {
			fmt.Fprintf(b, c.each, i)
		}
		b.WriteString(c.after)
		start := time.Now()
		resp, answer := w.call(c.method, c.path, w.bearer, b)
		var told api.ErrorBody
		if err := json.Unmarshal(answer, &told); err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != http.StatusBadRequest || len(told.Details) != 100 || len(answer) > 64<<10 {
			t.Errorf("%s %s: %d with %d details in %d bytes", c.method, c.before, resp.StatusCode, len(told.Details), len(answer))
		}
		if took := time.Since(start); took > 20*time.Second {
			t.Errorf("%s %s: it took %v", c.method, c.before, took)
		}
	}
}
