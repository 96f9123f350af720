package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/halevm/hale/bench/peer"
	"github.com/halevm/hale/bench/target"
)

// The engine layer: how much is asked, and for how long each peer is looked at.
const (
	engineTargets  = 2000
	engineInterval = time.Second
	engineRounds   = 5
	engineWarm     = 2500 * time.Millisecond
	engineWindow   = 5 * time.Second
	enginePort     = 8090
)

// benchEngine takes what processor time a probe costs, of hale's engine and of its peers, in turn.
func benchEngine(ctx context.Context, s *site) (err error) {
	f, err := s.serveTargets(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	costs, err := s.costs(ctx, f)
	if err != nil {
		return err
	}
	us := func(name string) float64 { return median(costs[name]) }
	hale := us("hale")
	what := fmt.Sprintf("an http probe, %d targets at %v: processor time", engineTargets, engineInterval)
	s.report.add(row{what: what, unit: microseconds, figure: hale, reference: us("haproxy"), beside: "HAProxy", mostRatio: 1.25, bound: "≤ 1.25 ×, 1.1 is aimed at"})
	s.report.add(row{what: what, unit: microseconds, figure: hale, reference: us("floor"), beside: "bare system calls", mostRatio: 1.8, bound: "≤ 1.8 ×"})
	s.report.add(row{what: what, unit: microseconds, figure: hale, reference: us("kubernetes"), beside: "the prober of Kubernetes", mostRatio: 1, bound: "less"})
	s.report.add(row{what: what, unit: microseconds, figure: hale, reference: us("client"), beside: "Go's default client and a ticker for each"})
	s.report.add(row{what: what, unit: microseconds, figure: hale, reference: us("serial"), beside: "Go's default client, one after the other"})
	s.report.add(row{what: "a tcp probe, as many: processor time", unit: microseconds, figure: us("hale tcp"), reference: us("kubernetes tcp"), beside: "the prober of Kubernetes", mostRatio: 1, bound: "less"})
	said := make([]string, 0, len(contenders))
	for _, c := range contenders {
		said = append(said, c.name+" "+spread(microseconds, costs[c.name]))
	}
	s.report.note("Engine: medians of %d windows of %v each, in turn; half of the targets are nginx's, half those of a server in Go; each peer is a process of its own, those in Go with GOMAXPROCS=1, HAProxy with one thread. The timers of all of ours may be 10 ms late, as hale's; connections have the same options, but those of Kubernetes' prober, which dials by itself. Bare system calls: one thread that wakes every 10 ms. Spreads: %s.",
		engineRounds, engineWindow, strings.Join(said, ", "))
	return nil
}

func microseconds(v float64) string { return fmt.Sprintf("%.1f µs", v) }

// A contender is one of those whose cost is compared.
type contender struct{ name, peer, check string }

var contenders = []contender{
	{"hale", "hale", "http"},
	{"haproxy", "", "http"},
	{"floor", "floor", "http"},
	{"kubernetes", "kubernetes", "http"},
	{"client", "client", "http"},
	{"serial", "serial", "http"},
	{"hale tcp", "hale", "tcp"},
	{"kubernetes tcp", "kubernetes", "tcp"},
}

// costs returns what a probe costs each contender in each round, in microseconds.
func (s *site) costs(ctx context.Context, f *farm) (map[string][]float64, error) {
	costs := map[string][]float64{}
	for range engineRounds {
		for _, c := range contenders {
			if only := os.Getenv("HALE_BENCH_CONTENDERS"); only != "" && !strings.Contains(","+only+",", ","+c.name+",") {
				continue
			}
			us, err := s.cost(ctx, f, c)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			costs[c.name] = append(costs[c.name], us)
			fmt.Fprintf(os.Stderr, "   %s %.1f µs\n", c.name, us)
		}
	}
	return costs, nil
}

// cost runs one contender for one window.
func (s *site) cost(ctx context.Context, f *farm, c contender) (us float64, err error) {
	var pid int
	probes := f.answered
	if c.peer == "" {
		var stop func()
		if pid, stop, err = s.startHAProxy(f.all()); err != nil {
			return 0, err
		}
		defer stop()
	} else {
		config := peer.Config{Peer: c.peer, Type: c.check, Targets: f.all(), Interval: engineInterval, Timeout: engineInterval, Full: true}
		h, err := startHelper(ctx, "peer", config, "GOMAXPROCS=1")
		if err != nil {
			return 0, err
		}
		defer func() { err = errors.Join(err, h.close()) }()
		pid = h.pid
		if c.check == "tcp" { // which no server counts
			probes = func() (int64, error) {
				var st peer.Stats
				err := h.ask(peer.Request{}, &st)
				return st.Probes, err
			}
		}
		if dir := os.Getenv("HALE_BENCH_PROFILES"); dir != "" {
			if err := h.ask(peer.Request{Profile: filepath.Join(dir, c.name+".pprof")}, new(peer.Stats)); err != nil {
				return 0, err
			}
			defer func() { err = errors.Join(err, h.ask(peer.Request{Profile: "-"}, new(peer.Stats))) }()
		}
	}
	if err := pause(ctx, engineWarm); err != nil {
		return 0, err
	}
	n, err := probes()
	if err != nil {
		return 0, err
	}
	began, err := cpuTime(pid)
	if err != nil {
		return 0, err
	}
	if err := pause(ctx, engineWindow); err != nil {
		return 0, err
	}
	ended, err := cpuTime(pid)
	if err != nil {
		return 0, err
	}
	m, err := probes()
	if err != nil {
		return 0, err
	}
	if least := int64(0.8 * engineTargets * float64(engineWindow/engineInterval)); m-n < least {
		return 0, fmt.Errorf("%d probes in %v, and not %d", m-n, engineWindow, least)
	}
	return float64(ended-began) / float64(time.Microsecond) / float64(m-n), nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// A farm is what is asked: half of it nginx's, half a server's in Go.
type farm struct {
	nginx, here []target.Address
	server      *helper
	stop        func()
}

func (f *farm) all() []target.Address {
	all := make([]target.Address, 0, len(f.nginx)+len(f.here))
	for i := range f.nginx {
		all = append(all, f.nginx[i], f.here[i])
	}
	return all
}

// Where the servers listen: the loopback's addresses from 127.100.0.1 on.
const (
	nginxNet, hereNet = 100, 101
	statusAddr        = "127.102.0.1:8080"
)

func (s *site) serveTargets(ctx context.Context) (*farm, error) {
	f := &farm{
		nginx: target.Addresses(nginxNet, enginePort, engineTargets/2),
		here:  target.Addresses(hereNet, enginePort, engineTargets/2),
	}
	var err error
	if f.stop, err = s.startNginx(f.nginx); err != nil {
		return nil, err
	}
	if f.server, err = startHelper(ctx, "target", target.Config{Targets: f.here, Mode: target.OK}); err != nil {
		f.stop()
		return nil, err
	}
	return f, nil
}

func (f *farm) close() error {
	f.stop()
	return f.server.close()
}

// answered is how many requests the farm has answered so far.
func (f *farm) answered() (int64, error) {
	var a target.Answer
	if err := f.server.ask(target.Request{}, &a); err != nil {
		return 0, err
	}
	r, err := http.Get("http://" + statusAddr + "/")
	if err != nil {
		return 0, err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return 0, err
	}
	var accepts, handled, requests int64
	lines := strings.Split(string(b), "\n")
	if len(lines) < 3 {
		return 0, fmt.Errorf("nginx says %q", b)
	}
	if _, err := fmt.Sscan(lines[2], &accepts, &handled, &requests); err != nil {
		return 0, fmt.Errorf("nginx says %q: %w", b, err)
	}
	return a.Count + requests, nil
}

func (s *site) startNginx(targets []target.Address) (func(), error) {
	dir, err := os.MkdirTemp(s.dir, "nginx-")
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	b.WriteString("daemon off; master_process off; pid nginx.pid; error_log error.log;\nevents { worker_connections 10000; }\nhttp {\naccess_log off;\n")
	for _, t := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		fmt.Fprintf(&b, "%s_temp_path %s;\n", t, t)
	}
	b.WriteString("server {\n")
	for _, a := range targets {
		fmt.Fprintf(&b, "listen %s;\n", a)
	}
	fmt.Fprintf(&b, "location / { return 200 \"ok\\n\"; }\n}\nserver { listen %s; location / { stub_status; } }\n}\n", statusAddr)
	conf := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(conf, []byte(b.String()), 0o644); err != nil {
		return nil, err
	}
	_, stop, err := startServer(exec.Command(s.nginx, "-p", dir, "-e", "error.log", "-c", conf), statusAddr)
	return stop, err
}

// startHAProxy starts its checks of all targets, over http, from one thread.
func (s *site) startHAProxy(targets []target.Address) (pid int, stop func(), err error) {
	const ready = "127.102.0.2:8080"
	var b strings.Builder
	fmt.Fprintf(&b, "global\n nbthread 1\n maxconn 1000\ndefaults\n mode http\n timeout connect %[1]dms\n timeout client 10s\n timeout server 10s\nfrontend f\n bind %[2]s\n default_backend b\nbackend b\n option httpchk\n"+
		" http-check send meth GET uri / ver HTTP/1.1 hdr Host localhost hdr Connection close\n http-check expect status 200\n timeout check %[1]dms\n",
		engineInterval.Milliseconds(), ready)
	for i, a := range targets {
		fmt.Fprintf(&b, " server s%d %s check inter %dms\n", i, a, engineInterval.Milliseconds())
	}
	conf := filepath.Join(s.dir, "haproxy.cfg")
	if err := os.WriteFile(conf, []byte(b.String()), 0o644); err != nil {
		return 0, nil, err
	}
	cmd := exec.Command(filepath.Join(s.haproxy, "usr/sbin/haproxy"), "-db", "-f", conf)
	cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+filepath.Join(s.haproxy, "usr/lib/x86_64-linux-gnu"))
	return startServer(cmd, ready)
}

// startServer starts a program, and returns when it accepts at addr.
func startServer(cmd *exec.Cmd, addr string) (pid int, stop func(), err error) {
	var words bytes.Buffer
	cmd.Stderr = &words
	if err := cmd.Start(); err != nil {
		return 0, nil, err
	}
	gone := make(chan struct{})
	go func() { cmd.Wait(); close(gone) }()
	stop = func() { cmd.Process.Kill(); <-gone }
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if c, err := net.DialTimeout("tcp", addr, time.Second); err == nil {
			c.Close()
			return cmd.Process.Pid, stop, nil
		}
		select {
		case <-gone:
			return 0, nil, fmt.Errorf("%s ended: %s", cmd.Path, bytes.TrimSpace(words.Bytes()))
		default:
		}
		if time.Now().After(deadline) {
			stop()
			return 0, nil, fmt.Errorf("%s does not accept at %s: %s", cmd.Path, addr, bytes.TrimSpace(words.Bytes()))
		}
	}
}
