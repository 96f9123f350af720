package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/bench/peer"
	"github.com/halevm/hale/bench/target"
	hale "github.com/halevm/hale/sdk/go"
)

const (
	productInstances = 200
	productInterval  = time.Second
	productWindow    = 20 * time.Second
	restartInstances = 300
	restartInterval  = 10 * time.Second
	fleetMemory      = 128 << 20 // of a machine by its record; a stand-in takes a tenth of it
)

// standIns builds what stands in QEMU's place, and returns the directory that it is in, for PATH.
func (s *site) standIns(ctx context.Context) (string, error) {
	dir := filepath.Join(s.dir, "bin")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(dir, "qemu-system-x86_64"), "github.com/halevm/hale/bench/machine")
	cmd.Dir, cmd.Env = "bench", append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the stand-in for QEMU: %w: %s", err, out)
	}
	return dir, nil
}

// A crowd is instances that are all healthy, whose machines are stand-ins and whose shims are real, and their daemons: a daemon gives
// away no more memory than the host has, by the machines' size, of which a stand-in needs a tenth.
type crowd struct {
	daemons   []*daemon
	instances [][]api.Instance // of each daemon
}

const crowdDaemons = 2

// withCrowd runs do with n instances.
func (s *site) withCrowd(ctx context.Context, name string, n int, interval time.Duration, do func(*crowd) error) (err error) {
	bin, err := s.standIns(ctx)
	if err != nil {
		return err
	}
	path := os.Getenv("PATH")
	if err := os.Setenv("PATH", bin+":"+path); err != nil {
		return err
	}
	defer os.Setenv("PATH", path)
	f := &crowd{}
	defer func() {
		for _, d := range f.daemons {
			err = errors.Join(err, d.stop())
		}
	}()
	for i := range crowdDaemons {
		var flags []string
		if os.Geteuid() == 0 { // their machines' users are not to be the same
			const first, each = 0x7b000000, 4096
			flags = []string{"--uids", fmt.Sprintf("%d-%d", first+i*each, first+(i+1)*each-1)}
		}
		d, err := startDaemon(s.binary, s.kernels, filepath.Join(s.dir, fmt.Sprintf("%s-%d", name, i)), flags...)
		if err != nil {
			return err
		}
		f.daemons = append(f.daemons, d)
		if _, err := d.load(ctx, s.image); err != nil {
			return err
		}
		made, err := d.fleet(ctx, n/crowdDaemons, interval)
		if err != nil {
			return err
		}
		f.instances = append(f.instances, made)
	}
	return do(f)
}

