package instance_test

import (
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
	"github.com/halevm/hale/internal/machine"
)

func TestLife(t *testing.T) {
	h := newHost(t)
	s := h.open()
	before := h.events.Last()
	i := create(t, s, "web", "sleep")
	if i.State != instance.Initializing || i.Run != 1 || i.Spec.Image != "docker.io/library/sleep:latest" || i.Spec.ImageDigest != "sha256:sleep" {
		t.Errorf("created %+v", i)
	}
	if i.IP != "10.77.0.2" || i.MAC != "02:68:0a:4d:00:02" {
		t.Errorf("address %s, %s", i.IP, i.MAC)
	}
	running := await(t, s, i.ID, instance.Running)
	if running.RunningAt.IsZero() || running.Since != running.RunningAt {
		t.Errorf("running since %v, %v", running.Since, running.RunningAt)
	}
	if m, err := s.Machine("web"); err != nil || m == nil {
		t.Errorf("machine %v, %v", m, err)
	}
	if _, err := s.Start(t.Context(), "web", instance.StartOptions{}); !errors.Is(err, api.InvalidState) {
		t.Errorf("start of a running one: %v", err)
	}
	for range 2 { // stopping what is stopped is no error
		stopped, err := s.Stop(t.Context(), i.ID)
		if err != nil || stopped.State != instance.Stopped || stopped.Exit.Reason != machine.Stopped || *stopped.Exit.Code != 143 || stopped.StateError() != "" {
			t.Fatalf("stopped %+v, %v", stopped, err)
		}
	}
	if _, err := s.Machine("web"); !errors.Is(err, api.InvalidState) {
		t.Errorf("machine of a stopped one: %v", err)
	}
	again, err := s.Start(t.Context(), i.ID[:8], instance.StartOptions{Cmd: []string{"exit", "3"}})
	if err != nil || again.State != instance.Initializing || again.Run != 2 || again.Exit != nil || again.IP != i.IP {
		t.Fatalf("started again %+v, %v", again, err)
	}
	ended := await(t, s, i.ID, instance.Stopped)
	if ended.Exit.Reason != machine.ProgramExited || *ended.Exit.Code != 3 || !strings.Contains(ended.StateError(), "code 3") {
		t.Errorf("ended %+v, %q", ended.Exit, ended.StateError())
	}
	changed := s.Changed(i.ID)
	if err := s.Delete(t.Context(), "web", true); err != nil {
		t.Fatal(err)
	}
	<-changed
	<-s.Changed(i.ID) // for ever
	if _, err := s.Find("web"); !errors.Is(err, api.NotFound) {
		t.Errorf("after the deletion: %v", err)
	}
	if left := h.left(); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	want := []string{"created", "state Initializing", "state Running", "state Shutdown", "state Stopped",
		"state Initializing", "state Running", "state Stopped", "deleted"}
	if got := h.told(before); !slices.Equal(got, want) {
		t.Errorf("events %q\nwant   %q", got, want)
	}
}

// Who reads an event finds what it tells.
func TestEventsTellWhatIsPublished(t *testing.T) {
	h := newHost(t)
	s := h.open()
	r := h.events.Follow(event.ID{}, "test")
	defer r.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			e, err := r.Next(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			i, err := s.Find(e.Instance)
			switch e.Type {
			case event.TypeDeleted:
				if !errors.Is(err, api.NotFound) {
					t.Errorf("deleted, and found %+v, %v", i, err)
				}
				return
			case event.TypeState:
				var c event.StateChange
				if err := json.Unmarshal(e.Data, &c); err != nil {
					t.Error(err)
				}
				// It may be further already, never behind.
				order := []string{"Created", "Initializing", "Running", "Shutdown", "Stopped"}
				if err == nil && slices.Index(order, string(i.State)) < slices.Index(order, c.To) {
					t.Errorf("told of %s, found %s", c.To, i.State)
				}
			case event.TypeCreated:
				if err != nil {
					t.Errorf("created, and not found: %v", err)
				}
			}
		}
	}()
	i := started(t, s, "", "sleep")
	if err := s.Delete(t.Context(), i.ID, true); err != nil {
		t.Fatal(err)
	}
	<-done
}

