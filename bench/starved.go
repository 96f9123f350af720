package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/bench/peer"
	"github.com/halevm/hale/bench/target"
)

const (
	starvedTargets  = 2000
	starvedInterval = 10 * time.Second
	starvedTime     = 30 * time.Second
	starvedMachines = 4
	hungInterval    = time.Second
	hungBound       = 6 * 2 * hungInterval // its timeout is its interval
)

// benchStarved takes the processor away while some targets really fail, and looks what is said of those and of the others.
func benchStarved(ctx context.Context, s *site) error {
	err := s.withDaemon(ctx, "starved", func(d *daemon) error {
		machines := make([]api.Instance, starvedMachines)
		for i := range machines {
			var err error
			if machines[i], err = d.healthy(ctx, api.CreateInstanceRequest{Name: fmt.Sprintf("starved-%d", i), Image: "bench/guest"}); err != nil {
				return err
			}
		}
		return s.starve(ctx, d, machines)
	})
	if err != nil {
		return err
	}
	if err := s.hang(ctx); err != nil {
		return err
	}
	return s.withDaemon(ctx, "hung", func(d *daemon) error { return s.hangMachine(ctx, d) })
}

// starve starves the host while targets, and machines, are watched.
func (s *site) starve(ctx context.Context, d *daemon, machines []api.Instance) (err error) {
	gone := starvedTargets / 10
	closing := target.Addresses(hereNet, enginePort, gone)
	good := target.Addresses(nginxNet, enginePort, starvedTargets-gone)
	stop, err := s.startNginx(good)
	if err != nil {
		return err
	}
	defer stop()
	server, err := startHelper(ctx, "target", target.Config{Targets: closing, Mode: target.OK})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.close()) }()
	h, err := startHelper(ctx, "peer", peer.Config{Peer: "hale", Type: "http", Targets: append(closing, good...), Policy: fmt.Sprintf(`"interval":%q`, starvedInterval)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	// The default interval is 10 s, and the first probes are spread over a hundredth of it at least.
	if err := pause(ctx, starvedInterval+3*time.Second); err != nil {
		return err
	}
	var st peer.Stats
	if err := h.ask(peer.Request{Reset: true, Look: true}, &st); err != nil {
		return err
	}
	if st.Unhealthy > 0 || st.Watched != starvedTargets {
		return fmt.Errorf("%d of %d are unhealthy before anything happened", st.Unhealthy, st.Watched)
	}
	burners, err := startHelper(ctx, "burn", burning{Loops: runtime.NumCPU(), Nice: -20})
	if err != nil {
		s.report.note("A starved host was not measured: %v.", err)
		return nil
	}
	closed := make(chan error, 1)
	go func() {
		closed <- server.ask(target.Request{Set: indexes(0, gone), Mode: target.Closed}, new(target.Answer))
	}()
	err = pause(ctx, starvedTime)
	if err = errors.Join(err, burners.close()); err != nil {
		return err
	}
	ended := target.Uptime()
	if err := <-closed; err != nil {
		return err
	}
	if err := pause(ctx, 2*starvedInterval+2*time.Second); err != nil {
		return err
	}
	if err := h.ask(peer.Request{Look: true}, &st); err != nil {
		return err
	}
	falsely, found, last := 0, map[int]bool{}, time.Duration(0)
	for _, m := range st.Moves {
		switch {
		case m.To != "unhealthy":
		case m.Target >= gone:
			falsely++
		default:
			found[m.Target] = true
			last = max(last, m.At-ended)
		}
	}
	s.report.add(row{what: fmt.Sprintf("the host starved for %v: targets of %d that are well and were called unhealthy", starvedTime, starvedTargets), unit: plain, figure: float64(falsely), zero: true, bound: "none"})
	known, err := d.healthOf(ctx, machines)
	if err != nil {
		return err
	}
	wrong := 0
	for _, h := range known {
		if h.Status != api.HealthStateHealthy || slices.ContainsFunc(h.Transitions, func(t api.HealthTransition) bool { return t.To == api.HealthStateUnhealthy }) {
			wrong++
		}
	}
	s.report.add(row{what: fmt.Sprintf("the same, of %d real machines", starvedMachines), unit: plain, figure: float64(wrong), zero: true, bound: "none"})
	s.report.add(row{what: fmt.Sprintf("of the %d that closed meanwhile, found unhealthy", gone), unit: plain, figure: float64(len(found)), most: float64(gone), more: true, bound: "all"})
	s.report.add(row{what: "the last of them was found, after the load ended", unit: seconds, figure: last.Seconds(), most: (2 * starvedInterval).Seconds(), bound: "≤ 2 × interval"})
	s.report.note("Starved: a loop at nice -20 on each core; %d of %d probes in that time and after were no success.", st.Failures, st.Probes)
	return nil
}

// hang looks how long a target that hangs is not found out, beside ordinary loops that never end.
func (s *site) hang(ctx context.Context) (err error) {
	targets := target.Addresses(hereNet, enginePort, 1)
	server, err := startHelper(ctx, "target", target.Config{Targets: targets, Mode: target.OK})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.close()) }()
	h, err := startHelper(ctx, "peer", peer.Config{Peer: "hale", Type: "http", Targets: targets, Interval: hungInterval, Timeout: hungInterval})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	stop, err := startLoops()
	if err != nil {
		return err
	}
	defer stop()
	if err := pause(ctx, 3*hungInterval); err != nil {
		return err
	}
	var a target.Answer
	if err := server.ask(target.Request{Set: []int{0}, Mode: target.Silent}, &a); err != nil {
		return err
	}
	var st peer.Stats
	for until := time.Now().Add(2 * hungBound); time.Now().Before(until); {
		if err := pause(ctx, 200*time.Millisecond); err != nil {
			return err
		}
		if err := h.ask(peer.Request{Look: true}, &st); err != nil {
			return err
		}
		for _, m := range st.Moves {
			if m.To == "unhealthy" && m.At > a.At {
				s.report.add(hungRow(fmt.Sprintf("a target of the engine that hangs, beside %d ordinary loops: until it is unhealthy", ordinaryLoops()), m.At-a.At))
				return nil
			}
		}
	}
	return fmt.Errorf("a target that hangs is not unhealthy after %v", 2*hungBound)
}

