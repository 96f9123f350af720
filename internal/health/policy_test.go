package health

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// Every refusal of the table names the field.
func TestRefusals(t *testing.T) {
	const ok = `"tcp":{"port":80}`
	long := strings.Repeat("x", 8<<10)
	many := `{"a":"b"`
	for i := range 64 {
		many += fmt.Sprintf(`,"h%d":"v"`, i)
	}
	many += "}"
	for _, c := range []struct{ policy, fields string }{
		{`7`, "health_check"},
		{`[]`, "health_check"},
		{`"http"`, "health_check"},
		{`{}`, "health_check"},
		{`{"interval":"1s"}`, "health_check"},
		{`{"type":"ping",` + ok + `}`, "health_check.type"},
		{`{"type":"ping"}`, "health_check.type"},
		{`{"type":5,` + ok + `}`, "health_check.type"},
		{`{"type":"http"}`, "health_check.http"},
		{`{"type":"http",` + ok + `}`, "health_check.tcp"},
		{`{"tcp":{"port":1},"exec":{"command":["x"]}}`, "health_check"},
		{`{"tcp":7}`, "health_check.tcp health_check.tcp.port"},
		{`{` + ok + `,"bogus":1}`, "health_check.bogus"},
		{`{"tcp":{"port":80,"bogus":1}}`, "health_check.tcp.bogus"},

		{`{"interval":10,` + ok + `}`, "health_check.interval"},
		{`{"interval":"10",` + ok + `}`, "health_check.interval"},
		{`{"interval":"99ms",` + ok + `}`, "health_check.interval"},
		{`{"interval":"24h1s",` + ok + `}`, "health_check.interval"},
		{`{"interval":"-1s",` + ok + `}`, "health_check.interval"},
		{`{"timeout":"1us",` + ok + `}`, "health_check.timeout"},
		{`{"timeout":"61m",` + ok + `}`, "health_check.timeout"},
		{`{"start_period":"-1s",` + ok + `}`, "health_check.start_period"},
		{`{"start_period":"25h",` + ok + `}`, "health_check.start_period"},
		{`{"start_period":0,` + ok + `}`, "health_check.start_period"},
		{`{"start_interval":"49ms",` + ok + `}`, "health_check.start_interval"},
		{`{"start_interval":"11s",` + ok + `}`, "health_check.start_interval"},
		{`{"interval":"1s","confirm_interval":"2s",` + ok + `}`, "health_check.confirm_interval"},
		{`{"interval":"1h1h1x","confirm_interval":"2s",` + ok + `}`, "health_check.interval"},
		{`{"failure_threshold":1001,` + ok + `}`, "health_check.failure_threshold"},
		{`{"failure_threshold":-1,` + ok + `}`, "health_check.failure_threshold"},
		{`{"failure_threshold":1.5,` + ok + `}`, "health_check.failure_threshold"},
		{`{"success_threshold":"1",` + ok + `}`, "health_check.success_threshold"},

		{`{"tcp":{}}`, "health_check.tcp.port"},
		{`{"tcp":{"port":0}}`, "health_check.tcp.port"},
		{`{"tcp":{"port":65536}}`, "health_check.tcp.port"},
		{`{"tcp":{"port":"80"}}`, "health_check.tcp.port"},
		{`{"http":{}}`, "health_check.http.port"},
		{`{"http":{"port":80,"path":"x"}}`, "health_check.http.path"},
		{`{"http":{"port":80,"path":"/a b"}}`, "health_check.http.path"},
		{`{"http":{"port":80,"path":"/a\r\nX: y"}}`, "health_check.http.path"},
		{`{"http":{"port":80,"scheme":"ftp"}}`, "health_check.http.scheme"},
		{`{"http":{"port":80,"method":"PUT"}}`, "health_check.http.method"},
		{`{"http":{"port":80,"expected_status":199}}`, "health_check.http.expected_status"},
		{`{"http":{"port":80,"expected_status":600}}`, "health_check.http.expected_status"},
		{`{"http":{"port":80,"expected_statuses":["2xx"]}}`, "health_check.http.expected_statuses"},
		{`{"http":{"port":80,"expected_statuses":["300-200"]}}`, "health_check.http.expected_statuses"},
		{`{"http":{"port":80,"expected_statuses":["200-600"]}}`, "health_check.http.expected_statuses"},
		{`{"http":{"port":80,"expected_statuses":"200"}}`, "health_check.http.expected_statuses"},
		{`{"http":{"port":80,"expected_status":200,"expected_statuses":["204"]}}`, "health_check.http.expected_statuses"},
		{`{"http":{"port":80,"tls_skip_verify":"no"}}`, "health_check.http.tls_skip_verify"},
		{`{"http":{"port":80,"headers":{"a b":"c"}}}`, "health_check.http.headers.a b"},
		{`{"http":{"port":80,"headers":{"":"c"}}}`, "health_check.http.headers."},
		{`{"http":{"port":80,"headers":{"a":"b\r\nc: d"}}}`, "health_check.http.headers.a"},
		{`{"http":{"port":80,"headers":{"a":"b\u0000"}}}`, "health_check.http.headers.a"},
		{`{"http":{"port":80,"headers":{"content-Length":"1"}}}`, "health_check.http.headers.content-Length"},
		{`{"http":{"port":80,"headers":{"Transfer-Encoding":"chunked"}}}`, "health_check.http.headers.Transfer-Encoding"},
		{`{"http":{"port":80,"headers":{"Connection":"keep-alive"}}}`, "health_check.http.headers.Connection"},
		{`{"http":{"port":80,"headers":{"a":"` + long + `"}}}`, "health_check.http.headers"},
		{`{"http":{"port":80,"headers":` + many + `}}`, "health_check.http.headers"},
		{`{"http":{"port":80,"path":"/` + long + `"}}`, "health_check.http.path"},
		{`{"http":{"port":80,"body_contains":"` + strings.Repeat(long, 8) + `y"}}`, "health_check.http.body_contains"},
		{`{"http":{"port":80,"method":"HEAD","body_contains":"x"}}`, "health_check.http.body_contains"},
		{`{"http":{"port":80,"method":"HEAD","body_contains":"` + strings.Repeat(long, 8) + `y"}}`, "health_check.http.body_contains"},
		{`{"http":{"port":80,"method":"HEAD","body_contains":7}}`, "health_check.http.body_contains"},
		{`{"http":{"port":80,"tls_server_name":"` + long[:254] + `"}}`, "health_check.http.tls_server_name"},
		{`{"http":{"port":80,"expected_statuses":[200` + strings.Repeat(",200", 64) + `]}}`, "health_check.http.expected_statuses"},
		{`{"exec":{}}`, "health_check.exec.command"},
		{`{"exec":{"command":[]}}`, "health_check.exec.command"},
		{`{"exec":{"command":[""]}}`, "health_check.exec.command"},
		{`{"exec":{"command":"true"}}`, "health_check.exec.command"},
		{`{"exec":{"command":["a",null]}}`, "health_check.exec.command"},
		{`{"exec":{"command":["a"],"env":{"A":1}}}`, "health_check.exec.env"},
		{`{"grpc":{"service":"x"}}`, "health_check.grpc.port"},
		{`{"grpc":{"port":1,"service":"` + strings.Repeat("s", MaxService+1) + `"}}`, "health_check.grpc.service"},

		// Two faults, both named.
		{`{"interval":5,"http":{"port":0,"path":"x"}}`, "health_check.interval health_check.http.port health_check.http.path"},
	} {
		_, err := Parse([]byte(c.policy))
		pe, ok := errors.AsType[*PolicyError](err)
		if !ok {
			t.Errorf("%.80s: got %v, want a refusal of %s", c.policy, err, c.fields)
			continue
		}
		var fields []string
		for _, f := range pe.Faults {
			fields = append(fields, f.Field)
			if f.Message == "" || !strings.Contains(err.Error(), f.Field+": "+f.Message) {
				t.Errorf("%.80s: the error %q does not tell %q", c.policy, err, f.Message)
			}
		}
		if got := strings.Join(fields, " "); got != c.fields {
			t.Errorf("%.80s: refused %s, want %s", c.policy, got, c.fields)
		}
	}
}

