package shim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/halevm/hale/internal/health"
)

// A disk is one that is full or not, below a hypervisor that stops at a write that finds no room.
type disk struct {
	*diskFull
	mu    sync.Mutex
	full  bool
	hangs bool // the hypervisor does not answer
	tries []time.Duration
	said  []string
	begun time.Time
}

func newDisk(t *testing.T) *disk {
	d := &disk{begun: time.Now()}
	d.diskFull = newDiskFull(d.goOn, func(_ slog.Level, message string) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.said = append(d.said, fmt.Sprint(time.Since(d.begun), " ", message))
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); d.run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return d
}

func (d *disk) set(full, hangs bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.full, d.hangs = full, hangs
}

func (d *disk) goOn() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tries = append(d.tries, time.Since(d.begun))
	if d.hangs {
		return errors.New("qemu does not answer")
	}
	if d.full {
		go func() { time.Sleep(10 * time.Millisecond); d.found() }() // the write is tried again
	}
	return nil
}

// told is what was said so far.
func (d *disk) told() []string {
	synctest.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.said)
}

const (
	stands = "the host's disk is full: the machine stands still, and goes on when there is room"
	goesOn = "the host's disk has room again: the machine goes on"
)

// However long the disk is full, and however often going on is tried, that is told once.
func TestFullDiskIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk(t)
		d.set(true, false)
		for range 5 { // as many writes as were under way
			d.found()
		}
		if got := d.told(); !slices.Equal(got, []string{"0s " + stands}) {
			t.Errorf("told %q", got)
		}
		time.Sleep(time.Minute)
		d.set(true, true)
		time.Sleep(10*time.Second + 200*time.Millisecond)
		d.set(false, false)
		time.Sleep(10 * time.Second)
		if got := d.told(); len(got) != 2 || got[1] != "1m11.5s "+goesOn {
			t.Errorf("told %q", got)
		}
		d.mu.Lock()
		tries := d.tries
		d.mu.Unlock()
		for i, at := range tries {
			if i > 0 && at-tries[i-1] < time.Second {
				t.Errorf("tried at %v and %v", tries[i-1], at)
			}
		}
		if n := len(tries); n < 40 || n > 71 {
			t.Errorf("%d tries", n)
		}
		d.found() // a second time
		time.Sleep(10 * time.Second)
		if got := d.told(); len(got) != 4 {
			t.Errorf("told %q", got)
		}
	})
}

// While the machine stands still a check says nothing of the workload, also one that began before; a success is one.
func TestProbeOfAMachineThatStandsStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk(t)
		failed := health.Result{Outcome: health.Failure, Reason: "timeout"}
		well := health.Result{Outcome: health.Success}
		is := func(name string, r, want health.Result) {
			t.Helper()
			if r.Outcome != want.Outcome || r.Cause != want.Cause || want.Outcome == health.Inconclusive && (r.Reason == "" || r.Start.IsZero()) {
				t.Errorf("%s: %+v", name, r)
			}
		}
		full := health.Result{Outcome: health.Inconclusive, Cause: health.CauseDiskFull}
		is("before", d.probe(func() health.Result { return failed }), failed)
		is("stops meanwhile", d.probe(func() health.Result { d.set(true, false); d.found(); return failed }), full)
		is("stands", d.probe(func() health.Result { t.Error("asked"); return well }), full)
		time.Sleep(5 * time.Second)
		is("stands on", d.probe(func() health.Result { t.Error("asked"); return well }), full)
		d.set(false, false)
		time.Sleep(5 * time.Second)
		is("goes on", d.probe(func() health.Result { return failed }), failed)
		is("stood still meanwhile", d.probe(func() health.Result { d.found(); time.Sleep(5 * time.Second); return failed }), full)
		is("answered all the same", d.probe(func() health.Result { d.found(); return well }), well)
	})
}
