package peer

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/halevm/hale/bench/target"
	"github.com/halevm/hale/internal/health"
	"github.com/halevm/hale/internal/probe"
	"github.com/halevm/hale/internal/slack"
)

// hale is the product's own engine: its Set with loops, decisions and histories, and its probes. Only the dial function is the
// kernel's, in place of an instance's network.
type hale struct {
	config   Config
	set      *health.Set
	targets  []asked
	policies []health.Policy
	probes   atomic.Int64
	failures atomic.Int64
	wrong    atomic.Int64
	checked  atomic.Int64
	starved  atomic.Int64
	lag      histogram // of targets that are none of the others
	opened   time.Duration
	mu       sync.Mutex
	words    []string // of what went wrong
	moves    []Move
}

// An asked is one target.
type asked struct {
	index  int
	probe  probe.Target
	expect expectation
}

// A Move is one change of a target's status.
type Move struct {
	Target   int
	From, To string
	At       time.Duration // by target.Uptime
}

func newHale(c Config) (watcher, error) {
	h := &hale{config: c, targets: make([]asked, len(c.Targets)), policies: make([]health.Policy, len(c.Targets))}
	full, err := c.full()
	if err != nil {
		return nil, err
	}
	timer, err := slack.NewTimer() // as the daemon has it
	if err != nil {
		return nil, err
	}
	h.set = health.NewSet(health.Config{Timer: timer, Probe: h.ask, Journal: &book{nowhere{full}, h}, Hooks: health.Hooks{
		Began: func(id string, lag time.Duration) {
			if index(id) >= c.Others {
				h.lag.add(lag)
			}
		},
		Probed: func(_ health.Type, o health.Outcome, _ string, _ time.Duration) {
			h.probes.Add(1)
			if o != health.Success {
				h.failures.Add(1)
			}
		},
	}})
	var delay func([]time.Duration) []time.Duration
	if c.Server != 0 {
		delay = (&threads{pid: c.Server}).runDelay
	}
	for i, a := range c.Targets {
		p, err := c.policy(a)
		if err != nil {
			return nil, err
		}
		h.policies[i] = p
		t := probe.Target{Version: "bench", RunDelay: delay, Dial: func(ctx context.Context, _ uint16) (net.Conn, error) { return dial(ctx, a) }}
		h.targets[i] = asked{index: i, probe: t}
	}
	if !c.Wait {
		go h.open(c.stagger)
	}
	return h, nil
}

// open begins to watch every target, each so long from now.
func (h *hale) open(after func(i int) time.Duration) {
	began := time.Now()
	for i, p := range h.policies {
		time.Sleep(time.Until(began.Add(after(i))))
		h.set.Sync(health.Observed{ID: name(i), Run: 1, Phase: health.Running, Policy: p, Agent: true, Network: true})
	}
}

// ask is the Prober.
func (h *hale) ask(ctx context.Context, id string, p health.Policy, started func()) health.Result {
	a := &h.targets[index(id)]
	t := a.probe
	t.Begun = started
	r := probe.Run(ctx, t, p)
	if h.config.Seed != 0 {
		h.check(a, p, r)
	}
	return r
}

// book is told of every transition, as the event log is.
type book struct {
	nowhere
	of *hale
}

func (b *book) Commit(_ context.Context, id string, t health.Transition) error {
	b.of.mu.Lock()
	defer b.of.mu.Unlock()
	b.of.moves = append(b.of.moves, Move{index(id), string(t.From), string(t.To), target.Uptime()})
	return nil
}

func name(i int) string { return fmt.Sprintf("target%014d", i) }

// index returns whose name it is.
func index(name string) int {
	i, err := strconv.Atoi(name[len("target"):])
	if err != nil {
		panic(err) // it is of name's making
	}
	return i
}

