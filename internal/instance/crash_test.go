package instance_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/event"
	"github.com/halevm/hale/internal/instance"
	"github.com/halevm/hale/internal/instance/fake"
	"github.com/halevm/hale/internal/machine"
)

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
		disk           bool                       // the machine has a directory
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
		{name: "no record, and a machine's directory", disk: true, aside: true},
		{name: "a torn one that was prepared, and a machine's directory", next: torn, disk: true, aside: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHost(t)
			h.survives()
			if _, err := h.events.Append(t.Context(), event.TypeState, someID, "old", nil); err != nil {
				t.Fatal(err)
			}
			seen := h.events.Last()
			files := map[string][]byte{}
			for name, content := range map[string]func(event.ID) []byte{"instance.json": tt.record, "instance.json.next": tt.next} {
				if content != nil {
					files[name] = content(seen)
				}
			}
			h.holds(someID, files)
			if tt.disk {
				h.holds(someID+"/vm", map[string][]byte{"rw.ext4": nil})
			}
			if tt.event != "" {
				if _, err := h.events.Append(t.Context(), tt.event, someID, "", nil); err != nil {
					t.Fatal(err)
				}
			}
			if tt.machine {
				_, err := h.fake.Start(t.Context(), machine.Config{ID: someID, Dir: filepath.Join(h.dir, someID, "vm"), Process: machine.Process{Argv: []string{"sleep"}}})
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
			i := started(t, s, "web", "sleep")
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
			after.holds(i.ID, map[string][]byte{"instance.json": old, "instance.json.next": next})
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
			h.survives()
		}
		i := instance.Instance{ID: someID, Spec: spec("web", img.Ref), State: instance.Created, IP: "10.77.0.9", Run: 1}
		b, err := instance.RecordFile(i, img, h.events.Last(), false)
		if err != nil {
			t.Fatal(err)
		}
		h.holds(someID, map[string][]byte{"instance.json.next": b})
		if _, err := h.events.Append(t.Context(), event.TypeCreated, someID, "web", nil); err != nil {
			t.Fatal(err)
		}
		before := h.events.Last()
		want := []string{"state Initializing", "state Stopped"}
		state := instance.Stopped
		if survives {
			if _, err := h.fake.Start(t.Context(), machine.Config{ID: someID, Dir: filepath.Join(h.dir, someID, "vm"), Process: machine.Process{Argv: []string{"sleep"}}}); err != nil {
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

// A machine of an instance that is not to be, which cannot be taken back, is ended all the same.
func TestLeftoverThatCannotBeTakenBack(t *testing.T) {
	img, err := images{}.Image(t.Context(), "sleep")
	if err != nil {
		t.Fatal(err)
	}
	h := newHost(t)
	h.driver = &elusive{Surviving: fake.Surviving{Driver: h.fake}, err: errors.New("the socket does not answer")}
	i := instance.Instance{ID: someID, Spec: spec("web", img.Ref), State: instance.Created, Run: 1}
	b, err := instance.RecordFile(i, img, h.events.Last(), false)
	if err != nil {
		t.Fatal(err)
	}
	h.holds(someID, map[string][]byte{"instance.json.next": b})
	if _, err := h.fake.Start(t.Context(), machine.Config{ID: someID, Dir: filepath.Join(h.dir, someID, "vm"), Process: machine.Process{Argv: []string{"sleep"}}}); err != nil {
		t.Fatal(err)
	}
	h.open()
	if n := h.fake.Running(); n != 0 || len(h.left()) != 0 {
		t.Errorf("%d machines run, and %v is left", n, h.left())
	}
}

// A deletion that cannot be finished for long is not forgotten, though the log no longer has its event.
func TestDeletionOutlivesItsEvent(t *testing.T) {
	img, err := images{}.Image(t.Context(), "sleep")
	if err != nil {
		t.Fatal(err)
	}
	h := newHost(t)
	if h.events, err = event.Open("", event.Options{MaxEvents: 8}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.events.Close() })
	stays := errors.New("it does not die")
	d := &elusive{Surviving: fake.Surviving{Driver: h.fake}, err: stays, killed: stays}
	h.driver = d
	i := instance.Instance{ID: someID, Spec: spec("web", img.Ref), State: instance.Stopped, Run: 1}
	files := map[string][]byte{}
	for name, deleting := range map[string]bool{"instance.json": false, "instance.json.next": true} {
		if files[name], err = instance.RecordFile(i, img, h.events.Last(), deleting); err != nil {
			t.Fatal(err)
		}
	}
	h.holds(someID, files)
	for n := range 3 {
		for range 20 * n {
			if _, err := h.events.Append(t.Context(), event.TypeHost, "", "", nil); err != nil {
				t.Fatal(err)
			}
		}
		if n == 0 {
			if _, err := h.events.Append(t.Context(), event.TypeDeleted, someID, "web", nil); err != nil {
				t.Fatal(err)
			}
		}
		if n == 2 {
			d.killed = nil
		}
		s := h.open()
		if list := s.List(); len(list) != 0 {
			t.Fatalf("it came back: %+v", list)
		}
		h.close(s)
	}
	if left := h.left(); len(left) != 0 {
		t.Errorf("left %v", left)
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

// One that a person deleted under a daemon is deleted by the daemon as any other, with its machine and its name.
func TestDeletedByHandUnderADaemon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		s := h.open()
		i := started(t, s, "web", "sleep")
		synctest.Wait() // until the record is in place too
		if err := os.RemoveAll(filepath.Join(h.dir, i.ID)); err != nil {
			t.Fatal(err)
		}
		before := h.events.Last()
		if err := s.Delete(t.Context(), "web", true); err != nil {
			t.Fatal(err)
		}
		if len(s.List()) != 0 || h.fake.Running() != 0 {
			t.Errorf("left %+v, %d machines", s.List(), h.fake.Running())
		}
		if got := h.told(before); !slices.Equal(got, []string{"deleted"}) {
			t.Errorf("events %v", got)
		}
		started(t, s, "web", "sleep")
	})
}
