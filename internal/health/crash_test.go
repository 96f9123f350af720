package health

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A crash between the commit of a transition and the record's next write loses counters, not the status.
func TestCrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.seen(1, Running, pacedPolicy)
		b.is(StatusHealthy)
		old := b.journal.record()
		b.answers(bad, 0)
		time.Sleep(5 * time.Second)
		since := b.is(StatusUnhealthy).Since
		b.crash(old)
		path := b.journal.path()
		b.seen(1, Running, pacedPolicy)
		if s := b.is(StatusUnhealthy); !s.Since.Equal(since) || len(s.Transitions) != 3 || s.ConsecutiveSuccesses != 0 || s.LastError != bad.Reason {
			t.Errorf("%+v", s)
		}
		b.close()
		if got := b.journal.path(); got != path {
			t.Errorf("the start made transitions: %s, then %s", path, got)
		}
	})
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
		b.seen(1, Running, pacedPolicy)
		b.is(StatusHealthy)
		old := b.journal.record()
		b.seen(1, Running, otherPaced)
		b.is(StatusHealthy)
		b.crash(old)
		for range 3 {
			b.seen(1, Running, otherPaced)
			time.Sleep(time.Second) // with a success at the entry into Running, and one or more after it
			if s := b.is(StatusHealthy); s.Stale || len(s.Transitions) != 5 {
				t.Errorf("%+v", s)
			}
		}
	})
}

// A check that was taken away, and given again while the daemon was away, begins a window.
func TestDisabledBehindACrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
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

// Where neither the record's check nor the log's is in force any more a window begins, and nothing is told of the staleness of one
// that nobody has seen.
func TestThirdCheckBehindACrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
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
		if s := b.is(StatusHealthy); len(s.Transitions) != 2 || strings.Count(b.log.String(), "does not know") != 1 {
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

// What the log holds twice is known once.
func TestTransitionTwiceInTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
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
