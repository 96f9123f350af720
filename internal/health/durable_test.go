package health

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
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

// A daemon that is restarted goes on: no new window, no flip, no storm, and stale until the first conclusive result.
func TestDaemonRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		const policy = `{"interval":"10s","timeout":"1s","start_period":"1h","failure_threshold":2,"tcp":{"port":80}}`
		b.seen(1, Running, policy)
		b.is(StatusHealthy)
		b.answers(refusal, 0)
		for b.is(StatusHealthy).ConsecutiveFailures == 0 {
			time.Sleep(100 * ms)
		}
		before := b.snapshot()
		b.close()
		path := b.journal.path()

		b.answers(dunno, 0)
		time.Sleep(time.Minute)
		n := b.count()
		b.open()
		b.seen(1, Running, policy)
		after := b.is(StatusHealthy)
		if !after.Stale || after.StaleReason != StaleRestarted {
			t.Errorf("%+v", after)
		}
		after.Stale, after.StaleReason = false, ""
		if got, want := fmt.Sprint(after), fmt.Sprint(before); got != want {
			t.Errorf("goes on with\n%s\nwant\n%s", got, want)
		}
		if b.count() != n {
			t.Error("probed at once")
		}
		time.Sleep(time.Second) // the gap that was due is the confirming one of a second; the spread is within it
		synctest.Wait()
		if b.count() != n+1 || !b.snapshot().Stale {
			t.Errorf("%d probes, %+v", b.count()-n, b.snapshot())
		}
		b.answers(refusal, 0)
		time.Sleep(time.Second)
		if s := b.is(StatusUnhealthy); s.Stale {
			t.Error("still stale")
		}
		b.close()
		if got := b.journal.path(); got != path+" healthy>unhealthy" {
			t.Errorf("transitions %s, then %s", path, got)
		}
	})
}

// The grace runs on the host's monotonic clock while the daemon is away.
func TestGraceAcrossRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		const policy = `{"interval":"1s","timeout":"1s","start_period":"60s","failure_threshold":1,"tcp":{"port":80}}`
		b.answers(bad, 0)
		b.seen(1, Running, policy)
		time.Sleep(10 * time.Second)
		b.close()
		b.open()
		b.seen(1, Running, policy)
		time.Sleep(49 * time.Second)
		b.is(StatusStarting)
		time.Sleep(2 * time.Second)
		b.is(StatusUnhealthy)
	})
}

// A crash between the commit of a transition and the record's next write loses counters, not the status.
func TestCrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.journal.replays = true
		b.seen(1, Running, pacedPolicy)
		b.is(StatusHealthy)
		old := b.journal.record()
		b.answers(bad, 0)
		time.Sleep(5 * time.Second)
		since := b.is(StatusUnhealthy).Since
		b.crash(old)
		path := b.journal.path()
		b.seen(1, Running, pacedPolicy)
		if s := b.is(StatusUnhealthy); !s.Since.Equal(since) || len(s.Transitions) != 2 || s.ConsecutiveSuccesses != 0 || s.LastError != bad.Reason {
			t.Errorf("%+v", s)
		}
		b.close()
		if got := b.journal.path(); got != path {
			t.Errorf("the start made transitions: %s, then %s", path, got)
		}
	})
}

func TestUnreadableRecord(t *testing.T) {
	for _, blob := range []string{`{`, `{"version":7}`, `{"version":1,"policy":{"tcp":{"port":0}}}`, `{"version":1,"status":"fine"}`} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t)
			b.journal.saved["a"] = []byte(blob)
			b.seen(1, Running, pacedPolicy)
			b.is(StatusHealthy)
			b.close()
			if len(b.journal.aside) != 1 || string(b.journal.aside[0]) != blob || !strings.Contains(b.log.String(), "set aside") {
				t.Errorf("%s: set aside %q, log %s", blob, b.journal.aside, b.log)
			}
		})
	}
}

