//go:build prometheus

// Package prometheus has a real Prometheus scrape a real daemon with what examples/prometheus says, and has promtool check it.
// test/prometheus/run.sh fetches both; no machine is needed.
package prometheus

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/halevm/hale/api"
	hale "github.com/halevm/hale/sdk/go"
)

const examples = "../../examples/prometheus/"

// patience is for what comes by itself.
const patience = 3 * time.Minute

func TestScrape(t *testing.T) {
	d := startDaemon(t)
	d.work()
	dir := d.configure()

	promtool(t, dir, "check", "config", "prometheus.yml")
	promtool(t, dir, "check", "rules", "alerts.yml")
	promtool(t, dir, "test", "rules", "alerts_test.yml")
	d.everyMetricExists()

	p := startPrometheus(t, dir)
	var targets struct {
		ActiveTargets []struct{ Health, LastError, ScrapeURL string }
	}
	p.until("the target is up", "/api/v1/targets", &targets, func() bool {
		return len(targets.ActiveTargets) == 1 && targets.ActiveTargets[0].Health == "up"
	})
	if got := targets.ActiveTargets[0]; got.ScrapeURL != d.url+"/metrics" || got.LastError != "" {
		t.Errorf("it scrapes %q, %q", got.ScrapeURL, got.LastError)
	}

	var rules struct {
		Groups []struct {
			Rules []struct{ Name, Health, LastError, State string }
		}
	}
	want := regexp.MustCompile(`(?m)^ +- alert: (\w+)$`).FindAllStringSubmatch(read(t, examples+"alerts.yml"), -1)
	p.until("all rules were evaluated", "/api/v1/rules", &rules, func() bool {
		ok := 0
		for _, g := range rules.Groups {
			for _, r := range g.Rules {
				if r.Health == "ok" {
					ok++
				}
			}
		}
		return ok == len(want) && ok > 0
	})
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			if r.State == "firing" {
				t.Errorf("%s fires at a daemon that has just begun", r.Name)
			}
		}
	}

	for query, value := range map[string]string{
		`hale_instances_by_health{status="unhealthy"}`:                         "1",
		`hale_instances_by_health{status="healthy"}`:                           "1",
		`sum(hale_http_requests_total{code="invalid_health_check"})`:           "2",
		`hale_controller_up{controller="health"}`:                              "1",
		`hale_health_host_suspect`:                                             "0",
		`hale_instance_unhealthy_seconds{instance_name="bad"} > bool 0`:        "1",
		`hale_instance_unhealthy_seconds{instance_name="good"}`:                "0",
		`sum(hale_health_probes_total{type="tcp",outcome="failure"}) > bool 0`: "1",
	} {
		var answer struct {
			Result []struct{ Value [2]any }
		}
		// It is of a scrape, which may be older than what it is to tell.
		p.until(query+" is "+value, "/api/v1/query?query="+url.QueryEscape(query), &answer, func() bool {
			return len(answer.Result) > 0 && answer.Result[0].Value[1] == value
		})
	}
}

// A daemon with machines that are fakes.
type daemon struct {
	*hale.Client
	t          *testing.T
	url, token string
}

