package health

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A bench is what most tests of this package stand at: a Set with a workload, a journal and a log to look at, inside a synctest bubble.
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
	ignores bool // ctx, until the probe's time is over
}

// newBench is a bench whose daemon runs until the test's end.
func newBench(t *testing.T) *bench {
	b := &bench{T: t, start: time.Now(), answer: good, journal: &journal{saved: make(map[string][]byte)}}
	b.open()
	t.Cleanup(b.close)
	return b
}

// open starts a daemon, or the next one: what was set in Set is not in the next one's.
func (b *bench) open() {
	b.log = new(book)
	b.Set = NewSet(Config{
		Probe: b.probe, Journal: b.journal,
		Log:  slog.New(slog.NewTextHandler(b.log, nil)),
		Boot: Boot{ID: "boot", Uptime: func() time.Duration { return time.Hour + time.Since(b.start) }},
	})
	b.hooks.Panicked = func() { b.panics.Add(1) }
	b.hooks.Began = func(_ string, lag time.Duration) {
		// In a bubble nothing takes time but a slow disk, and the pause after a panic.
		if lag != 0 && b.panics.Load() == 0 && !b.journal.slow.Load() {
			b.Errorf("a probe began %v after it was due", lag)
		}
	}
}

// crash ends the daemon and starts another, which finds what a crash may leave: an older record beside the log as it is.
func (b *bench) crash(record []byte) {
	b.Helper()
	b.close()
	b.journal.saved["a"], b.journal.replays = record, true
	b.open()
}

func (b *bench) probe(ctx context.Context, id string, p Policy, started func()) Result {
	b.mu.Lock()
	if b.flying++; b.flying > 1 {
		b.Error("two probes at once")
	}
	if p.Disabled() {
		b.Error("a probe by no policy")
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
	case <-after(takes):
		return r
	case <-ctx.Done():
		return Result{Outcome: Inconclusive, Cause: CauseCutShort, Reason: context.Cause(ctx).Error()}
	}
}

// after is time.After, but for no time at all: in a bubble two timers at once that are over as they are made crash Go 1.26's race detector.
func after(d time.Duration) <-chan time.Time {
	if d > 0 {
		return time.After(d)
	}
	over := make(chan time.Time)
	close(over)
	return over
}

// answers says what the probes that begin from now on end with, and how long they take.
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

// A crowd is a Set of many instances, with one slot in its queue.
type crowd struct {
	*testing.T
	*Set
	start time.Time

	mu    sync.Mutex
	began map[string][]time.Duration
}

func newCrowd(t *testing.T, probe func(ctx context.Context, id string, started func()) Result) *crowd {
	c := &crowd{T: t, start: time.Now(), began: make(map[string][]time.Duration)}
	c.Set = NewSet(Config{
		Journal: archive(nil), Boot: Boot{ID: "boot", Uptime: func() time.Duration { return time.Hour }},
		Probe: func(ctx context.Context, id string, p Policy, started func()) Result {
			c.mu.Lock()
			c.began[id] = append(c.began[id], time.Since(c.start))
			c.mu.Unlock()
			return probe(ctx, id, started)
		},
	})
	c.queue = newQueue(1)
	t.Cleanup(c.close)
	return c
}

// seen is a Sync, and what follows from it at once: the next one's stands behind it in the queue.
func (c *crowd) seen(id string, run uint64, phase Phase, policy string) {
	c.Sync(Observed{ID: id, Run: run, Phase: phase, Policy: mustParse(c, policy), Entered: time.Now(), Agent: true})
	synctest.Wait()
}

// probed checks when the probes of one instance began so far.
func (c *crowd) probed(id string, want ...time.Duration) {
	c.Helper()
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !slices.Equal(c.began[id], want) {
		c.Errorf("%s: probes at %v, want %v", id, c.began[id], want)
	}
}

func (c *crowd) close() {
	if err := c.Close(context.Background()); err != nil {
		c.Error(err)
	}
}