// A record that the disk does not give is set aside, too. Where that cannot be done nothing is written over it, and it is told once.
func TestRecordThatCannotBeLoaded(t *testing.T) {
	for _, fixed := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t)
			failed := 0
			b.hooks.SaveFailed = func() { failed++ }
			b.journal.saved["a"] = []byte("precious")
			b.journal.loads = errors.New("larger than 1048576 bytes")
			if fixed {
				b.journal.asides = errors.New("read-only file system")
			}
			b.seen(1, Running, pacedPolicy)
			b.is(StatusHealthy)
			time.Sleep(time.Hour)
			if s := b.is(StatusHealthy); s.ConsecutiveSuccesses < 3000 {
				t.Errorf("%+v", s)
			}
			b.close()
			if log := b.log.String(); strings.Count(log, "level=ERROR") != 1 || !strings.Contains(log, "larger than 1048576 bytes") {
				t.Errorf("the log: %s", log)
			}
			kept := b.journal.saved["a"]
			if !fixed {
				kept = b.journal.aside[0]
			}
			if string(kept) != "precious" || (b.journal.saves == 0) != fixed || (failed == 1) != fixed {
				t.Errorf("kept %q after %d writes, %d of them failed", kept, b.journal.saves, failed)
			}
		})
	}
}

// Whatever a crash left of the record, the log knows better: of the run, of the policy and of the grace. A start flips nothing.
func TestCrashFlipsNothing(t *testing.T) {
	for name, c := range map[string]struct {
		torn   bool   // the record; else it is the one of before
		run    uint64 // that became healthy
		policy string
	}{
		"torn":                         {true, 1, pacedPolicy},
		"before it was healthy":        {false, 1, pacedPolicy},
		"before the policy changed":    {false, 1, otherPaced},
		"before another run":           {false, 2, pacedPolicy},
		"before another run and check": {false, 2, otherPaced},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				b.journal.replays = true
				b.answers(bad, 0)
				b.seen(1, Running, pacedPolicy)
				time.Sleep(10 * time.Second)
				b.is(StatusStarting)
				old := b.journal.record()
				if c.torn {
					old = []byte("{")
				}
				b.answers(good, 0)
				b.seen(c.run, Running, c.policy)
				time.Sleep(10 * time.Second)
				b.is(StatusHealthy)
				b.crash(old)
				path := b.journal.path()

				b.answers(bad, time.Second)
				b.seen(c.run, Running, c.policy)
				if s := b.is(StatusHealthy); s.StaleReason != StaleRestarted {
					t.Errorf("%+v", s)
				}
				// It was healthy, so its grace is over: what fails now counts.
				time.Sleep(10 * time.Second)
				if s := b.is(StatusUnhealthy); s.GraceFailures > 10 {
					t.Errorf("%+v", s)
				}
				b.close()
				if got := b.journal.path(); got != path+" healthy>healthy healthy>unhealthy" { // no longer stale, and then unhealthy
					t.Errorf("the start made transitions: %s, then %s", path, got)
				}
			})
		})
	}
}

// What changed while the daemon was away is a change, also where the log says more than the record.
func TestChangeBehindACrash(t *testing.T) {
	for name, c := range map[string]struct {
		run    uint64
		policy string // as the daemon finds it
		want   string // what it makes of it
	}{
		"the record's check":   {1, pacedPolicy, " healthy>starting"},
		"no check":             {1, "null", " healthy>disabled"},
		"another run":          {2, otherPaced, " healthy>starting"},
		"nothing":              {1, otherPaced, ""},
		"a check of type none": {1, `{"type":"none"}`, " healthy>disabled"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				b.journal.replays = true
				b.answers(bad, 0)
				b.seen(1, Running, pacedPolicy)
				time.Sleep(10 * time.Second)
				old := b.journal.record()
				b.answers(good, 0)
				b.seen(1, Running, otherPaced)
				b.is(StatusHealthy)
				b.crash(old)
				path := b.journal.path()
				b.answers(good, time.Hour)
				b.seen(c.run, Running, c.policy)
				synctest.Wait()
				if got := strings.TrimPrefix(b.journal.path(), path); got != c.want {
					t.Errorf("%q, want %q", got, c.want)
				}
			})
		})
	}
}

