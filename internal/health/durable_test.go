package health

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A transition is announced when it is durable; or a second later, or when the log refuses, as not persisted.
func TestCommit(t *testing.T) {
	for _, c := range []struct {
		name      string
		hang      time.Duration
		refuse    error
		announced time.Duration
		persisted bool
	}{
		{"slow", 300 * ms, nil, 300 * ms, true},
		{"hanging", time.Minute, nil, time.Second, false},
		{"refusing", 0, errors.New("disk full"), 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				b.hooks.Transition = func(from, to Status, persisted bool) {
					if persisted != c.persisted {
						t.Errorf("%s to %s: persisted %v", from, to, persisted)
					}
				}
				b.answers(good, time.Hour) // no probe moves the status before it is read
				b.seen(0, Inactive, pacedPolicy)
				b.journal.breaks(c.hang, c.refuse)
				before := b.Changed("a")
				go func() { b.seen(1, Running, pacedPolicy) }()
				<-before
				if at := time.Since(b.start); at != c.announced {
					t.Errorf("announced after %v", at)
				}
				s := b.snapshot()
				last := s.Transitions[0]
				synctest.Wait()
				if s.Status != StatusStarting || (last.Persisted == nil) != c.persisted {
					t.Errorf("%+v", last)
				}
				if told := strings.Contains(b.log.String(), "not on disk"); told == c.persisted {
					t.Errorf("the log: %s", b.log)
				}
			})
		})
	}
}

// One instance whose disk hangs does not delay another.
func TestNobodyWaitsForAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.config.Probe = func(ctx context.Context, id string, p Policy, _ func()) Result {
			if id == "slow" {
				<-ctx.Done()
			}
			return good
		}
		b.journal.breaks(400*ms, nil)
		var wg sync.WaitGroup
		for i := range 100 {
			id := fmt.Sprint("i", i)
			if i == 50 {
				id = "slow"
			}
			wg.Go(func() {
				b.Sync(Observed{ID: id, Run: 1, Phase: Running, Policy: mustParse(t, pacedPolicy)})
			})
		}
		wg.Wait()
		time.Sleep(400 * ms)
		synctest.Wait()
		for i := range 100 {
			if s, ok := b.Snapshot(fmt.Sprint("i", i)); i != 50 && (!ok || s.Status != StatusHealthy) {
				t.Fatalf("i%d is %s", i, s.Status)
			}
		}
		if b.Watched() != 100 {
			t.Errorf("%d watched", b.Watched())
		}
	})
}

// Whatever the disk is at, nobody who reads waits for it: no lock of theirs is held meanwhile.
func TestReadersWaitForNoDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.seen(1, Running, pacedPolicy)
		b.is(StatusHealthy)
		l := b.loop("a", false)
		free := func(what string) {
			t.Helper()
			synctest.Wait()
			for name, mu := range map[string]*sync.Mutex{"the set's": &b.Set.mu, "the instance's": &l.mu} {
				if !mu.TryLock() {
					t.Fatalf("while %s, %s lock is held", what, name)
				}
				mu.Unlock()
			}
		}
		b.journal.breaks(800*ms, nil)
		go b.seen(1, Inactive, pacedPolicy)
		free("a transition is committed")
		if s := b.snapshot(); s.Status != StatusHealthy {
			t.Errorf("it is %s before it is on disk", s.Status)
		}
		time.Sleep(time.Second)
		b.is(StatusUnknown)

		hold := make(chan struct{})
		b.journal.onSave = func([]byte) error { <-hold; return nil }
		b.journal.breaks(0, nil)
		b.seen(1, Running, pacedPolicy)
		free("a record is written")
		if s := b.snapshot(); s.Status != StatusHealthy {
			t.Errorf("it is %s while its record is written", s.Status)
		}
		close(hold)
	})
}

// A log that has not answered since an earlier transition has not taken a later one either; when it answers again it takes what comes.
func TestCommitBehindOneThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		var persisted []bool
		b.hooks.Transition = func(_, _ Status, p bool) { persisted = append(persisted, p) }
		b.answers(good, time.Hour)
		b.seen(0, Inactive, pacedPolicy)
		b.journal.breaks(time.Minute, nil)
		for i, phase := range []Phase{Running, Inactive} { // announced after a second each
			b.seen(1, phase, pacedPolicy)
			if at, want := time.Since(b.start), time.Duration(i+1)*time.Second; at != want {
				t.Errorf("announced at %v, want %v", at, want)
			}
		}
		if got := b.journal.path(); got != "" {
			t.Errorf("on disk is %s", got)
		}
		time.Sleep(time.Minute)
		b.journal.breaks(0, nil)
		b.seen(1, Running, pacedPolicy)
		if want := []bool{false, false, true}; !slices.Equal(persisted, want) || b.journal.path() != "unknown>starting unknown>starting" {
			t.Errorf("persisted %v, want %v; on disk is %s", persisted, want, b.journal.path())
		}
	})
}
