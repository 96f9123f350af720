package health

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A bench is a Set with a workload, a journal and a log to look at, inside a synctest bubble.
type bench struct {
	*testing.T
	*Set
	journal *journal
	log     *book
	start   time.Time

	mu      sync.Mutex
	answer  Result
	takes   time.Duration // of a probe
	probes  []time.Duration
	flying  int
	panics  atomic.Int64
	hooks   Hooks
	ignores bool // ctx, until the probe's time is over
}

func newBench(t *testing.T) *bench {
	b := &bench{T: t, start: time.Now(), answer: good, journal: &journal{saved: make(map[string][]byte)}}
	b.open()
	return b
}

// open starts a daemon.
func (b *bench) open() {
	b.log = new(book)
	hooks := b.hooks
	hooks.Panicked = func() { b.panics.Add(1) }
	b.Set = NewSet(Config{
		Probe: b.probe, Journal: b.journal, Hooks: hooks,
		Log:  slog.New(slog.NewTextHandler(b.log, nil)),
		Boot: Boot{ID: "boot", Uptime: func() time.Duration { return time.Hour + time.Since(b.start) }},
	})
}

func (b *bench) probe(ctx context.Context, id string, p Policy) Result {
	b.mu.Lock()
	if b.flying++; b.flying > 1 {
		b.Error("two probes at once")
	}
	b.probes = append(b.probes, time.Since(b.start))
	r, takes, ignores := b.answer, b.takes, b.ignores
	b.mu.Unlock()
	defer func() { b.mu.Lock(); b.flying--; b.mu.Unlock() }()
	if r.Reason == "panic" {
		panic("the prober has a bug")
	}
	if ignores {
		time.Sleep(takes)
		return r
	}
	select {
	case <-time.After(takes):
		return r
	case <-ctx.Done():
		return Result{Outcome: Inconclusive, Cause: CauseCutShort, Reason: context.Cause(ctx).Error()}
	}
}

func (b *bench) answers(r Result, takes time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answer, b.takes = r, takes
}

// ignore makes probes go on though nobody wants them any more.
func (b *bench) ignore(ignores bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ignores = ignores
}

// seen is a Sync of the instance "a".
func (b *bench) seen(run uint64, phase Phase, policy string) {
	b.Sync(Observed{ID: "a", Run: run, Phase: phase, Policy: mustParse(b, policy), Entered: time.Now()})
}

func (b *bench) snapshot() Snapshot {
	b.Helper()
	s, ok := b.Snapshot("a")
	if !ok {
		b.Fatal("no snapshot")
	}
	return s
}

// is waits until everything stands still, and checks the status.
func (b *bench) is(want Status) Snapshot {
	b.Helper()
	synctest.Wait()
	s := b.snapshot()
	if s.Status != want {
		b.Fatalf("at %v: %s, want %s", time.Since(b.start), s.Status, want)
	}
	return s
}

// probed checks when the probes so far began.
func (b *bench) probed(want ...time.Duration) {
	b.Helper()
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	if !slices.Equal(b.probes, want) {
		b.Fatalf("probes at %v, want %v", b.probes, want)
	}
}

// count is how many probes began so far.
func (b *bench) count() int {
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.probes)
}

func (b *bench) close() {
	b.Helper()
	if err := b.Close(context.Background()); err != nil {
		b.Fatal(err)
	}
}

// A book is what was logged.
type book struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *book) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *book) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// A journal is one in memory.
type journal struct {
	mu      sync.Mutex
	saved   map[string][]byte
	saves   int
	log     []Transition
	aside   [][]byte
	refuse  error
	hang    time.Duration
	replays bool
}

func (j *journal) Commit(ctx context.Context, id string, t Transition) error {
	j.mu.Lock()
	refuse, hang := j.refuse, j.hang
	j.mu.Unlock()
	time.Sleep(hang)
	if refuse != nil {
		return refuse
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.log = append(j.log, t)
	return nil
}

func (j *journal) Save(id string, blob []byte) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.refuse != nil {
		return j.refuse
	}
	j.saves++
	j.saved[id] = blob
	return nil
}

// breaks makes the disk slow, or refuse.
func (j *journal) breaks(hang time.Duration, refuse error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.hang, j.refuse = hang, refuse
}

func (j *journal) Load(id string) ([]byte, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.saved[id], nil
}

func (j *journal) SetAside(id string) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.aside = append(j.aside, j.saved[id])
	delete(j.saved, id)
	return nil
}

func (j *journal) Replay(id string) ([]Transition, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.replays {
		return nil, nil
	}
	return slices.Clone(j.log), nil
}

// record is what was saved of "a", and in how many writes.
func (j *journal) record() ([]byte, int) {
	synctest.Wait()
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.saved["a"], j.saves
}

