package instance_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/event"
	"github.com/halevm/hale/internal/instance"
	"github.com/halevm/hale/internal/instance/fake"
	"github.com/halevm/hale/internal/machine"
)

const someID = "a23456789012345678901234"

// What a crash leaves at any moment of an operation is finished or undone by the next Open, by what the log says.
func TestOpenAfterCrash(t *testing.T) {
	img, err := images{}.Image(t.Context(), "sleep")
	if err != nil {
		t.Fatal(err)
	}
	with := func(name string) instance.Instance {
		return instance.Instance{ID: someID, Spec: spec(name, img.Ref), State: instance.Stopped, IP: "10.77.0.9", Run: 1}
	}
	foreign := with("old")
	foreign.ID = "b" + someID[1:]
	whole := func(i instance.Instance, deleting bool) func(event.ID) []byte {
		return func(seen event.ID) []byte {
			b, err := instance.RecordFile(i, img, seen, deleting)
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
	}
	torn := func(event.ID) []byte { return []byte(`{"version":1,"value":{"inst`) }
	for _, tt := range []struct {
		name           string
		record, next   func(seen event.ID) []byte // nil: no such file
		event          event.Type                 // appended after next was prepared; "": none
		want           string                     // the instance's name; "": it is gone
		aside, machine bool                       // set aside; a machine runs, and must not any more
	}{
		{name: "an empty directory"},
		{name: "create: prepared", next: whole(with("new"), false)},
		{name: "create: prepared, the machine runs", next: whole(with("new"), false), machine: true},
		{name: "create: torn", next: torn},
		{name: "create: committed", next: whole(with("new"), false), event: event.TypeCreated, want: "new"},
		{name: "change: prepared", record: whole(with("old"), false), next: whole(with("new"), false), want: "old"},
		{name: "change: torn", record: whole(with("old"), false), next: torn, want: "old"},
		{name: "change: committed", record: whole(with("old"), false), next: whole(with("new"), false), event: event.TypeUpdated, want: "new"},
		{name: "change: another's event", record: whole(with("old"), false), next: whole(with("new"), false), event: event.TypeHealth, want: "old"},
		{name: "delete: prepared", record: whole(with("old"), false), next: whole(with("old"), true), want: "old"},
		{name: "delete: committed", record: whole(with("old"), false), next: whole(with("old"), true), event: event.TypeDeleted},
		{name: "a torn record", record: torn, aside: true},
		{name: "another's record", record: whole(foreign, false), aside: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHost(t)
			h.driver = fake.Surviving{Driver: h.fake}
			dir := filepath.Join(h.dir, someID)
			if err := os.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if _, err := h.events.Append(t.Context(), event.TypeState, someID, "old", nil); err != nil {
				t.Fatal(err)
			}
			seen := h.events.Last()
			for name, content := range map[string]func(event.ID) []byte{"instance.json": tt.record, "instance.json.next": tt.next} {
				if content == nil {
					continue
				}
				if err := os.WriteFile(filepath.Join(dir, name), content(seen), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if tt.event != "" {
				if _, err := h.events.Append(t.Context(), tt.event, someID, "", nil); err != nil {
					t.Fatal(err)
				}
			}
			if tt.machine {
				_, err := h.fake.Start(t.Context(), machine.Config{ID: someID, Dir: filepath.Join(dir, "vm"), Process: machine.Process{Argv: []string{"sleep"}}})
				if err != nil {
					t.Fatal(err)
				}
			}
			before := h.events.Last()
			s := h.open()
			i, err := s.Find(someID)
			switch {
			case tt.want != "" && (err != nil || i.Spec.Name != tt.want):
				t.Errorf("found %q, %v; want %q", i.Spec.Name, err, tt.want)
			case tt.want == "" && !errors.Is(err, api.NotFound):
				t.Errorf("found %+v, %v", i, err)
			}
			left := h.left()
			switch {
			case tt.aside && (len(left) != 1 || !strings.HasPrefix(left[0], someID+".unreadable-")):
				t.Errorf("left %v, want it set aside", left)
			case !tt.aside && tt.want == "" && len(left) != 0:
				t.Errorf("left %v", left)
			}
			if h.fake.Running() != 0 {
				t.Error("a machine of nobody runs")
			}
			if h.events.Last() != before {
				t.Errorf("events %v", h.told(before))
			}
			if tt.want == "" {
				return
			}
			// What was found can be lived with, and the next Open finds the same.
			h.close(s)
			s = h.open()
			if i, err := s.Find(someID); err != nil || i.Spec.Name != tt.want {
				t.Errorf("the second time %q, %v", i.Spec.Name, err)
			}
			if got := create(t, s, "", "exit"); got.IP == i.IP {
				t.Error("the address was given again")
			}
			if err := s.Delete(t.Context(), tt.want, true); err != nil {
				t.Error(err)
			}
		})
	}
}

// A daemon that dies between the event and the record's place: the next one finds the record as the event tells.
func TestCrashBehindTheCommit(t *testing.T) {
	for _, later := range []time.Duration{0, 10 * time.Second} { // at once, and after it was tried again
		synctest.Test(t, func(t *testing.T) {
			h := newHost(t)
			s := h.open()
			i := create(t, s, "web", "sleep")
			await(t, s, i.ID, instance.Running)
			synctest.Wait()
			name := filepath.Join(h.dir, i.ID, "instance.json")
			old, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(os.Remove(name), os.MkdirAll(filepath.Join(name, "x"), 0o700)); err != nil { // nothing can take its place
				t.Fatal(err)
			}
			h.fake.Crash(i.ID, machine.Exit{Reason: machine.VMMKilled})
			await(t, s, i.ID, instance.Stopped)
			time.Sleep(later)
			synctest.Wait()
			next, err := os.ReadFile(name + ".next")
			if err != nil {
				t.Fatal(err)
			}

			after := newHost(t)
			after.events = h.events
			dir := filepath.Join(after.dir, i.ID)
			err = errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, "instance.json"), old, 0o600),
				os.WriteFile(filepath.Join(dir, "instance.json.next"), next, 0o600))
			if err != nil {
				t.Fatal(err)
			}
			before := h.events.Last()
			found, err := after.open().Find("web")
			if err != nil || found.State != instance.Stopped || found.Exit.Reason != machine.VMMKilled || h.events.Last() != before {
				t.Errorf("after %s: %+v, %v; events %v", later, found, err, h.told(before))
			}
			if err := os.RemoveAll(name); err != nil {
				t.Error(err)
			}
		})
	}
}

