package server_test

import (
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/halevm/hale/api"
)

// TestDaemonStops: every request that a stopping daemon does not finish learns so, whatever it is in the middle of.
func TestDaemonStops(t *testing.T) {
	w := newWorld(t)
	w.create("web")
	for _, name := range []string{"deaf", "doomed"} {
		if resp, body := w.call("POST", "/instances", w.bearer, strings.NewReader(`{"image":"app","name":"`+name+`","entrypoint":["hang"]}`)); resp.StatusCode != http.StatusCreated {
			t.Fatalf("create: %d %s", resp.StatusCode, body)
		}
		if _, body := w.call("GET", "/instances/"+name+"/wait?state=Running", w.bearer, nil); !strings.Contains(string(body), `"Running"`) {
			t.Fatalf("wait: %s", body)
		}
	}
	var asked sync.WaitGroup
	for _, op := range [][2]string{{"POST", "/instances/deaf/stop"}, {"DELETE", "/instances/doomed"}} {
		asked.Go(func() {
			resp, body := w.call(op[0], op[1], w.bearer, nil)
			if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" || !strings.Contains(string(body), "the daemon is stopping") {
				t.Errorf("%s %s: %d %v %q: want 503 with words", op[0], op[1], resp.StatusCode, resp.Header, body)
			}
		})
	}
	open := func(path string) io.ReadCloser {
		t.Helper()
		resp, err := http.DefaultClient.Do(w.request(t.Context(), path))
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("GET %s: %v %v", path, resp, err)
		}
		return resp.Body
	}
	wait, logs, events := open("/instances/web/wait?state=Stopped"), open("/instances/web/logs?follow=true"), open("/events")
	e, err := w.client().Exec(t.Context(), "web", api.ExecRequest{Command: []string{"sleep", "infinity"}})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	for _, name := range []string{"deaf", "doomed"} {
		w.call("GET", "/instances/"+name+"/wait?state=Shutdown", w.bearer, nil)
	}
	w.stop()
	asked.Wait()
	for name, stream := range map[string]io.ReadCloser{"wait": wait, "logs": logs, "events": events} {
		if b, err := io.ReadAll(stream); err == nil {
			t.Errorf("%s: ends like one that is complete, with %q", name, b)
		}
	}
	if exit, err := e.Copy(io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), "the daemon is stopping, and the program ends with it") {
		t.Errorf("exec: %+v, %v", exit, err)
	}
}