// shims are the processes beside the machines.
func (f *crowd) shims() ([]int, error) {
	var pids []int
	for i, d := range f.daemons {
		for _, in := range f.instances[i] {
			pid, err := d.shimOf(in.ID)
			if err != nil {
				return nil, err
			}
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// sum adds what do says of each daemon.
func (f *crowd) sum(do func(*daemon) (float64, error)) (float64, error) {
	total := 0.0
	for _, d := range f.daemons {
		v, err := do(d)
		if err != nil {
			return 0, err
		}
		total += v
	}
	return total, nil
}

// metric is the sum of a metric over the daemons.
func (f *crowd) metric(ctx context.Context, name, label string) (float64, error) {
	return f.sum(func(d *daemon) (float64, error) { return d.metric(ctx, name, label) })
}

// health is what is known of all instances, in the same order each time.
func (f *crowd) health(ctx context.Context) ([]api.InstanceHealth, error) {
	var all []api.InstanceHealth
	for i, d := range f.daemons {
		some, err := d.healthOf(ctx, f.instances[i])
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	return all, nil
}

// fleet makes n instances, a few at a time, and returns when all are healthy.
func (d *daemon) fleet(ctx context.Context, n int, interval time.Duration) ([]api.Instance, error) {
	fleet := make([]api.Instance, n)
	failed := make([]error, n)
	slots := make(chan struct{}, 4)
	var group sync.WaitGroup
	for i := range fleet {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			r := api.CreateInstanceRequest{
				Name: fmt.Sprintf("fleet-%d", i), Image: "bench/guest", Size: fmt.Sprintf("%dMB", fleetMemory>>20),
				HealthCheck: json.RawMessage(fmt.Sprintf(`{"interval":%q,"http":{"port":80}}`, interval)),
			}
			in, err := d.CreateInstance(ctx, r)
			if err == nil {
				_, err = d.WaitInstance(ctx, in.ID, hale.Wait{Health: api.HealthStateHealthy, Timeout: bootPatience})
			}
			fleet[i], failed[i] = in, err
		})
		if ctx.Err() != nil {
			break
		}
	}
	group.Wait()
	return fleet, errors.Join(failed...)
}

// benchProduct measures what a probe costs where all of hale is in its way.
func benchProduct(ctx context.Context, s *site) error {
	return s.withCrowd(ctx, "product", productInstances, productInterval, func(f *crowd) error {
		shims, err := f.shims()
		if err != nil {
			return err
		}
		if err := pause(ctx, settleTime); err != nil {
			return err
		}
		type use struct{ daemon, shims, probes float64 }
		look := func() (u use, err error) {
			u.daemon, err = f.sum(func(d *daemon) (float64, error) {
				t, err := cpuTime(d.cmd.Process.Pid)
				return float64(t), err
			})
			if err != nil {
				return u, err
			}
			for _, pid := range shims {
				t, err := cpuTime(pid)
				if err != nil {
					return u, err
				}
				u.shims += float64(t)
			}
			u.probes, err = f.metric(ctx, "hale_health_probes_total", `outcome="success"`)
			return u, err
		}
		before, err := look()
		if err != nil {
			return err
		}
		if err := pause(ctx, productWindow); err != nil {
			return err
		}
		after, err := look()
		if err != nil {
			return err
		}
		n := after.probes - before.probes
		if n < 0.7*productInstances*productWindow.Seconds()/productInterval.Seconds() {
			return fmt.Errorf("%.0f probes in %v of %d instances", n, productWindow, productInstances)
		}
		each := func(from, to float64) float64 { return (to - from) / n / float64(time.Microsecond) }
		daemonCost, shimCost := each(before.daemon, after.daemon), each(before.shims, after.shims)
		engine, err := s.engineBeside(ctx)
		if err != nil {
			return err
		}
		what := fmt.Sprintf("an http probe, product path, %d instances at %v: processor time of daemon and shim", productInstances, productInterval)
		s.report.add(row{what: what, unit: microseconds, figure: daemonCost + shimCost, reference: engine, beside: "engine layer", mostRatio: 5, bound: "≤ 5 ×"})
		s.report.add(row{what: "of that, the daemon's", unit: microseconds, figure: daemonCost})
		s.report.add(row{what: "of that, the shim's", unit: microseconds, figure: shimCost})
		memory := 0.0
		for _, pid := range shims {
			m, err := privateMemory(pid)
			if err != nil {
				s.report.note("The memory of the product path was not measured: %v.", err)
				return nil
			}
			memory += m / float64(len(shims))
		}
		own, err := f.sum(func(d *daemon) (float64, error) { return privateMemory(d.cmd.Process.Pid) })
		if err != nil {
			return err
		}
		s.report.add(row{what: "a shim that probes: private memory", unit: megabytes, figure: memory})
		s.report.add(row{what: fmt.Sprintf("a daemon with %d instances: private memory", productInstances/crowdDaemons), unit: megabytes, figure: own / crowdDaemons})
		lagSum, err := f.metric(ctx, "hale_health_probe_lag_seconds_sum", "")
		if err != nil {
			return err
		}
		lagCount, err := f.metric(ctx, "hale_health_probe_lag_seconds_count", "")
		if err != nil {
			return err
		}
		s.report.add(row{what: "start lag of probes, product path: mean", unit: milliseconds, figure: 1000 * lagSum / math.Max(lagCount, 1)})
		return nil
	})
}

// engineBeside is what a probe costs in the engine layer, of as many targets at the same interval.
func (s *site) engineBeside(ctx context.Context) (us float64, err error) {
	targets := target.Addresses(nginxNet, enginePort, productInstances)
	stop, err := s.startNginx(targets)
	if err != nil {
		return 0, err
	}
	defer stop()
	h, err := startHelper(ctx, "peer", peer.Config{Peer: "hale", Type: "http", Targets: targets, Interval: productInterval, Timeout: productInterval, Full: true}, "GOMAXPROCS=1")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	if err := pause(ctx, engineWarm); err != nil {
		return 0, err
	}
	if err := h.ask(peer.Request{Reset: true}, new(peer.Stats)); err != nil {
		return 0, err
	}
	began, err := cpuTime(h.pid)
	if err != nil {
		return 0, err
	}
	if err := pause(ctx, productWindow); err != nil {
		return 0, err
	}
	ended, err := cpuTime(h.pid)
	if err != nil {
		return 0, err
	}
	var st peer.Stats
	if err := h.ask(peer.Request{}, &st); err != nil || st.Probes == 0 {
		return 0, errors.Join(err, fmt.Errorf("%d probes", st.Probes))
	}
	return float64(ended-began) / float64(time.Microsecond) / float64(st.Probes), nil
}

// metric is the sum of a metric's series that have a label as it is written there.
func (d *daemon) metric(ctx context.Context, name, label string) (float64, error) {
	r, err := http.NewRequestWithContext(ctx, "GET", d.url+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	r.Header.Set("Authorization", "Bearer "+d.token)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("/metrics: %s", answer.Status)
	}
	sum := 0.0
	for lines := bufio.NewScanner(answer.Body); lines.Scan(); {
		series, value, _ := strings.Cut(lines.Text(), " ")
		base, labels, _ := strings.Cut(series, "{")
		if base != name || !strings.Contains(labels, label) {
			continue
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return 0, fmt.Errorf("metric %q: %w", lines.Text(), err)
		}
		sum += v
	}
	return sum, nil
}
