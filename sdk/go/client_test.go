package hale

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/halevm/hale/api"
)

const token = "a.b.c"

// serve returns a client of a server that answers with h.
func serve(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return newClient(t, s.URL)
}

func newClient(t *testing.T, url string) *Client {
	t.Helper()
	c, err := New(url, token)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.http.CloseIdleConnections)
	return c
}

// answer is a handler that answers everything in one way.
func answer(status int, body string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

func TestNew(t *testing.T) {
	for _, url := range []string{"http://127.0.0.1:4973", "http://127.0.0.1:4973/", "https://host/base//"} {
		if c, err := New(url, token); err != nil || strings.HasSuffix(c.URL(), "/") {
			t.Errorf("New(%q) = %v, %v", url, c, err)
		}
	}
	for _, url := range []string{"", "127.0.0.1:4973", "unix:///run/hale.sock", "http://", "http://h/?x=1", "http://h/#x", "http://user:secret@h/", "http://h\x7f/"} {
		_, err := New(url, token)
		if !errors.Is(err, api.Invalid) {
			t.Errorf("New(%q): %v, want an error of kind invalid", url, err)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("New(%q) tells the password: %v", url, err)
		}
	}
	if _, err := New("http://h", "a\nb"); !errors.Is(err, api.Invalid) {
		t.Errorf("a token of two lines: %v", err)
	}
}

// TestRequests holds every method against what it must send.
func TestRequests(t *testing.T) {
	ctx := t.Context()
	tail := 0
	ignore := func(_ any, err error) error { return err }
	for name, test := range map[string]struct {
		call func(c *Client) error
		want string // method, path and query as they are sent
		body string
		sent string // content type
	}{
		"list": {
			call: func(c *Client) error { return ignore(c.Instances(ctx, InstanceFilter{})) },
			want: "GET /instances",
		},
		"list with filters": {
			call: func(c *Client) error {
				return ignore(c.Instances(ctx, InstanceFilter{State: "Running", Health: "unhealthy", Tags: map[string]string{"team": "a&b=c", "env": "x"}}))
			},
			want: "GET /instances?state=Running&health=unhealthy&tags[env]=x&tags[team]=a%26b%3Dc",
		},
		"create": {
			call: func(c *Client) error {
				return ignore(c.CreateInstance(ctx, api.CreateInstanceRequest{Image: "nginx", Cmd: []string{}, HealthCheck: json.RawMessage(`{"type":"none"}`)}))
			},
			want: "POST /instances",
			body: `{"cmd":[],"health_check":{"type":"none"},"image":"nginx"}`,
		},
		"get":                  {call: func(c *Client) error { return ignore(c.Instance(ctx, "web")) }, want: "GET /instances/web"},
		"a ref is one segment": {call: func(c *Client) error { return ignore(c.Instance(ctx, "../images?x#y")) }, want: "GET /instances/..%2Fimages%3Fx%23y"},
		"update": {
			call: func(c *Client) error {
				return ignore(c.UpdateInstance(ctx, "web", api.UpdateInstanceRequest{HealthCheck: json.RawMessage("null"), Env: map[string]*string{"A": nil}}))
			},
			want: "PATCH /instances/web",
			body: `{"env":{"A":null},"health_check":null}`,
		},
		"start": {
			call: func(c *Client) error { return ignore(c.StartInstance(ctx, "web", api.StartInstanceRequest{})) },
			want: "POST /instances/web/start",
			body: `{}`,
		},
		"stop":            {call: func(c *Client) error { return ignore(c.StopInstance(ctx, "web")) }, want: "POST /instances/web/stop"},
		"delete":          {call: func(c *Client) error { return c.DeleteInstance(ctx, "web", true) }, want: "DELETE /instances/web?graceful_shutdown=true"},
		"delete at once":  {call: func(c *Client) error { return c.DeleteInstance(ctx, "web", false) }, want: "DELETE /instances/web?graceful_shutdown=false"},
		"stats":           {call: func(c *Client) error { return ignore(c.InstanceStats(ctx, "web")) }, want: "GET /instances/web/stats"},
		"health":          {call: func(c *Client) error { return ignore(c.InstanceHealth(ctx, "web")) }, want: "GET /instances/web/health"},
		"check":           {call: func(c *Client) error { return ignore(c.CheckInstanceHealth(ctx, "web")) }, want: "POST /instances/web/health/check"},
		"server's health": {call: func(c *Client) error { return ignore(c.Health(ctx)) }, want: "GET /health"},
		"resources":       {call: func(c *Client) error { return ignore(c.Resources(ctx)) }, want: "GET /resources"},
		"capabilities":    {call: func(c *Client) error { return ignore(c.Capabilities(ctx)) }, want: "GET /capabilities"},
		"stat": {
			call: func(c *Client) error { return ignore(c.StatPath(ctx, "web", "/a b,c&d", true)) },
			want: "GET /instances/web/stat?path=%2Fa+b%2Cc%26d&follow_links=true",
		},
		"wait": {
			call: func(c *Client) error {
				return ignore(c.WaitInstance(ctx, "web", Wait{Health: "healthy", Timeout: 90 * time.Second}))
			},
			want: "GET /instances/web/wait?health=healthy&timeout=1m30s",
		},
		"logs": {
			call: func(c *Client) error {
				return drain(c.InstanceLogs(ctx, "web", Logs{Source: "vmm", Tail: &tail, Follow: true}))
			},
			want: "GET /instances/web/logs?source=vmm&tail=0&follow=true",
		},
		"events": {call: func(c *Client) error { return drain(c.Events(ctx, "")) }, want: "GET /events"},
		"images": {
			call: func(c *Client) error { return ignore(c.Images(ctx, map[string]string{"a": "b"})) },
			want: "GET /images?tags[a]=b",
		},
		"image": {
			call: func(c *Client) error {
				return ignore(c.Image(ctx, "docker.io/library/nginx:latest", 30*time.Second))
			},
			want: "GET /images/docker.io%2Flibrary%2Fnginx:latest?wait=30s",
		},
		"image by digest": {call: func(c *Client) error { return c.DeleteImage(ctx, "a/b@sha256:00") }, want: "DELETE /images/a%2Fb@sha256:00"},
		"pull": {
			call: func(c *Client) error { return ignore(c.PullImage(ctx, api.CreateImageRequest{Name: "nginx"})) },
			want: "POST /images",
			body: `{"name":"nginx"}`,
		},
		"import": {
			call: func(c *Client) error {
				return ignore(c.ImportImage(ctx, strings.NewReader("tar"), Import{Name: "me/web:1"}))
			},
			want: "POST /images/import?name=me%2Fweb%3A1",
			body: "tar",
			sent: "application/x-tar",
		},
	} {
		t.Run(name, func(t *testing.T) {
			var got, body, sent string
			c := serve(t, func(w http.ResponseWriter, r *http.Request) {
				b, _ := io.ReadAll(r.Body)
				got, body, sent = r.Method+" "+r.RequestURI, string(b), r.Header.Get("Content-Type")
				if r.Header.Get("Authorization") != "Bearer "+token || r.Header.Get("User-Agent") == "" {
					t.Errorf("the client does not say who it is: %v", r.Header)
				}
				w.WriteHeader(http.StatusTeapot)
			})
			if err := test.call(c); !errors.Is(err, api.Invalid) {
				t.Errorf("%v, want the error that the server answered with", err)
			}
			if got != test.want {
				t.Errorf("sent %s\nwant %s", got, test.want)
			}
			if body != test.body {
				t.Errorf("sent the body %s, want %s", body, test.body)
			}
			if test.sent == "" && test.body != "" {
				test.sent = "application/json"
			}
			if sent != test.sent {
				t.Errorf("sent a body of type %q, want %q", sent, test.sent)
			}
		})
	}
}

// drain reads a stream to its end and returns its error.
func drain[T any](seq func(func(T, error) bool)) error {
	for _, err := range seq {
		if err != nil {
			return err
		}
	}
	return nil
}

func TestRefIsChecked(t *testing.T) {
	c := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("a request was sent") })
	for _, ref := range []string{"", ".", ".."} {
		if _, err := c.Instance(t.Context(), ref); !errors.Is(err, api.Invalid) {
			t.Errorf("instance %q: %v, want an error of kind invalid", ref, err)
		}
		if err := c.DeleteImage(t.Context(), ref); !errors.Is(err, api.Invalid) {
			t.Errorf("image %q: %v, want an error of kind invalid", ref, err)
		}
		if _, err := c.Exec(t.Context(), ref, api.ExecRequest{}); !errors.Is(err, api.Invalid) {
			t.Errorf("exec in %q: %v, want an error of kind invalid", ref, err)
		}
	}
}

