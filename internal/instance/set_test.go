package instance_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/event"
	"github.com/halevm/hale/internal/health"
	"github.com/halevm/hale/internal/instance"
	"github.com/halevm/hale/internal/instance/fake"
	"github.com/halevm/hale/internal/machine"
)

// images knows every reference but "missing"; an image's program is what its name says.
type images struct{}

func (images) Image(ctx context.Context, ref string) (instance.Image, error) {
	if ref == "missing" {
		return instance.Image{}, fmt.Errorf("image %q: %w", ref, api.NotFound)
	}
	name := strings.TrimSuffix(strings.TrimPrefix(ref, "docker.io/library/"), ":latest")
	img := instance.Image{Ref: "docker.io/library/" + name + ":latest", Digest: "sha256:" + name, Disk: "/" + name + ".ext4",
		Platform: "linux/amd64", Cmd: []string{name}, Env: []string{"A=image"}}
	if name == "empty" {
		img.Cmd = nil
	}
	return img, nil
}

// A host is what outlives a Set.
type host struct {
	t      testing.TB
	dir    string
	fake   *fake.Driver
	driver instance.Driver
	events *event.Log
	config func(*instance.Config)
}

func newHost(t testing.TB) *host {
	l, err := event.Open("", event.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	d := fake.New(fake.Config{})
	return &host{t: t, dir: filepath.Join(t.TempDir(), "instances"), fake: d, driver: d, events: l}
}

// open begins a daemon on the host.
func (h *host) open() *instance.Set {
	h.t.Helper()
	c := instance.Config{Dir: h.dir, Driver: h.driver, Images: images{}, Events: h.events}
	if h.config != nil {
		h.config(&c)
	}
	s, err := instance.Open(h.t.Context(), c)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { h.close(s) })
	return s
}

func (h *host) close(s *instance.Set) {
	h.t.Helper()
	if err := s.Close(context.WithoutCancel(h.t.Context())); err != nil {
		h.t.Error(err)
	}
}

