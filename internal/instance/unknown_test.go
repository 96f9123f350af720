package instance_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/event"
	"github.com/halevm/hale/internal/instance"
	"github.com/halevm/hale/internal/instance/fake"
	"github.com/halevm/hale/internal/machine"
)

// elusive is a driver whose machines cannot be taken back until they can.
type elusive struct {
	fake.Surviving
	killed error // of Kill

	mu  sync.Mutex // the owners ask again by themselves
	err error      // of Recover
}

func (e *elusive) hides(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.err = err
}

func (e *elusive) Kill(ctx context.Context, c machine.Config) (machine.Exit, error) {
	if e.killed != nil {
		return machine.Exit{}, e.killed
	}
	return e.Surviving.Kill(ctx, c)
}

func (e *elusive) Recover(ctx context.Context, c machine.Config) (instance.Machine, error) {
	e.mu.Lock()
	err := e.err
	e.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return e.Surviving.Recover(ctx, c)
}

func TestUnknown(t *testing.T) {
	h := newHost(t)
	d := &elusive{Surviving: fake.Surviving{Driver: h.fake}}
	h.driver = d
	s := h.open()
	i := started(t, s, "web", "sleep")
	h.close(s)
	d.hides(errors.New("the socket does not answer"))
	s = h.open()
	if got, err := s.Find("web"); err != nil || got.State != instance.Unknown {
		t.Fatalf("%+v, %v", got, err)
	}
	if _, err := s.Start(t.Context(), "web", instance.StartOptions{}); !errors.Is(err, api.InvalidState) {
		t.Errorf("start: %v", err)
	}
	if err := s.Delete(t.Context(), "web", true); !errors.Is(err, api.Unavailable) {
		t.Errorf("delete: %v", err)
	}
	d.hides(nil)
	if got, err := s.Stop(t.Context(), "web"); err != nil || got.State != instance.Stopped || got.Exit.Reason != machine.Stopped {
		t.Errorf("%+v, %v", got, err)
	}
	// How it ended while nobody watched is told, where the driver knows.
	if _, err := s.Start(t.Context(), "web", instance.StartOptions{}); err != nil {
		t.Fatal(err)
	}
	h.close(s)
	d.hides(&instance.Ended{Exit: machine.Exit{Reason: machine.GuestPanic, Message: "not syncing", Console: "last line"}})
	s = h.open()
	if got, err := s.Find("web"); err != nil || got.State != instance.Stopped || got.StateError() != "not syncing\nlast line" {
		t.Errorf("%+v, %v", got, err)
	}
	h.fake.Crash(i.ID, machine.Exit{})
}

// A machine that cannot be taken back, for its shim is another hale's, is left alone, with the reason, until it is deleted by force or a
// daemon comes that can.
func TestUnknownMachineIsLeftAlone(t *testing.T) {
	const why = "the shim speaks versions 1 to 3, the client 4 to 5"
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		d := &elusive{Surviving: fake.Surviving{Driver: h.fake}}
		h.driver = d
		s := h.open()
		for _, name := range []string{"web", "other"} {
			started(t, s, name, "sleep")
		}
		h.close(s)
		before := h.events.Last()
		d.hides(fmt.Errorf("%s: %w", why, api.Unsupported))
		h.close(h.open())
		s = h.open() // and the next one finds it so, too
		time.Sleep(time.Hour)
		synctest.Wait()
		for _, i := range s.List() {
			if i.State != instance.Unknown || !strings.HasPrefix(i.StateError(), why) {
				t.Errorf("%s is %s: %q", i.Spec.Name, i.State, i.StateError())
			}
		}
		if n := h.fake.Running(); n != 2 {
			t.Errorf("%d machines run", n)
		}
		if _, err := s.Stop(t.Context(), "web"); !errors.Is(err, api.Unavailable) || !strings.Contains(err.Error(), why) {
			t.Errorf("stop: %v", err)
		}
		if err := s.Delete(t.Context(), "web", true); !errors.Is(err, api.Unavailable) {
			t.Errorf("delete: %v", err)
		}
		if err := s.Delete(t.Context(), "web", false); err != nil {
			t.Errorf("delete by force: %v", err)
		}
		if n := h.fake.Running(); n != 1 || len(h.left()) != 1 {
			t.Errorf("%d machines run, and %v is left", n, h.left())
		}
		d.hides(nil)
		other, err := s.Find("other")
		if err != nil {
			t.Fatal(err)
		}
		if other = await(t, s, other.ID, instance.Running); other.Unreachable != "" {
			t.Errorf("it runs, and %q", other.Unreachable)
		}
		if err := s.Delete(t.Context(), "other", false); err != nil {
			t.Error(err)
		}
		h.close(s)
		want := []string{"state Unknown", "state Unknown", "state Stopped", "deleted", "state Running", "state Shutdown", "state Stopped", "deleted"}
		if got := h.told(before); !slices.Equal(got, want) {
			t.Errorf("events %v", got)
		}
	})
}

// However much a shim says of why it lets nobody in, the event of it finds room, and what comes after it too.
func TestUnknownForALongReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		d := &elusive{Surviving: fake.Surviving{Driver: h.fake}}
		h.driver = d
		s := h.open()
		started(t, s, "web", "sleep")
		h.close(s)
		before := h.events.Last()
		d.hides(errors.New(strings.Repeat("\x1bno ", 1<<18)))
		s = h.open()
		if _, err := s.Update(t.Context(), "web", instance.Update{Tags: map[string]string{"a": "b"}}); err != nil {
			t.Error(err)
		}
		if err := s.Delete(t.Context(), "web", false); err != nil {
			t.Error(err)
		}
		want := []string{"state Unknown", "updated", "state Stopped", "deleted"}
		if got := h.told(before); !slices.Equal(got, want) {
			t.Errorf("events %v", got)
		}
	})
}

// A machine that is gone when it is to be killed ends by what is known of it.
func TestUnknownMachineThatIsGone(t *testing.T) {
	for name, tt := range map[string]struct {
		err  error
		want machine.Reason
	}{
		"and nobody knows how":  {api.NotFound, machine.DaemonStopped},
		"and its shim said how": {&instance.Ended{Exit: machine.Exit{Reason: machine.ProgramExited}}, machine.ProgramExited},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHost(t)
				d := &elusive{Surviving: fake.Surviving{Driver: h.fake}}
				h.driver = d
				s := h.open()
				i := started(t, s, "web", "sleep")
				h.close(s)
				d.hides(errors.New("the socket does not answer"))
				d.killed = tt.err
				s = h.open()
				h.fake.Crash(i.ID, machine.Exit{})
				before := h.events.Last()
				if err := s.Delete(t.Context(), "web", false); err != nil {
					t.Error(err)
				}
				r := h.events.Follow(before, "test")
				defer r.Close()
				var c event.StateChange
				if e, err := r.Next(t.Context()); err != nil || json.Unmarshal(e.Data, &c) != nil || !strings.HasPrefix(c.Reason, string(tt.want)) {
					t.Errorf("%+v, %v", c, err)
				}
			})
		})
	}
}
