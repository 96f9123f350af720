package instance_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/halevm/hale/internal/instance"
	"github.com/halevm/hale/internal/instance/fake"
	"github.com/halevm/hale/internal/machine"
)

// What the disk refuses is refused, except for what has happened: that is published, and written when there is room.
func TestDiskRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		var refused atomic.Int32
		var s *instance.Set
		var unwritten []instance.State // as they were found then
		h.config = func(c *instance.Config) {
			c.SaveFailed = func() { refused.Add(1) }
			c.Unwritten = func(id string) {
				i, err := s.Find(id)
				if err != nil {
					i.State = "gone"
				}
				unwritten = append(unwritten, i.State)
			}
		}
		s = h.open()
		i := started(t, s, "web", "sleep")
		synctest.Wait() // until the record is in place too
		before := h.events.Last()
		obstacle := filepath.Join(h.dir, i.ID, "instance.json.next")
		if err := os.MkdirAll(filepath.Join(obstacle, "x"), 0o700); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Update(t.Context(), "web", instance.Update{Tags: map[string]string{"a": "b"}}); err == nil {
			t.Error("an update that cannot be written was taken")
		}
		if got, _ := s.Find("web"); got.Spec.Tags != nil {
			t.Errorf("published %+v", got.Spec.Tags)
		}
		h.fake.Crash(i.ID, machine.Exit{Reason: machine.VMMKilled})
		if got := await(t, s, i.ID, instance.Stopped); got.Exit.Reason != machine.VMMKilled {
			t.Errorf("%+v", got)
		}
		time.Sleep(10 * time.Second)
		if got := h.told(before); len(got) != 0 {
			t.Errorf("events %v", got)
		}
		synctest.Wait()
		if !slices.Equal(unwritten, []instance.State{instance.Stopped}) {
			t.Errorf("told of %v without an event", unwritten)
		}
		if n := refused.Load(); n != 1 {
			t.Errorf("told %d times that the disk refused what happened", n)
		}
		if _, err := s.Start(t.Context(), "web", instance.StartOptions{}); err == nil {
			t.Error("a start that cannot be written was taken")
		}
		if a := s.Allocated(); a.Active != 0 {
			t.Errorf("allocated %+v", a)
		}
		if err := os.RemoveAll(obstacle); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if got := h.told(before); !slices.Equal(got, []string{"state Stopped"}) {
			t.Errorf("events %v", got)
		}
		h.close(s)
		s = h.open()
		if got, err := s.Find("web"); err != nil || got.Exit == nil || got.Exit.Reason != machine.VMMKilled {
			t.Errorf("%+v, %v", got, err)
		}
		// A deletion makes the room that it needs.
		if err := os.MkdirAll(filepath.Join(obstacle, "x"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := s.Delete(t.Context(), "web", true); err != nil {
			t.Fatal(err)
		}
		if left := h.left(); len(left) != 0 {
			t.Errorf("left %v", left)
		}
		if got := h.told(before); got[len(got)-1] != "deleted" {
			t.Errorf("events %v", got)
		}
	})
}

// However much an instance has to do, what is to be tried again is: a change that the disk refused, and a machine that could not be taken
// back.
func TestWhatIsTriedAgainIsNotPutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		d := &elusive{Surviving: fake.Surviving{Driver: h.fake}}
		h.driver = d
		s := h.open()
		i := create(t, s, "web", "sleep")
		obstacle := filepath.Join(h.dir, i.ID, "instance.json.next")
		if err := os.MkdirAll(filepath.Join(obstacle, "x"), 0o700); err != nil {
			t.Fatal(err)
		}
		await(t, s, i.ID, instance.Running)
		before := h.events.Last()
		if err := os.RemoveAll(obstacle); err != nil {
			t.Fatal(err)
		}
		busy := func(d time.Duration) {
			t.Helper()
			for range d / (500 * time.Millisecond) {
				time.Sleep(500 * time.Millisecond)
				if _, err := s.Update(t.Context(), "web", instance.Update{}); err != nil {
					t.Fatal(err)
				}
			}
		}
		busy(3 * time.Second)
		if got := h.told(before); !slices.Equal(got, []string{"state Running"}) {
			t.Errorf("events %v", got)
		}
		h.close(s)
		d.hides(errors.New("the socket does not answer"))
		s = h.open()
		d.hides(nil)
		busy(10 * time.Second)
		if got, err := s.Find("web"); err != nil || got.State != instance.Running {
			t.Errorf("it is %s, %v", got.State, err)
		}
		if err := s.Delete(t.Context(), "web", false); err != nil {
			t.Fatal(err)
		}
	})
}

// A log that takes nothing refuses a create, and nothing is left of it.
func TestLogRefusesCreate(t *testing.T) {
	h := newHost(t)
	s := h.open()
	h.events.Close()
	if i, err := s.Create(t.Context(), spec("web", "sleep")); err == nil {
		t.Errorf("created %+v", i)
	}
	if len(s.List()) != 0 || len(h.left()) != 0 || h.fake.Running() != 0 {
		t.Errorf("left %v, %v, %d machines", s.List(), h.left(), h.fake.Running())
	}
}

// A create that is refused when its machine runs, and the machine does not end: what is on record of it stays, for the next daemon to end it.
func TestRefusedCreateWhoseMachineDoesNotEnd(t *testing.T) {
	h := newHost(t)
	h.survives()
	d := &lasting{Driver: h.driver}
	h.driver = d
	s := h.open()
	log := h.events
	d.started = func() { log.Close() }
	if i, err := s.Create(t.Context(), spec("web", "sleep")); err == nil {
		t.Fatalf("created %+v", i)
	}
	if len(s.List()) != 0 || len(h.left()) != 1 || h.fake.Running() != 1 {
		t.Errorf("there is %v, left is %v, %d machines run", s.List(), h.left(), h.fake.Running())
	}
	h.close(s)
	h.events, h.driver = newHost(t).events, fake.Surviving{Driver: h.fake}
	h.open()
	if len(h.left()) != 0 || h.fake.Running() != 0 {
		t.Errorf("left is %v, %d machines run", h.left(), h.fake.Running())
	}
}

// lasting is a driver whose machines do not end.
type lasting struct {
	instance.Driver
	started func()
}

func (l *lasting) Start(ctx context.Context, c machine.Config) (instance.Machine, error) {
	m, err := l.Driver.Start(ctx, c)
	l.started()
	return lastingMachine{m}, err
}

type lastingMachine struct{ instance.Machine }

func (lastingMachine) Kill(context.Context) error { return errors.New("it does not die") }
