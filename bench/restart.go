package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/halevm/hale/api"
)

// benchRestart restarts a daemon that watches many instances, and looks what they and their checks notice of it.
func benchRestart(ctx context.Context, s *site) error {
	return s.withCrowd(ctx, "restart", restartInstances, restartInterval, func(f *crowd) error {
		if err := pause(ctx, restartInterval); err != nil {
			return err
		}
		before, err := f.health(ctx)
		if err != nil {
			return err
		}
		for _, d := range f.daemons {
			if err := d.restart(); err != nil {
				return err
			}
		}
		ready := time.Now()
		patience := min(restartInterval, 30*time.Second) + time.Second
		// A probe that was due just before the daemon was ready may come as late after it.
		if err := pause(ctx, restartInterval+patience+2*time.Second); err != nil {
			return err
		}
		after, err := f.health(ctx)
		if err != nil {
			return err
		}
		const buckets = 10
		flips, late, worst := 0, 0, time.Duration(0)
		var first [buckets]int
		for i := range before {
			b, a := before[i], after[i]
			if a.Status != api.HealthStateHealthy || b.Status != a.Status || changes(a) != changes(b) || !a.Since.Equal(*b.Since) {
				flips++
			}
			due := ready
			if n := len(b.Results); n > 0 {
				last := b.Results[n-1]
				due = later(due, last.Time.Add(time.Duration(last.DurationMs*float64(time.Millisecond))+restartInterval))
			}
			j := slices.IndexFunc(a.Results, func(r api.HealthResult) bool { return r.Time.After(ready) })
			if j < 0 {
				late++
				continue
			}
			at := a.Results[j].Time
			worst = max(worst, at.Sub(due))
			if at.Sub(due) > patience {
				late++
			}
			first[min(int(at.Sub(ready)*buckets/restartInterval), buckets-1)]++
		}
		what := fmt.Sprintf("%d instances at %v, the daemon restarted: ", restartInstances, restartInterval)
		s.report.add(row{what: what + "statuses that changed", unit: plain, figure: float64(flips), zero: true, bound: "none"})
		s.report.add(row{what: what + "not probed in time", unit: plain, figure: float64(late), zero: true, bound: "none"})
		s.report.add(row{what: "the latest first probe, after ready or its due time", unit: seconds, figure: worst.Seconds(), most: patience.Seconds(), bound: "≤ min(interval, 30 s) + 1 s"})
		s.report.add(row{what: "first probes in the fullest tenth of an interval", unit: plain, figure: float64(slices.Max(first[:])), reference: restartInstances / buckets, beside: "even"})
		return nil
	})
}

// changes counts the transitions that are not those of staleness, whose end after a restart is one too.
func changes(h api.InstanceHealth) int {
	n := 0
	for _, t := range h.Transitions {
		if t.From != t.To {
			n++
		}
	}
	return n
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// healthOf returns what is known of each instance's health.
func (d *daemon) healthOf(ctx context.Context, fleet []api.Instance) ([]api.InstanceHealth, error) {
	all, failed := make([]api.InstanceHealth, len(fleet)), make([]error, len(fleet))
	slots := make(chan struct{}, 8)
	var group sync.WaitGroup
	for i, in := range fleet {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			all[i], failed[i] = d.InstanceHealth(ctx, in.ID)
		})
	}
	group.Wait()
	return all, errors.Join(failed...)
}
