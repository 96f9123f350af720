package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/halevm/hale/api"
)

// What of a history is shown.
const (
	shownChanges = 10 // the newest
	shownOutput  = 5  // lines of each, the last
)

// A paper is what a view is drawn on.
type paper struct {
	width    int  // in columns; 0: without a bound
	cut      bool // no line may be longer; else what is one text, such as the last error, is left whole
	ascii    bool
	coloured bool
}

// bound is the width of what is left whole where it may be.
func (p paper) bound() int {
	if p.cut {
		return p.width
	}
	return 0
}

// tail is what stands for what is cut.
func (p paper) tail() string { return p.text(ellipsis) }

// paper is standard output.
func (a *app) paper() paper {
	_, cols := windowSize(a.Stdout)
	return paper{width: int(cols), ascii: !a.utf8(), coloured: a.coloured()}
}

// utf8 reports whether the locale takes more than ASCII (POSIX, the order of the variables).
func (a *app) utf8() bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := a.Getenv(name); v != "" {
			v = strings.ToLower(strings.ReplaceAll(v, "-", ""))
			return strings.Contains(v, "utf8")
		}
	}
	return false
}

// The marks of a strip: well, not well, and not known.
type marks struct{ success, failure, other, edge string }

func (p paper) marks() marks {
	if p.ascii {
		return marks{"_", "#", "?", "|"}
	}
	return marks{"▁", "█", "·", "│"}
}

// text is s on this paper: hale's own marks have words in ASCII too.
func (p paper) text(s string) string {
	if p.ascii {
		s = strings.NewReplacer("…", "...", "→", "->", "µ", "u").Replace(s)
	}
	return s
}

// showHealth prints what a person wants to know of an instance's health, the present first.
func (a *app) showHealth(h api.InstanceHealth, now time.Time) error {
	_, err := io.WriteString(a.Stdout, strings.Join(append(healthView(h, now, a.paper()), ""), "\n"))
	return err
}

// healthView is the lines of that.
func healthView(h api.InstanceHealth, now time.Time, p paper) (lines []string) {
	head := table{tail: p.tail()}
	add := func(name, value string) {
		if value != "" {
			head.add(plain(name), plain(p.text(value)))
		}
	}
	head.add(plain("status"), statusCell(h, now))
	add("check", checkText(h.HealthCheck, string(h.HealthCheckSource)))
	add("streak", streak(h))
	lastError := or(h.LastError, "")
	if lastError != "" && h.LastFailureAt != nil {
		lastError += fmt.Sprintf(", %s ago", short(now.Sub(*h.LastFailureAt)))
	}
	add("last error", lastError)
	room := 64 * 2
	if p.width > 0 {
		room = max(p.width-len("last result   "), 1)
	}
	if len(h.Results) > 0 {
		picture, drawn := strip(h.Results, p.marks(), room)
		add("results", picture)
		add("", legend(drawn, p.marks()))
		add("took", latencies(h.Results))
		last := h.Results[len(h.Results)-1]
		add("last result", fmt.Sprintf("%s, %s ago", resultLine(last), short(now.Sub(last.Time))))
	}
	lines = head.lines(p.coloured, p.bound())
	if n := len(h.Results); n > 0 {
		lines = append(lines, p.output(h.Results[n-1].Output)...)
	}
	if len(h.Transitions) > 0 {
		lines = append(append(lines, ""), p.changes(h.Transitions, now)...)
	}
	return lines
}

// changes is a table of the last ones, with the output that came with each.
func (p paper) changes(all []api.HealthTransition, now time.Time) (lines []string) {
	last := all[max(0, len(all)-shownChanges):]
	t := table{header: []string{"WHEN", "FROM", "TO", "WHY"}, tail: p.tail()}
	for _, tr := range last {
		t.add(plain(short(now.Sub(tr.Time))+" ago"), plain(string(tr.From)), cell{string(tr.To), statusColour(tr.To)}, plain(p.text(oneLine(changeWhy(tr)))))
	}
	rows := t.lines(p.coloured, p.width)
	lines = append(lines, rows[0])
	for i, row := range rows[1:] {
		lines = append(append(lines, row), p.output(last[i].Output)...)
	}
	return lines
}

// output is the end of what a check printed, indented.
func (p paper) output(s string) (lines []string) {
	s = strings.TrimRight(clean(s), "\n")
	if s == "" {
		return nil
	}
	all := strings.Split(s, "\n")
	for _, line := range all[max(0, len(all)-shownOutput):] {
		line = "    " + strings.ReplaceAll(line, "\t", "    ")
		if width := p.bound(); width > 0 {
			line = widths.Truncate(line, width, p.tail())
		}
		lines = append(lines, line)
	}
	return lines
}

// strip draws results, the oldest first, and where one stretch of observation ends and the next begins. Those that have no room, the
// oldest, are left out.
func strip(results []api.HealthResult, m marks, room int) (picture string, drawn []api.HealthResult) {
	var cells []string
	for i, r := range slices.Backward(results) {
		mark := m.other
		switch r.Outcome {
		case outcomeSuccess:
			mark = m.success
		case outcomeFailure:
			mark = m.failure
		}
		edge := i+1 < len(results) && results[i+1].Window != r.Window
		next := []string{mark}
		if edge {
			next = []string{m.edge, mark}
		}
		if len(cells)+len(next) > room {
			break
		}
		cells, drawn = append(cells, next...), results[i:]
	}
	slices.Reverse(cells)
	return strings.Join(cells, ""), drawn
}

// legend says what the marks mean, and how many of each there are.
func legend(results []api.HealthResult, m marks) string {
	var well, bad, other int
	edges := false
	for i, r := range results {
		edges = edges || i > 0 && r.Window != results[i-1].Window
		switch r.Outcome {
		case outcomeSuccess:
			well++
		case outcomeFailure:
			bad++
		default:
			other++
		}
	}
	var parts []string
	for _, k := range []struct {
		mark string
		n    int
		text string
	}{{m.success, well, count(well, "success")}, {m.failure, bad, count(bad, "failure")}, {m.other, other, fmt.Sprintf("%d inconclusive", other)}} {
		if k.n > 0 {
			parts = append(parts, k.mark+" "+k.text)
		}
	}
	if edges {
		parts = append(parts, m.edge+" counted anew")
	}
	return strings.Join(parts, ", ")
}

// latencies is how long the checks took that succeeded.
func latencies(results []api.HealthResult) string {
	var took []float64
	for _, r := range results {
		if r.Outcome == outcomeSuccess {
			took = append(took, r.DurationMs)
		}
	}
	if len(took) == 0 {
		return ""
	}
	slices.Sort(took)
	return fmt.Sprintf("p50 %s, max %s (successes)", milliseconds(took[(len(took)-1)/2]), milliseconds(took[len(took)-1]))
}
