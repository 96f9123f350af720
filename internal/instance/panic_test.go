package instance_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/instance"
	"github.com/halevm/hale/internal/instance/fake"
	"github.com/halevm/hale/internal/machine"
)

// jumpy is a driver that panics when it is told to.
type jumpy struct {
	*fake.Driver
	start, stop atomic.Bool // an owner that panicked begins again by itself
}

type jumpyMachine struct {
	instance.Machine
	d *jumpy
}

func (d *jumpy) Start(ctx context.Context, c machine.Config) (instance.Machine, error) {
	if d.start.Load() {
		panic("start")
	}
	m, err := d.Driver.Start(ctx, c)
	return &jumpyMachine{m, d}, err
}

func (m *jumpyMachine) Stop(ctx context.Context, grace time.Duration) error {
	if m.d.stop.Load() {
		panic("stop")
	}
	return m.Machine.Stop(ctx, grace)
}

func TestPanicIsContained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		d := &jumpy{Driver: h.fake}
		h.driver = d
		panics := make(chan any, 10)
		h.config = func(c *instance.Config) {
			c.Panicked = func(loop string, v any) { panics <- v }
		}
		s := h.open()
		i, other := create(t, s, "web", "sleep"), create(t, s, "other", "sleep")
		await(t, s, i.ID, instance.Running)
		await(t, s, other.ID, instance.Running)
		d.stop.Store(true)
		if _, err := s.Stop(t.Context(), "web"); !errors.Is(err, api.Internal) {
			t.Errorf("stop: %v", err)
		}
		d.stop.Store(false)
		if got, err := s.Stop(t.Context(), "other"); err != nil || got.State != instance.Stopped {
			t.Errorf("another: %+v, %v", got, err)
		}
		if got, err := s.Stop(t.Context(), "web"); err != nil || got.State != instance.Stopped {
			t.Errorf("the same, later: %+v, %v", got, err)
		}
		d.start.Store(true)
		if _, err := s.Create(t.Context(), spec("new", "sleep")); !errors.Is(err, api.Internal) {
			t.Errorf("create: %v", err)
		}
		d.start.Store(false)
		time.Sleep(time.Minute)
		if got := create(t, s, "new", "sleep"); got.State != instance.Initializing {
			t.Errorf("%+v", got)
		}
		if len(panics) != 2 || <-panics != "stop" || <-panics != "start" || len(h.left()) != 3 {
			t.Errorf("%d panics, left %v", len(panics), h.left())
		}
	})
}

// A panic between the record of a start and its machine leaves an instance that is stopped, and can be started.
func TestPanicWhileStarting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		d := &jumpy{Driver: h.fake}
		h.driver = d
		s := h.open()
		started(t, s, "web", "sleep")
		if _, err := s.Stop(t.Context(), "web"); err != nil {
			t.Fatal(err)
		}
		d.start.Store(true)
		if _, err := s.Start(t.Context(), "web", instance.StartOptions{}); !errors.Is(err, api.Internal) {
			t.Errorf("start: %v", err)
		}
		d.start.Store(false)
		time.Sleep(time.Minute)
		synctest.Wait()
		got, err := s.Find("web")
		if err != nil || got.State != instance.Stopped || got.Exit.Reason != machine.VMMFailed || s.Allocated().Active != 0 {
			t.Errorf("%+v, %v", got, err)
		}
		if _, err := s.Start(t.Context(), "web", instance.StartOptions{}); err != nil {
			t.Error(err)
		}
		await(t, s, got.ID, instance.Running)
	})
}