func TestStartRefused(t *testing.T) {
	h := newHost(t)
	h.config = func(c *instance.Config) { c.Memory = 1 << 30 }
	s := h.open()
	want := spec("web", "serve")
	want.Cmd = []string{"serve", "80"}
	want.Ports = []machine.Port{{GuestPort: 80}}
	i, err := s.Create(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	if len(i.Ports) != 1 || i.Ports[0].HostPort == 0 || !i.Ports[0].HostAddr.IsLoopback() {
		t.Fatalf("published %+v", i.Ports)
	}
	if i, err = s.Stop(t.Context(), "web"); err != nil || i.Ports != nil {
		t.Fatalf("stopped %+v, %v", i, err)
	}
	if _, err := s.Start(t.Context(), "web", instance.StartOptions{Entrypoint: []string{""}}); !errors.Is(err, api.Invalid) {
		t.Errorf("nothing to run: %v", err)
	}
	other := create(t, s, "other", "sleep")
	if _, err := s.Start(t.Context(), "web", instance.StartOptions{}); !errors.Is(err, api.Exhausted) {
		t.Errorf("no room: %v", err)
	}
	if err := s.Delete(t.Context(), other.ID, false); err != nil {
		t.Fatal(err)
	}
	before := h.events.Last()
	h.fake.Start(t.Context(), machine.Config{ID: i.ID, Dir: t.TempDir(), Process: machine.Process{Argv: []string{"sleep"}}})
	if _, err := s.Start(t.Context(), "web", instance.StartOptions{}); err == nil || !strings.Contains(err.Error(), "runs already") {
		t.Errorf("the driver refuses: %v", err)
	}
	after, err := s.Find("web")
	if err != nil || after.State != instance.Stopped || after.Exit.Reason != machine.VMMFailed || !strings.Contains(after.StateError(), "runs already") {
		t.Errorf("after a start that failed %+v, %v", after, err)
	}
	if got := h.told(before); !slices.Equal(got, []string{"state Initializing", "state Stopped"}) {
		t.Errorf("events %v", got)
	}
	if a := s.Allocated(); a.Active != 0 || a.Memory != 0 {
		t.Errorf("allocated %+v", a)
	}
}

func TestFind(t *testing.T) {
	h := newHost(t)
	s := h.open()
	a, b := create(t, s, "aaa", "sleep"), create(t, s, "bbb", "sleep")
	for _, ref := range []string{a.ID, "aaa", a.ID[:23]} {
		if i, err := s.Find(ref); err != nil || i.ID != a.ID {
			t.Errorf("find %q: %v, %v", ref, i.ID, err)
		}
	}
	for _, ref := range []string{"", "nobody", a.ID + "x"} {
		if _, err := s.Find(ref); !errors.Is(err, api.NotFound) {
			t.Errorf("find %q: %v", ref, err)
		}
	}
	if list := s.List(); len(list) != 2 || list[0].ID != a.ID || list[1].ID != b.ID {
		t.Errorf("list %v", list)
	}
	// Thirty ids begin with at most 26 letters, so two of them share one.
	for range 28 {
		create(t, s, "", "exit")
	}
	seen := map[string]bool{}
	for _, i := range s.List() {
		first := i.ID[:1]
		if !seen[first] {
			seen[first] = true
			continue
		}
		_, err := s.Find(first)
		e, ok := errors.AsType[*api.Error](err)
		if !ok || e.Code != "ambiguous_reference" || len(e.Details) < 2 {
			t.Errorf("find %q: %v", first, err)
		}
	}
	if err := s.Delete(t.Context(), a.ID[:5], false); !errors.Is(err, api.Invalid) && !errors.Is(err, api.NotFound) {
		t.Errorf("delete by a short prefix: %v", err)
	}
	if err := s.Delete(t.Context(), a.ID[:20], false); err != nil {
		t.Errorf("delete by a long prefix: %v", err)
	}
}

// Reading waits for no operation.
func TestReadersDoNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		s := h.open()
		started(t, s, "web", "stuck")
		done := make(chan error)
		go func() { done <- s.Delete(t.Context(), "web", true) }()
		synctest.Wait()
		begun := time.Now()
		if got, err := s.Find("web"); err != nil || got.State != instance.Shutdown {
			t.Errorf("found %s, %v", got.State, err)
		}
		if len(s.List()) != 1 {
			t.Error("not listed")
		}
		if _, err := s.Machine("web"); err != nil {
			t.Error(err)
		}
		if time.Since(begun) != 0 {
			t.Error("reading took time")
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		s := h.open()
		want := spec("web", "sleep")
		begun := time.Now()
		want.ExpiresAt = begun.Add(2 * time.Hour)
		i, err := s.Create(t.Context(), want)
		if err != nil {
			t.Fatal(err)
		}
		await(t, s, i.ID, instance.Running)
		sooner := begun.Add(time.Hour)
		if _, err := s.Update(t.Context(), "web", instance.Update{ExpiresAt: &sooner}); err != nil {
			t.Fatal(err)
		}
		for {
			changed := s.Changed(i.ID)
			if _, err := s.Find(i.ID); err != nil {
				break
			}
			<-changed
		}
		if took := time.Since(begun); took != time.Hour {
			t.Errorf("deleted after %s", took)
		}
		synctest.Wait()
		if left := h.left(); len(left) != 0 {
			t.Errorf("left: %v", left)
		}
	})
}