// path is the transitions so far: "unknown>starting starting>healthy".
func (j *journal) path() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	var s []string
	for _, t := range j.log {
		s = append(s, string(t.From+">"+t.To))
	}
	return strings.Join(s, " ")
}

func first(b []byte, _ int) []byte { return b }

const (
	ms = time.Millisecond
	// pacedPolicy has no jitter in its grace, and one that is not seen within a test after it.
	pacedPolicy = `{"interval":"1s","timeout":"1s","start_period":"1h","start_interval":"1s","failure_threshold":2,"tcp":{"port":80}}`
	execPolicy  = `{"interval":"10s","timeout":"1s","start_period":"1h","start_interval":"1s","exec":{"command":["x"]}}`
)

func TestLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.answers(bad, 10*ms)
		b.seen(0, Inactive, pacedPolicy)
		b.is(StatusUnknown)
		b.seen(1, Initializing, pacedPolicy)
		if s := b.snapshot(); s.Status != StatusStarting || !s.WindowStartedAt.Equal(time.Now()) {
			t.Errorf("Sync returned before the window began: %+v", s)
		}
		if b.Watched() != 1 {
			t.Errorf("%d watched", b.Watched())
		}
		time.Sleep(2500 * ms) // probes at 0, 1.01, 2.02
		b.answers(good, 10*ms)
		b.seen(1, Running, pacedPolicy)
		time.Sleep(9 * ms)
		b.is(StatusStarting)
		time.Sleep(1 * ms)
		s := b.is(StatusHealthy)
		b.probed(0, 1010*ms, 2020*ms, 2500*ms)
		if s.ConsecutiveSuccesses != 1 || s.GraceFailures != 3 || s.LastError != bad.Reason || !s.LastSuccessAt.Equal(time.Now().Add(-10*ms)) {
			t.Errorf("%+v", s)
		}
		if len(s.Results) != 4 || s.Results[3].Duration != 10*ms || s.Results[3].Window != 1 {
			t.Errorf("%+v", s.Results)
		}
		b.answers(refusal, 0)
		time.Sleep(4 * time.Second)
		s = b.is(StatusUnhealthy)
		if last := s.Transitions[len(s.Transitions)-1]; last.Reason != refusal.Reason || !last.Time.Equal(s.Since) || last.Persisted != nil {
			t.Errorf("%+v", last)
		}
		b.seen(1, Inactive, pacedPolicy)
		if s := b.is(StatusUnknown); s.LastStatus != StatusUnhealthy || b.Watched() != 0 {
			t.Errorf("%+v", s)
		}
		n := b.count()
		time.Sleep(time.Hour)
		if b.count() != n {
			t.Error("probed though it is not running")
		}
		b.close()
		if got := b.journal.path(); got != "unknown>starting starting>healthy healthy>unhealthy unhealthy>unknown" {
			t.Error(got)
		}
	})
}

// A new window cuts the probe in flight short; its result is dropped; and the next begins when it is gone, not before.
func TestNewWindow(t *testing.T) {
	for name, ignores := range map[string]bool{"that returns at once": false, "that does not": true} {
		t.Run("a probe "+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				b.ignore(ignores)
				b.answers(good, 5*time.Second)
				b.seen(1, Running, pacedPolicy)
				time.Sleep(time.Second)
				b.answers(good, 10*ms)
				b.seen(1, Running, strings.Replace(pacedPolicy, "80", "81", 1))
				if s := b.snapshot(); len(s.Results) != 0 || s.Status != StatusStarting {
					t.Errorf("%+v", s)
				}
				if ignores {
					time.Sleep(4 * time.Second)
					b.probed(0, 5*time.Second)
				} else {
					b.probed(0, time.Second)
				}
				time.Sleep(10 * ms)
				s := b.is(StatusHealthy)
				if len(s.Results) != 1 || s.Results[0].Window != 2 {
					t.Errorf("%+v", s.Results)
				}
				b.close()
			})
		})
	}
}

// An update that changes nothing asks nothing and tells nobody.
func TestSyncIsIdempotent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.seen(1, Running, pacedPolicy)
		b.is(StatusHealthy)
		changed := b.Changed("a")
		_, saves := b.journal.record()
		for range 10 {
			b.seen(1, Running, pacedPolicy)
		}
		synctest.Wait()
		select {
		case <-changed:
			t.Error("a change was published")
		default:
		}
		b.probed(0)
		if _, n := b.journal.record(); n != saves {
			t.Error("the record was written")
		}
		b.close()
	})
}

