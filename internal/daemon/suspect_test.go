package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
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

// A suspicion, and then its end, are in the log once each, however long the log takes for them or refuses them.
func TestSuspicionOutlastsTheLog(t *testing.T) {
	for name, c := range map[string]struct {
		trouble func(t *testing.T, log *event.Log, dir string) (over func())
		most    time.Duration // that it takes after that
	}{
		"none": {func(*testing.T, *event.Log, string) func() { return func() {} }, 0},
		"it is slow": {func(t *testing.T, log *event.Log, _ string) func() {
			slow := make(chan struct{})
			go log.Commit(t.Context(), event.TypeResync, "", "", nil, func(event.Event) { <-slow })
			synctest.Wait()
			return func() { close(slow) }
		}, 0},
		"it refuses": {func(t *testing.T, log *event.Log, dir string) func() {
			if _, err := log.Append(t.Context(), event.TypeResync, "", "", nil); err != nil {
				t.Fatal(err)
			}
			inTheWay := filepath.Join(dir, fmt.Sprintf("%020d.log", 2)) // of the next event
			if err := os.Mkdir(inTheWay, 0o700); err != nil {
				t.Fatal(err)
			}
			return func() { os.Remove(inTheWay) }
		}, loopPause},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := t.TempDir()
				log, err := event.Open(dir, event.Options{MaxEvents: 8}) // a file for each
				if err != nil {
					t.Fatal(err)
				}
				defer log.Close()
				d := &Daemon{log: slog.New(slog.DiscardHandler), events: log, loops: newLoops(nil, nil)}
				told := []health.Suspicion{{Suspect: true, Turned: 6, Watched: 6}, {Turned: 6, Healthy: 3}}
				over := c.trouble(t, log, dir)
				var wg sync.WaitGroup
				wg.Go(func() {
					for _, what := range told {
						d.suspected(what)
					}
				})
				time.Sleep(time.Minute)
				over()
				mended := time.Now()
				wg.Wait()
				if took := time.Since(mended); took > c.most {
					t.Errorf("it took %v", took)
				}
				if got := suspicions(t, log); !slices.Equal(got, told) {
					t.Errorf("told %+v, want %+v", got, told)
				}
			})
		})
	}
}

// What the log does not take keeps no daemon from its end.
func TestSuspicionIsLeftToTheNextDaemon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, err := event.Open("", event.Options{})
		if err != nil {
			t.Fatal(err)
		}
		slow := make(chan struct{})
		go log.Commit(t.Context(), event.TypeResync, "", "", nil, func(event.Event) { <-slow })
		synctest.Wait()
		d := &Daemon{log: slog.New(slog.DiscardHandler), events: log, loops: newLoops(nil, nil)}
		var wg sync.WaitGroup
		wg.Go(func() { d.suspected(health.Suspicion{Suspect: true}) })
		time.Sleep(time.Minute)
		d.loops.stop()
		wg.Wait()
		close(slow)
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	})
}

// suspicions are what a log holds of them.
func suspicions(t *testing.T, log *event.Log) (told []health.Suspicion) {
	t.Helper()
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

// A suspicion that stood when a daemon ended is ended in the log by the next, once.
func TestSuspicionEndsWithItsDaemon(t *testing.T) {
	dir := t.TempDir()
	hosts := func(appended ...health.Suspicion) []health.Suspicion {
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
		return suspicions(t, log)
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
