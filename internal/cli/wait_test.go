package cli

import (
	"bytes"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/halevm/hale/api"
)

// broken is a wait's answer of a daemon that ends meanwhile: the head, and white space.
var broken = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
	w.Write([]byte(" "))
	w.(http.Flusher).Flush()
	panic(http.ErrAbortHandler)
})

// A wait goes on with the next daemon, which may be at another address, and says once that it waits for it.
func TestWaitGoesOnWithTheNextDaemon(t *testing.T) {
	healthy := api.WaitForStateResponse{State: "Running", HealthStatus: &api.InstanceHealthStatus{Status: "healthy"}}
	stopping := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { refuse(w, 503, "unavailable", "the daemon is stopping") })
	for _, args := range [][]string{{"wait", "web", "--healthy"}, {"run", "--wait", "nginx"}} {
		first, next := newDaemon(t), newDaemon(t)
		for _, d := range []*fakeDaemon{first, next} {
			d.answer("GET /instances/{id}", fleet()[0])
		}
		first.answer("POST /instances", fleet()[0])
		var url atomic.Value
		url.Store(first.URL)
		first.answer("GET /instances/aaaa/wait", broken, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			url.Store(next.URL)
			stopping(w, r)
		}))
		next.answer("GET /instances/aaaa/wait", healthy)
		var out, stderr bytes.Buffer
		code := Run(args, Config{
			Stdout: &out, Stderr: &stderr, Getenv: func(string) string { return "" },
			LocalDaemon: func() (string, string, error) { return url.Load().(string), "secret", nil },
		})
		if code != exitOK || strings.Count(stderr.String(), goneAway) != 1 || strings.Count(stderr.String(), "\n") > 1 {
			t.Errorf("%v: exit %d, %q, %q", args, code, out.String(), stderr.String())
		}
	}
}

// A daemon that stays away is waited for until the time is over, and one that was never there is not. What was made is named.
func TestWaitForADaemonThatStaysAway(t *testing.T) {
	d := newDaemon(t)
	d.answer("GET /instances/web", fleet()[0])
	d.answer("POST /instances", fleet()[0])
	d.answer("GET /instances/aaaa/wait", broken)
	code, _, stderr := d.hale("wait", "web", "--healthy", "--timeout", "1100ms")
	if code != exitUnreachable || strings.Count(stderr, goneAway) != 1 || !strings.Contains(stderr, "the daemon does not answer at "+d.URL) {
		t.Errorf("exit %d, %q", code, stderr)
	}
	if asked := len(d.requests()); asked != 1+3 { // at once, after a second, and at the end
		t.Errorf("asked %d times: %q", asked, d.requests())
	}
	code, _, stderr = d.hale("run", "--wait", "--timeout", "10ms", "nginx")
	if code != exitUnreachable || !strings.Contains(stderr, "hale: web was made, but the daemon does not answer at "+d.URL) {
		t.Errorf("run: exit %d, %q", code, stderr)
	}
	d.Close()
	if code, _, stderr := d.hale("wait", "web", "--healthy", "--timeout", "1h"); code != exitUnreachable || strings.Contains(stderr, goneAway) {
		t.Errorf("never there: exit %d, %q", code, stderr)
	}
}
