package cli

import (
	"bytes"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

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
		next.answer("GET /instances/aaaa/wait", http.HandlerFunc(http.NotFound), healthy) // a proxy that does not know of it yet
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
	// At once, at the end, and after a second between them, unless the host was busy that long.
	if asked := len(d.requests()); asked < 1+2 || asked > 1+3 {
		t.Errorf("asked %d times: %q", asked, d.requests())
	}
	code, _, stderr = d.hale("run", "--wait", "--timeout", "10ms", "nginx")
	if code != exitUnreachable || !strings.Contains(stderr, "hale: web was made, but the daemon does not answer at "+d.URL) {
		t.Errorf("run: exit %d, %q", code, stderr)
	}
	d.answer("GET /instances/other", http.HandlerFunc(http.NotFound)) // what else may listen there
	if code, _, stderr := d.hale("inspect", "other"); code != exitUnreachable || stderr != "hale: the server answered with status 404: 404 page not found\n  that is no answer of a hale daemon; HALE_URL says where one is\n" {
		t.Errorf("not a daemon: exit %d, %q", code, stderr)
	}
	d.Close()
	if code, _, stderr := d.hale("wait", "web", "--healthy", "--timeout", "1h"); code != exitUnreachable || strings.Contains(stderr, goneAway) {
		t.Errorf("never there: exit %d, %q", code, stderr)
	}
}

// A program that ended before anybody saw it run did run; one that could not be started, or ran before this wait only, did not.
func TestAProgramThatEndsAtOnceRan(t *testing.T) {
	made := api.Instance{ID: "aaaa", Name: "job", State: api.InstanceStateInitializing, StartedAt: since(time.Minute)}
	ended := made
	ended.State, ended.RunningAt, ended.ExitReason, ended.ExitMessage, ended.ExitCode = api.InstanceStateStopped, since(time.Second), "program_exited", "the program exited with code 3", ptr(3)
	unseen, failed, again := ended, ended, ended
	unseen.RunningAt = nil // no daemon was there when it began
	failed.RunningAt, failed.ExitReason, failed.ExitMessage = nil, "program_failed", "no such program"
	again.StartedAt = since(time.Second)
	gone := api.WaitForStateResponse{State: api.InstanceStateStopped, StateError: ptr("said")}
	for _, tt := range []struct {
		name, args  string
		before, now api.Instance
		code        int
		say         string
	}{
		{"ran", "run --wait --name job nginx", made, ended, exitOK, "hale: job ran, and has ended: the program exited with code 3\n"},
		{"nobody saw it begin", "run --wait --name job nginx", made, unseen, exitOK, "hale: job ran, and has ended: the program exited with code 3\n"},
		{"not started", "run --wait --name job nginx", made, failed, exitTimeout, "hale: job was made, but will not be Running: it is Stopped (said)\n"},
		{"began meanwhile", "wait job --state running", made, ended, exitOK, ""},
		{"began again meanwhile", "wait job --state Running", ended, again, exitOK, ""},
		{"had ended before", "wait job --state Running", ended, ended, exitTimeout, "hale: job will not be Running: it is Stopped (said)\n"},
		{"another state", "wait job --state Initializing", made, ended, exitTimeout, "hale: job will not be Initializing: it is Stopped (said)\n"},
		{"healthy", "wait job --healthy", made, ended, exitTimeout, "hale: job will not be healthy: it is Stopped (said)\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newDaemon(t)
			d.answer("POST /instances", tt.before)
			d.answer("GET /instances/job", tt.before)
			d.answer("GET /instances/aaaa/wait", gone)
			d.answer("GET /instances/aaaa", tt.now)
			if code, _, stderr := d.hale(strings.Fields(tt.args)...); code != tt.code || stderr != tt.say {
				t.Errorf("exit %d, %q; want %d, %q", code, stderr, tt.code, tt.say)
			}
		})
	}
}

// A daemon that is there and says nothing is waited for no longer than was asked, and a little more.
func TestWaitForADaemonThatSaysNothing(t *testing.T) {
	before := lateAnswer
	lateAnswer = 50 * time.Millisecond
	defer func() { lateAnswer = before }()
	silent := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	head := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Write([]byte(" "))
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	for name, wait := range map[string]http.HandlerFunc{"nothing": silent, "the head": head} {
		d := newDaemon(t)
		d.answer("GET /instances/web", fleet()[0])
		d.answer("GET /instances/aaaa/wait", wait)
		d.answer("GET /instances/mute", silent)
		for _, who := range []string{"web", "mute"} {
			code, _, stderr := d.hale("wait", who, "--healthy", "--timeout", "10ms")
			if code != exitUnreachable || !strings.Contains(stderr, "the daemon does not answer at "+d.URL+": it is there, and says nothing") {
				t.Errorf("%s, %s: exit %d, %q", name, who, code, stderr)
			}
		}
	}
	lateAnswer = 3 * time.Second // here some are answered
	d := newDaemon(t)
	d.answer("GET /instances/web", fleet()[0])
	d.answer("GET /instances/aaaa/health", api.InstanceHealth{Status: "healthy"}, silent, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { refuse(w, 404, "not_found", "gone") }))
	if code, out, _ := d.hale("health", "-w", "web"); code != exitNotFound || strings.Count(out, goneAway) != 1 {
		t.Errorf("health -w: exit %d, %q", code, out)
	}
}