// A daemon that dies between a new instance's event and the next: the log goes on where it was, with the machine and without.
func TestCrashBehindCreated(t *testing.T) {
	img, err := images{}.Image(t.Context(), "sleep")
	if err != nil {
		t.Fatal(err)
	}
	for _, survives := range []bool{true, false} {
		h := newHost(t)
		if survives {
			h.driver = fake.Surviving{Driver: h.fake}
		}
		dir := filepath.Join(h.dir, someID)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		i := instance.Instance{ID: someID, Spec: spec("web", img.Ref), State: instance.Created, IP: "10.77.0.9", Run: 1}
		b, err := instance.RecordFile(i, img, h.events.Last(), false)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "instance.json.next"), b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := h.events.Append(t.Context(), event.TypeCreated, someID, "web", nil); err != nil {
			t.Fatal(err)
		}
		before := h.events.Last()
		want := []string{"state Initializing", "state Stopped"}
		state := instance.Stopped
		if survives {
			if _, err := h.fake.Start(t.Context(), machine.Config{ID: someID, Dir: filepath.Join(dir, "vm"), Process: machine.Process{Argv: []string{"sleep"}}}); err != nil {
				t.Fatal(err)
			}
			want[1], state = "state Running", instance.Running
		}
		s := h.open()
		await(t, s, someID, state)
		h.close(s)
		if got := h.told(before); !slices.Equal(got, want) {
			t.Errorf("its machine survives: %v; the events are %v, want %v", survives, got, want)
		}
	}
}

func TestOpenLeavesStrangersAlone(t *testing.T) {
	h := newHost(t)
	for _, name := range []string{"README", "lost+found", someID + ".unreadable-20260101T000000Z"} {
		if err := os.MkdirAll(filepath.Join(h.dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(h.dir, ".trash-x", "deep"), 0o700); err != nil {
		t.Fatal(err)
	}
	s := h.open()
	if len(s.List()) != 0 || len(h.left()) != 3 {
		t.Errorf("instances %v, left %v", s.List(), h.left())
	}
}

// A directory that a person deleted is an instance that is gone, whatever the log holds.
func TestDeletedByHand(t *testing.T) {
	h := newHost(t)
	s := h.open()
	i := create(t, s, "web", "exit")
	await(t, s, i.ID, instance.Stopped)
	h.close(s)
	if err := os.RemoveAll(filepath.Join(h.dir, i.ID)); err != nil {
		t.Fatal(err)
	}
	s = h.open()
	if len(s.List()) != 0 {
		t.Errorf("it came back: %+v", s.List())
	}
	if again := create(t, s, "web", "exit"); again.ID == i.ID {
		t.Error("it has the same id")
	}
}

// A driver that cannot find its machines again loses them with the daemon.
func TestRestartWithoutMachines(t *testing.T) {
	h := newHost(t)
	s := h.open()
	running := create(t, s, "web", "sleep")
	await(t, s, running.ID, instance.Running)
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
	h.driver = fake.Surviving{Driver: h.fake}
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
		h.driver = fake.Surviving{Driver: h.fake}
		s := h.open()
		i := create(t, s, "web", "stuck")
		await(t, s, i.ID, instance.Running)
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
		i := create(t, s, "web", "stuck")
		await(t, s, i.ID, instance.Running)
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

func TestUnknown(t *testing.T) {
	h := newHost(t)
	d := &elusive{Surviving: fake.Surviving{Driver: h.fake}}
	h.driver = d
	s := h.open()
	i := create(t, s, "web", "sleep")
	await(t, s, i.ID, instance.Running)
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
			await(t, s, create(t, s, name, "sleep").ID, instance.Running)
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
				i := create(t, s, "web", "sleep")
				await(t, s, i.ID, instance.Running)
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
		i := create(t, s, "web", "sleep")
		await(t, s, i.ID, instance.Running)
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

// The daemon's log of an instance tells its life to a person.
func TestOwnLog(t *testing.T) {
	h := newHost(t)
	s := h.open()
	i := create(t, s, "web", "exit")
	await(t, s, i.ID, instance.Stopped)
	h.close(s)
	s.Logger(i.ID).Info("a word from elsewhere")
	s.Logger(i.ID).Debug("not for people")
	b, err := os.ReadFile(filepath.Join(s.Dir(i.ID), instance.LogName))
	if err != nil {
		t.Fatal(err)
	}
	text, at := string(b), 0
	for _, want := range []string{"starting", "guest agent ready", "running", "stopped", "exit_code=0", "a word from elsewhere"} {
		n := strings.Index(text[at:], want)
		if n < 0 {
			t.Errorf("%q is missing in\n%s", want, text)
			continue
		}
		at += n
	}
	if strings.Contains(text, "not for people") {
		t.Errorf("debug lines in\n%s", text)
	}
}