// left is what lies in the instances' directory.
func (h *host) left() []string {
	h.t.Helper()
	entries, err := os.ReadDir(h.dir)
	if err != nil {
		h.t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// told returns the events since a place, as "type" or "state To".
func (h *host) told(since event.ID) []string {
	h.t.Helper()
	const mark = event.Type("mark")
	last := h.events.Last()
	if e, err := h.events.Append(h.t.Context(), mark, "", "", nil); err == nil { // what is seen of an instance already may be an event only now
		last = e.ID
	}
	r := h.events.Follow(since, "test")
	defer r.Close()
	var out []string
	for at := since; at != last; {
		e, err := r.Next(h.t.Context())
		if err != nil {
			h.t.Fatal(err)
		}
		if at = e.ID; e.Type == mark {
			continue
		}
		text := string(e.Type)
		if e.Type == event.TypeState {
			var c event.StateChange
			if err := json.Unmarshal(e.Data, &c); err != nil {
				h.t.Fatal(err)
			}
			text += " " + c.To
		}
		out = append(out, text)
	}
	return out
}

func spec(name, image string) instance.Spec {
	return instance.Spec{Name: name, Image: image, VCPUs: 1, Memory: instance.Size{Bytes: 1 << 30}, Overlay: instance.Size{Bytes: 1 << 30}}
}

func create(t testing.TB, s *instance.Set, name, image string) instance.Instance {
	t.Helper()
	i, err := s.Create(t.Context(), spec(name, image))
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// await waits until the instance is in that state.
func await(t testing.TB, s *instance.Set, id string, want instance.State) instance.Instance {
	t.Helper()
	for {
		changed := s.Changed(id)
		i, err := s.Find(id)
		if err != nil {
			t.Fatalf("waiting for %s: %v", want, err)
		}
		if i.State == want {
			return i
		}
		select {
		case <-changed:
		case <-t.Context().Done():
			t.Fatalf("is %s, want %s", i.State, want)
		}
	}
}

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
	i := create(t, s, "", "sleep")
	await(t, s, i.ID, instance.Running)
	if err := s.Delete(t.Context(), i.ID, true); err != nil {
		t.Fatal(err)
	}
	<-done
}

func TestRefusedCreate(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := netip.MustParseAddrPort(l.Addr().String())
	tcp, err := health.Parse(json.RawMessage(`{"tcp":{"port":80}}`))
	if err != nil {
		t.Fatal(err)
	}
	h := newHost(t)
	h.config = func(c *instance.Config) { c.Memory = 3 << 30 }
	s := h.open()
	create(t, s, "web", "sleep")
	before, beside := h.events.Last(), len(h.left())
	for name, tt := range map[string]struct {
		edit  func(*instance.Spec)
		kind  api.Kind
		code  string
		field string
	}{
		"name taken":   {func(s *instance.Spec) { s.Name = "web" }, api.Conflict, "name_conflict", "name"},
		"bad name":     {func(s *instance.Spec) { s.Name = "Web" }, api.Invalid, "invalid_request", "name"},
		"long name":    {func(s *instance.Spec) { s.Name = strings.Repeat("a", 64) }, api.Invalid, "invalid_request", "name"},
		"no room":      {func(s *instance.Spec) { s.Memory.Bytes = 2<<30 + 1 }, api.Exhausted, "insufficient_resources", ""},
		"no image":     {func(s *instance.Spec) { s.Image = "missing" }, api.NotFound, "", ""},
		"no program":   {func(s *instance.Spec) { s.Image = "empty" }, api.Invalid, "invalid_request", "cmd"},
		"no cpus":      {func(s *instance.Spec) { s.VCPUs = 0 }, api.Invalid, "invalid_request", "vcpus"},
		"no memory":    {func(s *instance.Spec) { s.Memory.Bytes = 0 }, api.Invalid, "invalid_request", "size"},
		"no layer":     {func(s *instance.Spec) { s.Overlay.Bytes = 0 }, api.Invalid, "invalid_request", "overlay_size"},
		"bad env":      {func(s *instance.Spec) { s.Env = map[string]string{"A=B": ""} }, api.Invalid, "invalid_request", "env"},
		"expired":      {func(s *instance.Spec) { s.ExpiresAt = time.Unix(1, 0) }, api.Invalid, "invalid_request", "expires_at"},
		"no such port": {func(s *instance.Spec) { s.Ports = []machine.Port{{}} }, api.Invalid, "invalid_request", "network.ports[0].guest_port"},
		"port in use": {func(s *instance.Spec) {
			s.Ports = []machine.Port{{GuestPort: 1}, {HostPort: taken.Port(), GuestPort: 80}}
		}, api.Conflict, "port_in_use", "network.ports[1].host_port"},
		"port twice": {func(s *instance.Spec) {
			s.Ports = []machine.Port{{HostPort: 1, GuestPort: 80}, {HostPort: 1, GuestPort: 81}}
		}, api.Invalid, "invalid_request", "network.ports[1].host_port"},
		"ports without a network": {func(s *instance.Spec) {
			s.NoNetwork, s.Ports = true, []machine.Port{{GuestPort: 80}}
		}, api.Invalid, "invalid_request", "network.ports"},
		"check without a network": {func(s *instance.Spec) {
			s.NoNetwork, s.HealthCheck = true, &tcp
		}, api.Invalid, "invalid_health_check", "health_check.tcp"},
	} {
		t.Run(name, func(t *testing.T) {
			want := spec("other", "sleep")
			tt.edit(&want)
			i, err := s.Create(t.Context(), want)
			if !errors.Is(err, tt.kind) {
				t.Fatalf("%+v, %v; want %s", i, err, tt.kind)
			}
			e, ok := errors.AsType[*api.Error](err)
			if tt.code != "" && (!ok || e.Code != tt.code || !e.NoRetry) {
				t.Errorf("error %+v, want code %s", e, tt.code)
			}
			if tt.field != "" && (len(e.Details) != 1 || e.Details[0].Field != tt.field) {
				t.Errorf("details %+v, want field %s", e.Details, tt.field)
			}
		})
	}
	if got := h.told(before); !slices.Equal(got, []string{"state Running"}) && len(got) != 0 {
		t.Errorf("events %v", got)
	}
	if got := h.left(); len(got) != beside {
		t.Errorf("left: %v", got)
	}
	if n := h.fake.Running(); n != 1 {
		t.Errorf("%d machines run, want 1", n)
	}
	if a := s.Allocated(); a.Instances != 1 || a.Active != 1 || a.Memory != 1<<30 || a.VCPUs != 1 {
		t.Errorf("allocated %+v", a)
	}
	if i, err := s.Create(t.Context(), spec("other", "sleep")); err != nil || i.IP != "10.77.0.4" && i.IP != "10.77.0.3" {
		t.Errorf("after all that: %+v, %v", i, err)
	}
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

func TestUpdate(t *testing.T) {
	h := newHost(t)
	s := h.open()
	i := create(t, s, "web", "sleep")
	await(t, s, i.ID, instance.Running)
	policy := func(text string) *instance.HealthUpdate {
		p, err := health.Parse(json.RawMessage(text))
		if err != nil {
			t.Fatal(err)
		}
		return &instance.HealthUpdate{Policy: &p}
	}
	str := func(s string) *string { return &s }
	later := time.Now().Add(time.Hour)
	if _, err := s.Update(t.Context(), "web", instance.Update{}); err != nil { // behind the event of Running, which is seen a moment before
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		u    instance.Update
		want []string // fields of the event; nil: none
	}{
		{"nothing", instance.Update{}, nil},
		{"a policy", instance.Update{HealthCheck: policy(`{"tcp":{"port":80}}`)}, []string{"health_check"}},
		{"an equal one", instance.Update{HealthCheck: policy(`{"type":"tcp","tcp":{"port":80},"interval":"10s"}`)}, nil},
		{"another", instance.Update{HealthCheck: policy(`{"tcp":{"port":81}}`)}, []string{"health_check"}},
		{"the image's", instance.Update{HealthCheck: &instance.HealthUpdate{}}, []string{"health_check"}},
		{"the image's again", instance.Update{HealthCheck: &instance.HealthUpdate{}}, nil},
		{"env", instance.Update{Env: map[string]*string{"A": str("1"), "B": str("2")}}, []string{"env"}},
		{"the same env", instance.Update{Env: map[string]*string{"A": str("1"), "C": nil}}, nil},
		{"env merged", instance.Update{Env: map[string]*string{"A": nil, "B": str("")}}, []string{"env"}},
		{"two at once", instance.Update{ExpiresAt: &later, Tags: map[string]string{"k": "v"}}, []string{"expires_at", "tags"}},
		{"never", instance.Update{ExpiresAt: &time.Time{}}, []string{"expires_at"}},
	} {
		before := h.events.Last()
		got, err := s.Update(t.Context(), "web", tt.u)
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if found, _ := s.Find("web"); fmt.Sprint(found) != fmt.Sprint(got) {
			t.Errorf("%s: returned %+v, found %+v", tt.name, got, found)
		}
		if tt.want == nil {
			if h.events.Last() != before {
				t.Errorf("%s: published %v", tt.name, h.told(before))
			}
			continue
		}
		r := h.events.Follow(before, "test")
		e, err := r.Next(t.Context())
		r.Close()
		var u event.Updated
		if err != nil || json.Unmarshal(e.Data, &u) != nil || e.Type != event.TypeUpdated || !slices.Equal(u.Fields, tt.want) || h.events.Last() != e.ID {
			t.Errorf("%s: event %+v, %v; want one of %v", tt.name, e, err, tt.want)
		}
	}
	past := time.Now().Add(-time.Hour)
	if _, err := s.Update(t.Context(), "web", instance.Update{ExpiresAt: &past}); !errors.Is(err, api.Invalid) {
		t.Errorf("an expiry in the past: %v", err)
	}
	if _, err := s.Update(t.Context(), "web", instance.Update{Env: map[string]*string{"=": str("")}}); !errors.Is(err, api.Invalid) {
		t.Errorf("a bad name: %v", err)
	}
	h.close(s)
	s = h.open()
	if got, err := s.Find("web"); err != nil || got.Spec.Tags["k"] != "v" || len(got.Spec.Env) != 1 || got.Spec.HealthCheck != nil {
		t.Errorf("after a restart %+v, %v", got, err)
	}
}

// A create whose caller has gone makes an instance that is seen, or leaves nothing: never a name that is taken by nobody.
func TestCreatorGoesAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		s := h.open()
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		for n := range 20 {
			s.Create(gone, spec(fmt.Sprint("n", n), "sleep"))
		}
		synctest.Wait()
		for _, i := range s.List() {
			if err := s.Delete(t.Context(), i.ID, false); err != nil {
				t.Error(err)
			}
		}
		if a := s.Allocated(); a.Instances != 0 || len(h.left()) != 0 {
			t.Errorf("left %+v, %v", a, h.left())
		}
	})
}

