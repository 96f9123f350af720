package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode"

	"github.com/mattn/go-runewidth"
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

// widths are of text without regard to where the terminal stands: what is ambiguous takes one column.
var widths = runewidth.Condition{StrictEmojiNeutral: true}

// ellipsis says that something is left out.
const ellipsis = "…"

// cut is s, at most n columns of it.
func cut(s string, n int) string { return widths.Truncate(s, n, ellipsis) }

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
	tail   string // of what is cut
}

func (t *table) add(row ...cell) { t.rows = append(t.rows, row) }

// least is how narrow fit makes a column.
const least = 10

// fit cuts cells of the given columns, in that order, until a line has no more than width columns, or they are as narrow as may be; 0 is no bound.
func (t *table) fit(width int, columns ...int) {
	sizes := make([]int, len(t.header))
	over := -width - 3
	for i, h := range t.header {
		sizes[i] = widths.StringWidth(h)
		for _, row := range t.rows {
			row[i].text = oneLine(row[i].text)
			sizes[i] = max(sizes[i], widths.StringWidth(row[i].text))
		}
		over += sizes[i] + 3
	}
	for _, i := range columns {
		if width == 0 || over <= 0 {
			return
		}
		size := max(sizes[i]-over, least, widths.StringWidth(t.header[i]))
		for _, row := range t.rows {
			row[i].text = cut(row[i].text, size)
		}
		over -= max(sizes[i]-size, 0)
	}
}

// write prints the table, in colour where coloured says so.
func (t *table) write(w io.Writer, coloured bool) error {
	_, err := io.WriteString(w, strings.Join(append(t.lines(coloured, 0), ""), "\n"))
	return err
}

// lines are the table's, each of at most width columns; 0 is no bound. What is cut is the last cell.
func (t *table) lines(coloured bool, width int) []string {
	all := make([][]cell, 0, len(t.rows)+1)
	if t.header != nil {
		head := make([]cell, len(t.header))
		for i, h := range t.header {
			head[i] = plain(h)
		}
		all = append(all, head)
	}
	all = append(all, t.rows...)
	var columns []int
	for _, row := range all {
		for i := range row {
			row[i].text = oneLine(row[i].text)
			if i == len(columns) {
				columns = append(columns, 0)
			}
			columns[i] = max(columns[i], widths.StringWidth(row[i].text))
		}
	}
	lines := make([]string, 0, len(all))
	for _, row := range all {
		var b strings.Builder
		space, at := 0, 0
		for i, c := range row {
			if c.text != "" {
				at += space
				if width > 0 && at+widths.StringWidth(t.tail) > width {
					break // there is no room for it, nor for a mark that it is left out
				}
				if width > 0 {
					c.text = widths.Truncate(c.text, width-at, t.tail)
				}
				b.WriteString(strings.Repeat(" ", space))
				b.WriteString(paint(c, coloured))
				at += widths.StringWidth(c.text)
				space = 0
			}
			space += columns[i] - widths.StringWidth(c.text) + 3
		}
		lines = append(lines, b.String())
	}
	return lines
}

func paint(c cell, coloured bool) string {
	if !coloured || c.colour == "" || c.text == "" {
		return c.text
	}
	return "\x1b[" + string(c.colour) + "m" + c.text + "\x1b[0m"
}

// terminal returns the descriptor behind a stream if it is a terminal.
func terminal(stream any) (fd int, ok bool) {
	if o, ok := stream.(*output); ok {
		stream = o.Writer
	}
	f, ok := stream.(*os.File)
	if !ok {
		return 0, false
	}
	fd = int(f.Fd())
	return fd, term.IsTerminal(fd)
}
