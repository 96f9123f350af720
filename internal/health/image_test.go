package health

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
)

// shown is a policy in short, as one line that a table can hold.
func shown(p Policy) string {
	if p.Disabled() {
		return "none"
	}
	start := "adaptive"
	if p.StartInterval != 0 {
		start = short(p.StartInterval)
	}
	return strings.Join([]string{
		strings.Join(p.Exec.Command, "|"), short(p.Interval), short(p.Timeout), short(p.StartPeriod), start,
		strings.Repeat("f", p.FailureThreshold) + strings.Repeat("s", p.SuccessThreshold),
	}, " ")
}

func TestFromImage(t *testing.T) {
	const s = "000000000" // a second in nanoseconds, behind its digits
	for _, tc := range []struct {
		name, check string
		shell       []string
		want        string
		warnings    []string // a part of each
	}{
		{name: "none", check: ``, want: "none"},
		{name: "null", check: `null`, want: "none"},
		{name: "an empty object", check: `{}`, want: "none"},
		{name: "an empty test", check: `{"Test":[]}`, want: "none"},
		{name: "a null test", check: `{"Test":null,"Interval":1` + s + `}`, want: "none"},
		{name: "NONE", check: `{"Test":["NONE"]}`, want: "none"},
		{name: "CMD, with Docker's defaults", check: `{"Test":["CMD","curl","-f","http://localhost/"]}`, want: "curl|-f|http://localhost/ 30s 30s 30s 5s fffs"},
		{name: "zero is Docker's default", check: `{"Test":["CMD","a"],"Interval":0,"Timeout":0,"StartPeriod":0,"StartInterval":0,"Retries":0}`, want: "a 30s 30s 30s 5s fffs"},
		{name: "all given", check: `{"Test":["CMD","a"],"Interval":60` + s + `,"Timeout":3` + s + `,"StartPeriod":120` + s + `,"StartInterval":2` + s + `,"Retries":5}`, want: "a 1m 3s 2m 2s fffffs"},
		{name: "a start period below the interval", check: `{"Test":["CMD","a"],"Interval":60` + s + `,"StartPeriod":5` + s + `}`, want: "a 1m 30s 1m 5s fffs"},
		{name: "an interval below Docker's start interval", check: `{"Test":["CMD","a"],"Interval":2` + s + `}`, want: "a 2s 30s 2s 2s fffs"},
		{name: "CMD-SHELL", check: `{"Test":["CMD-SHELL","curl -f localhost || exit 1"]}`, want: "/bin/sh|-c|curl -f localhost || exit 1 30s 30s 30s 5s fffs"},
		{name: "the image's shell", check: `{"Test":["CMD-SHELL","x"]}`, shell: []string{"/bin/bash", "-eo", "pipefail", "-c"}, want: "/bin/bash|-eo|pipefail|-c|x 30s 30s 30s 5s fffs"},
		{name: "the shell is nothing to CMD", check: `{"Test":["CMD","x"]}`, shell: []string{"/bin/bash", "-c"}, want: "x 30s 30s 30s 5s fffs"},
		{name: "fields of tomorrow", check: `{"Test":["CMD","x"],"Colour":"red"}`, want: "x 30s 30s 30s 5s fffs"},

		{name: "too often", check: `{"Test":["CMD","a"],"Interval":1000000}`, want: "a 100ms 30s 100ms 100ms fffs", warnings: []string{"Interval of 1ms, which is out of range; 100ms is used"}},
		{name: "too seldom", check: `{"Test":["CMD","a"],"Interval":90000` + s + `}`, want: "a 24h 30s 24h 5s fffs", warnings: []string{"Interval of 25h0m0s"}},
		{name: "the others at their ends", check: `{"Test":["CMD","a"],"Timeout":1,"StartPeriod":90000` + s + `,"StartInterval":1,"Retries":-2}`, want: "a 30s 1ms 24h 50ms fs",
			warnings: []string{"Timeout of 1ns", "StartPeriod of 25h0m0s", "StartInterval of 1ns", "Retries of -2, which is out of range; 1 is used"}},
		{name: "negative", check: `{"Test":["CMD","a"],"Interval":-1,"Timeout":-1,"StartPeriod":-1,"StartInterval":-1}`, want: "a 100ms 1ms 100ms 50ms fffs",
			warnings: []string{"Interval of -1ns", "Timeout of -1ns", "StartPeriod of -1ns", "StartInterval of -1ns"}},
		{name: "a start interval above the interval", check: `{"Test":["CMD","a"],"Interval":10` + s + `,"StartInterval":11` + s + `}`, want: "a 10s 30s 10s 10s fffs", warnings: []string{"StartInterval of 11s, which is out of range; 10s is used"}},
		{name: "numbers that are none", check: `{"Test":["CMD","a"],"Interval":"10s","Timeout":1.5,"Retries":1e99}`, want: "a 30s 30s 30s 5s fffs",
			warnings: []string{"Interval that is no whole number", "Timeout that is no whole number", "Retries that is no whole number"}},
		{name: "more than 64 bits", check: `{"Test":["CMD","a"],"Interval":99999999999999999999}`, want: "a 30s 30s 30s 5s fffs", warnings: []string{"Interval that is"}},

		{name: "no object", check: `"CMD a"`, want: "none", warnings: []string{"no JSON object"}},
		{name: "a test that is no array", check: `{"Test":"CMD a"}`, want: "none", warnings: []string{"no array of strings"}},
		{name: "an unknown word", check: `{"Test":["RUN\u001b[2J","a"]}`, want: "none", warnings: []string{"none of CMD, CMD-SHELL and NONE"}},
		{name: "CMD alone", check: `{"Test":["CMD"]}`, want: "none", warnings: []string{"names no program"}},
		{name: "CMD of nothing", check: `{"Test":["CMD",""]}`, want: "none", warnings: []string{"names no program"}},
		{name: "CMD-SHELL alone", check: `{"Test":["CMD-SHELL"]}`, want: "none", warnings: []string{"names no program"}},
		{name: "a NUL", check: `{"Test":["CMD","a\u0000b"]}`, want: "none", warnings: []string{"its command must hold no NUL"}},
		{name: "a command too long", check: `{"Test":["CMD","` + strings.Repeat("a", 33<<10) + `"]}`, want: "none", warnings: []string{"at most 32768 bytes"}},
		{name: "a check too long", check: `{"Test":["CMD","a"],"X":"` + strings.Repeat("a", 64<<10) + `"}`, want: "none", warnings: []string{"more than 65536 bytes"}},
		{name: "a shell too long", check: `{"Test":["CMD-SHELL","a"]}`, shell: []string{strings.Repeat("a", 64<<10)}, want: "none", warnings: []string{"more than 65536 bytes"}},
	} {
		p, warnings := FromImage(json.RawMessage(tc.check), tc.shell)
		if got := shown(p); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
		if len(warnings) != len(tc.warnings) {
			t.Errorf("%s: warnings %q, want %q", tc.name, warnings, tc.warnings)
			continue
		}
		for i, w := range warnings {
			if !strings.Contains(w, tc.warnings[i]) || strings.ContainsRune(w, 0x1b) {
				t.Errorf("%s: warning %q, want %q in it", tc.name, w, tc.warnings[i])
			}
		}
		acceptedBack(t, tc.name, p)
	}
}

