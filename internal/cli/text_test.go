package cli

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/halevm/hale/api"
)

func TestShort(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 900 * time.Millisecond: "0s", 3 * time.Second: "3s", 59 * time.Second: "59s",
		time.Minute: "1m", 59 * time.Minute: "59m", time.Hour: "1h", 47 * time.Hour: "47h", 49 * time.Hour: "2d", 1000 * time.Hour: "41d",
	} {
		if got := short(d); got != want {
			t.Errorf("short(%v) = %q, want %q", d, got, want)
		}
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 999: "999 B", 1000: "1.0 KB", 1536: "1.5 KB", 10 << 20: "10 MB", 1 << 30: "1.0 GB", 1023 << 20: "1.0 GB", 5 << 40: "5.0 TB",
	} {
		if got := size(n); got != want {
			t.Errorf("size(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestCleanKeepsTheTerminalSafe(t *testing.T) {
	for in, want := range map[string]string{
		"plain":                      "plain",
		"a\x1b[31mred\x1b[0m":        "a[31mred[0m",
		"\x1b]0;title\x07x":          "]0;titlex",
		"two\nlines\tand a tab":      "two\nlines\tand a tab",
		"back\b\rspace\x7f\u009b31m": "backspace31m",
		"bad \xff byte":              "bad \ufffd byte",
		"\u202egpj.exe\u202c\u2066x": "gpj.exex",
	} {
		if got := clean(in); got != want {
			t.Errorf("clean(%q) = %q, want %q", in, got, want)
		}
	}
	if got := oneLine(" a\n b\t\x1bc "); got != "a b c" {
		t.Errorf("oneLine = %q", got)
	}
	if got := cut("abcdef", 4); got != "abc…" {
		t.Errorf("cut = %q", got)
	}
}

func TestTable(t *testing.T) {
	tb := table{header: []string{"NAME", "STATE", "AGE"}}
	tb.add(plain("web"), cell{"healthy", green}, plain("2m"))
	tb.add(plain("a-longer-name"), cell{"no\x1b[2J\n", red}, plain(""))
	var b strings.Builder
	if err := tb.write(&b, false); err != nil {
		t.Fatal(err)
	}
	want := "NAME            STATE     AGE\n" +
		"web             healthy   2m\n" +
		"a-longer-name   no[2J\n"
	if b.String() != want {
		t.Errorf("table:\n%s\nwant:\n%s", b.String(), want)
	}
	b.Reset()
	tb.write(&b, true)
	if !strings.Contains(b.String(), "\x1b[32mhealthy\x1b[0m   2m") {
		t.Errorf("coloured table: %q", b.String())
	}
}

// What could not be printed is told, whichever command did not look.
// On a narrow terminal what explains is cut, not what names, and no line is longer than the terminal is wide while that helps.
func TestTableFits(t *testing.T) {
	fill := func() *table {
		t := &table{header: []string{"NAME", "WHY", "WHERE", "AGE"}}
		t.add(plain("web"), plain("unhealthy: connection refused"), plain("127.0.0.1:8080→80"), plain("2m"))
		return t
	}
	for width, want := range map[int]string{
		0:  "web    unhealthy: connection refused   127.0.0.1:8080→80   2m",
		60: "web    unhealthy: connection refu…   127.0.0.1:8080→80   2m",
		45: "web    unhealthy: …   127.0.0.1:8080→80   2m",
		40: "web    unhealthy…   127.0.0.1:808…   2m",
		10: "web    unhealthy…   127.0.0.1…   2m",
	} {
		table := fill()
		table.fit(width, 1, 2)
		if got := table.lines(false, 0)[1]; got != want {
			t.Errorf("%d: %q, want %q", width, got, want)
		}
	}
}

// No line is longer than it may be, however little that is.
func TestTableLinesAreBounded(t *testing.T) {
	for width := 1; width < 40; width++ {
		table := table{header: []string{"WHEN", "FROM", "WHY"}, tail: ellipsis}
		table.add(plain("13s ago"), plain("starting"), plain("the instance started"))
		for _, line := range table.lines(false, width) {
			if n := widths.StringWidth(line); n > width {
				t.Errorf("%d columns: %q has %d", width, line, n)
			}
		}
	}
}

func TestAFullDiskBelowTheOutput(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	d := newDaemon(t)
	d.answer("GET /instances", fleet())
	d.answer("POST /instances", fleet()[0])
	d.answer("POST /instances/web/stop", fleet()[0])
	d.answer("POST /instances/web/health/check", api.HealthResult{Outcome: outcomeSuccess})
	for _, args := range []string{"ps", "ps -q", "run -q nginx", "run nginx", "stop web", "health web --now", "exit-codes"} {
		env := map[string]string{"HALE_URL": d.URL, "HALE_TOKEN": "secret"}
		var stderr bytes.Buffer
		code := Run(strings.Fields(args), Config{Stdout: full, Stderr: &stderr, Getenv: func(k string) string { return env[k] }})
		if code != exitError || stderr.String() != "hale: write /dev/full: no space left on device\n" {
			t.Errorf("%s: exit %d, %q", args, code, stderr.String())
		}
	}
}