// An update's grace runs from the update, by the new policy, also where a crash left only the log to tell of it: neither from the entry into
// Running, which was long ago, nor from the next daemon's start.
func TestGraceOfAnUpdateBehindACrash(t *testing.T) {
	policy := func(port, grace string) string {
		return `{"interval":"1s","timeout":"1s","start_period":"` + grace + `","start_interval":"1s","failure_threshold":1,"tcp":{"port":` + port + `}}`
	}
	for name, c := range map[string]struct {
		torn  bool // the record; else it is the one of before
		stale bool // a transition of the new window is in the log too
		moved bool // the instance was started anew meanwhile, and ran so long
		want  time.Duration
	}{
		"the record is of before":               {want: 5 * time.Minute},
		"the record is torn":                    {torn: true, want: 5 * time.Minute},
		"and of what came behind it":            {stale: true, want: 5 * time.Minute},
		"it was started anew behind the update": {moved: true, want: 5*time.Minute + 30*time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				b.journal.replays = true
				entered, run := time.Now(), uint64(1)
				sees := func(policy string) {
					b.Sync(Observed{ID: "a", Run: run, Phase: Running, Policy: mustParse(b, policy), Entered: entered})
				}
				sees(policy("80", "1m"))
				time.Sleep(time.Hour)
				b.is(StatusHealthy)
				old := b.journal.record()
				if c.torn {
					old = []byte("{")
				}
				updated := time.Now()
				b.answers(bad, 0)
				if c.stale {
					b.answers(dunno, 0)
				}
				sees(policy("81", "5m"))
				b.is(StatusStarting)
				time.Sleep(20 * time.Second)
				if c.stale {
					time.Sleep(20 * time.Second) // and then it is stale
				}
				b.crash(old)
				time.Sleep(10 * time.Second)
				if c.moved {
					run, entered = 2, time.Now()
				}
				b.answers(bad, 0)
				sees(policy("81", "5m"))
				time.Sleep(c.want - time.Since(updated) - time.Second)
				b.is(StatusStarting)
				time.Sleep(3 * time.Second)
				b.is(StatusUnhealthy)
			})
		})
	}
}

// Where no update began a window that only the log knows of, its grace runs from the entry into Running, though the log tells of it later.
func TestGraceOfARunBehindACrash(t *testing.T) {
	const policy = `{"interval":"1s","timeout":"1s","start_period":"1m","start_interval":"1s","failure_threshold":1,"tcp":{"port":80}}`
	for name, first := range map[string]bool{"the first, of which there is no record": true, "another than the record's": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				b.journal.replays = true
				if !first {
					b.seen(1, Running, policy)
					b.is(StatusHealthy)
				}
				b.seen(1, Inactive, policy)
				old := b.journal.record()
				if first {
					old = []byte("{")
				}
				time.Sleep(time.Hour)
				b.answers(bad, 0)
				o := Observed{ID: "a", Run: 2, Phase: Running, Policy: mustParse(b, policy), Entered: time.Now().Add(-20 * time.Second)}
				b.Sync(o)
				b.is(StatusStarting)
				b.crash(old)
				b.Sync(o)
				time.Sleep(39 * time.Second)
				b.is(StatusStarting)
				time.Sleep(3 * time.Second)
				b.is(StatusUnhealthy)
			})
		})
	}
}

// The controller's first word says whether the log's policy is still in force; its next ones are no restart.
func TestSecondWordAfterACrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.journal.replays = true
		b.seen(1, Running, pacedPolicy)
		b.is(StatusHealthy)
		old := b.journal.record()
		b.seen(1, Running, otherPaced)
		b.is(StatusHealthy)
		b.crash(old)
		for range 3 {
			b.seen(1, Running, otherPaced)
			time.Sleep(time.Second) // with a success at the entry into Running, and one or more after it
			if s := b.is(StatusHealthy); s.Stale || len(s.Transitions) != 4 {
				t.Errorf("%+v", s)
			}
		}
	})
}

// A check that was taken away, and given again while the daemon was away, begins a window.
func TestDisabledBehindACrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.journal.replays = true
		b.seen(1, Running, pacedPolicy)
		b.is(StatusHealthy)
		old := b.journal.record()
		b.seen(1, Running, "null")
		b.is(StatusDisabled)
		b.crash(old)
		b.answers(good, time.Hour)
		b.seen(1, Running, pacedPolicy)
		if s := b.is(StatusStarting); s.ConsecutiveSuccesses != 0 || s.WindowStartedAt.IsZero() {
			t.Errorf("%+v", s)
		}
	})
}

