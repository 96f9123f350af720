package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"
)

// short says a duration in its largest unit: "3s", "2m", "5h", "12d".
func short(d time.Duration) string {
	switch d = max(d, 0); {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return fmt.Sprintf("%dd", d/(24*time.Hour))
}

// size says a number of bytes; a GB is 1024³, as everywhere in hale.
func size(n int64) string {
	units := []string{"B", "KB", "MB", "GB", "TB"}
	f, i := float64(n), 0
	for f >= 1000 && i < len(units)-1 {
		f /= 1024
		i++
	}
	if i == 0 || f >= 10 {
		return fmt.Sprintf("%.0f %s", f, units[i])
	}
	return fmt.Sprintf("%.1f %s", f, units[i])
}

// clean is s without control characters and without marks that turn the direction of the text, but with its newlines and
// tabs: what came from a guest may not speak to the terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && unsafe(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "\ufffd"))
}

// unsafe reports whether a terminal might do something else with r than show it.
func unsafe(r rune) bool {
	return unicode.IsControl(r) || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069
}

// oneLine is clean with all white space made single spaces.
func oneLine(s string) string { return strings.Join(strings.Fields(clean(s)), " ") }

// cut is s, at most n runes of it.
func cut(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:n-1]) + "…"
}

// A colour is an ANSI colour, "" for none.
type colour string

const (
	green  colour = "32"
	yellow colour = "33"
	red    colour = "31"
)

// A cell is one field of a table.
type cell struct {
	text   string
	colour colour
}

func plain(s string) cell { return cell{text: s} }

// A table is aligned when it is written. Cells are written on one line and cleaned.
type table struct {
	header []string
	rows   [][]cell
}

func (t *table) add(row ...cell) { t.rows = append(t.rows, row) }

// write prints the table, in colour where coloured says so.
func (t *table) write(w io.Writer, coloured bool) error {
	all := make([][]cell, 0, len(t.rows)+1)
	if t.header != nil {
		head := make([]cell, len(t.header))
		for i, h := range t.header {
			head[i] = plain(h)
		}
		all = append(all, head)
	}
	all = append(all, t.rows...)
	var widths []int
	for _, row := range all {
		for i := range row {
			row[i].text = oneLine(row[i].text)
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i].text))
		}
	}
	var b strings.Builder
	for _, row := range all {
		space := 0
		for i, c := range row {
			if c.text != "" {
				b.WriteString(strings.Repeat(" ", space))
				b.WriteString(paint(c, coloured))
				space = 0
			}
			space += widths[i] - utf8.RuneCountInString(c.text) + 3
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func paint(c cell, coloured bool) string {
	if !coloured || c.colour == "" || c.text == "" {
		return c.text
	}
	return "\x1b[" + string(c.colour) + "m" + c.text + "\x1b[0m"
}

// terminal returns the descriptor behind a stream if it is a terminal.
func terminal(stream any) (fd int, ok bool) {
	f, ok := stream.(*os.File)
	if !ok {
		return 0, false
	}
	fd = int(f.Fd())
	return fd, term.IsTerminal(fd)
}
