package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/halevm/hale/internal/event"
	"github.com/halevm/hale/internal/health"
	"github.com/halevm/hale/internal/instance"
	"github.com/halevm/hale/internal/instance/fake"
)

// A lateJournal takes its time for every transition before it appends it, whoever gave up waiting meanwhile.
type lateJournal struct {
	slowDisk
	to    *journal
	takes time.Duration
}

func (j *lateJournal) Commit(ctx context.Context, id string, t health.Transition) error {
	time.Sleep(j.takes)
	return j.to.Commit(context.WithoutCancel(ctx), id, t)
}

// told is what the log holds of an instance: the types of its events, and the statuses that its health turned to, each once.
func (d *Daemon) told(t *testing.T, id string) (types, statuses []string) {
	t.Helper()
	r := d.events.Follow(d.events.Oldest(), "test")
	defer r.Close()
	n := uint64(0)
	for at, last := d.events.Oldest(), d.events.Last(); at != last; {
		e, err := r.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if at = e.ID; e.Instance != id {
			continue
		}
		types = append(types, string(e.Type))
		if e.Name != "web" {
			t.Errorf("%s event of instance %q", e.Type, e.Name)
		}
		if e.Type == event.TypeHealth {
			var what health.Transition
			if err := json.Unmarshal(e.Data, &what); err != nil {
				t.Fatal(err)
			}
			statuses = append(statuses, string(what.To))
			if what.N <= n {
				t.Errorf("transition %d after %d: %+v", what.N, n, what)
			}
			n = what.N
		}
	}
	return types, statuses
}

// Nothing is told of an instance's health after its deletion: a deletion waits for what is to be told, and where that takes too long, it is
// not told.
func TestNothingIsToldAfterADeletion(t *testing.T) {
	for name, c := range map[string]struct {
		takes, most time.Duration
		last        string
	}{
		"a slow disk":    {500 * time.Millisecond, 2 * time.Second, "unknown"},
		"one that hangs": {20 * time.Second, leavePatience + time.Second, "healthy"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				j := &lateJournal{}
				d := watched(t, fake.New(fake.Config{}), j)
				j.to = d.journal
				in := d.make(t, "web")
				d.until(t, in.ID, health.StatusHealthy)
				j.takes = c.takes
				begun := time.Now()
				if err := d.instances.Delete(t.Context(), in.ID, false); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(begun); took > c.most {
					t.Errorf("it took %v", took)
				}
				time.Sleep(time.Minute)
				types, statuses := d.told(t, in.ID)
				if types[len(types)-1] != string(event.TypeDeleted) || statuses[len(statuses)-1] != c.last {
					t.Errorf("told are %v, and %v of its health", types, statuses)
				}
				if _, known := d.health.Snapshot(in.ID); known || d.journal.bars(in.ID) {
					t.Error("a deleted one is known")
				}
			})
		})
	}
}

// One that could not be deleted goes on being watched, with all that was known of it, whether or not that could be written.
func TestHealthGoesOnWhereADeletionFails(t *testing.T) {
	for _, stopped := range []bool{true, false} { // before; else there is no record of what the deletion made of it
		synctest.Test(t, func(t *testing.T) {
			d := watched(t, fake.New(fake.Config{}), nil)
			in := d.make(t, "web")
			d.until(t, in.ID, health.StatusHealthy)
			time.Sleep(time.Minute)
			before, _ := d.health.Snapshot(in.ID)
			dir, away := d.instances.Dir(in.ID), filepath.Join(t.TempDir(), "away")
			if !stopped {
				if err := os.Rename(dir, away); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := d.instances.Stop(t.Context(), in.ID); err != nil {
				t.Fatal(err)
			}
			if stopped {
				d.until(t, in.ID, health.StatusUnknown)
			}
			stays := d.leaving(in.ID) // as a deletion does, and then cannot go on
			stays()
			if !stopped {
				if err := os.Rename(away, dir); err != nil {
					t.Fatal(err)
				}
			}
			d.mail.heard(t.Context(), in.ID)
			if s, _ := d.health.Snapshot(in.ID); s.Status != health.StatusUnknown || s.Changes != before.Changes+1 || len(s.Results) < len(before.Results) {
				t.Errorf("of %d transitions and %d results it is %s, of %d and %d", before.Changes, len(before.Results), s.Status, s.Changes, len(s.Results))
			}
			if _, err := d.instances.Start(t.Context(), in.ID, instance.StartOptions{}); err != nil {
				t.Fatal(err)
			}
			d.until(t, in.ID, health.StatusHealthy)
			if _, statuses := d.told(t, in.ID); !slices.Equal(statuses[len(statuses)-4:], []string{"healthy", "unknown", "starting", "healthy"}) {
				t.Errorf("told are %v", statuses)
			}
		})
	}
}

// Until it is gone an instance that leaves shows its health.
func TestHealthIsKnownOfOneThatLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := watched(t, fake.New(fake.Config{}), nil)
		in := d.make(t, "web")
		d.until(t, in.ID, health.StatusHealthy)
		if _, err := d.instances.Stop(t.Context(), in.ID); err != nil {
			t.Fatal(err)
		}
		stays := d.leaving(in.ID)
		time.Sleep(time.Minute)
		s, known := d.health.Snapshot(in.ID)
		if !known || s.Status != health.StatusUnknown || s.LastStatus != health.StatusHealthy || len(s.Results) == 0 || len(s.Transitions) == 0 {
			t.Errorf("%v, %+v", known, s)
		}
		if _, err := d.health.CheckNow(t.Context(), in.ID); !errors.Is(err, health.ErrInactive) {
			t.Errorf("it is asked: %v", err)
		}
		stays()
	})
}

// What cannot be told of one that leaves is not taken for told.
func TestNothingIsTakenForToldOfOneThatLeaves(t *testing.T) {
	d := watched(t, fake.New(fake.Config{}), nil)
	commit := func() (bool, error) {
		last := d.events.Last()
		err := d.journal.Commit(t.Context(), "a", health.Transition{N: 1})
		return d.events.Last() != last, err
	}
	d.journal.bar("a")
	if told, err := commit(); told || err == nil {
		t.Errorf("barred: told %v, %v", told, err)
	}
	d.journal.admit("a")
	if told, err := commit(); !told || err != nil {
		t.Errorf("admitted: told %v, %v", told, err)
	}
}