func TestDefaults(t *testing.T) {
	base := Policy{Type: TypeTCP, Interval: 10 * time.Second, Timeout: 2 * time.Second, StartPeriod: 30 * time.Second,
		FailureThreshold: 3, SuccessThreshold: 1, TCP: &TCPCheck{80}}
	with := func(change func(*Policy)) Policy { p := base; change(&p); return p }
	web := func(change func(*HTTPCheck)) Policy {
		return with(func(p *Policy) {
			p.Type, p.TCP = TypeHTTP, nil
			p.HTTP = &HTTPCheck{Port: 80, Path: "/", Scheme: "http", Method: "GET", ExpectedStatus: 200, TLSSkipVerify: true}
			change(p.HTTP)
		})
	}
	for _, c := range []struct {
		json string
		want Policy
	}{
		{` null `, Policy{}},
		{`{"type":"none"}`, Policy{Type: TypeNone}},
		{`{"type":"none","http":7,"interval":3,"bogus":true}`, Policy{Type: TypeNone}},
		{`{"tcp":{"port":80}}`, base},
		{`{"type":"","interval":"","timeout":"0s","start_period":"","start_interval":"0s","confirm_interval":"0","failure_threshold":0,"success_threshold":0,"tcp":{"port":80}}`, base},
		{`{"type":null,"interval":null,"failure_threshold":null,"http":null,"tcp":{"port":80}}`, base},
		{`{"start_period":"0s","tcp":{"port":80}}`, with(func(p *Policy) { p.StartPeriod = 0 })},
		{`{"interval":"1s","tcp":{"port":80}}`, with(func(p *Policy) { p.Interval, p.Timeout = time.Second, time.Second })},
		{`{"interval":"1s","start_interval":"1s","confirm_interval":"50ms","tcp":{"port":80}}`,
			with(func(p *Policy) {
				p.Interval, p.Timeout, p.StartInterval, p.ConfirmInterval = time.Second, time.Second, time.Second, 50*time.Millisecond
			})},
		{`{"timeout":"1h","tcp":{"port":80}}`, with(func(p *Policy) { p.Timeout = time.Hour })},
		{`{"http":{"port":80}}`, web(func(*HTTPCheck) {})},
		{`{"http":{"port":80,"path":"","scheme":"","method":"","headers":{},"expected_statuses":[],"tls_skip_verify":null}}`, web(func(*HTTPCheck) {})},
		{`{"http":{"port":80,"expected_statuses":[204,"300-302"],"path":"/a?b=c","tls_skip_verify":false}}`,
			web(func(c *HTTPCheck) {
				c.ExpectedStatus, c.ExpectedStatuses, c.Path, c.TLSSkipVerify = 0, []string{"204", "300-302"}, "/a?b=c", false
			})},
		{`{"exec":{"command":["a","b"],"env":{"A":"b"},"user":"u","working_dir":"/w"}}`, with(func(p *Policy) {
			p.Type, p.TCP, p.Exec = TypeExec, nil, &ExecCheck{[]string{"a", "b"}, "/w", map[string]string{"A": "b"}, "u"}
		})},
		{`{"grpc":{"port":9}}`, with(func(p *Policy) { p.Type, p.TCP, p.GRPC = TypeGRPC, nil, &GRPCCheck{Port: 9} })},
	} {
		got, err := Parse([]byte(c.json))
		if err != nil || !got.Equal(c.want) {
			t.Errorf("%s: got %+v, %v, want %+v", c.json, got, err, c.want)
		}
	}
}