// acceptedBack sees that a policy is one that a request could have made.
func acceptedBack(t *testing.T, name string, p Policy) {
	t.Helper()
	raw, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	if back, err := Parse(raw); err != nil || !back.Equal(p) {
		t.Errorf("%s: as answered (%s) it comes back as %+v, %v", name, raw, back, err)
	}
}

func TestOverride(t *testing.T) {
	const (
		whole = `{"Test":["CMD","a"],"Interval":60000000000,"Timeout":3000000000,"StartPeriod":120000000000,"StartInterval":2000000000,"Retries":5}`
		bare  = `{"Test":["CMD-SHELL","b c"]}`
	)
	for _, tc := range []struct {
		name, override, check, want string
		refused                     string // the fields
	}{
		{name: "one field", override: `{"timeout":"1s"}`, check: whole, want: "a 1m 1s 2m 2s fffffs"},
		{name: "what neither names is hale's", override: `{"interval":"20s"}`, check: bare, want: "/bin/sh|-c|b c 20s 2s 30s adaptive fffs"},
		{name: "a short interval bounds the timeout that nobody names", override: `{"interval":"1s"}`, check: bare, want: "/bin/sh|-c|b c 1s 1s 30s adaptive fffs"},
		{name: "a command of one's own, in the image's time", override: `{"cmd":"x y"}`, check: whole, want: "/bin/sh|-c|x y 1m 3s 2m 2s fffffs"},
		{name: "a command where the image has no check", override: `{"cmd":"x y"}`, check: ``, want: "/bin/sh|-c|x y 10s 2s 30s adaptive fffs"},
		{name: "a command where the image says NONE", override: `{"cmd":"x"}`, check: `{"Test":["NONE"]}`, want: "/bin/sh|-c|x 10s 2s 30s adaptive fffs"},
		{name: "everything", override: `{"cmd":"x","interval":"9s","timeout":"8s","start_period":"7s","start_interval":"6s","failure_threshold":2,"success_threshold":2}`, check: whole,
			want: "/bin/sh|-c|x 9s 8s 7s 6s ffss"},
		{name: "no grace", override: `{"start_period":"0s"}`, check: whole, want: "a 1m 3s 0s 2s fffffs"},
		{name: "the image's start period below one's own interval", override: `{"interval":"5m"}`, check: whole, want: "a 5m 3s 5m 2s fffffs"},
		{name: "the image's start interval above one's own interval", override: `{"interval":"1s"}`, check: whole, want: "a 1s 3s 2m 1s fffffs"},
		{name: "unset beside set", override: `{"cmd":"","interval":"0s","timeout":"4s","failure_threshold":0}`, check: whole, want: "a 1m 4s 2m 2s fffffs"},

		{name: "nothing to change", override: `{"interval":"5s"}`, check: ``, refused: "health_check_override"},
		{name: "nothing to change in NONE", override: `{"interval":"5s"}`, check: `{"Test":["NONE"]}`, refused: "health_check_override"},
		{name: "slower at the start", override: `{"start_interval":"2m","confirm_interval":"3m"}`, check: whole, refused: "health_check_override.start_interval health_check_override.confirm_interval"},
		{name: "a NUL", override: `{"cmd":"\u0000"}`, check: whole, refused: "health_check_override.cmd"},
		{name: "out of range", override: `{"interval":"1ms","failure_threshold":1001}`, check: whole, refused: "health_check_override.interval health_check_override.failure_threshold"},
		{name: "unknown", override: `{"test":["CMD"],"interval":5}`, check: whole, refused: "health_check_override.interval health_check_override.test"},
		{name: "no object", override: `[]`, check: whole, refused: "health_check_override"},
	} {
		o, err := ParseOverride(json.RawMessage(tc.override))
		var p Policy
		if err == nil {
			p, _, err = o.Apply(json.RawMessage(tc.check), nil)
		}
		var fields []string
		if refused, ok := errors.AsType[*PolicyError](err); ok {
			for _, f := range refused.Faults {
				fields = append(fields, f.Field)
			}
		}
		if got := strings.Join(fields, " "); got != tc.refused || (err == nil) != (tc.refused == "") {
			t.Errorf("%s: refused for %q (%v), want %q", tc.name, got, err, tc.refused)
			continue
		}
		if err == nil && shown(p) != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, shown(p), tc.want)
		}
		acceptedBack(t, tc.name, p)
	}
	for _, nothing := range []string{`null`, `{}`, `{"interval":"","cmd":null,"start_period":""}`} {
		if o, err := ParseOverride(json.RawMessage(nothing)); o != nil || err != nil {
			t.Errorf("%s: %+v, %v; want nothing", nothing, o, err)
		}
	}
	p, _, err := (&Override{interval: time.Second, startPeriod: -1, confirm: 500 * time.Millisecond}).Apply(json.RawMessage(whole), nil)
	if err != nil || p.ConfirmInterval != 500*time.Millisecond {
		t.Errorf("confirm_interval: %+v, %v", p, err)
	}
}

func FuzzFromImage(f *testing.F) {
	f.Add([]byte(`{"Test":["CMD-SHELL","x"],"Interval":1,"Retries":2}`), "/bin/bash")
	f.Add([]byte(`{"Test":["CMD"],"Timeout":-1,"StartPeriod":9e9,"StartInterval":90000000000000}`), "")
	f.Fuzz(func(t *testing.T, check []byte, shell string) {
		p, _ := FromImage(check, []string{strings.ToValidUTF8(shell, "")}) // as all that came from JSON
		acceptedBack(t, "fuzz", p)
	})
}
