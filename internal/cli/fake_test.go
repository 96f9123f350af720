package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/halevm/hale/api"
)

// A fakeDaemon answers as its routes say, and remembers what it was asked.
type fakeDaemon struct {
	*httptest.Server
	mux   *http.ServeMux
	raise func(os.Signal)

	mu    sync.Mutex
	asked []string // "METHOD URI body"
}

func newDaemon(t *testing.T) *fakeDaemon {
	d := &fakeDaemon{mux: http.NewServeMux()}
	d.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer secret" {
			refuse(w, 401, "unauthorized", "a token is needed")
			return
		}
		line := r.Method + " " + r.URL.RequestURI()
		if r.Header.Get("Upgrade") == "" && r.Body != nil {
			b, _ := io.ReadAll(r.Body)
			r.Body = io.NopCloser(bytes.NewReader(b))
			if len(b) > 0 {
				line += " " + string(b)
			}
		}
		d.mu.Lock()
		d.asked = append(d.asked, line)
		d.mu.Unlock()
		d.mux.ServeHTTP(w, r)
	}))
	d.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		refuse(w, 404, "not_found", fmt.Sprintf("there is no %s", strings.TrimPrefix(r.URL.Path, "/")))
	})
	t.Cleanup(d.Close)
	return d
}

func refuse(w http.ResponseWriter, status int, code, message string, details ...api.Detail) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(api.ErrorBody{Code: code, Message: message, Details: details})
}

// answer makes a route answer with v, or with the next of vs each time, the last for ever. One that is a func() any is made when it is asked for:
// of ages that are shown in seconds little has passed by then.
func (d *fakeDaemon) answer(route string, vs ...any) {
	n := 0
	d.mux.HandleFunc(route, func(w http.ResponseWriter, r *http.Request) {
		d.mu.Lock()
		v := vs[min(n, len(vs)-1)]
		n++
		d.mu.Unlock()
		if v == nil {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		if made, ok := v.(func() any); ok {
			v = made()
		}
		if f, ok := v.(http.HandlerFunc); ok {
			f(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(v)
	})
}

func (d *fakeDaemon) requests() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.asked
}

// hale runs a command line against the daemon.
func (d *fakeDaemon) hale(args ...string) (code int, stdout, stderr string) {
	return d.haleIn("", args...)
}

func (d *fakeDaemon) haleIn(stdin string, args ...string) (code int, stdout, stderr string) {
	var out, err bytes.Buffer
	env := map[string]string{"HALE_URL": d.URL, "HALE_TOKEN": "secret", "LANG": "C.UTF-8"}
	code = Run(args, Config{
		Stdin: strings.NewReader(stdin), Stdout: &out, Stderr: &err,
		Getenv: func(k string) string { return env[k] }, Raise: d.raise,
	})
	return code, out.String(), err.String()
}

func ago(d time.Duration) time.Time    { return time.Now().Add(-d - 100*time.Millisecond) }
func since(d time.Duration) *time.Time { return ptr(ago(d)) }

// fleet is one instance of each kind that a table has to show.
func fleet() []api.Instance {
	return []api.Instance{
		{
			ID: "aaaa", Name: "web", Image: "docker.io/library/nginx:latest", State: api.InstanceStateRunning, CreatedAt: ago(2 * time.Minute),
			HealthStatus: &api.InstanceHealthStatus{Status: api.HealthStateHealthy, Since: since(119 * time.Second)},
			Network:      &api.InstanceNetwork{Enabled: true, Ports: []api.PortMapping{{GuestPort: 80, HostAddr: "127.0.0.1", HostPort: 8080}, {GuestPort: 443, HostAddr: "0.0.0.0", HostPort: 8443}}},
		},
		{
			ID: "bbbb", Name: "db", Image: "ghcr.io/acme/db:v2", State: api.InstanceStateRunning, CreatedAt: ago(3 * 24 * time.Hour),
			HealthStatus: &api.InstanceHealthStatus{Status: api.HealthStateUnhealthy, Since: since(14 * time.Second), LastError: ptr("connection refused\n\x1b[2J")},
		},
		{
			ID: "cccc", Name: "new", Image: "docker.io/acme/new:latest", State: api.InstanceStateInitializing, CreatedAt: ago(3 * time.Second),
			HealthStatus: &api.InstanceHealthStatus{Status: api.HealthStateStarting, Since: since(3 * time.Second)},
		},
		{
			ID: "dddd", Name: "plain", Image: "docker.io/library/alpine:3", State: api.InstanceStateRunning, CreatedAt: ago(50 * time.Minute),
			HealthStatus: &api.InstanceHealthStatus{Status: api.HealthStateDisabled},
		},
		{
			ID: "eeee", Name: "job", Image: "docker.io/library/alpine:latest", State: api.InstanceStateStopped, CreatedAt: ago(5 * time.Hour), ExitCode: ptr(3),
			Network:      &api.InstanceNetwork{Enabled: true, Ports: []api.PortMapping{{GuestPort: 80, HostPort: 8081}}},
			HealthStatus: &api.InstanceHealthStatus{Status: api.HealthStateUnknown, LastStatus: api.HealthStateHealthy, Since: since(4 * time.Hour)},
		},
		{
			ID: "ffff", Name: "quiet", Image: "docker.io/library/alpine:latest", State: api.InstanceStateRunning, CreatedAt: ago(5 * time.Hour),
			HealthStatus: &api.InstanceHealthStatus{Status: api.HealthStateHealthy, Since: since(4 * time.Hour), Stale: true, StaleReason: "no_conclusive_result"},
		},
	}
}