// An operation that has begun is finished without its caller.
func TestCallerGoesAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		s := h.open()
		i := create(t, s, "web", "hang")
		await(t, s, i.ID, instance.Running)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.Stop(ctx, "web"); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("stop: %v", err)
		}
		if got, _ := s.Find("web"); got.State != instance.Shutdown {
			t.Errorf("state %s", got.State)
		}
		// Another that waits its turn and gives up does nothing.
		if _, err := s.Start(ctx, "web", instance.StartOptions{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("start: %v", err)
		}
		stopped := await(t, s, i.ID, instance.Stopped)
		if stopped.Run != 1 {
			t.Errorf("run %d", stopped.Run)
		}
	})
}

func TestStopIsBounded(t *testing.T) {
	for _, tt := range []struct {
		program string
		want    machine.Reason
		after   time.Duration
	}{
		{"sleep", machine.Stopped, 0},
		{"hang", machine.Stopped, 10 * time.Second},
		{"stuck", machine.Killed, 15 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			h := newHost(t)
			s := h.open()
			i := create(t, s, "web", tt.program)
			await(t, s, i.ID, instance.Running)
			begun := time.Now()
			stopped, err := s.Stop(t.Context(), "web")
			if err != nil || stopped.Exit.Reason != tt.want || time.Since(begun) != tt.after {
				t.Errorf("%s: %+v after %s, %v; want %s after %s", tt.program, stopped.Exit, time.Since(begun), err, tt.want, tt.after)
			}
			if tt.want == machine.Killed && !strings.Contains(stopped.StateError(), "did not stop within") {
				t.Errorf("%s: %q", tt.program, stopped.StateError())
			}
		})
	}
}

