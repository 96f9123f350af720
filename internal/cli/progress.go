package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/halevm/hale/api"
)

// A progress shows on stderr what takes long: a bar for each step on a terminal, a line for each step elsewhere.
// One goroutine at a time uses it.
type progress struct {
	out   io.Writer
	bars  *mpb.Progress // nil where there is no terminal
	bar   *mpb.Bar
	total int64 // of bar's step, as it was told last; 0: not known
	quiet bool
	phase string // the last image status that was shown
}

func (a *app) progress(ctx context.Context, quiet bool) *progress {
	p := &progress{out: a.Stderr, quiet: quiet}
	if _, ok := terminal(a.Stderr); ok && !quiet {
		p.bars = mpb.NewWithContext(ctx, mpb.WithOutput(a.Stderr), mpb.WithWidth(40))
	}
	return p
}

// step ends the step before and begins one; a total of 0 is not known.
func (p *progress) step(what string, total int64) {
	if p.quiet {
		return
	}
	p.finish()
	if p.bars == nil {
		fmt.Fprintln(p.out, oneLine(what))
		return
	}
	p.total = total
	// What a step takes becomes known while it goes on, and a bar that is made with a total is over when that is reached.
	p.bar = p.bars.New(0, mpb.BarStyle().Lbound("").Rbound("").Filler("━").Tip("━").Padding("─"),
		mpb.PrependDecorators(decor.Name(oneLine(what)+"  ", decor.WCSyncSpaceR)),
		mpb.AppendDecorators(decor.Any(counters)))
	p.bar.SetTotal(total, false)
}

// counters is how much of how much, where that is known.
func counters(s decor.Statistics) string {
	switch {
	case s.Current == 0:
		return ""
	case s.Total <= 0 || s.Total == s.Current:
		return " " + size(s.Current)
	}
	return " " + size(s.Current) + " of " + size(s.Total)
}

// say prints a line above the bar.
func (p *progress) say(text string) {
	out := p.out
	if p.bars != nil {
		out = p.bars
	}
	fmt.Fprintln(out, oneLine(text))
}

// sent says how far the step is, in bytes.
func (p *progress) sent(n int64) {
	if p.bar != nil {
		p.bar.SetCurrent(n)
	}
}

// image shows where an image is on its way.
func (p *progress) image(img api.Image) {
	total := int64(0)
	if img.Progress != nil {
		total = or(img.Progress.TotalBytes, 0)
	}
	phase := string(img.Status)
	if n := or(img.QueuePosition, 0); n > 0 {
		phase += fmt.Sprintf(" (%d in line)", n)
	}
	if phase != p.phase {
		p.phase = phase
		p.step(phase+" "+img.Name, total)
	}
	if p.bar != nil && img.Progress != nil {
		p.total = total
		p.bar.SetTotal(total, false)
		p.bar.SetCurrent(img.Progress.DoneBytes)
	}
}

// finish ends the present step: whatever was heard of it last, all of it is done.
func (p *progress) finish() {
	switch {
	case p.bar == nil:
		return
	case p.total > 0:
		p.bar.SetCurrent(p.total)
		p.bar.SetTotal(p.total, true)
	case p.bar.Current() > 0:
		p.bar.SetTotal(-1, true) // what came is all
	default:
		p.bar.Abort(true) // it was over before anything was heard of it
	}
	p.bar = nil
}

// done ends the last step well.
func (p *progress) done(what string) {
	p.finish()
	if p.bars == nil && !p.quiet {
		fmt.Fprintln(p.out, oneLine(what))
	}
}

// close leaves the terminal as it was.
func (p *progress) close() {
	if p.bar != nil {
		p.bar.Abort(false)
		p.bar = nil
	}
	if p.bars != nil {
		p.bars.Wait()
	}
}
