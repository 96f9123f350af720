package instance_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/instance"
	"github.com/halevm/hale/internal/instance/fake"
	"github.com/halevm/hale/internal/machine"
)

// A driver that cannot find its machines again loses them with the daemon.
func TestRestartWithoutMachines(t *testing.T) {
	h := newHost(t)
	s := h.open()
	running := started(t, s, "web", "sleep")
	h.close(s)
	if h.fake.Running() != 0 {
		t.Error("the machine was left to nobody")
	}
	if _, err := s.Create(t.Context(), spec("late", "sleep")); !errors.Is(err, api.Unavailable) {
		t.Errorf("create after the end: %v", err)
	}
	if _, err := s.Stop(t.Context(), "web"); !errors.Is(err, api.Unavailable) {
		t.Errorf("stop after the end: %v", err)
	}
	s = h.open()
	i, err := s.Find("web")
	if err != nil || i.State != instance.Stopped || i.Exit.Reason != machine.DaemonStopped || !strings.Contains(i.StateError(), "daemon stopped") {
		t.Fatalf("%+v, %v", i, err)
	}
	if i, err = s.Start(t.Context(), "web", instance.StartOptions{}); err != nil || i.IP != running.IP || i.Run != 2 {
		t.Errorf("%+v, %v", i, err)
	}
}

func TestRestartTakesBack(t *testing.T) {
	h := newHost(t)
	h.survives()
	s := h.open()
	stays, ends := create(t, s, "stays", "sleep"), create(t, s, "ends", "sleep")
	await(t, s, stays.ID, instance.Running)
	await(t, s, ends.ID, instance.Running)
	h.close(s)
	before := h.events.Last() // whoever sees a state may see it before its event counts
	if h.fake.Running() != 2 {
		t.Fatalf("%d machines run, want 2", h.fake.Running())
	}
	m, err := h.driver.(instance.Recoverer).Recover(t.Context(), machine.Config{ID: ends.ID})
	if err != nil || m.Kill(t.Context()) != nil {
		t.Fatal(err)
	}
	s = h.open()
	if i, err := s.Find("stays"); err != nil || i.State != instance.Running || i.Run != 1 {
		t.Errorf("%+v, %v", i, err)
	}
	if i, err := s.Find("ends"); err != nil || i.State != instance.Stopped || i.Exit.Reason != machine.DaemonStopped {
		t.Errorf("%+v, %v", i, err)
	}
	if got := h.told(before); !slices.Equal(got, []string{"state Stopped"}) {
		t.Errorf("events %v", got)
	}
	if i, err := s.Stop(t.Context(), "stays"); err != nil || i.Exit.Reason != machine.Stopped {
		t.Errorf("%+v, %v", i, err)
	}
}

// A stop that the daemon's end interrupts is the next one's to finish.
func TestRestartWhileStopping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		h.survives()
		s := h.open()
		i := started(t, s, "web", "stuck")
		stopped := make(chan error)
		go func() {
			_, err := s.Stop(t.Context(), "web")
			stopped <- err
		}()
		synctest.Wait()
		h.close(s)
		if err := <-stopped; !errors.Is(err, api.Unavailable) {
			t.Errorf("stop: %v", err)
		}
		s = h.open()
		await(t, s, i.ID, instance.Stopped)
		if h.fake.Running() != 0 {
			t.Error("the machine runs")
		}
	})
}

// Neither is it forgotten when the machine does not answer at first, nor when the daemon that saw that has ended as well.
func TestStopGoesOnOnceTheMachineAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		d := &laggard{Surviving: fake.Surviving{Driver: h.fake}}
		h.driver = d
		s := h.open()
		i := started(t, s, "web", "stuck")
		go s.Stop(t.Context(), "web")
		synctest.Wait()
		h.close(s)
		before := h.events.Last()
		d.slow = i.ID
		d.fails.Store(3)
		h.close(h.open())
		s = h.open()
		await(t, s, i.ID, instance.Unknown)
		if i = await(t, s, i.ID, instance.Stopped); i.Exit.Reason != machine.Killed || !strings.HasPrefix(i.Exit.Message, "it did not stop within") {
			t.Errorf("it ended with %+v", i.Exit)
		}
		if h.fake.Running() != 0 {
			t.Error("the machine runs")
		}
		h.close(s)
		if got := h.told(before); !slices.Equal(got, []string{"state Unknown", "state Shutdown", "state Stopped"}) {
			t.Errorf("events %v", got)
		}
	})
}