// The agent's HELLO is published, and whoever asked is told, though there is no event of it.
func TestAgentReady(t *testing.T) {
	h := newHost(t)
	h.driver = fake.Surviving{Driver: h.fake}
	told := make(chan string, 2)
	h.config = func(c *instance.Config) { c.AgentReady = func(id string) { told <- id } }
	s := h.open()
	i := create(t, s, "web", "sleep")
	for range 2 { // a machine that is taken back says it again
		if id := <-told; id != i.ID {
			t.Errorf("told of %s", id)
		}
		if got, err := s.Find("web"); err != nil || !got.Agent {
			t.Errorf("%+v, %v", got, err)
		}
		await(t, s, i.ID, instance.Running)
		h.close(s)
		s = h.open()
	}
	if stopped, err := s.Stop(t.Context(), "web"); err != nil || stopped.Agent {
		t.Errorf("%+v, %v", stopped, err)
	}
}

// The first frame from the guest is published in the same way, and a hint is handed on as it is.
func TestNetworkUpAndHints(t *testing.T) {
	h := newHost(t)
	told := make(chan string, 2)
	h.config = func(c *instance.Config) {
		c.NetworkUp = func(id string) { told <- "network of " + id }
		c.Hinted = func(id string, port uint16, listening bool) { told <- fmt.Sprint(id, " ", port, " ", listening) }
	}
	s := h.open()
	i := create(t, s, "web", "sleep")
	if running := await(t, s, i.ID, instance.Running); running.Network {
		t.Errorf("before any frame: %+v", running)
	}
	if _, err := s.Update(t.Context(), "web", instance.Update{}); err != nil { // after this its event is in the log, too
		t.Fatal(err)
	}
	before := h.events.Last()
	h.fake.Say(i.ID, machine.Notice{Kind: machine.NetworkUp})
	if got, want := <-told, "network of "+i.ID; got != want {
		t.Errorf("told %q, want %q", got, want)
	}
	if got, err := s.Find("web"); err != nil || !got.Network {
		t.Errorf("%+v, %v", got, err)
	}
	h.fake.Say(i.ID, machine.Notice{Kind: machine.Hinted, Port: 80, Listening: true})
	if got, want := <-told, i.ID+" 80 true"; got != want {
		t.Errorf("told %q, want %q", got, want)
	}
	if h.events.Last() != before {
		t.Error("there are events of it")
	}
	if stopped, err := s.Stop(t.Context(), "web"); err != nil || stopped.Network {
		t.Errorf("%+v, %v", stopped, err)
	}
}

