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

// benchBoot boots hale's machines and bare ones in turn.
func benchBoot(ctx context.Context, s *site) error {
	ref, err := newBare(ctx, s.kernels, s.dir)
	if err != nil {
		return err
	}
	return s.withDaemon(ctx, "boot", func(d *daemon) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		happened := follow(ctx, d)
		var bares, running, healthy []float64
		var all []phases
		for i := range boots + 1 {
			t, err := ref.boot(ctx)
			if err != nil {
				return err
			}
			ours, p, err := bootOnce(ctx, d, happened)
			if err != nil {
				return err
			}
			fmt.Fprintf(os.Stderr, "   bare %v, running %.0f ms, healthy %.0f ms\n", t.Round(time.Millisecond), ours.running, ours.healthy)
			if i == 0 {
				continue // the first finds the files on the disk, and the others in memory
			}
			bares = append(bares, ms(t))
			running, healthy, all = append(running, ours.running), append(healthy, ours.healthy), append(all, p)
		}
		bare := median(bares)
		s.report.add(row{what: "boot: exec of QEMU to `Running`", unit: milliseconds, figure: median(running),
			reference: bare, beside: "bare boot", mostRatio: 1.5, bound: "≤ 1.5 × bare"})
		s.report.add(row{what: "boot: exec of QEMU to `healthy`", unit: milliseconds, figure: median(healthy), reference: bare, beside: "bare boot"})
		s.report.note("Boots: medians of %d, in turn; bare %s, to Running %s, to healthy %s. A bare boot has the same command line, kernel "+
			"and size of initrd, and an /init of 33 bytes of code that writes one line.",
			boots, spread(milliseconds, bares), spread(milliseconds, running), spread(milliseconds, healthy))
		s.report.note("%s", profile(all, bare, median(running)))
		return nil
	})
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