// A log that a newer version wrote may say what this one does not know: it is left out, and told.
func TestUnknownTransitionInTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.journal.replays = true
		b.seen(1, Running, pacedPolicy)
		b.is(StatusHealthy)
		b.close()
		n := b.journal.log[len(b.journal.log)-1].N
		b.journal.log = append(b.journal.log, Transition{Time: time.Now(), From: StatusHealthy, To: "splendid", Window: 1, N: n + 1, Run: 1})
		b.open()
		b.answers(refusal, 0)
		b.seen(1, Running, pacedPolicy)
		if s := b.is(StatusHealthy); len(s.Transitions) != 1 || strings.Count(b.log.String(), "does not know") != 1 {
			t.Errorf("%+v\nthe log: %s", s, b.log)
		}
		time.Sleep(10 * time.Second)
		b.is(StatusUnhealthy)
		b.close()
		if last := b.journal.log[len(b.journal.log)-1]; last.N <= n+1 {
			t.Errorf("its number is given again: %+v", b.journal.log)
		}
	})
}

// The opening of a window is written at once, also where it is no transition.
func TestWindowIsSavedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.answers(bad, 0)
		b.seen(1, Running, pacedPolicy)
		time.Sleep(7 * time.Second)
		b.answers(bad, time.Second)
		b.seen(2, Running, pacedPolicy)
		var r record
		if err := json.Unmarshal(b.journal.record(), &r); err != nil {
			t.Fatal(err)
		}
		if r.Run != 2 || r.Window != 2 {
			t.Errorf("the record is of run %d and window %d", r.Run, r.Window)
		}
	})
}

// Counters are written every few seconds, transitions at once, and everything at the end.
func TestSaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.seen(1, Running, pacedPolicy)
		b.is(StatusHealthy)
		status := func() string {
			var r record
			if err := json.Unmarshal(b.journal.record(), &r); err != nil {
				t.Fatal(err)
			}
			return fmt.Sprint(r.Status, r.Successes)
		}
		if got := status(); got != "healthy1" {
			t.Errorf("after the transition: %s", got)
		}
		saves := b.journal.writes()
		time.Sleep(time.Minute)
		if n := b.journal.writes(); n-saves < 10 || n-saves > 12 {
			t.Errorf("%d writes in a minute", n)
		}
		b.journal.breaks(0, errors.New("disk full"))
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := strings.Count(b.log.String(), "cannot be written"); n != 1 {
			t.Errorf("told %d times", n)
		}
		b.journal.breaks(0, nil)
		b.close()
		if got := status(); got != fmt.Sprint("healthy", b.snapshot().ConsecutiveSuccesses) {
			t.Errorf("at the end: %s", got)
		}
	})
}

func TestForget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.seen(1, Running, pacedPolicy)
		b.is(StatusHealthy)
		b.answers(good, 500*ms)
		time.Sleep(2700 * ms) // one counter is not written yet, and a probe is in flight
		delete(b.journal.saved, "a")
		changed := b.Changed("a")
		b.Forget("a")
		<-changed
		<-b.Changed("a")
		if _, ok := b.Snapshot("a"); ok || b.Watched() != 0 {
			t.Error("still there")
		}
		time.Sleep(time.Hour)
		if b.journal.saved["a"] != nil {
			t.Error("its record came back")
		}
		b.Forget("a")
	})
}