func (c *Config) policy(a target.Address) (health.Policy, error) {
	check := fmt.Sprintf(`"http":{"port":%d}`, a.Port)
	switch {
	case a.TLS:
		check = fmt.Sprintf(`"http":{"port":%d,"scheme":"https"}`, a.Port)
	case c.Type == "tcp":
		check = fmt.Sprintf(`"tcp":{"port":%d}`, a.Port)
	}
	rest := c.Policy
	if rest == "" {
		rest = fmt.Sprintf(`"interval":%q,"timeout":%q,"start_period":"0s"`, c.Interval, c.Timeout)
	}
	return health.Parse(json.RawMessage("{" + check + "," + rest + "}"))
}

func (h *hale) reset() {
	h.probes.Store(0)
	h.failures.Store(0)
	h.lag.reset()
	h.mu.Lock()
	h.moves = nil
	h.mu.Unlock()
}

func (h *hale) request(r Request) {
	if r.Start {
		h.opened = target.Uptime()
		go h.open(func(i int) time.Duration {
			if r.Spread == 0 {
				return 0
			}
			return r.Spread * time.Duration(i) / time.Duration(len(h.policies))
		})
	}
}

func (h *hale) stats(s *Stats, look bool) {
	s.Probes, s.Failures, s.Lag, s.Watched = h.probes.Load(), h.failures.Load(), h.lag.quantiles(), h.set.Watched()
	s.Wrong, s.Opened = h.wrong.Load(), h.opened
	h.mu.Lock()
	s.Words = h.words
	if look {
		s.Moves = h.moves
	}
	h.mu.Unlock()
	if !look {
		return
	}
	for i := range h.targets {
		a := &h.targets[i]
		snap, _ := h.set.Snapshot(name(i))
		if snap.Status == health.StatusUnhealthy {
			s.Unhealthy++
		}
		if h.config.Seed != 0 {
			h.compare(a, snap)
		}
	}
	s.Wrong, s.Checked, s.Starved = h.wrong.Load(), h.checked.Load(), h.starved.Load()
}

// nowhere is a journal that is given everything, as the product's is, and keeps nothing. Each instance begins with the same record.
type nowhere struct{ record []byte }

func (nowhere) Commit(context.Context, string, health.Transition) error { return nil }
func (nowhere) Save(string, []byte) error                               { return nil }
func (n nowhere) Load(string) ([]byte, error)                           { return n.record, nil }

// full returns the record of an instance that has been watched for long: what a probe costs with an empty history is not what it
// costs in the end. nil: all begin anew.
func (c *Config) full() ([]byte, error) {
	if !c.Full {
		return nil, nil
	}
	p, err := c.policy(c.Targets[0])
	if err != nil {
		return nil, err
	}
	// A failure turns this one at once, so that it has turned often after a moment. What the record says of its policy is put right in the end.
	quick := p
	quick.FailureThreshold = 1
	var kept keeper
	n := 0
	set := health.NewSet(health.Config{Journal: &kept, Probe: func(context.Context, string, health.Policy, func()) health.Result {
		if n++; c.Turned && n/3%2 == 1 && n < 190 {
			return health.Result{Outcome: health.Failure, Reason: fmt.Sprintf("status %d, expected 200", 500+n%4)}
		}
		return health.Result{Outcome: health.Success, Reason: "status 200"}
	}})
	set.Sync(health.Observed{ID: "full", Run: 1, Phase: health.Running, Policy: quick, Agent: true})
	for range 200 {
		time.Sleep(time.Millisecond)
		if _, err := set.CheckNow(context.Background(), "full"); err != nil {
			return nil, err
		}
	}
	if err := set.Close(context.Background()); err != nil {
		return nil, err
	}
	was, err := json.Marshal(quick)
	if err != nil {
		return nil, err
	}
	is, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	return bytes.Replace(kept.last, was, is, 1), nil
}

type keeper struct {
	nowhere
	last []byte
}

func (k *keeper) Save(_ string, record []byte) error {
	k.last = bytes.Clone(record)
	return nil
}
