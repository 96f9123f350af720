package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/event"
	"github.com/halevm/hale/internal/health"
	"github.com/halevm/hale/internal/instance"
	"github.com/halevm/hale/internal/instance/fake"
	"github.com/halevm/hale/internal/machine"
	hale "github.com/halevm/hale/sdk/go"
)

// failing is a driver whose machines all fail their checks at once when it is told to.
type failing struct {
	fake.Surviving
	bad *atomic.Bool
}

func (f failing) Start(ctx context.Context, c machine.Config) (instance.Machine, error) {
	m, err := f.Surviving.Start(ctx, c)
	return failingMachine{m, f.bad}, err
}

type failingMachine struct {
	instance.Machine
	bad *atomic.Bool
}

func (m failingMachine) Probe(context.Context, health.Policy, func()) health.Result {
	if m.bad.Load() {
		return health.Result{Outcome: health.Failure, Reason: "connection refused (port 80)", Definite: true}
	}
	return health.Result{Outcome: health.Success, Reason: "status 200"}
}

// Five that fail at once: /health says that the host is suspected, and each change of that is one event.
func TestHostSuspect(t *testing.T) {
	const n = 5
	bad := new(atomic.Bool)
	c, stop := run(t, t.TempDir(), failing{fake.Surviving{Driver: fake.New(fake.Config{})}, bad})
	defer stop()
	load(t, c)
	ctx, cancel := context.WithCancel(t.Context())
	told := make(chan health.Suspicion, 10)
	listening := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		place := "unknown-1" // so that a resync comes first
		for e, err := range c.EventsFrom(ctx, &place) {
			if err != nil {
				return
			}
			if e.Type == string(event.TypeResync) {
				close(listening)
			}
			var what health.Suspicion
			if e.Type == string(event.TypeHost) {
				if err := json.Unmarshal(e.Data, &what); err != nil || e.Instance != "" {
					t.Errorf("%+v: %v", e, err)
				}
				told <- what
			}
		}
	})
	defer wg.Wait()
	defer cancel()
	<-listening
	for i := range n {
		_, err := c.CreateInstance(t.Context(), api.CreateInstanceRequest{
			Name: fmt.Sprint("web", i), Image: "app", HealthCheck: json.RawMessage(`{"tcp":{"port":80},"interval":"100ms"}`),
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []health.Suspicion{{Suspect: true, Turned: n, Watched: n}, {Turned: n, Healthy: (n + 1) / 2}} {
		for i := range n {
			a, err := c.WaitInstance(t.Context(), fmt.Sprint("web", i), hale.Wait{Health: api.HealthStateHealthy, Timeout: time.Minute})
			if err != nil || a.TimedOut {
				t.Fatalf("web%d: %+v, %v", i, a, err)
			}
		}
		bad.Store(want.Suspect)
		got := <-told
		got.Time = time.Time{}
		if got != want {
			t.Errorf("told %+v, want %+v", got, want)
		}
		h, err := c.Health(t.Context())
		if err != nil || h.HostSuspect != want.Suspect {
			t.Errorf("/health says %v, %v", h.HostSuspect, err)
		}
		bad.Store(false)
	}
}

// A suspicion that stood when a daemon ended is ended in the log by the next, once.
func TestSuspicionEndsWithItsDaemon(t *testing.T) {
	dir := t.TempDir()
	hosts := func(appended ...health.Suspicion) (told []health.Suspicion) {
		t.Helper()
		log, err := event.Open(filepath.Join(dir, "events"), event.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer log.Close()
		for _, what := range appended {
			if _, err := log.Append(t.Context(), event.TypeHost, "", "", what); err != nil {
				t.Fatal(err)
			}
		}
		r := log.Follow(log.Oldest(), "test")
		defer r.Close()
		for at := log.Oldest(); at.Seq < log.Last().Seq; {
			e, err := r.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var what health.Suspicion
			if at = e.ID; e.Type != event.TypeHost {
				continue
			}
			if err := json.Unmarshal(e.Data, &what); err != nil {
				t.Fatal(err)
			}
			told = append(told, what)
		}
		return told
	}
	live := func() {
		_, stop := run(t, dir, fake.Surviving{Driver: fake.New(fake.Config{})})
		stop()
	}
	live()
	if told := hosts(); len(told) != 0 {
		t.Errorf("told %+v", told)
	}
	hosts(health.Suspicion{Turned: 7}, health.Suspicion{Suspect: true, Turned: 6, Watched: 6})
	live()
	live()
	told := hosts()
	if len(told) != 3 {
		t.Fatalf("told %+v", told)
	}
	if last := told[2]; last.Suspect || last.Turned != 6 || last.Reason == "" || last.Time.IsZero() {
		t.Errorf("the last is %+v", last)
	}
}