// What follows from other fields, and what a given field excludes, is answered only when given.
func TestAnswer(t *testing.T) {
	for policy, want := range map[string]string{
		`{"tcp":{"port":80}}`: `{"type":"tcp","interval":"10s","timeout":"2s","start_period":"30s","failure_threshold":3,"success_threshold":1,"tcp":{"port":80}}`,
		`{"start_period":"0s","start_interval":"1s","confirm_interval":"1s","http":{"port":80,"expected_statuses":[204]}}`: `{"type":"http","interval":"10s","timeout":"2s","start_period":"0s",` +
			`"start_interval":"1s","confirm_interval":"1s","failure_threshold":3,"success_threshold":1,` +
			`"http":{"port":80,"path":"/","scheme":"http","method":"GET","expected_statuses":["204"],"tls_skip_verify":true}}`,
		`{"type":"none","tcp":{"port":80}}`: `{"type":"none"}`,
		`null`:                              `null`,
	} {
		if got, err := json.Marshal(mustParse(t, policy)); err != nil || string(got) != want {
			t.Errorf("%s: answered %s, %v\nwant %s", policy, got, err, want)
		}
	}
}

// A policy as answered is always accepted back, and is equal; one that differs in anything is not.
func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, err := Parse(json.RawMessage(genPolicy(t)))
		if err != nil {
			t.Fatal(err)
		}
		answer, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		var q Policy
		if err := json.Unmarshal(answer, &q); err != nil || !q.Equal(p) || !p.Equal(q) {
			t.Fatalf("%s came back as %+v, %v", answer, q, err)
		}
		q.FailureThreshold++
		if q.Equal(p) {
			t.Fatal("equal in spite of a difference")
		}
	})
}

