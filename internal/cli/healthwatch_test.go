package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/halevm/hale/api"
)

// screenOf plays what was written to a terminal, and returns its lines and where the cursor stands. It knows what hale uses, and fails
// the test at anything else.
func screenOf(t *testing.T, written string) (lines []string, row, col int) {
	t.Helper()
	csi := regexp.MustCompile(`^\x1b\[(\d*)([A-Za-z])`)
	cells := [][]rune{nil}
	for written != "" {
		if m := csi.FindStringSubmatch(written); m != nil {
			n, _ := strconv.Atoi(m[1])
			switch m[2] {
			case "A":
				row = max(row-max(n, 1), 0)
			case "K":
				cells[row] = cells[row][:min(col, len(cells[row]))]
			case "J":
				cells[row] = cells[row][:min(col, len(cells[row]))]
				cells = cells[:row+1]
			case "m":
			default:
				t.Fatalf("the terminal is told %q", m[0])
			}
			written = written[len(m[0]):]
			continue
		}
		r, size := []rune(written)[0], len(string([]rune(written)[0]))
		written = written[size:]
		switch {
		case r == '\r':
			col = 0
		case r == '\n':
			if row++; row == len(cells) {
				cells = append(cells, nil)
			}
		case r < ' ' || r == 0x7f:
			t.Fatalf("the terminal is told %q", r)
		default:
			for len(cells[row]) <= col {
				cells[row] = append(cells[row], ' ')
			}
			cells[row][col] = r
			col++
		}
	}
	for _, line := range cells {
		lines = append(lines, strings.TrimRight(string(line), " "))
	}
	return lines, row, col
}

// On a terminal the picture is drawn over the one before, and Ctrl-C leaves it as it is, with the cursor at the start of a line of its own.
func TestHealthWatchOnATerminal(t *testing.T) {
	screen, terminal, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer screen.Close()
	if err := pty.Setsize(screen, &pty.Winsize{Rows: 24, Cols: 60}); err != nil {
		t.Fatal(err)
	}
	var shown bytes.Buffer
	done := make(chan struct{})
	go func() {
		defer close(done)
		io.Copy(&shown, screen)
	}()
	at := ago(time.Hour)
	h := api.InstanceHealth{
		Status: api.HealthStateHealthy, Since: &at, HealthCheck: json.RawMessage(`{"tcp":{"port":80}}`), HealthCheckSource: "request",
		Results:     []api.HealthResult{{Outcome: "success", DurationMs: 1, Time: at, Window: 1}},
		Transitions: []api.HealthTransition{{From: "starting", To: "healthy", Time: at, N: 1}},
	}
	worse := h
	worse.Status, worse.LastError = api.HealthStateUnhealthy, ptr("\x1b[2J"+strings.Repeat("so long that it would wrap, ", 5))
	worse.Results = append(slices.Clone(h.Results), api.HealthResult{Outcome: "failure", DurationMs: 2, Time: at, Window: 1, Reason: "no", Output: "why\n"})
	d := newDaemon(t)
	asked := 0
	d.answer("GET /instances/web", fleet()[0])
	d.mux.HandleFunc("GET /instances/aaaa/health", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch asked++; asked {
		case 1:
			json.NewEncoder(w).Encode(worse) // longer, so that lines have to go
		case 2:
			json.NewEncoder(w).Encode(h)
		default: // it is there now; nobody will read this answer
			fmt.Fprint(terminal, "^C") // as the terminal itself does
			syscall.Kill(os.Getpid(), syscall.SIGINT)
			<-t.Context().Done()
		}
	})
	env := map[string]string{"HALE_URL": d.URL, "HALE_TOKEN": "secret", "LANG": "C.UTF-8"}
	ended := make(chan int)
	go func() {
		ended <- Run([]string{"health", "-w", "web"}, Config{Stdout: terminal, Stderr: io.Discard, Getenv: func(k string) string { return env[k] }})
	}()
	if code := <-ended; code != exitInterrupted {
		t.Errorf("exit %d", code)
	}
	terminal.Close()
	<-done
	lines, row, col := screenOf(t, shown.String())
	want := []string{
		"web", "",
		"status        healthy for 1h",
		"check         connect to :80 (asked for)",
		"results       ▁",
		"              ▁ 1 success",
		"took          p50 1ms, max 1ms (successes)",
		"last result   success in 1ms, 1h ago",
		"",
		"WHEN     FROM       TO        WHY",
		"1h ago   starting   healthy",
		"",
	}
	if !slices.Equal(lines, want) || row != len(want)-1 || col != 0 {
		t.Errorf("cursor at %d, %d of\n%s\nwant\n%s", row, col, strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
	first, _, found := strings.Cut(shown.String(), "\x1b[J")
	if !found || !strings.Contains(first, "so long that it would wrap, so long that i…") || !strings.Contains(first, "    why") {
		t.Errorf("at first it shows %q", first)
	}
}