func hungRow(what string, took time.Duration) row {
	return row{what: what, unit: seconds, figure: took.Seconds(), most: hungBound.Seconds(), bound: "≤ 6 × (interval + timeout)"}
}

// hangMachine looks the same of a real server, in a real machine, which the loops keep waiting as well.
func (s *site) hangMachine(ctx context.Context, d *daemon) error {
	t, err := startToggled(ctx, d)
	if err != nil {
		return err
	}
	policy := fmt.Sprintf(`{"http":{"port":80},"interval":%q,"timeout":%q}`, hungInterval, hungInterval)
	if _, err := d.UpdateInstance(ctx, t.id, api.UpdateInstanceRequest{HealthCheck: json.RawMessage(policy)}); err != nil {
		return err
	}
	if _, err := t.turns(ctx, "/listen", api.HealthStateHealthy); err != nil {
		return err
	}
	stop, err := startLoops()
	if err != nil {
		return err
	}
	defer stop()
	if err := pause(ctx, 3*hungInterval); err != nil {
		return err
	}
	took, err := t.turns(ctx, "/hang", api.HealthStateUnhealthy)
	if err != nil {
		return err
	}
	s.report.add(hungRow("the same of a server in a real machine", took))
	return nil
}

// ordinaryLoops is how many take the whole host.
func ordinaryLoops() int { return max(2, runtime.NumCPU()) }

// An ordinaryLoop only uses the processor, as any program may. It looks now and then whether the bench is there, and outlives it by a moment.
const ordinaryLoop = `while kill -0 $PPID; do i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; done 2>/dev/null`

// startLoops starts processes of it, which never end, until stop ends them.
func startLoops() (stop func(), err error) {
	var loops []*exec.Cmd
	stop = func() {
		for _, l := range loops {
			l.Process.Kill()
			l.Wait() // it was killed
		}
	}
	for range ordinaryLoops() {
		l := exec.Command("sh", "-c", ordinaryLoop)
		if err := l.Start(); err != nil {
			stop()
			return nil, err
		}
		loops = append(loops, l)
	}
	return stop, nil
}

func seconds(v float64) string { return fmt.Sprintf("%.1f s", v) }

// A burning is loops that only use the processor.
type burning struct{ Loops, Nice int }

// burn is a helper's main function.
func burn(in *json.Decoder, out *json.Encoder) error {
	var b burning
	if err := in.Decode(&b); err != nil {
		return err
	}
	began := make(chan error)
	for range b.Loops {
		go func() {
			runtime.LockOSThread() // niceness is a thread's
			began <- unix.Setpriority(unix.PRIO_PROCESS, 0, b.Nice)
			for n := uint64(0); ; n++ {
				burnt.Store(n)
			}
		}()
	}
	for range b.Loops {
		if err := <-began; err != nil {
			return fmt.Errorf("nice %d: %w", b.Nice, err)
		}
	}
	// One of this process's own, as eager: so that it hears that it is to end.
	runtime.LockOSThread()
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, b.Nice); err != nil {
		return err
	}
	if err := out.Encode("here"); err != nil {
		return err
	}
	return in.Decode(new(json.RawMessage))
}

var burnt atomic.Uint64