func TestManyAtOnce(t *testing.T) {
	h := newHost(t)
	s := h.open()
	var wg sync.WaitGroup
	var made, refused int
	var mu sync.Mutex
	for n := range 24 {
		wg.Go(func() {
			i, err := s.Create(t.Context(), spec(fmt.Sprintf("n%d", n%12), "sleep"))
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil && i.IP != "":
				made++
			case errors.Is(err, api.Conflict):
				refused++
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if made != 12 || refused != 12 {
		t.Errorf("%d made, %d refused", made, refused)
	}
	addresses := map[string]bool{}
	for _, i := range s.List() {
		addresses[i.IP] = true
		wg.Go(func() {
			if err := s.Delete(t.Context(), i.ID, true); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(addresses) != 12 || h.fake.Running() != 0 || len(h.left()) != 0 {
		t.Errorf("%d addresses, %d machines, %v", len(addresses), h.fake.Running(), h.left())
	}
}

// However much a shim says of an end, the event of it finds room.
func TestWordsWithoutEnd(t *testing.T) {
	h := newHost(t)
	s := h.open()
	i := started(t, s, "web", "sleep")
	words := strings.Repeat("x", 1<<18)
	h.fake.Crash(i.ID, machine.Exit{Reason: machine.Reason(words), Signal: words, Message: words, Console: words})
	await(t, s, i.ID, instance.Stopped)
	if _, err := s.Start(t.Context(), "web", instance.StartOptions{}); err != nil {
		t.Error(err)
	}
}

// What a guest says of its end is in the events as a person may read it: it has no say over a terminal.
func TestWordsOfAGuestInEvents(t *testing.T) {
	h := newHost(t)
	s := h.open()
	i := started(t, s, "web", "sleep")
	before := h.events.Last()
	h.fake.Crash(i.ID, machine.Exit{Reason: machine.ProgramFailed, Message: "no such\n\x1b]0;file\a or\u009b2J \xffdirectory"})
	r := h.events.Follow(before, "test")
	defer r.Close()
	for {
		e, err := r.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var c event.StateChange
		if json.Unmarshal(e.Data, &c) != nil || c.To != string(instance.Stopped) {
			continue
		}
		if want := "program_failed: no such ]0;file or2J \ufffddirectory"; c.Reason != want {
			t.Errorf("%q, want %q", c.Reason, want)
		}
		return
	}
}
