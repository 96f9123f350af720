package instance_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/event"
	"github.com/halevm/hale/internal/instance"
	"github.com/halevm/hale/internal/instance/fake"
	"github.com/halevm/hale/internal/machine"
)

// someID is an id as instances have them.
const someID = "a23456789012345678901234"

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

// survives makes the host's machines outlive their daemon.
func (h *host) survives() { h.driver = fake.Surviving{Driver: h.fake} }

// holds puts files into the directory of an instance, as an earlier daemon may have left them.
func (h *host) holds(id string, files map[string][]byte) {
	h.t.Helper()
	dir := filepath.Join(h.dir, id)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		h.t.Fatal(err)
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			h.t.Fatal(err)
		}
	}
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

// A starter is a driver that has no more than a Start.
type starter func(context.Context, machine.Config) (instance.Machine, error)

func (f starter) Start(ctx context.Context, c machine.Config) (instance.Machine, error) {
	return f(ctx, c)
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

// started is a new instance that runs.
func started(t testing.TB, s *instance.Set, name, image string) instance.Instance {
	t.Helper()
	return await(t, s, create(t, s, name, image).ID, instance.Running)
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
