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

// times are of one of hale's boots, from QEMU's start.
type times struct{ running, healthy float64 }

// A fleet is the boots of one build.
type fleet struct {
	d                *daemon
	happened         *timeline
	running, healthy []float64
	phases           []phases
}

// boot boots one machine; the first finds its files on the disk, the others in memory: it does not count.
func (f *fleet) boot(ctx context.Context, counts bool) error {
	t, p, err := bootOnce(ctx, f.d, f.happened)
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "   running %.0f ms, healthy %.0f ms\n", t.running, t.healthy)
	if counts {
		f.running, f.healthy, f.phases = append(f.running, t.running), append(f.healthy, t.healthy), append(f.phases, p)
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
	var bares []float64
	for i := range boots + 1 {
		t, err := ref.boot(ctx)
		if err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "   bare %v\n", t.Round(time.Millisecond))
		if i > 0 {
			bares = append(bares, ms(t))
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
	s.report.note("Boots: medians of %d, in turn; bare %s, to Running %s, to healthy %s. A bare boot has the same command line, kernel "+
		"and size of initrd, and an /init of 33 bytes of code that writes one line.",
		boots, spread(milliseconds, bares), spread(milliseconds, ours.running), spread(milliseconds, ours.healthy))
	s.report.note("%s", profile(ours.phases, bare, median(ours.running)))
	if other != nil {
		o := fleets[1]
		s.report.add(row{what: "boot: exec of QEMU to `Running`", unit: milliseconds, figure: median(ours.running), reference: median(o.running), beside: "the other build"})
		s.report.note("The other build: %s", profile(o.phases, bare, median(o.running)))
	}
	return nil
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// bootOnce makes an instance and deletes it when it is healthy.
func bootOnce(ctx context.Context, d *daemon, happened *timeline) (times, phases, error) {
	in, err := d.healthy(ctx, api.CreateInstanceRequest{Name: "boot", Image: "bench/guest"})
	if err != nil {
		return times{}, nil, err
	}
	shim, err := d.shimOf(in.ID)
	if err != nil {
		return times{}, nil, err
	}
	pid, err := childOf(shim)
	if err != nil {
		return times{}, nil, err
	}
	began, err := startOf(pid)
	if err != nil {
		return times{}, nil, err
	}
	t, err := happened.times(in.ID, began)
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

// follow reads the log until ctx is done. What happens before the stream is there is not seen: the first machine, which takes
// seconds to come up, does not count.
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
func (t *timeline) times(id string, began time.Time) (times, error) {
	var at times
	limit := time.After(10 * time.Second)
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
				at.running = ms(e.Time.Sub(began))
			case "healthy":
				at.healthy = ms(e.Time.Sub(began))
				return at, nil
			}
		case err := <-t.failed:
			return at, err
		case <-limit:
			return at, fmt.Errorf("no event tells that %s is healthy", id)
		}
	}
}