// A machine that does not answer at a restart holds up no other, and is taken back without anybody's asking once it does.
func TestTakenBackLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		d := &laggard{Surviving: fake.Surviving{Driver: h.fake}, takes: 5 * time.Second}
		h.driver = d
		s := h.open()
		late, other := create(t, s, "late", "sleep"), create(t, s, "other", "sleep")
		await(t, s, late.ID, instance.Running)
		await(t, s, other.ID, instance.Running)
		ran, err := s.Find(late.ID)
		if err != nil {
			t.Fatal(err)
		}
		h.close(s)
		d.slow = late.ID
		d.fails.Store(2)
		begun := time.Now()
		s = h.open()
		if took := time.Since(begun); took > 2*time.Second {
			t.Errorf("the daemon was held up for %v", took)
		}
		if _, err := s.Machine(other.ID); err != nil {
			t.Error(err)
		}
		if _, err := s.Machine(late.ID); !errors.Is(err, api.InvalidState) {
			t.Errorf("a machine that was not taken back: %v", err)
		}
		await(t, s, late.ID, instance.Unknown)
		await(t, s, late.ID, instance.Running)
		// It has run all the while: its health goes on as well.
		if got, err := s.Find(late.ID); err != nil || !got.Since.Equal(ran.Since) || !got.RunningAt.Equal(ran.RunningAt) {
			t.Errorf("it runs since %v, and ran since %v; %v", got.Since, ran.Since, err)
		}
		if took := time.Since(begun); took > 26*time.Second {
			t.Errorf("taken back after %v", took)
		}
		for _, i := range []instance.Instance{late, other} {
			if _, err := s.Machine(i.ID); err != nil {
				t.Error(err)
			}
			if err := s.Delete(t.Context(), i.ID, false); err != nil {
				t.Error(err)
			}
		}
	})
}

// laggard is a driver that is slow to take one machine back, and fails a few times first.
type laggard struct {
	fake.Surviving
	slow  string // the instance
	takes time.Duration
	fails atomic.Int64
}

func (l *laggard) Recover(ctx context.Context, c machine.Config) (instance.Machine, error) {
	if c.ID == l.slow {
		time.Sleep(l.takes)
		if l.fails.Add(-1) >= 0 {
			return nil, errors.New("the socket does not answer")
		}
	}
	return l.Surviving.Recover(ctx, c)
}

// A program that was started while no daemon listened has run since then; a word that cannot be true is not believed.
func TestStartedWhileAway(t *testing.T) {
	for name, tt := range map[string]struct{ skew, want time.Duration }{ // want: since the next daemon
		"as it says":             {0, -55 * time.Second},
		"before it was started":  {-time.Hour, 0},
		"a time that is to come": {time.Hour, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHost(t)
				h.fake = fake.New(fake.Config{Boot: 5 * time.Second})
				h.driver = skewed{fake.Surviving{Driver: h.fake}, tt.skew}
				s := h.open()
				i := create(t, s, "web", "sleep")
				h.close(s)
				time.Sleep(time.Minute)
				back := time.Now()
				s = h.open()
				i = await(t, s, i.ID, instance.Running)
				if got := i.RunningAt.Sub(back); got != tt.want || !i.Since.Equal(i.RunningAt) {
					t.Errorf("running since %v after the daemon came back, in that state since %v", got, i.Since.Sub(back))
				}
				if err := s.Delete(t.Context(), i.ID, false); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// A skewed driver's machines that are taken back have another clock.
type skewed struct {
	fake.Surviving
	by time.Duration
}

func (d skewed) Recover(ctx context.Context, c machine.Config) (instance.Machine, error) {
	m, err := d.Surviving.Recover(ctx, c)
	if err != nil {
		return nil, err
	}
	return skewedMachine{m, d.by}, nil
}

type skewedMachine struct {
	instance.Machine
	by time.Duration
}

func (m skewedMachine) Notices() <-chan machine.Notice {
	told := m.Machine.Notices()
	skewed := make(chan machine.Notice, cap(told))
	go func() { // until the machine's end
		defer close(skewed)
		for n := range told {
			n.Time = n.Time.Add(m.by)
			skewed <- n
		}
	}()
	return skewed
}

// How a machine ended while no daemon ran is told also where the clock was set back meanwhile; what the run before it left to read is not
// taken for it.
func TestEndedByAnotherClock(t *testing.T) {
	code := 3
	for name, tt := range map[string]struct {
		runs int
		time func(started, ended time.Time) time.Time // of the end that is left to read
		want machine.Reason
	}{
		"in the first run":            {1, func(started, _ time.Time) time.Time { return started.Add(-time.Hour) }, machine.ProgramExited},
		"in a later one":              {2, func(started, _ time.Time) time.Time { return started.Add(-time.Hour) }, machine.ProgramExited},
		"and that of the run before":  {2, func(_, ended time.Time) time.Time { return ended }, machine.DaemonStopped},
		"and none set the clock back": {2, func(started, _ time.Time) time.Time { return started.Add(time.Hour) }, machine.ProgramExited},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			d := &elusive{Surviving: fake.Surviving{Driver: h.fake}}
			h.driver = d
			s := h.open()
			in := started(t, s, "web", "sleep")
			var ended time.Time
			for range tt.runs - 1 {
				stopped, err := s.Stop(t.Context(), "web")
				if err != nil {
					t.Fatal(err)
				}
				ended = stopped.Exit.Time
				if _, err := s.Start(t.Context(), "web", instance.StartOptions{}); err != nil {
					t.Fatal(err)
				}
				in = await(t, s, in.ID, instance.Running)
			}
			h.close(s)
			d.hides(&instance.Ended{Exit: machine.Exit{Reason: machine.ProgramExited, Code: &code, Time: tt.time(in.StartedAt, ended)}})
			s = h.open()
			if got, err := s.Find("web"); err != nil || got.State != instance.Stopped || got.Exit.Reason != tt.want {
				t.Errorf("%+v, %v; want %s", got.Exit, err, tt.want)
			}
			h.fake.Crash(in.ID, machine.Exit{})
		})
	}
}
