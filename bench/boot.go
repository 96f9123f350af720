package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/halevm/hale/api"
)

const boots = 10

// times are of one of hale's boots, from QEMU's start, in ms. worked is the processor time of QEMU to Running: what else the
// host does hardly shows in it.
type times struct{ running, healthy, worked float64 }

// A fleet is the boots of one build.
type fleet struct {
	d                        *daemon
	happened                 *timeline
	running, healthy, worked []float64
	phases                   []phases
}

// boot boots one machine; the first finds its files on the disk, the others in memory: it does not count.
func (f *fleet) boot(ctx context.Context, counts bool) error {
	t, p, err := bootOnce(ctx, f.d, f.happened)
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "   running %.0f ms, healthy %.0f ms, %.0f ms of work\n", t.running, t.healthy, t.worked)
	if counts {
		f.running, f.healthy = append(f.running, t.running), append(f.healthy, t.healthy)
		f.worked, f.phases = append(f.worked, t.worked), append(f.phases, p)
	}
	return nil
}

// benchBoot boots hale's machines and bare ones in turn, and those of another build where there is one.
func benchBoot(ctx context.Context, s *site) error {
	ref, err := newBare(ctx, s.kernels, s.dir)
	if err != nil {
		return err
	}
	return s.withDaemon(ctx, "boot", func(d *daemon) error {
		if s.against == "" {
			return s.boots(ctx, ref, d, nil)
		}
		other := *s
		other.binary = s.against
		return other.withDaemon(ctx, "boot-against", func(o *daemon) error { return s.boots(ctx, ref, d, o) })
	})
}

func (s *site) boots(ctx context.Context, ref *bare, d, other *daemon) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	fleets := []*fleet{{d: d, happened: follow(ctx, d)}}
	if other != nil {
		fleets = append(fleets, &fleet{d: other, happened: follow(ctx, other)})
	}
	var bares, work []float64
	for i := range boots + 1 {
		t, worked, err := ref.boot(ctx)
		if err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "   bare %v, %v of work\n", t.Round(time.Millisecond), worked.Round(time.Millisecond))
		if i > 0 {
			bares, work = append(bares, ms(t)), append(work, ms(worked))
		}
		for _, f := range fleets {
			if err := f.boot(ctx, i > 0); err != nil {
				return err
			}
		}
	}
	ours, bare := fleets[0], median(bares)
	s.report.add(row{what: "boot: exec of QEMU to `Running`", unit: milliseconds, figure: median(ours.running),
		reference: bare, beside: "bare boot", mostRatio: 1.5, bound: "≤ 1.5 × bare"})
	s.report.add(row{what: "boot: exec of QEMU to `healthy`", unit: milliseconds, figure: median(ours.healthy), reference: bare, beside: "bare boot"})
	s.report.add(row{what: "boot: processor time of QEMU to `Running`", unit: milliseconds, figure: median(ours.worked), reference: median(work), beside: "bare boot"})
	s.report.note("Boots: medians of %d, in turn; bare %s, to Running %s, to healthy %s. A bare boot has the same command line, kernel "+
		"and size of initrd, and an /init of 33 bytes of code that writes one line.",
		boots, spread(milliseconds, bares), spread(milliseconds, ours.running), spread(milliseconds, ours.healthy))
	s.report.note("%s", profile(ours.phases, bare, median(ours.running)))
	if other != nil {
		o := fleets[1]
		s.report.add(row{what: "boot: exec of QEMU to `Running`", unit: milliseconds, figure: median(ours.running), reference: median(o.running), beside: "the other build"})
		s.report.add(row{what: "boot: processor time of QEMU to `Running`", unit: milliseconds, figure: median(ours.worked), reference: median(o.worked), beside: "the other build"})
		s.report.note("The other build: %s", profile(o.phases, bare, median(o.running)))
	}
	return nil
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// bootOnce makes an instance, and deletes it when it is healthy.
func bootOnce(ctx context.Context, d *daemon, happened *timeline) (times, phases, error) {
	in, err := d.create(ctx, api.CreateInstanceRequest{Name: "boot", Image: "bench/guest"})
	if err != nil {
		return times{}, nil, err
	}
	t, err := happened.times(d, in.ID)
	if err != nil {
		return t, nil, err
	}
	console, err := d.console(in.ID)
	if err != nil {
		return t, nil, err
	}
	return t, phasesIn(console), d.DeleteInstance(ctx, in.ID, false)
}

// A timeline is when instances became what, by the log of events.
type timeline struct {
	seen   chan api.Event
	failed chan error
}

// follow reads the log until ctx is done, from now on: a machine takes seconds to come up, and the stream is there by then.
func follow(ctx context.Context, d *daemon) *timeline {
	t := &timeline{seen: make(chan api.Event, 64), failed: make(chan error, 1)}
	go func() {
		for e, err := range d.Events(ctx, "") {
			if err != nil {
				t.failed <- err
				return
			}
			if e.Type == "state" || e.Type == "health" {
				t.seen <- e
			}
		}
	}()
	return t
}

// times waits for both of an instance.
func (t *timeline) times(d *daemon, id string) (times, error) {
	var at times
	var start time.Time
	limit := time.After(bootPatience)
	for {
		select {
		case e := <-t.seen:
			if e.Instance != id {
				continue
			}
			var c struct{ To string }
			if err := json.Unmarshal(e.Data, &c); err != nil {
				return at, err
			}
			switch c.To {
			case "Running":
				pid, err := d.qemuOf(id)
				if err != nil {
					return at, err
				}
				began, err := startOf(pid)
				if err != nil {
					return at, err
				}
				worked, err := cpuTime(pid)
				if err != nil {
					return at, err
				}
				at.running, at.worked, start = ms(e.Time.Sub(began)), ms(worked), began
			case "healthy":
				at.healthy = ms(e.Time.Sub(start))
				return at, nil
			}
		case err := <-t.failed:
			return at, err
		case <-limit:
			return at, fmt.Errorf("no event tells that %s is healthy", id)
		}
	}
}
