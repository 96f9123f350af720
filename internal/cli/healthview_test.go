package cli

import (
	"bytes"
	"encoding/json"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/halevm/hale/api"
)

func TestStrip(t *testing.T) {
	results := func(s string) (list []api.HealthResult) {
		window := uint64(1)
		for _, c := range s {
			switch c {
			case '|':
				window++
			case '+':
				list = append(list, api.HealthResult{Outcome: "success", Window: window})
			case '-':
				list = append(list, api.HealthResult{Outcome: "failure", Window: window})
			default:
				list = append(list, api.HealthResult{Outcome: "inconclusive", Window: window})
			}
		}
		return list
	}
	utf, ascii := paper{}.marks(), paper{ascii: true}.marks()
	for _, tt := range []struct {
		results string
		m       marks
		room    int
		want    string
		legend  string
	}{
		{"", utf, 9, "", ""},
		{"++-+?", utf, 9, "▁▁█▁·", "▁ 3 successes, █ 1 failure, · 1 inconclusive"},
		{"++-+?", ascii, 9, "__#_?", "_ 3 successes, # 1 failure, ? 1 inconclusive"},
		{"++-+?", utf, 3, "█▁·", "▁ 1 success, █ 1 failure, · 1 inconclusive"},
		{"--|++|+", utf, 9, "██│▁▁│▁", "▁ 3 successes, █ 2 failures, │ counted anew"},
		{"--|++|+", utf, 5, "▁▁│▁", "▁ 3 successes, │ counted anew"},
		{"--|++|+", utf, 4, "▁▁│▁", "▁ 3 successes, │ counted anew"},
		{"--|++|+", utf, 2, "▁", "▁ 1 success"},
		{"+", utf, 0, "", ""},
	} {
		picture, drawn := strip(results(tt.results), tt.m, tt.room)
		if got := legend(drawn, tt.m); picture != tt.want || got != tt.legend {
			t.Errorf("%q in %d: %q with %q, want %q with %q", tt.results, tt.room, picture, got, tt.want, tt.legend)
		}
	}
}

func TestLatencies(t *testing.T) {
	var results []api.HealthResult
	for _, ms := range []float64{9, 1, 2, 3, 4} {
		results = append(results, api.HealthResult{Outcome: "success", DurationMs: ms})
	}
	results = append(results, api.HealthResult{Outcome: "failure", DurationMs: 2000})
	if got, want := latencies(results), "p50 3ms, max 9ms (successes)"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := latencies(results[5:]); got != "" {
		t.Errorf("without a success %q", got)
	}
}

// hostile is a health in which everything that a guest can say speaks to the terminal, and is long, and wide.
func hostile() api.InstanceHealth {
	const evil = "\x1b[2J\x1b]0;owned\x07\u009b31m\u202e 完完完完完完完完完完完完完完完完完完完完完完完完完完完完完完完完完完完完完完完完\rx"
	h := api.InstanceHealth{
		Status: api.HealthStateUnhealthy, Since: since(time.Minute), ConsecutiveFailures: 3, LastError: ptr(evil),
		HealthCheck:       json.RawMessage(`{"type":"exec","exec":{"command":["/bin/sh","-c","\u001b[2J"]},"interval":"10s"}`),
		HealthCheckSource: api.HealthCheckSourceImage,
	}
	for range 64 {
		h.Results = append(h.Results, api.HealthResult{Outcome: "failure", Time: ago(time.Second), Reason: evil, Output: strings.Repeat(evil+"\n\t", 20)})
		h.Transitions = append(h.Transitions, api.HealthTransition{From: "healthy", To: "unhealthy", Time: ago(time.Second), Reason: evil, Output: strings.Repeat(evil+"\n\t", 20)})
	}
	return h
}

