package server_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/server"
)

// TestPanicIsContained makes a handler panic: its client gets an id, the log what happened, and the next request its answer.
func TestPanicIsContained(t *testing.T) {
	var log bytes.Buffer
	var config server.Config
	w := newWorld(t, func(c *server.Config) {
		c.Log = slog.New(slog.NewTextHandler(&log, nil))
		c.Resources = func() (api.Resources, error) { panic("a secret of ours") }
		config = *c
	})
	resp, body := w.call("GET", "/resources", w.bearer, nil)
	var e api.ErrorBody
	if err := json.Unmarshal(body, &e); err != nil || resp.StatusCode != http.StatusInternalServerError || e.Code != "internal" || e.RequestID == "" {
		t.Errorf("%d %s, %v: want 500 internal with a request id", resp.StatusCode, body, err)
	}
	if strings.Contains(string(body), "secret") {
		t.Errorf("the answer tells what is ours: %s", body)
	}
	for _, want := range []string{e.RequestID, "a secret of ours", "middleware_test.go"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log has no %q:\n%s", want, &log)
		}
	}
	if n := testutil.ToFloat64(config.Panics.WithLabelValues("handler")); n != 1 {
		t.Errorf("%v panics counted: want 1", n)
	}
	if resp, _ := w.call("GET", "/capabilities", w.bearer, nil); resp.StatusCode != http.StatusOK {
		t.Errorf("the next request is %d", resp.StatusCode)
	}
}

// TestRequestsAreCounted looks for the route, not the path, and for the code of an error.
func TestRequestsAreCounted(t *testing.T) {
	w := newWorld(t)
	w.call("GET", "/instances/nobody", w.bearer, nil)
	w.call("GET", "/instances/nobody", "", nil)
	w.call("BREW", "/coffee", w.bearer, nil)
	_, body := w.call("GET", "/metrics", w.bearer, nil)
	for _, want := range []string{
		`hale_http_requests_total{code="not_found",method="GET",route="/instances/{id}",status="404"} 1`,
		`hale_http_requests_total{code="unauthorized",method="GET",route="/instances/{id}",status="401"} 1`,
		`hale_http_requests_total{code="not_found",method="other",route="/",status="404"} 1`,
		`hale_http_request_duration_seconds_count{method="GET",route="/instances/{id}"} 2`,
	} {
		if !strings.Contains(string(body), want) {
			t.Errorf("the metrics have no %s", want)
		}
	}
}

// TestUploadIsBounded sends more than a JSON body may be.
func TestUploadIsBounded(t *testing.T) {
	w := newWorld(t)
	resp, body := w.call("POST", "/instances", w.bearer, strings.NewReader(`{"image":"`+strings.Repeat("x", 2<<20)+`"}`))
	if resp.StatusCode != http.StatusRequestEntityTooLarge || !strings.Contains(string(body), "too_large") {
		t.Errorf("%d %.200s: want 413", resp.StatusCode, body)
	}
}

// TestFollowersAreBounded holds every place that there is for requests that last.
func TestFollowersAreBounded(t *testing.T) {
	w := newWorld(t)
	const places = 1000
	var open []*http.Response
	defer func() {
		for _, r := range open {
			r.Body.Close()
		}
	}()
	follow := func() *http.Response {
		req, err := http.NewRequestWithContext(t.Context(), "GET", w.url+"/events", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+w.bearer)
		resp, err := direct.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, resp)
		return resp
	}
	for i := range places {
		if resp := follow(); resp.StatusCode != http.StatusOK {
			t.Fatalf("follower %d is %d", i, resp.StatusCode)
		}
	}
	if resp := follow(); resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		t.Errorf("one more is %d, Retry-After %q: want 503", resp.StatusCode, resp.Header.Get("Retry-After"))
	}
	w.everyOperation("nobody", "nothing", `{}`, http.StatusServiceUnavailable, func(o operation) bool {
		switch o.path {
		case "/events", "/instances/{id}/logs", "/instances/{id}/wait", "/instances/{id}/exec":
			return true
		}
		return o.method == "GET" && o.path == "/images/{name}"
	})
	if resp, _ := w.call("GET", "/instances", w.bearer, nil); resp.StatusCode != http.StatusOK {
		t.Errorf("a request that does not last is %d", resp.StatusCode)
	}
}