// What never had a check leaves no trace.
func TestWithoutPolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.seen(0, Inactive, `null`)
		b.seen(1, Initializing, `null`)
		b.seen(1, Running, `null`)
		time.Sleep(time.Hour)
		s := b.is(StatusDisabled)
		if _, err := b.CheckNow(t.Context(), "a"); !errors.Is(err, ErrNoPolicy) {
			t.Error(err)
		}
		b.close()
		if b.journal.saves != 0 || len(b.journal.log) != 0 || b.count() != 0 || b.log.String() != "" || !s.WindowStartedAt.IsZero() {
			t.Errorf("%d saves, %d events, log %q, %+v", b.journal.saves, len(b.journal.log), b.log, s)
		}
	})
}

// Stopping in the middle of a probe says nothing about the workload.
func TestStopInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.seen(1, Running, pacedPolicy)
		b.is(StatusHealthy)
		b.answers(bad, time.Second)
		b.ignore(true)
		time.Sleep(1100 * ms)
		b.seen(1, Inactive, pacedPolicy)
		time.Sleep(time.Minute)
		s := b.is(StatusUnknown)
		last := s.Results[len(s.Results)-1]
		if last.Outcome != Inconclusive || last.Cause != CauseCutShort || s.LastStatus != StatusHealthy || s.ConsecutiveFailures != 0 {
			t.Errorf("%+v", s)
		}
		b.close()
	})
}

func TestCheckNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		if _, err := b.CheckNow(t.Context(), "a"); !errors.Is(err, ErrUnknown) {
			t.Error(err)
		}
		b.seen(0, Inactive, pacedPolicy)
		if _, err := b.CheckNow(t.Context(), "a"); !errors.Is(err, ErrInactive) {
			t.Error(err)
		}
		b.answers(good, 100*ms)
		b.seen(1, Running, pacedPolicy)
		time.Sleep(50 * ms)
		r, err := b.CheckNow(t.Context(), "a") // joins
		if err != nil || r.Outcome != Success || r.Window != 1 || time.Since(b.start) != 100*ms {
			t.Errorf("%+v, %v at %v", r, err, time.Since(b.start))
		}
		time.Sleep(300 * ms)
		if r, err = b.CheckNow(t.Context(), "a"); err != nil || !r.Start.Equal(b.start.Add(400*ms)) { // runs one
			t.Errorf("%+v, %v", r, err)
		}
		b.probed(0, 400*ms)

		// Many at once share one probe.
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				if _, err := b.CheckNow(t.Context(), "a"); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		b.probed(0, 400*ms, 500*ms)

		// One who waits across a new window gets the new window's first result.
		wg.Go(func() {
			if r, err := b.CheckNow(t.Context(), "a"); err != nil || r.Window != 2 {
				t.Errorf("%+v, %v", r, err)
			}
		})
		time.Sleep(50 * ms)
		b.seen(2, Running, pacedPolicy)
		wg.Wait()

		// One who gives up, and one whose check is taken away.
		ctx, cancel := context.WithTimeout(t.Context(), ms)
		defer cancel()
		if _, err := b.CheckNow(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		wg.Go(func() {
			if _, err := b.CheckNow(t.Context(), "a"); !errors.Is(err, ErrNoPolicy) {
				t.Error(err)
			}
		})
		synctest.Wait()
		b.seen(2, Running, `null`)
		wg.Wait()

		b.seen(2, Running, pacedPolicy)
		wg.Go(func() {
			if _, err := b.CheckNow(t.Context(), "a"); !errors.Is(err, ErrClosed) {
				t.Error(err)
			}
		})
		synctest.Wait()
		b.close()
		wg.Wait()
	})
}

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
				b.open()
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
				b.close()
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
		b.close()
	})
}

// A crash between the commit of a transition and the record's next write loses counters, not the status.
func TestCrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.journal.replays = true
		b.seen(1, Running, pacedPolicy)
		b.is(StatusHealthy)
		old, _ := b.journal.record()
		b.answers(bad, 0)
		time.Sleep(5 * time.Second)
		since := b.is(StatusUnhealthy).Since
		b.close()
		b.journal.saved["a"] = old // what a crash would have left
		path := b.journal.path()
		b.open()
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

// Counters are written every few seconds, transitions at once, and everything at the end.
func TestSaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.seen(1, Running, pacedPolicy)
		b.is(StatusHealthy)
		status := func() string {
			var r record
			if err := json.Unmarshal(first(b.journal.record()), &r); err != nil {
				t.Fatal(err)
			}
			return fmt.Sprint(r.Status, r.Successes)
		}
		if got := status(); got != "healthy1" {
			t.Errorf("after the transition: %s", got)
		}
		_, saves := b.journal.record()
		time.Sleep(time.Minute)
		if _, n := b.journal.record(); n-saves < 10 || n-saves > 12 {
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
		time.Sleep(1200 * ms) // in flight
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
		b.close()
	})
}