func TestNoLineIsWiderThanTheTerminal(t *testing.T) {
	control := regexp.MustCompile(`[\x00-\x1f\x7f-\x9f\x{202a}-\x{202e}\x{2066}-\x{2069}]`)
	for _, width := range []int{0, 200, 80, 40, 24} {
		for _, ascii := range []bool{false, true} {
			for _, line := range healthView(hostile(), time.Now(), paper{width: width, cut: true, ascii: ascii}) {
				if control.MatchString(line) {
					t.Errorf("%d columns: %q speaks to the terminal", width, line)
				}
				if n := widths.StringWidth(line); width > 24 && n > width {
					t.Errorf("%d columns: %q has %d", width, line, n)
				}
			}
		}
	}
	view := strings.Join(healthView(hostile(), time.Now(), paper{coloured: true}), "\n")
	if rest := unpainted(strings.ReplaceAll(view, "\n", "")); control.MatchString(rest) || !strings.Contains(view, "\x1b[31munhealthy") {
		t.Errorf("in colour: %q", view)
	}
}

func TestTheLocaleDecides(t *testing.T) {
	for _, tt := range []struct {
		env  map[string]string
		utf8 bool
	}{
		{nil, false},
		{map[string]string{"LANG": "C"}, false},
		{map[string]string{"LANG": "de_CH.UTF-8"}, true},
		{map[string]string{"LANG": "de_CH.utf8"}, true},
		{map[string]string{"LANG": "de_CH.UTF-8", "LC_ALL": "C"}, false},
		{map[string]string{"LANG": "de_CH.UTF-8", "LC_CTYPE": "de_CH.ISO-8859-1"}, false},
		{map[string]string{"LANG": "C", "LC_ALL": "C.UTF-8"}, true},
	} {
		a := &app{Config: Config{Getenv: func(k string) string { return tt.env[k] }}}
		if a.utf8() != tt.utf8 {
			t.Errorf("%v: %v", tt.env, !tt.utf8)
		}
	}
}

// What is drawn anew goes over what was there, also where the terminal has become narrower meanwhile.
func TestScreen(t *testing.T) {
	var out bytes.Buffer
	s := &screen{app: &app{Config: Config{Stdout: &out}}, name: "web"}
	draw := func(want string, lines ...string) {
		t.Helper()
		out.Reset()
		if err := s.draw(lines); err != nil || out.String() != want {
			t.Errorf("%q, %v; want %q", out.String(), err, want)
		}
	}
	draw("\ra\x1b[K\nb\x1b[K\n\x1b[J", "a", "b")
	draw("", "a", "b")
	draw("\x1b[2A\rc\x1b[K\n\x1b[J", "c")
	draw("\x1b[1A\rc\x1b[K\nd\x1b[K\n\x1b[J", "c", "d")
	if got := heightOf([]string{"", "abcd", "\x1b[31mabcdefgh\x1b[0mi", "完完"}, 4); got != 1+1+3+1 {
		t.Errorf("%d rows", got)
	}
	out.Reset()
	if s.close(); out.String() != "\r\x1b[K" {
		t.Errorf("at the end %q", out.String())
	}
}

func TestHealthWatchPrintsLines(t *testing.T) {
	at := time.Now().Add(-time.Minute)
	result := func(n int, outcome, reason string) api.HealthResult {
		return api.HealthResult{Outcome: outcome, Reason: reason, Time: at.Add(time.Duration(n) * time.Second), DurationMs: 2, Window: 1}
	}
	change := func(n int, from, to api.HealthState, reason string) api.HealthTransition {
		return api.HealthTransition{From: from, To: to, Reason: reason, Time: at.Add(time.Duration(n)*time.Second + 3*time.Millisecond), N: uint64(n)}
	}
	h := api.InstanceHealth{Status: "healthy", HealthCheck: json.RawMessage(`{"tcp":{"port":80}}`), HealthCheckSource: "request"}
	first := h
	first.Results, first.Transitions = []api.HealthResult{result(1, "success", "")}, []api.HealthTransition{change(1, "starting", "healthy", "")}
	second := h
	second.Results = append(first.Results, result(2, "failure", "refused\x1b[2J"), result(3, "inconclusive", "no agent"))
	second.Transitions = append(first.Transitions, change(2, "healthy", "unhealthy", "refused\n\x07now"))
	third := h
	for n := range 64 {
		third.Results = append(third.Results, result(10+n, "success", ""))
	}
	third.Transitions = second.Transitions
	d := newDaemon(t)
	d.answer("GET /instances/web", fleet()[0])
	d.answer("GET /instances/aaaa/health", first, first, second, third, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { refuse(w, 404, "not_found", "no instance web") }))
	code, out, stderr := d.hale("health", "-w", "web")
	if code != exitNotFound || stderr != "hale: there is no web any more\n" {
		t.Errorf("exit %d, %q", code, stderr)
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	for i, want := range []string{
		"web healthy; connect to :80 (asked for)",
		"web failure in 2ms: refused[2J",
		"web healthy → unhealthy: refused now",
		"web inconclusive in 2ms: no agent",
		"web older results were missed",
		"web success in 2ms",
	} {
		if i >= len(lines) || !strings.HasSuffix(lines[i], want) {
			t.Fatalf("line %d of %q: want %q", i, lines, want)
		}
	}
	if len(lines) != 5+64 {
		t.Errorf("%d lines", len(lines))
	}
	if code, _, stderr := d.hale("health", "-w", "--now", "web"); code != exitUsage || !strings.Contains(stderr, "-w goes with neither --now nor --json") {
		t.Errorf("exit %d, %q", code, stderr)
	}
	if code, _, _ := d.hale("health", "-w", "nobody"); code != exitNotFound {
		t.Errorf("nobody: exit %d", code)
	}
}

