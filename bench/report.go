package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/halevm/hale/internal/host"
	"github.com/halevm/hale/internal/hypervisor/qemu"
	"github.com/halevm/hale/internal/version"
)

// A unit is what figures are told in.
type unit func(float64) string

func milliseconds(v float64) string { return fmt.Sprintf("%.*f ms", digits(v), v) }
func megabytes(v float64) string    { return fmt.Sprintf("%.1f MB", v/1e6) }
func perSecond(v float64) string    { return fmt.Sprintf("%.0f MB/s", v/1e6) }
func ofACore(v float64) string      { return fmt.Sprintf("%.4f%%", 100*v) }
func percent(v float64) string      { return fmt.Sprintf("%.2f%%", 100*v) }

func digits(v float64) int {
	if v < 100 {
		return 1
	}
	return 0
}

// A row is one figure with what it stands beside. Its bound is on the figure, or on its ratio to the reference.
type row struct {
	what      string
	unit      unit
	figure    float64
	reference float64 // 0: none
	beside    string  // what the reference is
	most      float64 // bound on the figure; 0: none
	mostRatio float64 // bound on the ratio; 0: none
	more      bool    // bounds are from below: more is better
	zero      bool    // bound: none at all
	bound     string  // the bound in words, where there is one
}

func (r row) cells() []string {
	reference, ratio, met := "", "", ""
	if r.reference != 0 {
		reference, ratio = r.unit(r.reference)+", "+r.beside, fmt.Sprintf("%.2f", r.figure/r.reference)
	}
	var limit, value float64
	switch {
	case r.zero:
		value = r.figure
	case r.most != 0:
		limit, value = r.most, r.figure
	case r.mostRatio != 0:
		limit, value = r.mostRatio, r.figure/r.reference
	}
	if limit != 0 || r.zero {
		met = "not met"
		if value <= limit && !r.more || value >= limit && r.more {
			met = "met"
		}
	}
	return []string{r.what, r.unit(r.figure), reference, ratio, r.bound, met}
}

// A report is the outcome of one run.
type report struct {
	began   time.Time
	machine []string
	load    string // how many processes wanted a processor, over the minute before the run
	rows    []row
	notes   []string
}

func newReport(ctx context.Context) (*report, error) {
	r := &report{began: time.Now()}
	var err error
	if r.machine, err = describe(ctx); err != nil {
		return nil, err
	}
	b, err := os.ReadFile("/proc/loadavg")
	r.load, _, _ = strings.Cut(string(b), " ")
	return r, err
}

func (r *report) add(w row) {
	r.rows = append(r.rows, w)
	fmt.Fprintln(os.Stderr, "  ", strings.Join(w.cells(), " | "))
}

func (r *report) note(format string, args ...any) {
	r.notes = append(r.notes, fmt.Sprintf(format, args...))
}

func (r *report) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Benches of %s, hale %s\n\n", r.began.UTC().Format(time.DateOnly), version.String())
	for _, m := range r.machine {
		fmt.Fprintln(&b, "- "+m)
	}
	fmt.Fprintf(&b, "- the run took %v; load of the host before it: %s\n\n", time.Since(r.began).Round(time.Second), r.load)
	table := [][]string{{"what", "hale", "reference, in the same run", "ratio", "bound", "is"}}
	for _, w := range r.rows {
		table = append(table, w.cells())
	}
	for i, cells := range table {
		fmt.Fprintln(&b, "| "+strings.Join(cells, " | ")+" |")
		if i == 0 {
			fmt.Fprintln(&b, strings.Repeat("|---", len(cells))+"|")
		}
	}
	if len(r.notes) > 0 {
		fmt.Fprintln(&b)
	}
	for _, n := range r.notes {
		fmt.Fprintln(&b, n)
	}
	return b.String()
}

// write writes the table beside those of other runs, under the day's name.
func (r *report) write(dir, text string) (string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	for n := 1; ; n++ {
		name := r.began.UTC().Format(time.DateOnly)
		if n > 1 {
			name += fmt.Sprintf("-%d", n)
		}
		path := filepath.Join(dir, name+".md")
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		_, err = f.WriteString(text)
		return path, errors.Join(err, f.Close())
	}
}

// describe says on what the figures were taken: nothing that names the host.
func describe(ctx context.Context) ([]string, error) {
	path, err := host.QEMU()
	if err != nil {
		return nil, err
	}
	version, err := qemu.Version(ctx, path)
	if err != nil {
		return nil, err
	}
	accel, why := qemu.Detect(ctx)
	accelerator := string(accel)
	if why != "" {
		accelerator += " (" + why + ")"
	}
	var u unix.Utsname
	var info unix.Sysinfo_t
	if err := errors.Join(unix.Uname(&u), unix.Sysinfo(&info)); err != nil {
		return nil, err
	}
	release := unix.ByteSliceToString(u.Release[:])
	if i := strings.IndexFunc(release, func(r rune) bool { return r != '.' && (r < '0' || r > '9') }); i > 0 {
		release = release[:i] // what follows may name whoever built it
	}
	return []string{
		fmt.Sprintf("processor: %s, %d cores", processor(), runtime.NumCPU()),
		fmt.Sprintf("memory: %d GiB", (uint64(info.Totalram)*uint64(info.Unit)+1<<29)>>30),
		"kernel: Linux " + release,
		"QEMU: " + version + ", accelerator: " + accelerator,
		fmt.Sprintf("machines of %d MB and %d processors", machineMemory>>20, machineVCPUs),
	}, nil
}

func processor() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err == nil {
		for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
			if name, value, _ := strings.Cut(lines.Text(), ":"); strings.TrimSpace(name) == "model name" {
				return strings.TrimSpace(value)
			}
		}
	}
	return "unknown"
}

// median of at least one value.
func median(values []float64) float64 {
	v := slices.Sorted(slices.Values(values))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

// spread is the least and the largest.
func spread(u unit, values []float64) string {
	return u(slices.Min(values)) + " to " + u(slices.Max(values))
}
