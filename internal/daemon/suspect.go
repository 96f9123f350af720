package daemon

import (
	"context"
	"time"

	"github.com/halevm/hale/internal/event"
	"github.com/halevm/hale/internal/health"
)

// healthHooks are what health tells: to the metrics, and of the host to the event log.
func (d *Daemon) healthHooks() health.Hooks {
	h := d.metrics.healthHooks()
	h.Suspected = d.suspected
	return h
}

// suspected writes the event of a suspicion against the host that arose or ended, however long the log takes: it is when everything is slow
// that it arises. Nobody waits for this, and what comes next is told after it. What the daemon's end cuts short its successor ends.
func (d *Daemon) suspected(what health.Suspicion) {
	ctx, failed := d.loops.ctx, false
	for {
		_, err := d.events.Append(ctx, event.TypeHost, "", "", what)
		if err == nil || ctx.Err() != nil {
			return
		}
		if !failed {
			failed = true
			d.log.Error("the event of the suspicion against the host is not on disk; it is tried again", "err", err, "in", loopPause)
		}
		select {
		case <-time.After(loopPause):
		case <-ctx.Done():
			return
		}
	}
}

// unsuspected ends, for whoever reads the log, the suspicion that stood when the last daemon ended: this one begins without.
func (d *Daemon) unsuspected(ctx context.Context, last health.Suspicion) {
	if !last.Suspect {
		return
	}
	ended := health.Suspicion{
		Time: time.Now().UTC().Round(0), Turned: last.Turned, Healthy: last.Healthy,
		Reason: "the daemon that suspected the host has ended",
	}
	if _, err := d.events.Append(ctx, event.TypeHost, "", "", ended); err != nil {
		d.log.Error("the event of the end of a suspicion against the host is not on disk", "err", err)
	}
}