func TestAnswers(t *testing.T) {
	const when = "2026-01-02T03:04:05.678Z"
	c := serve(t, answer(http.StatusOK, `{"id":"i","name":"web","image":"nginx","state":"Running","created_at":"`+when+`","expires_at":null,
		"health_check":{"type":"tcp","tcp":{"port":80}},"health_status":{"status":"healthy","consecutive_failures":0,"consecutive_successes":7},"new_field":1}`))
	got, err := c.Instance(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	created, _ := time.Parse(time.RFC3339, when)
	want := api.Instance{
		ID: "i", Name: "web", Image: "nginx", State: api.InstanceStateRunning, CreatedAt: created,
		HealthCheck:  json.RawMessage(`{"type":"tcp","tcp":{"port":80}}`),
		HealthStatus: &api.InstanceHealthStatus{Status: api.HealthStateHealthy, ConsecutiveSuccesses: 7},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}

	c = serve(t, answer(http.StatusNoContent, ""))
	if err := c.DeleteInstance(t.Context(), "web", true); err != nil {
		t.Errorf("delete: %v", err)
	}
}

func TestWaitSkipsWhiteSpace(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for range 3 {
			io.WriteString(w, " \n")
			http.NewResponseController(w).Flush()
		}
		io.WriteString(w, `{"state":"Running","timed_out":true}`)
	})
	got, err := c.WaitInstance(t.Context(), "web", Wait{State: api.InstanceStateStopped})
	if err != nil || got.State != api.InstanceStateRunning || !got.TimedOut {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestBrokenAnswer: a server that goes away in the middle is not one that answered nonsense.
func TestBrokenAnswer(t *testing.T) {
	for _, begun := range []string{"", "  \n ", `{"state":"Run`} {
		c := serve(t, func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, begun)
			http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		})
		_, err := c.WaitInstance(t.Context(), "web", Wait{State: "Stopped"})
		if _, ok := errors.AsType[*UnreachableError](err); !ok {
			t.Errorf("after %q: %v, want an UnreachableError", begun, err)
		}
	}
	for _, nonsense := range []string{"<html>", `{"state":1}`, `[]`} {
		c := serve(t, answer(http.StatusOK, nonsense))
		_, err := c.WaitInstance(t.Context(), "web", Wait{State: "Stopped"})
		if _, ok := errors.AsType[*UnreachableError](err); ok || err == nil {
			t.Errorf("%s: %v, want an error that is no UnreachableError", nonsense, err)
		}
	}
}

