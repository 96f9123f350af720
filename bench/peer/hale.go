package peer

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/halevm/hale/bench/target"
	"github.com/halevm/hale/internal/health"
	"github.com/halevm/hale/internal/probe"
)

// hale is the product's own engine: its Set with loops, decisions and histories, and its probes. Only the dial function is the
// kernel's, in place of an instance's network.
type hale struct {
	set      *health.Set
	targets  map[string]probe.Target
	probes   atomic.Int64
	failures atomic.Int64
	lag      histogram
}

func newHale(c Config) (watcher, error) {
	slack()
	h := &hale{targets: make(map[string]probe.Target, len(c.Targets))}
	full, err := c.full()
	if err != nil {
		return nil, err
	}
	h.set = health.NewSet(health.Config{
		Probe: func(ctx context.Context, id string, p health.Policy, started func()) health.Result {
			t := h.targets[id]
			t.Begun = started
			return probe.Run(ctx, t, p)
		},
		Journal: nowhere{full},
		Grain:   c.Grain,
		Hooks: health.Hooks{
			Began: h.lag.add,
			Probed: func(_ health.Type, o health.Outcome, _ string, _ time.Duration) {
				h.probes.Add(1)
				if o != health.Success {
					h.failures.Add(1)
				}
			},
		},
	})
	policies := make([]health.Policy, len(c.Targets))
	for i, a := range c.Targets {
		p, err := c.policy(a)
		if err != nil {
			return nil, err
		}
		policies[i] = p
		h.targets[name(i)] = probe.Target{Version: "bench", Dial: func(ctx context.Context, _ uint16) (net.Conn, error) { return dial(ctx, a) }}
	}
	go func() {
		began := time.Now()
		for i, p := range policies {
			time.Sleep(time.Until(began.Add(c.stagger(i))))
			h.set.Sync(health.Observed{ID: name(i), Run: 1, Phase: health.Running, Policy: p, Agent: true})
		}
	}()
	return h, nil
}

func name(i int) string { return fmt.Sprintf("target%014d", i) }

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
}

func (h *hale) stats(s *Stats, look bool) {
	s.Probes, s.Failures, s.Lag, s.Watched = h.probes.Load(), h.failures.Load(), h.lag.quantiles(), h.set.Watched()
	if !look {
		return
	}
	for id := range h.targets {
		if snap, _ := h.set.Snapshot(id); snap.Status == health.StatusUnhealthy {
			s.Unhealthy++
		}
	}
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
	var kept keeper
	n := 0
	set := health.NewSet(health.Config{Journal: &kept, Probe: func(context.Context, string, health.Policy, func()) health.Result {
		if n++; n/3%2 == 1 && n < 190 {
			return health.Result{Outcome: health.Failure, Reason: fmt.Sprintf("status %d, expected 200", 500+n%4)}
		}
		return health.Result{Outcome: health.Success, Reason: "status 200"}
	}})
	set.Sync(health.Observed{ID: "full", Run: 1, Phase: health.Running, Policy: p, Agent: true})
	for range 200 {
		time.Sleep(time.Millisecond)
		if _, err := set.CheckNow(context.Background(), "full"); err != nil {
			return nil, err
		}
	}
	err = set.Close(context.Background())
	return kept.record, err
}

type keeper struct{ nowhere }

func (k *keeper) Save(_ string, record []byte) error {
	k.record = bytes.Clone(record)
	return nil
}
