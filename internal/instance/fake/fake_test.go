package fake

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/health"
	"github.com/halevm/hale/internal/instance"
	"github.com/halevm/hale/internal/instance/drivertest"
	"github.com/halevm/hale/internal/machine"
)

func TestConformance(t *testing.T) {
	drivertest.Test(t, func(t *testing.T) drivertest.Env {
		return drivertest.Env{
			Driver: New(Config{}),
			Config: func(t *testing.T, p drivertest.Program) machine.Config {
				argv := strings.Fields(string(p))
				if p == drivertest.NotFound {
					argv = []string{"/no/such/program"}
				}
				return config(t, argv...)
			},
		}
	})
}

func config(t *testing.T, argv ...string) machine.Config {
	return machine.Config{
		ID: "a", Dir: t.TempDir(), Memory: 1 << 30, Hostname: "test",
		Network: &machine.Network{Addr: netip.MustParsePrefix("10.77.0.2/16")},
		Process: machine.Process{Argv: argv, Env: []string{"A=1"}},
	}
}

// start returns a machine whose program runs.
func start(t *testing.T, d *Driver, c machine.Config) *Machine {
	t.Helper()
	m, err := d.Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Kill(t.Context()); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
		for range m.Notices() {
		}
	})
	for _, want := range []machine.NoticeKind{machine.AgentReady, machine.Started} {
		if n := <-m.Notices(); n.Kind != want {
			t.Fatalf("notice %+v, want %s", n, want)
		}
	}
	return m.(*Machine)
}

func TestPublishedPort(t *testing.T) {
	c := config(t, "serve", "80")
	c.Network.Ports = []machine.Port{{HostAddr: netip.MustParseAddr("127.0.0.1"), GuestPort: 80}}
	d := New(Config{})
	m := start(t, d, c)
	port := m.Ports()[0].HostPort
	at := net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port)))
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	ask := func(path string) int {
		resp, err := client.Get("http://" + at + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Error(err)
		}
		return resp.StatusCode
	}
	for i, step := range []struct {
		path string
		want int
	}{{"/", 200}, {"/healthz", 200}, {"/break", 200}, {"/healthz", 503}, {"/mend", 200}, {"/healthz", 200}} {
		if got := ask(step.path); got != step.want {
			t.Errorf("step %d, %s: %d, want %d", i, step.path, got, step.want)
		}
	}
	if log, err := os.ReadFile(filepath.Join(c.Dir, "log/app.log")); err != nil || !strings.Contains(string(log), "serving\nbroken on request\nmended on request\n") {
		t.Errorf("app.log %q, %v", log, err)
	}

	taken := config(t, "serve", "80")
	taken.ID = "b"
	taken.Network.Ports = m.Ports()
	_, err := d.Start(t.Context(), taken)
	e, ok := errors.AsType[*api.Error](err)
	if !ok || !errors.Is(err, api.Conflict) || e.Code != "port_in_use" || e.Details[0].Field != "network.ports[0].host_port" {
		t.Errorf("a port in use: %v", err)
	}
	if n := d.Running(); n != 1 {
		t.Errorf("%d machines run, want 1", n)
	}
	if err := m.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := net.Dial("tcp", at); err == nil {
		t.Error("the port is published by a machine that is gone")
	}
}

func TestProbe(t *testing.T) {
	m := start(t, New(Config{}), config(t, "serve", "80"))
	for _, tt := range []struct {
		policy string
		want   health.Outcome
		reason string
	}{
		{`{"http":{"port":80,"path":"/healthz"}}`, health.Success, ""},
		{`{"http":{"port":80,"path":"/nothing"}}`, health.Failure, "404"},
		{`{"http":{"port":81}}`, health.Failure, "refused"},
		{`{"tcp":{"port":80}}`, health.Success, ""},
		{`{"exec":{"command":["true"]}}`, health.Success, ""},
		{`{"exec":{"command":["exit","4"]}}`, health.Failure, "4"},
		{`{"exec":{"command":["sleep","60"]},"timeout":"20ms"}`, health.Failure, "timeout"},
	} {
		p, err := health.Parse(json.RawMessage(tt.policy))
		if err != nil {
			t.Fatal(err)
		}
		if r := m.Probe(t.Context(), p, nil); r.Outcome != tt.want || !strings.Contains(r.Reason, tt.reason) {
			t.Errorf("%s: %+v, want %s with %q", tt.policy, r, tt.want, tt.reason)
		}
	}
}

