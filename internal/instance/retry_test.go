package instance_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/event"
	"github.com/halevm/hale/internal/instance"
	"github.com/halevm/hale/internal/instance/fake"
	"github.com/halevm/hale/internal/machine"
)

// A mute driver's first machines say nothing, and are given up after a minute; the others are the fake driver's.
type mute struct {
	*fake.Driver
	mu     sync.Mutex
	mutes  int // how many more
	starts int
	fails  error // of every start but the first
}

const patience = time.Minute

var gaveUp = machine.Exit{Reason: machine.BootTimeout, Message: "the guest did not come up within 1m0s", Silent: true}

func (d *mute) Start(ctx context.Context, c machine.Config) (instance.Machine, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.starts++
	if d.starts > 1 && d.fails != nil {
		return nil, d.fails
	}
	if d.mutes == 0 {
		return d.Driver.Start(ctx, c)
	}
	d.mutes--
	silent := fake.New(fake.Config{Boot: time.Hour})
	time.AfterFunc(patience, func() { silent.Crash(c.ID, gaveUp) })
	return silent.Start(ctx, c)
}

// A survivor's machines outlive the daemon, or have ended meanwhile.
type survivor struct {
	*mute
	ended error
}

func (d survivor) Recover(context.Context, machine.Config) (instance.Machine, error) {
	return nil, d.ended
}

// muteHost is a host whose driver is d, with one retry; retried counts what the hook was told.
func muteHost(t *testing.T, d *mute) (h *host, retried *int) {
	h = newHost(t)
	d.Driver, h.driver, retried = h.fake, d, new(int)
	h.config = func(c *instance.Config) {
		c.BootRetries, c.BootRetried = 1, func() { *retried++ }
	}
	return h, retried
}

func TestSilentBootIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, retried := muteHost(t, &mute{mutes: 1})
		s := h.open()
		before := h.events.Last()
		i := create(t, s, "web", "sleep")
		if i.Boots != 1 {
			t.Errorf("created with %d boots", i.Boots)
		}
		i = await(t, s, i.ID, instance.Running)
		if i.Boots != 2 || i.Run != 1 || i.BootedAt.Sub(i.StartedAt) < patience || !i.Agent || *retried != 1 {
			t.Errorf("%+v, retried %d", i, *retried)
		}
		if got := h.told(before); !slices.Equal(got, []string{"created", "state Initializing", "boot_retry", "state Running"}) {
			t.Errorf("told %q", got)
		}
		// The next start counts anew.
		if _, err := s.Stop(t.Context(), i.ID); err != nil {
			t.Fatal(err)
		}
		if i, err := s.Start(t.Context(), i.ID, instance.StartOptions{}); err != nil || i.Boots != 1 || i.Run != 2 {
			t.Errorf("%+v, %v", i, err)
		}
	})
}

func TestSilentTwiceIsStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &mute{mutes: 3}
		h, retried := muteHost(t, d)
		s := h.open()
		i := await(t, s, create(t, s, "web", "sleep").ID, instance.Stopped)
		if i.Boots != 2 || i.Exit.Reason != machine.BootTimeout || d.starts != 2 || *retried != 1 || h.fake.Running() != 0 {
			t.Errorf("%+v after %d starts, retried %d", i, d.starts, *retried)
		}
	})
}

func TestRetrySwitchedOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &mute{mutes: 1}
		h, retried := muteHost(t, d)
		h.config = nil
		s := h.open()
		i := await(t, s, create(t, s, "web", "sleep").ID, instance.Stopped)
		if i.Boots != 1 || d.starts != 1 || *retried != 0 {
			t.Errorf("%+v after %d starts, retried %d", i, d.starts, *retried)
		}
	})
}

// A frame of the boot that is over says nothing of the next one's network.
func TestARetryHasNoNetworkYet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := fake.New(fake.Config{Boot: time.Hour})
		h := newHost(t)
		second, starts := fake.New(fake.Config{Boot: time.Hour}), 0
		h.driver = starter(func(ctx context.Context, c machine.Config) (instance.Machine, error) {
			if starts++; starts == 1 {
				return first.Start(ctx, c)
			}
			return second.Start(ctx, c)
		})
		h.config = func(c *instance.Config) { c.BootRetries = 1 }
		s := h.open()
		i := create(t, s, "web", "sleep")
		first.Say(i.ID, machine.Notice{Kind: machine.NetworkUp})
		synctest.Wait()
		if got, err := s.Find(i.ID); err != nil || !got.Network {
			t.Errorf("%+v, %v", got, err)
		}
		first.Crash(i.ID, gaveUp)
		synctest.Wait()
		if got, err := s.Find(i.ID); err != nil || got.Boots != 2 || got.Network {
			t.Errorf("%+v, %v", got, err)
		}
		if err := s.Delete(t.Context(), i.ID, false); err != nil {
			t.Error(err)
		}
	})
}