// A panic in a probe or in a loop is contained: told, counted, and the loop goes on.
func TestPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		var once sync.Once
		b.hooks.Transition = func(Status, Status, bool) { once.Do(func() { panic("a hook has a bug") }) }
		b.open()
		b.seen(0, Inactive, pacedPolicy)
		b.seen(1, Running, pacedPolicy) // the panic comes before the first probe is begun
		b.is(StatusStarting)
		time.Sleep(time.Second)
		b.is(StatusHealthy)
		if b.panics.Load() != 1 || !strings.Contains(b.log.String(), "a hook has a bug") {
			t.Errorf("%d panics, log %s", b.panics.Load(), b.log)
		}
		b.answers(Result{Reason: "panic"}, 0)
		time.Sleep(time.Second)
		s := b.is(StatusHealthy)
		if last := s.Results[len(s.Results)-1]; last.Cause != CausePanic || b.panics.Load() != 2 {
			t.Errorf("%+v, %d panics", last, b.panics.Load())
		}
		b.close()
	})
}

// What probes for us and does not answer is no failure of the workload.
func TestOverdue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.seen(1, Running, pacedPolicy)
		b.is(StatusHealthy)
		b.answers(bad, time.Hour)
		time.Sleep(14 * time.Second)
		s := b.is(StatusHealthy)
		if last := s.Results[1]; last.Cause != CauseNoAnswer || last.Duration != 11*time.Second {
			t.Errorf("%+v", last)
		}
		b.close()
	})
}

func TestStaleIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.seen(1, Running, pacedPolicy)
		b.is(StatusHealthy)
		b.answers(dunno, 0)
		time.Sleep(30*time.Second - 1)
		if b.is(StatusHealthy).Stale {
			t.Error("too early")
		}
		time.Sleep(time.Nanosecond)
		if s := b.is(StatusHealthy); s.StaleReason != StaleInconclusive {
			t.Errorf("%+v", s)
		}
		b.answers(good, 0)
		b.Ask("a")
		if s := b.is(StatusHealthy); s.Stale {
			t.Error("asked, and still stale")
		}
		b.close()
		n := len(b.journal.log)
		if b.journal.log[n-2].Stale != StaleInconclusive || b.journal.log[n-1].Stale != "" {
			t.Errorf("%+v", b.journal.log)
		}
	})
}

// An agent that is missing is told once, not at every probe.
func TestAgentMissingIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.seen(1, Running, execPolicy)
		b.is(StatusHealthy)
		b.answers(noAgent, 0)
		time.Sleep(time.Minute)
		s := b.is(StatusUnhealthy)
		if n := strings.Count(b.log.String(), "level=WARN"); n != 1 || s.LastError != reasonNoAgent {
			t.Errorf("told %d times, last error %q", n, s.LastError)
		}
		b.close()
	})
}

// Nothing a guest says is kept raw, or without bound.
func TestCleanedResults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.answers(Result{Outcome: Failure, Reason: strings.Repeat("é\x1b[31m", 200), Output: "\x00a\xff\n" + strings.Repeat("x", 5000)}, 0)
		b.seen(1, Running, pacedPolicy)
		time.Sleep(time.Minute)
		s := b.is(StatusStarting)
		if len(s.LastError) > 512 || strings.ContainsRune(s.LastError, '\x1b') || !strings.HasPrefix(s.LastError, "é[31mé") {
			t.Errorf("%q", s.LastError)
		}
		total := 0
		for _, r := range s.Results {
			total += len(r.Output)
			if len(r.Output) > 4096 {
				t.Errorf("%d bytes of output", len(r.Output))
			}
		}
		if total == 0 || total > 32<<10 {
			t.Errorf("%d bytes of output in all", total)
		}
		b.close()
	})
}

func TestHistoryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.seen(1, Running, pacedPolicy)
		for i := range uint64(100) {
			b.seen(i, Inactive, pacedPolicy)
			b.seen(i+2, Running, pacedPolicy)
			b.is(StatusHealthy)
		}
		s := b.snapshot()
		if len(s.Results) != 64 || len(s.Transitions) != 64 || s.Results[63].Window != 101 || s.Transitions[63].To != StatusHealthy {
			t.Errorf("%d results, %d transitions, the last of window %d", len(s.Results), len(s.Transitions), s.Results[63].Window)
		}
		b.close()
	})
}

// One instance whose disk hangs does not delay another.
func TestNobodyWaitsForAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.Set.config.Probe = func(ctx context.Context, id string, p Policy) Result {
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
		b.close()
	})
}
