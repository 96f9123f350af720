package main

import (
	"context"
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
		var bares, running, healthy []float64
		var all []phases
		for i := range boots + 1 {
			t, err := ref.boot(ctx)
			if err != nil {
				return err
			}
			ours, p, err := bootOnce(ctx, d)
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
func bootOnce(ctx context.Context, d *daemon) (times, phases, error) {
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
	t, err := d.timesOf(ctx, in.ID, began)
	if err != nil {
		return t, nil, err
	}
	console, err := d.console(in.ID)
	if err != nil {
		return t, nil, err
	}
	return t, phasesIn(console), d.DeleteInstance(ctx, in.ID, false)
}

// timesOf asks when an instance became what: its window of health began with its entry into Running.
func (d *daemon) timesOf(ctx context.Context, id string, began time.Time) (times, error) {
	h, err := d.InstanceHealth(ctx, id)
	if err != nil {
		return times{}, err
	}
	if h.Status != api.HealthStateHealthy || h.WindowStartedAt == nil || h.Since == nil {
		return times{}, fmt.Errorf("%s is %s", id, h.Status)
	}
	return times{running: ms(h.WindowStartedAt.Sub(began)), healthy: ms(h.Since.Sub(began))}, nil
}