// A book is what was logged.
type book struct {
	mu     sync.Mutex
	b      bytes.Buffer
	panics string // once, at a line that holds it
}

func (b *book) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.panics != "" && strings.Contains(string(p), b.panics) {
		b.panics = ""
		panic("the log has a bug")
	}
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
	slow    atomic.Bool // it was, once
	replays bool        // what is in the log
	loads   error       // what Load says
	asides  error       // what SetAside says

	// What is called first, where it is set: it may hold the journal up, panic, or refuse.
	onCommit, onLoad func()
	onSave           func(blob []byte) error
}

func (j *journal) Commit(ctx context.Context, id string, t Transition) error {
	if j.onCommit != nil {
		j.onCommit()
	}
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
	if j.onSave != nil {
		if err := j.onSave(blob); err != nil {
			return err
		}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.refuse != nil {
		return j.refuse
	}
	j.saves++
	j.saved[id] = bytes.Clone(blob)
	return nil
}

// breaks makes the disk slow, or refuse.
func (j *journal) breaks(hang time.Duration, refuse error) {
	if hang > 0 {
		j.slow.Store(true)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.hang, j.refuse = hang, refuse
}

func (j *journal) Load(id string) ([]byte, error) {
	if j.onLoad != nil {
		j.onLoad()
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.loads != nil {
		return nil, j.loads
	}
	return j.saved[id], nil
}

func (j *journal) SetAside(id string) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.asides != nil {
		return j.asides
	}
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

// record is what was saved of "a" last.
func (j *journal) record() []byte {
	synctest.Wait()
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.saved["a"]
}

// writes is how often a record was saved.
func (j *journal) writes() int {
	synctest.Wait()
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.saves
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

// An archive is a journal that begins every instance with the same record, and keeps nothing.
type archive []byte

func (archive) Commit(context.Context, string, Transition) error { return nil }
func (archive) Save(string, []byte) error                        { return nil }
func (a archive) Load(string) ([]byte, error)                    { return a, nil }

// What probes end with.
var (
	good      = Result{Outcome: Success, Reason: "status 200"}
	bad       = Result{Outcome: Failure, Reason: "status 500, expected 200"}
	refusal   = Result{Outcome: Failure, Reason: "connection refused (port 80)", Definite: true}
	dunno     = Result{Outcome: Inconclusive, Cause: CauseResources}
	noAgent   = Result{Outcome: Inconclusive, Cause: CauseNoAgent}
	noNetwork = Result{Outcome: Inconclusive, Cause: CauseNoNetwork}
)

const (
	ms = time.Millisecond

	// pacedPolicy has no jitter in its grace, and one that is not seen within a test after it. otherPaced asks another port.
	pacedPolicy = `{"interval":"1s","timeout":"1s","start_period":"1h","start_interval":"1s","failure_threshold":2,"tcp":{"port":80}}`
	otherPaced  = `{"interval":"1s","timeout":"1s","start_period":"1h","start_interval":"1s","failure_threshold":2,"tcp":{"port":81}}`

	steady    = `{"interval":"10s","timeout":"1s","start_period":"30s","tcp":{"port":80}}`
	graceless = `{"interval":"10s","timeout":"1s","start_period":"0s","tcp":{"port":80}}`

	// What costs CPU to begin, and waits for its turn.
	execPolicy  = `{"interval":"10s","timeout":"1s","start_period":"1h","start_interval":"1s","exec":{"command":["x"]}}`
	crowdPolicy = `{"interval":"10s","timeout":"1s","start_period":"1h","start_interval":"10s","exec":{"command":["x"]}}`
	overTLS     = `{"interval":"10s","timeout":"1s","start_period":"1h","start_interval":"10s","http":{"port":443,"scheme":"https"}}`
)

func mustParse(t testing.TB, policy string) Policy {
	t.Helper()
	p, err := Parse(json.RawMessage(policy))
	if err != nil {
		t.Fatal(err)
	}
	return p
}
