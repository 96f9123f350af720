package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/halevm/hale/api"
)

// watchPace is how often a health is looked at while somebody watches it. Single results are no events, so it is asked for.
const watchPace = 500 * time.Millisecond

// watchHealth shows an instance's health until ctx is done or there is no such instance any more. A daemon that goes away is waited for.
func (a *app) watchHealth(ctx context.Context, name string) error {
	var w watcher = &lineWatcher{out: a.Stdout, name: name, paper: a.paper}
	if _, ok := terminal(a.Stdout); ok && a.Getenv("TERM") != "dumb" {
		w = &screen{app: a, name: name}
	}
	defer w.close()
	seen, away := false, false
	for {
		h, err := a.lookAtHealth(ctx, name)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil:
			seen, away = true, false
			if err := w.show(h, time.Now()); err != nil {
				return err
			}
		case errors.Is(err, api.NotFound) && seen:
			return exitStatus{exitNotFound, fmt.Errorf("there is no %s any more", name)}
		case !seen || codeOf(err) != exitUnreachable:
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

func (a *app) lookAtHealth(ctx context.Context, name string) (api.InstanceHealth, error) {
	c, err := a.client() // each time: a daemon that comes back may be at another address
	if err != nil {
		return api.InstanceHealth{}, err
	}
	return c.InstanceHealth(ctx, name)
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
	out    io.Writer
	name   string
	paper  func() paper
	begun  bool
	window uint64 // of the last result that was printed
	time   time.Time
	n      uint64 // of the last change
}

func (w *lineWatcher) show(h api.InstanceHealth, now time.Time) error {
	p := w.paper()
	var lines []timed
	missed := len(h.Results) > 0
	for _, r := range h.Results {
		if known := r.Window < w.window || r.Window == w.window && !r.Time.After(w.time); known {
			missed = false
			continue
		}
		if w.begun {
			lines = append(lines, timed{r.Time.Add(time.Duration(r.DurationMs * float64(time.Millisecond))), resultLine(r)})
		}
	}
	for _, tr := range h.Transitions {
		if tr.N > w.n && w.begun {
			lines = append(lines, timed{tr.Time, changeLine(tr)})
		}
		w.n = max(w.n, tr.N)
	}
	if missed && w.begun && !w.time.IsZero() {
		lines = append(lines, timed{h.Results[0].Time, "older results were missed"})
	}
	if n := len(h.Results); n > 0 {
		w.window, w.time = h.Results[n-1].Window, h.Results[n-1].Time
	}
	slices.SortStableFunc(lines, func(a, b timed) int { return a.at.Compare(b.at) })
	if !w.begun {
		lines = append(lines, timed{now, statusCell(h, now).text + "; " + checkText(h.HealthCheck, string(h.HealthCheckSource))})
	}
	w.begun = true
	for _, l := range lines {
		if err := w.print(l, p); err != nil {
			return err
		}
	}
	return nil
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

// changeLine is a change of status, or of its being stale, in a line.
func changeLine(tr api.HealthTransition) string {
	s := fmt.Sprintf("%s → %s", tr.From, tr.To)
	if tr.From == tr.To {
		s = string(tr.To) + ", no longer stale"
		if tr.Stale != "" {
			s = string(tr.To) + ", stale: " + strings.ReplaceAll(tr.Stale, "_", " ")
		}
	}
	if tr.Reason != "" {
		s += ": " + tr.Reason
	}
	return s
}