// Before the agent is there nothing can be asked, and that is nobody's failure.
func TestBooting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New(Config{Boot: time.Minute})
		m, err := d.Start(t.Context(), config(t, "serve", "80"))
		if err != nil {
			t.Fatal(err)
		}
		for _, policy := range []string{`{"http":{"port":80}}`, `{"exec":{"command":["true"]}}`} {
			p, err := health.Parse(json.RawMessage(policy))
			if err != nil {
				t.Fatal(err)
			}
			if r := m.(instance.Prober).Probe(t.Context(), p, nil); r.Outcome != health.Inconclusive {
				t.Errorf("%s: %+v, want inconclusive", policy, r)
			}
		}
		if err := m.Stop(t.Context(), time.Second); !errors.Is(err, api.InvalidState) {
			t.Errorf("stop without an agent: %v", err)
		}
		begun := time.Now()
		if n := <-m.Notices(); n.Kind != machine.AgentReady || time.Since(begun) != time.Minute {
			t.Errorf("notice %+v after %s", n, time.Since(begun))
		}
		if !d.Crash("a", machine.Exit{Reason: machine.ShimDied}) || d.Crash("b", machine.Exit{}) {
			t.Error("Crash does not know which machines run")
		}
		var last machine.Notice
		for n := range m.Notices() {
			last = n
		}
		if last.Exit.Reason != machine.ShimDied || d.Running() != 0 {
			t.Errorf("last notice %+v, %d run", last, d.Running())
		}
	})
}

func TestExits(t *testing.T) {
	for _, tt := range []struct {
		argv string
		want machine.Reason
		code int
	}{
		{"exit", machine.ProgramExited, 0},
		{"/bin/exit 255", machine.ProgramExited, 255},
		{"exit 256", machine.ProgramFailed, 127},
		{"sleep 0.001", machine.ProgramExited, 0},
		{"sleep long", machine.ProgramFailed, 127},
		{"serve 0", machine.ProgramFailed, 127},
		{"crash", machine.VMMKilled, -1},
		{"panic", machine.GuestPanic, -1},
	} {
		m, err := New(Config{}).Start(t.Context(), config(t, strings.Fields(tt.argv)...))
		if err != nil {
			t.Fatal(err)
		}
		var last machine.Notice
		for n := range m.Notices() {
			last = n
		}
		if e := last.Exit; e.Reason != tt.want || (tt.code >= 0) != (e.Code != nil) || e.Code != nil && *e.Code != tt.code {
			t.Errorf("%s: %+v, want %s with %d", tt.argv, e, tt.want, tt.code)
		}
		if tt.want == machine.GuestPanic && last.Exit.Console == "" {
			t.Error("a panic without its console")
		}
	}
}

func TestRecover(t *testing.T) {
	d := New(Config{})
	c := config(t, "sleep")
	first := start(t, d, c)
	s := Surviving{d}
	second, err := s.Recover(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Stop(t.Context(), time.Second); err != nil {
		t.Fatal(err)
	}
	var said []machine.NoticeKind
	for n := range second.Notices() {
		said = append(said, n.Kind)
	}
	if len(said) != 3 || said[0] != machine.AgentReady || said[2] != machine.Exited {
		t.Errorf("the recovered machine said %v", said)
	}
	if n := <-first.Notices(); n.Kind != machine.Exited {
		t.Errorf("the first hold heard %s", n.Kind)
	}
	if _, err := s.Recover(t.Context(), c); !errors.Is(err, api.NotFound) {
		t.Errorf("recover a machine that is gone: %v", err)
	}
}

func TestExecEndsWithItsMachine(t *testing.T) {
	m := start(t, New(Config{}), config(t, "sleep"))
	x, err := m.Exec(t.Context(), machine.ExecRequest{Argv: []string{"cat"}, Stdin: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := x.Resize(t.Context(), 1, 1); err != nil {
		t.Error(err)
	}
	if err := x.Signal(t.Context(), "NOPE"); !errors.Is(err, api.Invalid) {
		t.Errorf("an unknown signal: %v", err)
	}
	if err := m.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if e, err := x.Wait(t.Context()); err != nil || e.Code != 137 {
		t.Errorf("exit %+v, %v", e, err)
	}
	if err := x.Signal(t.Context(), "TERM"); !errors.Is(err, api.InvalidState) {
		t.Errorf("signal after the end: %v", err)
	}
}

func TestStat(t *testing.T) {
	f := newFiles("x")
	if i := f.stat("/bin", false); !i.IsSymlink || i.LinkTarget != "/usr/bin" {
		t.Errorf("/bin: %+v", i)
	}
	if i := f.stat("bin/", true); !i.IsDir {
		t.Errorf("/bin followed: %+v", i)
	}
	if i := f.stat("/usr/bin/loop", true); i.Error == "" {
		t.Errorf("a loop: %+v", i)
	}
}

func TestTail(t *testing.T) {
	w := &tail{max: 5}
	for _, s := range []string{"abc", "defg", "", "hi"} {
		if _, err := w.Write([]byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(w.bytes(), []byte("efghi")) {
		t.Errorf("kept %q", w.bytes())
	}
}