// TestRetriesAreForWhatChanges checks what tells the compatible client to repeat a request, which it does by itself.
func TestRetriesAreForWhatChanges(t *testing.T) {
	w := newWorld(t)
	w.create("web")
	for path, want := range map[string]int{"POST /instances/web/start": 409, "POST /images": 400, "POST /instances/web/standby": 501, "POST /instances/web/health/check": 409} {
		method, path, _ := strings.Cut(path, " ")
		resp, body := w.call(method, path, w.bearer, nil)
		if resp.StatusCode != want || resp.Header.Get("x-should-retry") != "false" || resp.Header.Get("Retry-After") != "" {
			t.Errorf("%s %s: %d %v %s", method, path, resp.StatusCode, resp.Header, body)
		}
	}
}

// TestExpiredToken asks two hours later with a token that was good for one.
func TestExpiredToken(t *testing.T) {
	w := newWorld(t, func(c *server.Config) {
		verify := c.Verify
		c.Verify = func(token string, now time.Time) error { return verify(token, now.Add(2*time.Hour)) }
	})
	resp, body := w.call("GET", "/instances", w.bearer, nil)
	if resp.StatusCode != http.StatusUnauthorized || !strings.Contains(string(body), "expired") || resp.Header.Get("WWW-Authenticate") == "" {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}

// A body that is promised and never comes holds no connection: without a token it is not waited for, with one for half a minute.
func TestBodiesThatNeverCome(t *testing.T) {
	w := newWorld(t)
	send := func(head string) (*http.Response, net.Conn) {
		t.Helper()
		conn, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		fmt.Fprintf(conn, "%s\r\nHost: x\r\nContent-Length: 1000\r\n\r\n", head)
		conn.SetReadDeadline(time.Now().Add(25 * time.Second)) // before the half minute is over
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("%s: %v", head, err)
		}
		return resp, conn
	}
	for _, head := range []string{"POST /instances HTTP/1.1", "DELETE /instances/x HTTP/1.1", "GET /instances HTTP/1.1"} {
		resp, conn := send(head)
		if resp.StatusCode != http.StatusUnauthorized || !resp.Close {
			t.Errorf("%s: %d, close %v", head, resp.StatusCode, resp.Close)
		}
		io.Copy(io.Discard, resp.Body)
		if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("%s: the connection stays: %v", head, err)
		}
	}
}

// What is wrong with the host is not blamed on a token, and not told to strangers.
func TestSecretThatCannotBeRead(t *testing.T) {
	w := newWorld(t, func(c *server.Config) {
		c.Verify = func(string, time.Time) error { return errors.New("open /var/lib/hale/token: too many open files") }
	})
	resp, body := w.call("GET", "/instances", w.bearer, nil)
	if resp.StatusCode != http.StatusInternalServerError || strings.Contains(string(body), "/var/lib") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}

// The id in an answer of 5xx names the request in the log, whatever the answer is.
func TestRequestIDsAreInTheLog(t *testing.T) {
	var log bytes.Buffer
	w := newWorld(t, func(c *server.Config) {
		c.Log = slog.New(slog.NewTextHandler(&log, nil))
		c.Resources = func() (api.Resources, error) { return api.Resources{}, errors.New("no such host") }
	})
	w.create("web")
	check := func(method, path string, status int) {
		t.Helper()
		resp, body := w.call(method, path, w.bearer, nil)
		var told api.ErrorBody
		if err := json.Unmarshal(body, &told); err != nil || resp.StatusCode != status || told.RequestID == "" || !strings.Contains(log.String(), told.RequestID) {
			t.Errorf("%s %s: %d %s, %v, and the log has\n%s", method, path, resp.StatusCode, body, err, &log)
		}
	}
	check("GET", "/resources", http.StatusInternalServerError)
	check("GET", "/volumes", http.StatusNotImplemented)
	w.stop()
	check("POST", "/instances/web/stop", http.StatusServiceUnavailable)
}
