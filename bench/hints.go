package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/halevm/hale/api"
	hale "github.com/halevm/hale/sdk/go"
)

const (
	hintRounds = 30
	// A program begins to listen at a random moment of so long after its window opened: the pace of the probes has slowed down by then.
	hintSpread = 5 * time.Second
)

// The default policy, and one that differs in what does not matter here: each is a new window after the other.
var hintPolicies = [2]string{`{"http":{"port":80}}`, `{"http":{"port":80},"start_period":"31s"}`}

// benchHints measures how soon a real machine's health is known after its program began, and ceased, to listen: from the program's word,
// which leaves the guest right after the listen(2) or the close(2), to the answer of an API that was asked to wait for it.
func benchHints(ctx context.Context, s *site) error {
	return s.withDaemon(ctx, "hints", func(d *daemon) error {
		t, err := startToggled(ctx, d)
		if err != nil {
			return err
		}
		var up, down []float64
		for i := range hintRounds {
			healthy, unhealthy, err := t.round(ctx, hintPolicies[i%2])
			if err != nil {
				return fmt.Errorf("round %d: %w", i+1, err)
			}
			fmt.Fprintf(os.Stderr, "   %2d: healthy %v, unhealthy %v\n", i+1, healthy.Round(time.Millisecond), unhealthy.Round(time.Millisecond))
			up, down = append(up, ms(healthy)), append(down, ms(unhealthy))
		}
		s.report.add(row{what: "a program listens, to healthy: p50", unit: milliseconds, figure: quantile(up, 0.5), most: 120, bound: "≤ 120 ms"})
		s.report.add(row{what: "the same: p95", unit: milliseconds, figure: quantile(up, 0.95), most: 200, bound: "≤ 200 ms"})
		s.report.add(row{what: "a healthy server closes its port, to unhealthy: p50", unit: milliseconds, figure: quantile(down, 0.5), most: 3000, bound: "≤ 3 s"})
		s.report.add(row{what: "the same: p95", unit: milliseconds, figure: quantile(down, 0.95), most: 3500, bound: "≤ 3.5 s"})
		s.report.note("Hints: %d rounds on one machine, the default policy; the program listens at a random moment of the first %v of a window.", hintRounds, hintSpread)
		return nil
	})
}

// A toggled is a machine whose program listens when it is told to.
type toggled struct {
	*daemon
	id     string
	orders http.Client // its one connection is kept: an order is one packet
	url    string
}

func startToggled(ctx context.Context, d *daemon) (*toggled, error) {
	in, err := d.create(ctx, api.CreateInstanceRequest{
		Name: "toggle", Image: "bench/guest", Cmd: []string{"toggle"}, Entrypoint: []string{"/guest"},
		Network: &api.InstanceNetworkRequest{Ports: []api.PortMapping{{GuestPort: 81}}},
	})
	if err != nil {
		return nil, err
	}
	if _, err := d.WaitInstance(ctx, in.ID, hale.Wait{State: api.InstanceStateRunning, Timeout: bootPatience}); err != nil {
		return nil, err
	}
	if in, err = d.Instance(ctx, in.ID); err != nil {
		return nil, err
	}
	t := &toggled{daemon: d, id: in.ID, url: fmt.Sprintf("http://%s:%d", in.Network.Ports[0].HostAddr, in.Network.Ports[0].HostPort)}
	t.orders.Transport = &http.Transport{MaxConnsPerHost: 1}
	for end := time.Now().Add(bootPatience); ; time.Sleep(100 * time.Millisecond) {
		if err = t.order(ctx, "/listen"); err == nil {
			return t, t.order(ctx, "/cease")
		}
		if time.Now().After(end) {
			return nil, err
		}
	}
}

// order returns when the program's word that it is done has come.
func (t *toggled) order(ctx context.Context, what string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.url+what, nil)
	if err != nil {
		return err
	}
	resp, err := t.orders.Do(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", what, resp.Status)
	}
	return nil
}

// round opens a window in which the program begins to listen and ceases to.
func (t *toggled) round(ctx context.Context, policy string) (healthy, unhealthy time.Duration, err error) {
	if _, err := t.UpdateInstance(ctx, t.id, api.UpdateInstanceRequest{HealthCheck: json.RawMessage(policy)}); err != nil {
		return 0, 0, err
	}
	time.Sleep(rand.N(hintSpread))
	if healthy, err = t.turns(ctx, "/listen", api.HealthStateHealthy); err != nil {
		return 0, 0, err
	}
	time.Sleep(time.Second) // it is healthy for a while
	unhealthy, err = t.turns(ctx, "/cease", api.HealthStateUnhealthy)
	return healthy, unhealthy, err
}

// turns gives an order, and returns how long after its answer the status was told to one who waited for it.
func (t *toggled) turns(ctx context.Context, order string, to api.HealthState) (time.Duration, error) {
	type told struct {
		at  time.Time
		err error
	}
	waited := make(chan told, 1)
	go func() {
		w, err := t.WaitInstance(ctx, t.id, hale.Wait{Health: to, Timeout: time.Minute})
		if err == nil && (w.HealthStatus == nil || w.HealthStatus.Status != to) {
			err = fmt.Errorf("it is not %s", to)
		}
		waited <- told{time.Now(), err}
	}()
	err := t.order(ctx, order)
	done := time.Now()
	end := <-waited
	if err == nil {
		err = end.err
	}
	return end.at.Sub(done), err
}

// quantile is the smallest figure that so large a part does not exceed.
func quantile(figures []float64, part float64) float64 {
	s := slices.Sorted(slices.Values(figures))
	return s[min(len(s)-1, int(part*float64(len(s))))]
}