// A default that is given is no other policy, also where answers leave it out unless it is given; and equal policies have one sum.
func TestGivenDefaultsAreEqual(t *testing.T) {
	for _, c := range []struct {
		a, b  string
		equal bool
	}{
		{`{"tcp":{"port":80}}`, `{"tcp":{"port":80},"confirm_interval":"1s"}`, true},
		{`{"tcp":{"port":80},"interval":"1m"}`, `{"tcp":{"port":80},"interval":"1m","confirm_interval":"6s"}`, true},
		{`{"tcp":{"port":80},"interval":"500ms"}`, `{"tcp":{"port":80},"interval":"500ms","confirm_interval":"500ms"}`, true},
		{`{"tcp":{"port":80}}`, `{"tcp":{"port":80},"timeout":"2s","start_period":"30s","failure_threshold":3}`, true},
		{`{"tcp":{"port":80}}`, `{"tcp":{"port":80},"confirm_interval":"2s"}`, false},
		{`{"tcp":{"port":80},"interval":"1m"}`, `{"tcp":{"port":80},"interval":"1m","confirm_interval":"1s"}`, false},
		{`{"tcp":{"port":80}}`, `{"tcp":{"port":80},"start_interval":"100ms"}`, false}, // the adaptive pace is none of an interval
	} {
		p, q := mustParse(t, c.a), mustParse(t, c.b)
		if p.Equal(q) != c.equal || q.Equal(p) != c.equal || (p.sum() == q.sum()) != c.equal {
			t.Errorf("%s and %s: equal %v, sums %s and %s; want %v", c.a, c.b, p.Equal(q), p.sum(), q.sum(), c.equal)
		}
	}
	if answer, err := json.Marshal(mustParse(t, `{"tcp":{"port":80},"confirm_interval":"1s"}`)); err != nil || !strings.Contains(string(answer), `"confirm_interval":"1s"`) {
		t.Errorf("what was given is answered with %s, %v", answer, err)
	}
}