// What said HELLO is the image's business, however it ends.
func TestOnlySilentBootsAreTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &mute{}
		h, retried := muteHost(t, d)
		s := h.open()
		for _, image := range []string{"missing-program", "exit 1"} {
			await(t, s, create(t, s, "a"+image[:4], image).ID, instance.Stopped)
		}
		i := started(t, s, "web", "sleep")
		h.fake.Crash(i.ID, machine.Exit{Reason: machine.GuestPanic, Message: "Kernel panic - not syncing"})
		await(t, s, i.ID, instance.Stopped)
		if *retried != 0 || d.starts != 3 {
			t.Errorf("retried %d, %d starts", *retried, d.starts)
		}
	})
}

func TestRetryThatCannotStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, _ := muteHost(t, &mute{mutes: 1, fails: errors.New("port 80 of the host is in use")})
		s := h.open()
		i := await(t, s, create(t, s, "web", "sleep").ID, instance.Stopped)
		if i.Boots != 2 || i.Exit.Reason != machine.VMMFailed || i.Exit.Message != "port 80 of the host is in use" {
			t.Errorf("%+v", i.Exit)
		}
	})
}

// Neither of the two boots is in the way of a stop or a deletion, and none follows them.
func TestStopAndDeleteDuringRetries(t *testing.T) {
	for name, end := range map[string]func(*testing.T, *instance.Set, string){
		"stop": func(t *testing.T, s *instance.Set, id string) {
			if i, err := s.Stop(t.Context(), id); err != nil || i.State != instance.Stopped || i.Boots > 2 {
				t.Errorf("%+v, %v", i, err)
			}
		},
		"delete": func(t *testing.T, s *instance.Set, id string) {
			if err := s.Delete(t.Context(), id, true); err != nil {
				t.Error(err)
			}
		},
	} {
		for at, after := range map[string]time.Duration{"in the first boot": patience / 2, "as it ends": patience, "in the second": 3 * patience / 2} {
			t.Run(name+" "+at, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					d := &mute{mutes: 2}
					h, _ := muteHost(t, d)
					s := h.open()
					i := create(t, s, "web", "sleep")
					time.Sleep(after)
					end(t, s, i.ID)
					starts := d.starts
					time.Sleep(10 * patience)
					if d.starts != starts {
						t.Errorf("%d starts, and %d after its end", starts, d.starts)
					}
				})
			})
		}
	}
}

// A daemon that is killed around a retry leaves one that goes on with it: whether the retry was on record or not, and once.
func TestRetryOutlivesTheDaemon(t *testing.T) {
	booted := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	exit := func(at time.Time) error {
		e := gaveUp
		e.Time = at
		return &instance.Ended{Exit: e}
	}
	for _, tt := range []struct {
		name   string
		run    uint64 // on record
		boots  int
		ended  error
		then   int
		starts int
		state  instance.State
		told   []string
	}{
		{"before it was on record", 1, 1, exit(booted.Add(time.Minute)), 2, 1, instance.Running, []string{"boot_retry", "state Running"}},
		{"a record from before boots were counted", 1, 0, exit(booted.Add(time.Minute)), 2, 1, instance.Running, []string{"boot_retry", "state Running"}},
		{"before its machine was there", 1, 2, exit(booted.Add(-time.Second)), 2, 1, instance.Running, []string{"state Running"}},
		{"when its machine had been silent too", 1, 2, exit(booted.Add(time.Minute)), 2, 0, instance.Stopped, []string{"state Stopped"}},
		{"before its machine was there, and nothing is left of the first", 1, 2, api.NotFound, 2, 1, instance.Running, []string{"state Running"}},
		{"in a first boot, before its machine was there", 1, 1, api.NotFound, 1, 0, instance.Stopped, []string{"state Stopped"}},
		{"in a first boot, and the run before it has left its end", 2, 1, exit(booted.Add(-time.Second)), 1, 0, instance.Stopped, []string{"state Stopped"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := &mute{}
			h, _ := muteHost(t, d)
			h.driver = survivor{d, tt.ended}
			t.Cleanup(func() { h.fake.Crash(someID, machine.Exit{Reason: machine.Killed}) })
			img, _ := images{}.Image(t.Context(), "sleep")
			i := instance.Instance{ID: someID, Spec: spec("web", img.Ref), State: instance.Initializing, IP: "10.77.0.9", Run: tt.run,
				StartedAt: booted, Boots: tt.boots, BootedAt: booted}
			if _, err := h.events.Append(t.Context(), event.TypeState, someID, "web", nil); err != nil {
				t.Fatal(err)
			}
			before := h.events.Last()
			record, err := instance.RecordFile(i, img, event.ID{}, false)
			if err != nil {
				t.Fatal(err)
			}
			h.holds(someID, map[string][]byte{"instance.json": record})
			s := h.open()
			got := await(t, s, someID, tt.state)
			if got.Boots != tt.then {
				t.Errorf("%d boots, not %d", got.Boots, tt.then)
			}
			// Of a machine of which nobody knows the end, that is what is said.
			want := machine.BootTimeout
			if tt.boots == 1 {
				want = machine.DaemonStopped
			}
			if tt.state == instance.Stopped && got.Exit.Reason != want {
				t.Errorf("it ended with %+v", got.Exit)
			}
			s.Close(t.Context()) // what was published is in the log then
			if told := h.told(before); !slices.Equal(told, tt.told) || d.starts != tt.starts {
				t.Errorf("%d starts, told %q", d.starts, told)
			}
		})
	}
}
