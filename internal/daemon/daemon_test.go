package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/health"
	"github.com/halevm/hale/internal/instance"
	"github.com/halevm/hale/internal/instance/fake"
	"github.com/halevm/hale/internal/machine"
	"github.com/halevm/hale/internal/token"
	hale "github.com/halevm/hale/sdk/go"
)

// slow is a driver that takes its time to start a machine, as a host that makes disks does.
type slow struct {
	fake.Surviving
	start time.Duration
}

func (s slow) Start(ctx context.Context, c machine.Config) (instance.Machine, error) {
	time.Sleep(s.start)
	return s.Surviving.Start(ctx, c)
}

// run runs a daemon over the fakes until the func that it returns is called.
func run(t *testing.T, dir string, machines instance.Driver) (*hale.Client, func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	url := make(chan string, 1)
	ended := make(chan error, 1)
	go func() {
		ended <- Run(ctx, Config{
			DataDir: dir, Listen: "127.0.0.1:0", Log: slog.New(slog.DiscardHandler), machines: machines,
			Ready: func(u string) { url <- u },
		})
	}()
	var at string
	select {
	case at = <-url:
	case err := <-ended:
		t.Fatal(err)
	}
	secret, err := token.LoadOrCreate(dir)
	if err != nil {
		t.Fatal(err)
	}
	bearer, err := secret.Mint(time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	c, err := hale.New(at, bearer)
	if err != nil {
		t.Fatal(err)
	}
	return c, func() {
		t.Helper()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// load imports an image whose program serves port 80.
func load(t *testing.T, c *hale.Client) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	img, err := random.Image(1<<10, 1)
	must(err)
	config, err := img.ConfigFile()
	must(err)
	config.OS, config.Architecture, config.Config.Entrypoint = "linux", "amd64", []string{"serve", "80"}
	img, err = mutate.ConfigFile(img, config)
	must(err)
	ref, err := name.ParseReference("app:latest")
	must(err)
	var b bytes.Buffer
	must(tarball.Write(ref, img, &b))
	_, err = c.ImportImage(t.Context(), &b, hale.Import{})
	must(err)
}

func wait(t *testing.T, c *hale.Client, w hale.Wait) {
	t.Helper()
	w.Timeout = time.Minute
	if a, err := c.WaitInstance(t.Context(), "web", w); err != nil || a.TimedOut || a.StateError != nil {
		t.Fatalf("waiting for %+v: %+v, %v", w, a, err)
	}
}

// While a machine is made and boots, a check that cannot be made is told once for each cause, and made as soon as it can be.
func TestBootLeavesOneResultForEachCause(t *testing.T) {
	const pause = 500 * time.Millisecond // several probes at the pace of a boot
	for name, check := range map[string]string{
		"http": `{"http":{"port":80,"path":"/healthz"},"interval":"10s","start_interval":"50ms"}`,
		"exec": `{"exec":{"command":["true"]},"interval":"10s","start_interval":"50ms"}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			driver := slow{fake.Surviving{Driver: fake.New(fake.Config{Boot: pause})}, pause}
			c, stop := run(t, t.TempDir(), driver)
			defer stop()
			load(t, c)
			if _, err := c.CreateInstance(t.Context(), api.CreateInstanceRequest{Name: "web", Image: "app", HealthCheck: json.RawMessage(check)}); err != nil {
				t.Fatal(err)
			}
			wait(t, c, hale.Wait{Health: api.HealthStateHealthy})
			if _, err := c.StopInstance(t.Context(), "web"); err != nil {
				t.Fatal(err)
			}
			if _, err := c.StartInstance(t.Context(), "web", api.StartInstanceRequest{}); err != nil {
				t.Fatal(err)
			}
			wait(t, c, hale.Wait{Health: api.HealthStateHealthy})
			h, err := c.InstanceHealth(t.Context(), "web")
			if err != nil {
				t.Fatal(err)
			}
			type key struct {
				window uint64
				cause  string
			}
			seen := map[key]int{}
			for _, r := range h.Results {
				if r.Outcome == string(health.Inconclusive) {
					seen[key{r.Window, r.Cause}]++
				}
			}
			for k, n := range seen {
				if n > 1 {
					t.Errorf("window %d: %d results with the cause %s", k.window, n, k.cause)
				}
			}
			if seen[key{2, health.CauseNoMachine}] != 1 {
				t.Errorf("the second start took no time: %+v", h.Results)
			}
			if err := c.DeleteInstance(t.Context(), "web", false); err != nil {
				t.Error(err)
			}
		})
	}
}

// Health measures the grace by the clock that nobody sets, where that was read.
func TestEnteredIsSeen(t *testing.T) {
	entered := time.Now()
	in := instance.Instance{ID: "a", Run: 1, State: instance.Running, Since: entered.Round(0).Add(-time.Hour)}
	if got := observed(in).Entered; got != in.Since {
		t.Errorf("of another daemon's instance: %v", got)
	}
	in.Entered = entered
	if got := observed(in).Entered; got != entered {
		t.Errorf("%v", got)
	}
}

// The agent's HELLO is seen by health.
func TestHelloIsSeen(t *testing.T) {
	in := instance.Instance{ID: "a", Run: 1, State: instance.Initializing}
	if observed(in).Agent {
		t.Error("an agent is seen that has said nothing")
	}
	in.Agent = true
	if !observed(in).Agent {
		t.Error("its HELLO is not handed on")
	}
}

// The instance's own log tells of its health, and says nothing again after a restart of the daemon.
func TestInstancesLogTellsOfHealth(t *testing.T) {
	dir := t.TempDir()
	driver := fake.Surviving{Driver: fake.New(fake.Config{})}
	c, stop := run(t, dir, driver)
	load(t, c)
	in, err := c.CreateInstance(t.Context(), api.CreateInstanceRequest{Name: "web", Image: "app",
		HealthCheck: json.RawMessage(`{"http":{"port":80,"path":"/healthz"},"interval":"200ms"}`)})
	if err != nil {
		t.Fatal(err)
	}
	wait(t, c, hale.Wait{Health: api.HealthStateHealthy})
	text := func() string {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(dir, "instances", in.ID, instance.LogName))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	before := text()
	if strings.Count(before, `msg="health is healthy"`) != 1 || strings.Count(before, `msg="guest agent ready"`) != 1 {
		t.Errorf("the log does not tell once:\n%s", before)
	}
	stop()
	c, stop = run(t, dir, driver)
	defer stop()
	if _, err := c.StopInstance(t.Context(), "web"); err != nil { // by then everything that the machine repeated was taken in
		t.Fatal(err)
	}
	if after := text(); strings.Count(after, `msg="guest agent ready"`) != 1 {
		t.Errorf("after a restart of the daemon:\n%s", after)
	}
	if err := c.DeleteInstance(t.Context(), "web", false); err != nil {
		t.Error(err)
	}
}

// The next daemon goes on with the health of what runs, and shows what was known of what does not, though nothing happens to either.
func TestTheNextDaemonTakesHealthUp(t *testing.T) {
	dir := t.TempDir()
	driver := fake.Surviving{Driver: fake.New(fake.Config{})}
	c, stop := run(t, dir, driver)
	load(t, c)
	for _, name := range []string{"web", "rests"} {
		if _, err := c.CreateInstance(t.Context(), api.CreateInstanceRequest{Name: name, Image: "app",
			HealthCheck: json.RawMessage(`{"http":{"port":80,"path":"/healthz"},"interval":"200ms"}`)}); err != nil {
			t.Fatal(err)
		}
		if w, err := c.WaitInstance(t.Context(), name, hale.Wait{Health: api.HealthStateHealthy, Timeout: time.Minute}); err != nil || w.TimedOut {
			t.Fatalf("%+v, %v", w, err)
		}
	}
	if _, err := c.StopInstance(t.Context(), "rests"); err != nil {
		t.Fatal(err)
	}
	known := func(name string) api.InstanceHealth {
		t.Helper()
		h, err := c.InstanceHealth(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	web, rests := known("web"), known("rests")
	stop()
	c, stop = run(t, dir, driver)
	defer stop()
	if got := known("web"); got.Status != api.HealthStateHealthy { // from the first answer on
		t.Errorf("it is %s to who asks at once", got.Status)
	}
	if got := known("rests"); got.Status != api.HealthStateUnknown || got.LastStatus != api.HealthStateHealthy || len(got.Results) != len(rests.Results) {
		t.Errorf("of one that rests: %s, before %s, %d results of %d", got.Status, got.LastStatus, len(got.Results), len(rests.Results))
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		got := known("web")
		for _, more := range got.Transitions[len(web.Transitions):] { // that it is stale no longer is one, too
			if more.From != more.To {
				t.Fatalf("a restart of the daemon made it %s", more.To)
			}
		}
		if got.LastCheckedAt.After(*web.LastCheckedAt) && !got.Stale {
			break
		}
		if time.Now().After(end) {
			t.Fatal("it is probed no more")
		}
	}
	for _, name := range []string{"web", "rests"} {
		if err := c.DeleteInstance(t.Context(), name, true); err != nil {
			t.Error(err)
		}
	}
}

// An image cannot be deleted from under an instance that is being created, nor its disk go.
func TestImageIsKeptWhileAnInstanceIsCreated(t *testing.T) {
	driver := slow{fake.Surviving{Driver: fake.New(fake.Config{})}, 500 * time.Millisecond}
	dir := t.TempDir()
	c, stop := run(t, dir, driver)
	defer stop()
	load(t, c)
	made := make(chan error, 1)
	go func() {
		_, err := c.CreateInstance(t.Context(), api.CreateInstanceRequest{Name: "web", Image: "app"})
		made <- err
	}()
	for seen := false; !seen; { // until the create has begun, and long before it is over
		entries, err := os.ReadDir(filepath.Join(dir, "instances"))
		if err != nil {
			t.Fatal(err)
		}
		seen = len(entries) > 0
	}
	if err := c.DeleteImage(t.Context(), "app"); !errors.Is(err, api.Conflict) {
		t.Errorf("the image was deleted: %v", err)
	}
	if err := <-made; err != nil {
		t.Fatal(err)
	}
	if disks, err := os.ReadDir(filepath.Join(dir, "images", "disks")); err != nil || len(disks) != 1 {
		t.Errorf("its disk: %v, %v", disks, err)
	}
	if err := c.DeleteInstance(t.Context(), "web", false); err != nil {
		t.Error(err)
	}
	if err := c.DeleteImage(t.Context(), "app"); err != nil {
		t.Error(err)
	}
}