func startDaemon(t *testing.T) *daemon {
	t.Helper()
	bin, dir := os.Getenv("HALE_BIN"), t.TempDir()
	if bin == "" {
		t.Fatal("run this test with `make prometheus`, which gets what it needs")
	}
	config := filepath.Join(dir, "hale.yaml")
	write(t, config, "driver: fake\nlisten: 127.0.0.1:0\n")
	env := append(os.Environ(), "HALE_CONFIG="+config, "HALE_DATA_DIR="+filepath.Join(dir, "data"))
	cmd := exec.Command(bin, "serve")
	cmd.Env = env
	var log bytes.Buffer
	cmd.Stderr = &log
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		switch err := cmd.Wait(); {
		case err != nil:
			t.Errorf("the daemon ended with %v\n%s", err, &log)
		case t.Failed():
			t.Logf("what the daemon said:\n%s", &log)
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || len(strings.Fields(line)) < 5 {
		t.Fatalf("the daemon says %q, %v", line, err)
	}
	d := &daemon{t: t, url: strings.Fields(line)[4]}
	token := exec.Command(bin, "token")
	token.Env = env
	b, err := token.Output()
	if err != nil {
		t.Fatal(err)
	}
	d.token = strings.TrimSpace(string(b))
	if d.Client, err = hale.New(d.url, d.token); err != nil {
		t.Fatal(err)
	}
	return d
}

// work has the daemon do something of everything that is counted.
func (d *daemon) work() {
	d.t.Helper()
	ctx := d.t.Context()
	must := func(err error) {
		d.t.Helper()
		if err != nil {
			d.t.Fatal(err)
		}
	}
	img, err := random.Image(1024, 1)
	must(err)
	config, err := img.ConfigFile()
	must(err)
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Config = "linux", "amd64", v1.Config{Cmd: []string{"serve", "80"}}
	img, err = mutate.ConfigFile(img, config)
	must(err)
	tag, err := name.NewTag("app:v1")
	must(err)
	var archive bytes.Buffer
	must(tarball.Write(tag, img, &archive))
	_, err = d.ImportImage(ctx, &archive, hale.Import{})
	must(err)
	for name, check := range map[string]string{
		"good": `{"http":{"port":80,"path":"/healthz"},"interval":"200ms"}`,
		"bad":  `{"tcp":{"port":81},"interval":"200ms","start_period":"0s","failure_threshold":1}`,
	} {
		_, err := d.CreateInstance(ctx, api.CreateInstanceRequest{Name: name, Image: "app:v1", HealthCheck: json.RawMessage(check)})
		must(err)
	}
	for name, status := range map[string]api.HealthState{"good": api.HealthStateHealthy, "bad": api.HealthStateUnhealthy} {
		got, err := d.WaitInstance(ctx, name, hale.Wait{Health: status, Timeout: patience})
		must(err)
		if got.HealthStatus == nil || got.HealthStatus.Status != status {
			d.t.Fatalf("%s is %+v", name, got)
		}
	}
	for _, check := range []string{`{"tcp":{}}`, `{"interval":7}`} {
		if _, err := d.CreateInstance(ctx, api.CreateInstanceRequest{Image: "app:v1", HealthCheck: json.RawMessage(check)}); err == nil {
			d.t.Errorf("%s was taken", check)
		}
	}
}

// configure copies the examples, with this daemon in place of theirs, and a quicker pace.
func (d *daemon) configure() (dir string) {
	d.t.Helper()
	dir = d.t.TempDir()
	config := read(d.t, examples+"prometheus.yml")
	for old, new := range map[string]string{"127.0.0.1:4973": strings.TrimPrefix(d.url, "http://"), "scrape_interval: 15s": "scrape_interval: 1s", "evaluation_interval: 15s": "evaluation_interval: 1s"} {
		if strings.Count(config, old) != 1 {
			d.t.Fatalf("prometheus.yml has %d times %q", strings.Count(config, old), old)
		}
		config = strings.Replace(config, old, new, 1)
	}
	write(d.t, filepath.Join(dir, "prometheus.yml"), config)
	write(d.t, filepath.Join(dir, "hale.token"), d.token+"\n")
	for _, file := range []string{"alerts.yml", "alerts_test.yml"} {
		write(d.t, filepath.Join(dir, file), read(d.t, examples+file))
	}
	return dir
}

// everyMetricExists sees that what the alerts speak of is there, with its labels.
func (d *daemon) everyMetricExists() {
	d.t.Helper()
	req, err := http.NewRequestWithContext(d.t.Context(), http.MethodGet, d.url+"/metrics", nil)
	if err != nil {
		d.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+d.token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	series := map[string]string{} // the labels of one of each, by metric
	for _, m := range regexp.MustCompile(`(?m)^(\w+)(\{.*\})? \S+$`).FindAllStringSubmatch(string(b), -1) {
		series[m[1]] = m[2]
	}
	used := regexp.MustCompile(`\b(hale_\w+)(?:\{([^}]*)\})?`).FindAllStringSubmatch(read(d.t, examples+"alerts.yml"), -1)
	if len(used) < 15 {
		d.t.Errorf("the alerts speak of %d metrics", len(used))
	}
	label := regexp.MustCompile(`(\w+)[!=]~?"`)
	for _, u := range used {
		labels, ok := series[u[1]]
		if !ok {
			d.t.Errorf("an alert speaks of %s, and there are only %q", u[1], slices.Sorted(maps.Keys(series)))
		}
		for _, l := range label.FindAllStringSubmatch(u[2], -1) {
			if !strings.Contains(labels, l[1]+`="`) {
				d.t.Errorf("an alert speaks of the label %s of %s, which has %s", l[1], u[1], labels)
			}
		}
	}
}

func promtool(t *testing.T, dir string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Getenv("HALE_PROMTOOL"), args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// A server is Prometheus.
type server struct {
	t   *testing.T
	url string
}

// listening is what it logs of the port that it got.
var listening = regexp.MustCompile(`msg="Listening on" address=(127\.0\.0\.1:[0-9]+)`)

// A log keeps what is written to it, and tells the first address that is in it.
type log struct {
	text []byte
	addr chan string // nil once it was told
}

func (l *log) Write(p []byte) (int, error) {
	l.text = append(l.text, p...)
	if m := listening.FindSubmatch(l.text); m != nil && l.addr != nil {
		l.addr <- string(m[1])
		l.addr = nil
	}
	return len(p), nil
}

func startPrometheus(t *testing.T, dir string) *server {
	t.Helper()
	cmd := exec.Command(os.Getenv("HALE_PROMETHEUS"), "--config.file=prometheus.yml", "--storage.tsdb.path=data", "--web.listen-address=127.0.0.1:0")
	cmd.Dir = dir
	addr := make(chan string, 1)
	log := &log{addr: addr}
	cmd.Stdout, cmd.Stderr = log, log // one writer: by one at a time
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		switch err := cmd.Wait(); {
		case err != nil:
			t.Errorf("Prometheus ended with %v\n%s", err, log.text)
		case t.Failed():
			t.Logf("what Prometheus said:\n%s", log.text)
		}
	})
	select {
	case at := <-addr:
		return &server{t: t, url: "http://" + at}
	case <-time.After(patience):
		t.Fatal("Prometheus does not say where it listens")
		return nil
	}
}

// until asks until the answer, in v, is what is wanted.
func (s *server) until(what, path string, v any, done func() bool) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	for last := ""; ; {
		body, err := s.ask(ctx, path)
		answer := struct{ Data any }{v}
		if err == nil {
			err = json.Unmarshal(body, &answer)
		}
		if err == nil && done() {
			return
		}
		if ctx.Err() == nil {
			last = fmt.Sprintf("%s, %v", body, err)
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			s.t.Fatalf("in %s it did not come about that %s; the last answer: %s", patience, what, last)
		}
	}
}

func (s *server) ask(ctx context.Context, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(resp.Body)
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
