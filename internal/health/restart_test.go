package health

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// One that stopped, or is paused, before a result came after a restart is not stale; one that goes on is, until the result.
func TestOneThatIsNotProbedIsNotStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.seen(1, Running, pacedPolicy)
		b.is(StatusHealthy)
		b.close()
		b.open()
		b.answers(good, time.Second)
		b.seen(1, Running, pacedPolicy)
		if s := b.is(StatusHealthy); !s.Stale || s.StaleReason != StaleRestarted {
			t.Errorf("after the restart %+v", s)
		}
		b.seen(1, Inactive, pacedPolicy)
		if s := b.is(StatusUnknown); s.Stale || s.StaleReason != "" {
			t.Errorf("while it does not run %+v", s)
		}
		b.seen(1, Running, pacedPolicy)
		if s := b.is(StatusHealthy); !s.Stale || s.StaleReason != StaleRestarted {
			t.Errorf("once it goes on %+v", s)
		}
		time.Sleep(2 * time.Second)
		if s := b.is(StatusHealthy); s.Stale {
			t.Errorf("after a result %+v", s)
		}
	})
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
				for range 2 { // from the second at the same moment nothing follows
					b.open()
					b.seen(1, rest.phase, rest.policy)
					if got, want := fmt.Sprint(b.snapshot()), fmt.Sprint(before); got != want {
						t.Errorf("goes on with\n%s\nwant\n%s", got, want)
					}
					if n := b.Watched(); n != 0 {
						t.Errorf("%d watched", n)
					}
					b.close()
				}
				if got := b.journal.path(); got != path {
					t.Errorf("transitions %s, then %s", path, got)
				}
			})
		})
	}
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
