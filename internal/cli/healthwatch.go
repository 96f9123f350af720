package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/halevm/hale/api"
)

// watchPace is how often a health is looked at while somebody watches it. Single results are no events, so it is asked for.
const watchPace = 500 * time.Millisecond

// watchHealth shows an instance's health until ctx is done or there is no such instance any more, also where another has its name by
// then. A daemon that goes away is waited for.
func (a *app) watchHealth(ctx context.Context, inst api.Instance) error {
	var w watcher = &lineWatcher{out: a.Stdout, name: inst.Name, paper: a.paper}
	if _, ok := terminal(a.Stdout); ok && a.Getenv("TERM") != "dumb" {
		w = &screen{app: a, name: inst.Name}
	}
	defer w.close()
	away := false
	for {
		h, err := a.lookAtHealth(ctx, inst.ID)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil:
			away = false
			if err := w.show(h, time.Now()); err != nil {
				return err
			}
		case gone(err):
			return exitStatus{exitNotFound, fmt.Errorf("there is no %s any more", inst.Name)}
		case codeOf(err) != exitUnreachable:
			return err
		case !away:
			away = true
			w.say(goneAway)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(watchPace):
		}
	}
}

func (a *app) lookAtHealth(ctx context.Context, id string) (api.InstanceHealth, error) {
	c, err := a.client() // each time: a daemon that comes back may be at another address
	if err != nil {
		return api.InstanceHealth{}, err
	}
	ctx, cancel := patient(ctx, c, 0)
	defer cancel()
	return c.InstanceHealth(ctx, id)
}

// A watcher is where a health is shown as it changes.
type watcher interface {
	show(h api.InstanceHealth, now time.Time) error
	say(text string)
	close()
}

// A screen draws the picture over the one before.
type screen struct {
	app   *app
	name  string
	drawn []string // the lines that are there
	note  string
}

func (s *screen) show(h api.InstanceHealth, now time.Time) error {
	s.note = ""
	p := s.app.paper()
	p.cut = true
	return s.draw(append([]string{s.name, ""}, healthView(h, now, p)...))
}

func (s *screen) say(text string) {
	s.note = text
	s.draw(s.drawn) // what fails here fails at the next picture
}

// draw replaces what is there in one write, so that nothing flickers.
func (s *screen) draw(lines []string) error {
	rows, cols := windowSize(s.app.Stdout)
	if s.note != "" {
		lines = append(slices.Clone(lines), "", s.note)
	}
	if most := int(rows) - 1; rows > 0 && len(lines) > most {
		lines = lines[:max(most, 1)] // what has scrolled away cannot be drawn over
	}
	if slices.Equal(lines, s.drawn) {
		return nil
	}
	var b strings.Builder
	if n := heightOf(s.drawn, int(cols)); n > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", n)
	}
	b.WriteByte('\r')
	for _, line := range lines {
		b.WriteString(line + "\x1b[K\n")
	}
	b.WriteString("\x1b[J")
	s.drawn = lines
	_, err := io.WriteString(s.app.Stdout, b.String())
	return err
}

// heightOf is how many rows lines take now: the terminal may have become narrower since they were drawn.
func heightOf(lines []string, cols int) (rows int) {
	for _, line := range lines {
		rows++
		if n := widths.StringWidth(unpainted(line)); cols > 0 && n > cols {
			rows += (n - 1) / cols
		}
	}
	return rows
}

// unpainted is a line without its colours.
func unpainted(s string) string {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(s, "\x1b[")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		_, s, _ = strings.Cut(after, "m")
	}
}

// close leaves the cursor at the beginning of a line of its own, without the ^C that the terminal wrote there.
func (s *screen) close() { io.WriteString(s.app.Stdout, "\r\x1b[K") }

// A lineWatcher prints a line for each result and each change that it has not printed yet.
type lineWatcher struct {
	out   io.Writer
	name  string
	paper func() paper
	begun bool
	known map[resultKey]bool // the results of the last list that had some
	n     uint64             // of the last change
}

// A resultKey tells a result from the others of its instance.
type resultKey struct {
	window uint64
	time   int64 // nanoseconds: what is the same moment is the same key
}

func (w *lineWatcher) show(h api.InstanceHealth, now time.Time) error {
	p := w.paper()
	var lines []timed
	results, missed := w.news(h.Results)
	if missed {
		lines = append(lines, timed{h.Results[0].Time, "older results were missed"})
	}
	var changes []timed
	for _, tr := range h.Transitions {
		if tr.N > w.n && w.begun {
			changes = append(changes, timed{tr.Time, changeLine(tr)})
		}
		w.n = max(w.n, tr.N)
	}
	if w.begun {
		for _, r := range results {
			lines = append(lines, timed{r.Time.Add(time.Duration(r.DurationMs * float64(time.Millisecond))), resultLine(r)})
		}
	} else {
		lines = append(lines, timed{now, statusCell(h, now).text + "; " + checkText(h.HealthCheck, string(h.HealthCheckSource))})
	}
	w.begun = true
	for _, l := range merged(lines, changes) {
		if err := w.print(l, p); err != nil {
			return err
		}
	}
	return nil
}

// news is what of a list was not in the one before: what follows the last that was. Their times do not say, for the host's clock may
// have been set back; and a daemon that was killed may have forgotten the newest.
func (w *lineWatcher) news(results []api.HealthResult) (news []api.HealthResult, missed bool) {
	if len(results) == 0 {
		return nil, false
	}
	from, known := 0, make(map[resultKey]bool, len(results))
	for i, r := range results {
		k := resultKey{r.Window, r.Time.UnixNano()}
		if known[k] = true; w.known[k] {
			from = i + 1
		}
	}
	missed = from == 0 && w.known != nil
	w.known = known
	return results[from:], missed
}

// merged puts two lists into one by their times, and leaves each in its order.
func merged(a, b []timed) []timed {
	all := make([]timed, 0, len(a)+len(b))
	for len(a)+len(b) > 0 {
		if len(a) == 0 || len(b) > 0 && b[0].at.Before(a[0].at) {
			all, b = append(all, b[0]), b[1:]
			continue
		}
		all, a = append(all, a[0]), a[1:]
	}
	return all
}

func (w *lineWatcher) say(text string) { w.print(timed{time.Now(), text}, w.paper()) }

func (w *lineWatcher) close() {}

// timed is a line that belongs to a moment.
type timed struct {
	at   time.Time
	text string
}

func (w *lineWatcher) print(l timed, p paper) error {
	_, err := fmt.Fprintln(w.out, p.text(oneLine(fmt.Sprintf("%s %s %s", l.at.Local().Format("15:04:05.000"), w.name, l.text))))
	return err
}