// The host's clock may be set back, and a daemon that was killed may have forgotten its newest results: each result is printed once all
// the same, in the order of the list.
func TestHealthWatchWhereTimesDoNotSay(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	result := func(seconds int, reason string) api.HealthResult {
		return api.HealthResult{Outcome: "failure", Reason: reason, Time: at.Add(time.Duration(seconds) * time.Second), Window: 1}
	}
	a, b, c, d, e := result(0, "a"), result(10, "b"), result(-50, "c"), result(-40, "d"), result(20, "e")
	for _, tt := range []struct {
		name  string
		lists [][]api.HealthResult
		want  string
	}{
		{"set back", [][]api.HealthResult{{a, b}, {a, b, c}, {a, b, c}, {b, c, d}}, "c d"},
		{"set back between two looks", [][]api.HealthResult{{a}, {a, b, c, d}}, "b c d"},
		{"forgotten", [][]api.HealthResult{{a, c}, {a, c, d, b}, {a, c}, {a, c, e}}, "d b e"},
		{"nothing yet", [][]api.HealthResult{{}, {a}, {}, {a, b}}, "a b"},
		{"too many", [][]api.HealthResult{{a, b}, {c, d, e}}, "missed c d e"},
	} {
		var out bytes.Buffer
		w := &lineWatcher{out: &out, name: "web", paper: func() paper { return paper{} }}
		for _, list := range tt.lists {
			if err := w.show(api.InstanceHealth{Results: list}, at); err != nil {
				t.Fatal(err)
			}
		}
		_, all, _ := strings.Cut(out.String(), "\n") // the first line is how it is
		var got []string
		for line := range strings.Lines(all) {
			words := strings.Fields(line)
			got = append(got, words[len(words)-1])
		}
		if s := strings.Join(got, " "); s != tt.want {
			t.Errorf("%s: printed %q, want %q", tt.name, s, tt.want)
		}
	}
}

// Who watches an instance does not come to watch another of the same name.
func TestHealthWatchEndsWithItsInstance(t *testing.T) {
	first, next := fleet()[0], fleet()[1]
	next.Name = first.Name
	d := newDaemon(t)
	d.answer("GET /instances/web", first, next)
	d.answer("GET /instances/web/health", api.InstanceHealth{Status: "starting"})
	d.answer("GET /instances/bbbb/health", api.InstanceHealth{Status: "starting"})
	d.answer("GET /instances/aaaa/health", api.InstanceHealth{Status: "healthy"}, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { refuse(w, 404, "not_found", "no instance aaaa") }))
	code, out, stderr := d.hale("health", "-w", "web")
	if code != exitNotFound || !strings.HasSuffix(out, " web healthy; none\n") || stderr != "hale: there is no web any more\n" {
		t.Errorf("exit %d, %q, %q", code, out, stderr)
	}
}