// genPolicy returns the JSON of a valid policy that is not none.
func genPolicy(t *rapid.T) string {
	obj := make(map[string]any)
	maybe := func(name string, v any) {
		if rapid.Bool().Draw(t, "has "+name) {
			obj[name] = v
		}
	}
	dur := func(name string, lo, hi time.Duration) time.Duration {
		return time.Duration(rapid.Int64Range(int64(lo), int64(hi)).Draw(t, name))
	}
	interval := dur("interval", 100*time.Millisecond, 24*time.Hour)
	obj["interval"] = interval.String()
	maybe("timeout", dur("timeout", time.Millisecond, time.Hour).String())
	maybe("start_period", dur("start_period", 0, 24*time.Hour).String())
	maybe("start_interval", dur("start_interval", 50*time.Millisecond, interval).String())
	maybe("confirm_interval", dur("confirm_interval", 50*time.Millisecond, interval).String())
	maybe("failure_threshold", rapid.IntRange(0, 1000).Draw(t, "ft"))
	maybe("success_threshold", rapid.IntRange(0, 1000).Draw(t, "st"))
	port := rapid.IntRange(1, 65535).Draw(t, "port")
	text := rapid.String().Draw(t, "text")
	switch rapid.SampledFrom([]string{"http", "tcp", "exec", "grpc"}).Draw(t, "type") {
	case "http":
		h := map[string]any{"port": port, "body_contains": text, "headers": map[string]string{"X-A": "b"}, "tls_server_name": text}
		if rapid.Bool().Draw(t, "statuses") {
			h["expected_statuses"] = []any{rapid.IntRange(200, 599).Draw(t, "code"), "200-299"}
		} else {
			h["expected_status"] = rapid.IntRange(200, 599).Draw(t, "code")
		}
		obj["http"] = h
	case "tcp":
		obj["tcp"] = map[string]any{"port": port}
	case "exec":
		text = strings.ReplaceAll(text, "\x00", "")
		variable := "N" + strings.ReplaceAll(text, "=", "")
		obj["exec"] = map[string]any{"command": []string{"/bin/true", text}, "env": map[string]string{variable: text}, "user": text}
	case "grpc":
		obj["grpc"] = map[string]any{"port": port, "service": text}
	}
	b, err := json.Marshal(obj)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// What is read of a record is the policy, or none and the reason.
func TestRecorded(t *testing.T) {
	for raw, want := range map[string]string{
		`{"tcp":{"port":80}}`: "",
		`null`:                "",
		`{"type":"none"}`:     "",
		`{"tcp":{"port":0}}`:  "health_check.tcp.port",
		`7`:                   "health_check",
		`{"http":{"port":80,"path":"/` + strings.Repeat("x", maxPath) + `"}}`: "health_check.http.path",
	} {
		var record struct {
			Before string
			Check  Recorded
			After  string
		}
		err := json.Unmarshal([]byte(`{"before":"a","check":`+raw+`,"after":"b"}`), &record)
		if err != nil || record.Before != "a" || record.After != "b" {
			t.Errorf("%.40s: %+v, %v", raw, record, err)
		}
		p, refused := Parse([]byte(raw))
		switch {
		case want == "" && (record.Check.Refused != nil || !record.Check.Policy.Equal(p)):
			t.Errorf("%.40s: %+v", raw, record.Check)
		case want != "" && (record.Check.Policy.Type != TypeNone || record.Check.Refused.Error() != refused.Error() || !strings.HasPrefix(refused.Error(), want)):
			t.Errorf("%.40s: %+v, want none and %v", raw, record.Check, refused)
		}
	}
}

// The largest policies that are accepted, made of what grows most when it is written as JSON: everything is bounded, and a record of one
// with the longest history is, too.
func TestLargestPolicies(t *testing.T) {
	text := func(n int) string { return strings.Repeat("<", n) } // as \u003c: six times
	statuses := slices.Repeat([]string{"200-299"}, maxStatuses)
	headers := make(map[string]string)
	for i := range 64 {
		headers[fmt.Sprintf("%02d", i)] = text((8<<10)/64 - 2)
	}
	env := make(map[string]string) // of names that differ
	for i := range 500 {
		env[fmt.Sprintf("<%03d", i)] = text(20)
	}
	durations := map[string]any{
		"interval": "23h59m59.999999999s", "timeout": "59m59.999999999s", "start_period": "23h59m59.999999999s", "start_interval": "23h59m59.999999998s",
		"confirm_interval": "23h59m59.999999998s", "failure_threshold": 1000, "success_threshold": 1000,
	}
	for name, block := range map[string]map[string]any{
		"http": {
			"port": 65535, "path": "/" + text(maxPath-1), "scheme": "https", "method": "POST", "headers": headers, "expected_statuses": statuses,
			"body_contains": text(MaxBody), "tls_skip_verify": false, "tls_server_name": text(maxServerName),
		},
		"exec":      {"command": []string{text(maxExec - 1)}},
		"exec args": {"command": strings.Split(strings.Repeat("<,", maxExec/2-1)+"<", ",")},
		"exec none": {"command": append([]string{"x"}, make([]string, maxExec-2)...)},
		"exec env":  {"command": []string{"x"}, "env": env, "working_dir": "/" + text(9000), "user": text(9000)},
		"grpc":      {"port": 65535, "service": text(MaxService)},
	} {
		kind, _, _ := strings.Cut(name, " ")
		obj := maps.Clone(durations)
		obj[kind] = block
		raw, err := json.Marshal(obj)
		if err != nil {
			t.Fatal(err)
		}
		p := mustParse(t, string(raw))
		answer, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		if q, err := Parse(answer); err != nil || !q.Equal(p) {
			t.Errorf("%s: it is not accepted back: %v", name, err)
		}
		t.Logf("%s: %d bytes", name, len(answer))
		if len(answer) > maxPolicy {
			t.Errorf("%s: %d bytes of JSON, and %d are to be the most", name, len(answer), maxPolicy)
		}
		var h history
		for i := range keep {
			r := Result{Start: epoch.Add(1), Duration: time.Hour, Outcome: Failure, Reason: fmt.Sprintf("%02d", i) + text(maxReason-2), Definite: true}
			if i%8 == 0 {
				r.Output = text(maxOutput)
			}
			h.addResult(WindowResult{Result: r, Window: math.MaxUint64})
			h.addTransition(Transition{
				Time: r.Start, From: StatusUnhealthy, To: StatusUnhealthy, Reason: r.Reason, Output: r.Output, Persisted: lost, Window: math.MaxUint64,
				N: math.MaxUint64, Stale: StaleInconclusive,
			})
		}
		blob, err := encoded(newClock(Boot{ID: "b", Uptime: uptime}), p, State{Status: StatusUnhealthy, Error: text(maxReason)}, &h)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: a record of %d bytes", name, len(blob))
		if len(blob) > MaxRecord {
			t.Errorf("%s: a record of %d bytes, and %d are to be the most", name, len(blob), MaxRecord)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`{"http":{"port":80,"path":"/x","tls_server_name":"a.test","body_contains":"<","expected_statuses":[204,"200-299"]}}`)
	f.Add(`{"http":{"port":80,"path":"/x","headers":{"A":"b"},"expected_statuses":[200,"300-399"]},"interval":"1s"}`)
	f.Add(`{"exec":{"command":["x"],"env":{"A":"b"}},"start_period":"0s","failure_threshold":0}`)
	f.Add(`{"type":"none","x":1}`)
	f.Add(`{"tcp":{"port":80},"interval":5,"timeout":"1"}`)
	f.Fuzz(func(t *testing.T, s string) {
		p, err := Parse(json.RawMessage(s))
		if err != nil {
			if pe, ok := errors.AsType[*PolicyError](err); !ok || len(pe.Faults) == 0 {
				t.Fatalf("%q: an error without faults: %v", s, err)
			}
			return
		}
		answer, err := json.Marshal(p)
		if err != nil {
			t.Fatalf("%q: %v", s, err)
		}
		if len(answer) > maxPolicy {
			t.Fatalf("%q has %d bytes of JSON", s, len(answer))
		}
		q, err := Parse(answer)
		if err != nil || !p.Equal(q) {
			t.Fatalf("%q was answered as %s, which is read as %+v, %v", s, answer, q, err)
		}
	})
}

func TestExpects(t *testing.T) {
	c := HTTPCheck{ExpectedStatuses: []string{"204", "300-302"}}
	for status, want := range map[int]bool{200: false, 204: true, 205: false, 299: false, 300: true, 302: true, 303: false, 0: false} {
		if status != 0 && c.Expects(status) != want {
			t.Errorf("%d: %v", status, !want)
		}
	}
	if d := (HTTPCheck{ExpectedStatus: 200}); !d.Expects(200) || d.Expects(201) {
		t.Error("a single status")
	}
}

// What no program can be given is refused by its field, and does not fail at every probe instead.
func TestImpossibleExec(t *testing.T) {
	for field, check := range map[string]string{
		"health_check.exec.command":     `{"exec":{"command":["a\u0000b"]}}`,
		"health_check.exec.working_dir": `{"exec":{"command":["a"],"working_dir":"tmp"}}`,
		"health_check.exec.user":        `{"exec":{"command":["a"],"user":"a\u0000"}}`,
		"health_check.exec.env":         `{"exec":{"command":["a"],"env":{"A=B":"c"}}}`,
	} {
		_, err := Parse([]byte(check))
		var refused *PolicyError
		if !errors.As(err, &refused) || len(refused.Faults) != 1 || refused.Faults[0].Field != field {
			t.Errorf("%s: %v", check, err)
		}
	}
}