func TestUnreachable(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	s.Close() // nobody listens there now
	c := newClient(t, s.URL)
	for name, call := range map[string]func(ctx context.Context) error{
		"get":  func(ctx context.Context) error { _, err := c.Instance(ctx, "web"); return err },
		"logs": func(ctx context.Context) error { return drain(c.InstanceLogs(ctx, "web", Logs{})) },
		"exec": func(ctx context.Context) error { _, err := c.Exec(ctx, "web", api.ExecRequest{}); return err },
		"import": func(ctx context.Context) error {
			_, err := c.ImportImage(ctx, strings.NewReader("x"), Import{})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			err := call(t.Context())
			if e, ok := errors.AsType[*UnreachableError](err); !ok || e.URL != s.URL {
				t.Errorf("%v, want an UnreachableError of %s", err, s.URL)
			}
			cause := errors.New("enough")
			ctx, cancel := context.WithCancelCause(t.Context())
			cancel(cause)
			if err := call(ctx); !errors.Is(err, cause) {
				t.Errorf("with a context that ended: %v, want its cause", err)
			}
		})
	}
}

// TestRedirect: a token goes to no other server.
func TestRedirect(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the redirect was followed") }))
	t.Cleanup(other.Close)
	c := serve(t, answer(http.StatusTemporaryRedirect, "", "Location", other.URL))
	_, err := c.Instance(t.Context(), "web")
	if e, ok := errors.AsType[*Error](err); !ok || e.Status != http.StatusTemporaryRedirect {
		t.Errorf("%v, want the redirect as an error", err)
	}
	if _, err := c.Exec(t.Context(), "web", api.ExecRequest{}); err == nil {
		t.Error("exec went on after a redirect")
	}
}