// What a machine says of itself is in the instance's own log, and changes nothing.
func TestLinesOfAMachine(t *testing.T) {
	h := newHost(t)
	s := h.open()
	i := create(t, s, "web", "sleep")
	running := await(t, s, i.ID, instance.Running)
	if _, err := s.Update(t.Context(), "web", instance.Update{}); err != nil { // after this its event is in the log, too
		t.Fatal(err)
	}
	before := h.events.Last()
	if !h.fake.Tell(i.ID, slog.LevelWarn, "the host's disk is full") || !h.fake.Tell(i.ID, slog.LevelInfo, "it goes on") {
		t.Fatal("it cannot speak")
	}
	if _, err := s.Update(t.Context(), "web", instance.Update{Env: map[string]*string{"NONE": nil}}); err != nil { // a notice may come after this
		t.Fatal(err)
	}
	if now, err := s.Find("web"); err != nil || fmt.Sprint(now) != fmt.Sprint(running) || h.events.Last() != before {
		t.Errorf("now it is %+v, %v", now, err)
	}
	if _, err := s.Stop(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	log, err := os.ReadFile(filepath.Join(h.dir, i.ID, instance.LogName))
	if err != nil || !strings.Contains(string(log), `level=WARN msg="the host's disk is full"`) || !strings.Contains(string(log), `level=INFO msg="it goes on"`) {
		t.Errorf("%v\n%s", err, log)
	}
}

// A deletion by force does not wait for an orderly stop, and leaves the next one its time.
func TestForcedDeleteInterruptsAStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		s := h.open()
		i := create(t, s, "web", "stuck")
		await(t, s, i.ID, instance.Running)
		stopped := make(chan error)
		go func() {
			i, err := s.Stop(t.Context(), "web")
			if err == nil && (i.State != instance.Stopped || !strings.Contains(i.Exit.Message, "forced")) {
				err = fmt.Errorf("stopped %+v", i.Exit)
			}
			stopped <- err
		}()
		time.Sleep(time.Second)
		begun := time.Now()
		if err := s.Delete(t.Context(), "web", false); err != nil || time.Since(begun) != 0 {
			t.Errorf("deleted after %v: %v", time.Since(begun), err)
		}
		if err := <-stopped; err != nil {
			t.Error(err)
		}

		i = create(t, s, "web", "hang")
		await(t, s, i.ID, instance.Running)
		begun = time.Now()
		if i, err := s.Stop(t.Context(), "web"); err != nil || time.Since(begun) != 10*time.Second || i.Exit.Reason != machine.Stopped {
			t.Errorf("%+v after %v, %v", i.Exit, time.Since(begun), err)
		}
	})
}

// Reading waits for no operation.
func TestReadersDoNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		s := h.open()
		i := create(t, s, "web", "stuck")
		await(t, s, i.ID, instance.Running)
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

// The domain imports no driver and no edge.
func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "github.com/halevm/hale/internal/instance").Output()
	if err != nil {
		t.Fatal(err)
	}
	may := []string{"api", "internal/egress", "internal/event", "internal/health", "internal/instance", "internal/logfile", "internal/machine", "internal/store"}
	for dep := range strings.Lines(string(out)) {
		ours, ok := strings.CutPrefix(strings.TrimSpace(dep), "github.com/halevm/hale/")
		if ok && !slices.Contains(may, ours) {
			t.Errorf("imports %s", ours)
		}
	}
}