// One instance whose disk hangs does not delay another.
func TestNobodyWaitsForAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.Set.config.Probe = func(ctx context.Context, id string, p Policy, _ func()) Result {
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

// What was known of an instance that is not watched is shown after a restart, too.
func TestDaemonRestartShowsWhatRests(t *testing.T) {
	for name, rest := range map[string]struct {
		phase  Phase
		policy string
	}{
		"stopped":         {Inactive, pacedPolicy},
		"without a check": {Running, "null"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				b.answers(refusal, 0)
				b.seen(1, Running, pacedPolicy)
				time.Sleep(2500 * ms)
				b.seen(1, rest.phase, rest.policy)
				synctest.Wait()
				before := b.snapshot()
				if len(before.Results) == 0 || len(before.Transitions) == 0 {
					t.Fatalf("%+v", before)
				}
				b.close()
				path := b.journal.path()

				time.Sleep(time.Hour)
				b.open()
				b.seen(1, rest.phase, rest.policy)
				if got, want := fmt.Sprint(b.snapshot()), fmt.Sprint(before); got != want {
					t.Errorf("goes on with\n%s\nwant\n%s", got, want)
				}
				if b.Watched() != 0 || b.journal.path() != path {
					t.Errorf("%d watched, %s", b.Watched(), b.journal.path())
				}
			})
		})
	}
}

// A record that an older version wrote is read: what it does not hold is zero.
func TestOldRecord(t *testing.T) {
	blob, err := os.ReadFile("testdata/record-before-restore.json")
	if err != nil {
		t.Fatal(err)
	}
	p, s, h, err := decode(clock{bootID: "b", origin: epoch, uptime: time.Hour}, blob)
	if err != nil {
		t.Fatal(err)
	}
	m := healthySim(t, steady)
	m.probe(bad)
	m.s.Flying = false
	if s != m.s || !p.Equal(m.p) {
		t.Errorf("read\n%+v\nwant\n%+v", s, m.s)
	}
	if r, tr := h.listResults(), h.listTransitions(); len(r) != 2 || len(tr) != 1 || r[1].Reason != bad.Reason || tr[0].To != StatusHealthy {
		t.Errorf("%+v, %+v", r, tr)
	}
	// And gone on from.
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.journal.saved["a"] = []byte(strings.Replace(string(blob), `"boot":"b"`, `"boot":"boot"`, 1))
		b.seen(1, Running, steady)
		if s := b.is(StatusHealthy); s.ConsecutiveFailures != 1 || s.StaleReason != StaleRestarted || len(b.journal.aside) != 0 {
			t.Errorf("%+v, set aside %q", s, b.journal.aside)
		}
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

// A log that panics did not take the transition; it is told and counted.
func TestCommitPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.journal.onCommit = func() { panic("the log has a bug") }
		b.answers(good, time.Hour)
		b.seen(0, Inactive, pacedPolicy)
		b.seen(1, Running, pacedPolicy)
		s := b.is(StatusStarting)
		if last := s.Transitions[0]; last.Persisted == nil || *last.Persisted || b.panics.Load() != 1 || !strings.Contains(b.log.String(), "the log has a bug") {
			t.Errorf("%+v, %d panics, log %s", last, b.panics.Load(), b.log)
		}
	})
}

// What the log holds twice is known once.
func TestTransitionTwiceInTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.journal.replays = true
		b.seen(0, Inactive, pacedPolicy)
		old := b.journal.record()
		b.seen(1, Running, pacedPolicy)
		b.is(StatusHealthy)
		b.journal.log = append(b.journal.log, b.journal.log...)
		b.crash(old)
		b.seen(1, Running, pacedPolicy)
		if s := b.is(StatusHealthy); len(s.Transitions) != 3 || s.Transitions[0].N != 1 || s.Transitions[1].N != 2 || s.Transitions[2].N != 3 {
			t.Errorf("%+v", s.Transitions)
		}
	})
}

// Where neither the record's check nor the log's is in force any more a window begins, and nothing is told of the staleness of one
// that nobody has seen.
func TestThirdCheckBehindACrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.journal.replays = true
		b.seen(1, Running, pacedPolicy)
		b.is(StatusHealthy)
		old := b.journal.record()
		b.answers(bad, 0)
		b.seen(1, Running, otherPaced)
		b.is(StatusStarting)
		b.crash(old)
		path := b.journal.path()
		b.seen(1, Running, strings.Replace(pacedPolicy, "80", "82", 1))
		if s := b.is(StatusStarting); s.Stale || s.Results[len(s.Results)-1].Window != 3 || b.journal.path() != path {
			t.Errorf("%s, then %s: %+v", path, b.journal.path(), s)
		}
	})
}
