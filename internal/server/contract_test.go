package server_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-containerregistry/pkg/name"
	ggcr "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/event"
	"github.com/halevm/hale/internal/health"
	"github.com/halevm/hale/internal/image"
	"github.com/halevm/hale/internal/instance"
	"github.com/halevm/hale/internal/instance/fake"
	"github.com/halevm/hale/internal/registry"
	"github.com/halevm/hale/internal/server"
	"github.com/halevm/hale/internal/token"
)

// A world is a server over the real domain, whose machines are fakes, and the contract as the server tells it.
type world struct {
	marks   uint64 // events that left has added
	t       *testing.T
	dir     string // with the signing secret
	url     string
	bearer  string
	rotated string // a token of the secret before
	events  *event.Log
	doc     document
	stop    func()        // what the daemon does first when it stops
	execs   chan struct{} // one for each exec that the server is done with
}

// images shows the domain what the store has.
type images struct{ store *image.Store }

func (i images) Image(_ context.Context, ref string) (instance.Image, error) {
	img, err := i.store.Find(ref)
	switch {
	case err != nil || img.Status == image.Ready:
	case img.Status == image.Failed:
		err = &api.Error{Kind: api.Invalid, Code: "image_failed", Message: img.Error}
	default:
		err = &api.Error{Kind: api.NotReady, Code: "image_not_ready", Message: "image " + img.Ref + " is " + string(img.Status)}
	}
	return instance.Image{Ref: img.Ref, Digest: img.Digest, Disk: img.Disk, Platform: img.Platform, Entrypoint: img.Entrypoint,
		Healthcheck: img.Healthcheck, Shell: img.Shell}, err
}

// journal keeps nothing.
type journal struct{}

func (journal) Commit(context.Context, string, health.Transition) error { return nil }
func (journal) Save(string, []byte) error                               { return nil }
func (journal) Load(string) ([]byte, error)                             { return nil, nil }

func newWorld(t *testing.T, edit ...func(*server.Config)) *world {
	t.Helper()
	w, handler := newHandler(t, registry.New(registry.Config{Dial: registryDial(t)}), edit...)
	front := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		handler.ServeHTTP(rw, r)
		if strings.HasSuffix(r.URL.Path, "/exec") {
			w.execs <- struct{}{}
		}
	}))
	base, stop := context.WithCancelCause(context.Background())
	w.stop = func() { stop(server.ErrStopping) }
	front.Config.BaseContext = func(net.Listener) context.Context { return base }
	front.Start()
	w.url = front.URL
	t.Cleanup(func() {
		front.CloseClientConnections()
		front.Close()
	})
	_, body := w.call("GET", "/openapi.json", "", nil)
	if err := json.Unmarshal(body, &w.doc); err != nil {
		t.Fatal(err)
	}
	return w
}

// newHandler is a world without a connection to it.
func newHandler(t *testing.T, registries *registry.Client, edit ...func(*server.Config)) (*world, http.Handler) {
	t.Helper()
	dir, ctx := t.TempDir(), context.Background()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	events, err := event.Open("", event.Options{})
	must(err)
	store, err := image.Open(dir+"/images", image.Options{Registry: registries})
	must(err)
	set, err := instance.Open(ctx, instance.Config{Dir: dir + "/instances", Driver: fake.New(fake.Config{}), Images: images{store}, Events: events, Grace: 10 * time.Second})
	must(err)
	checks := health.NewSet(health.Config{Journal: journal{}, Probe: func(ctx context.Context, id string, p health.Policy, started func()) health.Result {
		m, err := set.Machine(id)
		if err != nil {
			return health.Result{Start: time.Now(), Outcome: health.Inconclusive, Cause: health.CauseNoNetwork}
		}
		return m.(instance.Prober).Probe(ctx, p, started)
	}})
	before, err := token.Rotate(dir)
	must(err)
	secret, err := token.Open(dir)
	must(err)
	rotated, err := before.Mint(time.Now(), time.Hour)
	must(err)
	now, err := token.Rotate(dir)
	must(err)
	bearer, err := now.Mint(time.Now(), time.Hour)
	must(err)
	panics := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "panics_total"}, []string{"what"})
	var one sync.Mutex
	config := server.Config{
		Instances: set, Images: store, Health: checks, Events: events, Verify: secret.Verify, Admitted: func(context.Context) {},
		Settled: func(context.Context, string) {
			one.Lock()
			defer one.Unlock()
			for _, in := range set.List() {
				checks.Sync(observed(in))
			}
		},
		Controllers:  func() []api.Controller { return []api.Controller{{Name: "health"}} },
		Resources:    func() (api.Resources, error) { return api.Resources{Allocations: []api.ResourceAllocation{}}, nil },
		Capabilities: func(context.Context) api.Capabilities { return capabilities },
		Metrics:      prometheus.NewRegistry(), Panics: panics, Started: time.Now(), Version: "test", Log: slog.New(slog.DiscardHandler),
	}
	for _, e := range edit {
		e(&config)
	}
	w := &world{t: t, dir: dir, bearer: bearer, rotated: rotated, events: events, execs: make(chan struct{}, 100)}
	t.Cleanup(func() {
		for _, close := range []func() error{
			func() error { return checks.Close(ctx) }, func() error { return set.Close(ctx) }, store.Close, events.Close,
		} {
			if err := close(); err != nil {
				t.Error(err)
			}
		}
	})
	return w, server.New(config)
}

var capabilities = api.Capabilities{
	Features: []string{}, Runtimes: []api.CapabilitiesRuntime{}, Images: api.CapabilitiesImages{Platforms: []string{"linux/amd64"}},
	Network: api.CapabilitiesNetwork{Model: "nat"},
}

func observed(in instance.Instance) health.Observed {
	o := health.Observed{ID: in.ID, Run: in.Run, Entered: in.Since, Agent: true}
	switch in.State {
	case instance.Initializing:
		o.Phase = health.Initializing
	case instance.Running:
		o.Phase = health.Running
	}
	o.Policy, _ = in.Spec.Policy()
	return o
}

// direct follows no redirect: an answer that is one is what the test sees.
var direct = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

// call makes a request with a token (or, with bearer "", without one) and reads the whole answer.
func (w *world) call(method, path, bearer string, body io.Reader) (*http.Response, []byte) {
	w.t.Helper()
	req, err := http.NewRequest(method, w.url+path, body)
	if err != nil {
		w.t.Fatal(err)
	}
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	if path == "/images/import" {
		req.Header.Set("Content-Type", "application/x-tar")
	}
	resp, err := direct.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return resp, b
}

// registryDial leads every name to one registry, which has the image pulled:v1 and speaks no TLS.
func registryDial(t *testing.T) func(ctx context.Context, network, addr string) (net.Conn, error) {
	t.Helper()
	reg := httptest.NewServer(ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(reg.Close)
	ref, err := name.ParseReference(strings.TrimPrefix(reg.URL, "http://") + "/pulled:v1")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, app(t)); err != nil {
		t.Fatal(err)
	}
	return func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, reg.Listener.Addr().String())
	}
}

// An archive is what `docker save` writes of an image whose program the fake driver knows.
func archive(t *testing.T) io.Reader { return archiveOf(t, "app:latest") }

// archiveOf is one of such an image for each name.
func archiveOf(t *testing.T, names ...string) io.Reader {
	t.Helper()
	images := map[name.Reference]v1.Image{}
	for _, n := range names {
		ref, err := name.ParseReference(n)
		if err != nil {
			t.Fatal(err)
		}
		images[ref] = app(t)
	}
	var b bytes.Buffer
	if err := tarball.MultiRefWrite(images, &b); err != nil {
		t.Fatal(err)
	}
	return &b
}

// app is the image.
func app(t *testing.T) v1.Image {
	t.Helper()
	img, err := random.Image(1<<10, 1)
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config.OS, config.Architecture, config.Config.Entrypoint = "linux", "amd64", []string{"serve", "80"}
	if img, err = mutate.ConfigFile(img, config); err != nil {
		t.Fatal(err)
	}
	return img
}

// badTokens are tokens that are no good here, by what is wrong with them. Each but "none" and "garbage" differs from a good one in
// that alone.
func (w *world) badTokens() map[string]string {
	w.t.Helper()
	must := func(err error) {
		if err != nil {
			w.t.Fatal(err)
		}
	}
	file, err := os.ReadFile(filepath.Join(w.dir, token.FileName))
	must(err)
	key, err := base64.RawURLEncoding.DecodeString(strings.TrimSpace(string(file)))
	must(err)
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	must(err)
	claims := jwt.RegisteredClaims{Issuer: "hale", ExpiresAt: jwt.NewNumericDate(time.Now().Add(time.Hour))}
	past := claims
	past.ExpiresAt = jwt.NewNumericDate(time.Now().Add(-time.Hour))
	sign := func(m jwt.SigningMethod, key any, c jwt.RegisteredClaims) string {
		signed, err := jwt.NewWithClaims(m, c).SignedString(key)
		must(err)
		return signed
	}
	if resp, body := w.call("GET", "/instances", sign(jwt.SigningMethodHS256, key, claims), nil); resp.StatusCode != http.StatusOK {
		w.t.Fatalf("a good token made here is %d %s", resp.StatusCode, body)
	}
	return map[string]string{
		"none":           "",
		"garbage":        "x",
		"cut":            w.bearer[:len(w.bearer)-2],
		"longer":         w.bearer + "x",
		"another secret": sign(jwt.SigningMethodHS256, []byte("another"), claims),
		"expired":        sign(jwt.SigningMethodHS256, key, past),
		"alg none":       sign(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, claims),
		"HS384":          sign(jwt.SigningMethodHS384, key, claims),
		"HS512":          sign(jwt.SigningMethodHS512, key, claims),
		"RS256":          sign(jwt.SigningMethodRS256, private, claims),
		"rotated":        w.rotated,
	}
}

// TestEveryRouteWantsAToken asks each route of the contract with every kind of token that is no good.
func TestEveryRouteWantsAToken(t *testing.T) {
	w := newWorld(t)
	bad := w.badTokens()
	for op := range w.doc.operations() {
		if op.open() && (op.path == "/docs" || strings.HasPrefix(op.path, "/openapi.") || op.path == "/health") {
			if resp, _ := w.call(op.method, op.path, bad["another secret"], nil); resp.StatusCode != http.StatusOK {
				t.Errorf("%s %s is %d with a token that is not good: want 200", op.method, op.path, resp.StatusCode)
			}
			continue
		}
		if op.open() {
			t.Errorf("%s %s needs no token", op.method, op.path)
		}
		for what, bearer := range bad {
			resp, body := w.call(op.method, strings.NewReplacer("{id}", "x", "{name}", "x").Replace(op.path), bearer, nil)
			if resp.StatusCode != http.StatusUnauthorized {
				t.Errorf("%s %s is %d with a token that is no good (%s): want 401", op.method, op.path, resp.StatusCode, what)
			}
			for _, fault := range w.doc.check(w.doc.schema("Error"), decoded(t, body), "error") {
				t.Errorf("%s %s: %s", op.method, op.path, fault)
			}
		}
	}
}

// TestAnswersAreWhatTheContractSays walks through the whole API; each answer has a status that the contract names for
// its operation, and a body of that status's schema, with no field that the schema does not have.
func TestAnswersAreWhatTheContractSays(t *testing.T) {
	w := newWorld(t)
	const check = `{"http":{"port":80,"path":"/healthz"},"interval":"1s"}`
	seen := map[string]bool{}
	for _, step := range []struct {
		status int
		op     string // METHOD path, as in the contract
		path   string // with its parameters; "": op's
		body   string
	}{
		{200, "GET /health", "", ""},
		{200, "GET /openapi.yaml", "", ""},
		{200, "GET /openapi.json", "", ""},
		{200, "GET /docs", "", ""},
		{200, "GET /metrics", "", ""},
		{200, "GET /resources", "", ""},
		{200, "GET /capabilities", "", ""},
		{200, "GET /images", "", ""},
		{200, "GET /instances", "", ""},
		{404, "POST /instances", "", `{"image":"localhost:5000/absent"}`},
		{400, "POST /instances", "", `{"image":"registry.example/app"}`}, // it speaks no TLS
		{400, "POST /images/import", "", "no archive"},
		{2, "POST /images/import", "", "archive"},
		{200, "GET /images/{name}", "/images/app?wait=30s", ""},
		{200, "GET /images/{name}", "/images/docker.io%2Flibrary%2Fapp:latest", ""},
		{404, "GET /images/{name}", "/images/absent", ""},
		{400, "GET /images/{name}", "/images/app?wait=soon", ""},
		{200, "GET /images", "/images?tags[a]=b", ""},
		{400, "POST /images", "", `{"name":"UPPER"}`},
		{400, "POST /images", "", `{"name":"app","platform":"linux/arm64"}`},
		{400, "POST /images", "", `{}`},
		{404, "POST /images", "", `{"name":"localhost:5000/absent"}`},
		{202, "POST /images", "", `{"name":"localhost:5000/pulled:v1","tags":{"a":"b"}}`},
		{200, "GET /images/{name}", "/images/localhost:5000%2Fpulled:v1?wait=30s", ""},
		{400, "POST /images/{name}/tag", "/images/localhost:5000%2Fpulled:v1/tag", `{}`},
		{404, "POST /images/{name}/tag", "/images/absent/tag", `{"target":"x"}`},
		{200, "POST /images/{name}/tag", "/images/localhost:5000%2Fpulled:v1/tag", `{"target":"pulled:stable"}`},
		{204, "DELETE /images/{name}", "/images/localhost:5000%2Fpulled:v1", ""},
		{400, "POST /instances", "", `{`},
		{400, "POST /instances", "", `[]`},
		{400, "POST /instances", "", ``},
		{400, "POST /instances", "", `null`},
		{400, "POST /instances", "", `{"image":"app","name":"No","vcpus":-1,"size":"much","health_check":{"http":{"port":0}}}`},
		{400, "POST /instances", "", `{"image":"app","vcpus":"two"}`},
		{400, "POST /instances", "", `{"image":"app","restart_policy":{"policy":"always"}}`},
		{201, "POST /instances", "", `{"image":"app","name":"web","tags":{"a":"b c"},"env":{"K":"v"},"network":{"ports":[{"guest_port":80,"host_port":0}]},"health_check":` + check + `}`},
		{409, "POST /instances", "", `{"image":"app","name":"web"}`},
		{200, "GET /instances/{id}/wait", "/instances/web/wait?state=Running&timeout=10s", ""},
		{200, "GET /instances/{id}/wait", "/instances/web/wait?health=healthy&timeout=10s", ""},
		{200, "GET /instances/{id}/wait", "/instances/web/wait?health=unhealthy&timeout=1ms", ""},
		{400, "GET /instances/{id}/wait", "/instances/web/wait", ""},
		{400, "GET /instances/{id}/wait", "/instances/web/wait?state=Running&health=healthy", ""},
		{400, "GET /instances/{id}/wait", "/instances/web/wait?state=Running&timeout=soon", ""},
		{404, "GET /instances/{id}/wait", "/instances/nobody/wait?state=Running", ""},
		{200, "GET /instances", "/instances?state=Running&health=healthy&tags%5Ba%5D=b%20c", ""},
		{400, "GET /instances", "/instances?state=Sleeping", ""},
		{200, "GET /instances/{id}", "/instances/web", ""},
		{404, "GET /instances/{id}", "/instances/nobody", ""},
		{200, "GET /instances/{id}/health", "/instances/web/health", ""},
		{200, "POST /instances/{id}/health/check", "/instances/web/health/check", ""},
		{200, "GET /instances/{id}/logs", "/instances/web/logs?tail=1", ""},
		{400, "GET /instances/{id}/logs", "/instances/web/logs?source=other", ""},
		{200, "GET /instances/{id}/stat", "/instances/web/stat?path=/no/such", ""},
		{400, "GET /instances/{id}/stat", "/instances/web/stat", ""},
		{200, "GET /instances/{id}/stats", "/instances/web/stats", ""},
		{400, "GET /instances/{id}/exec", "/instances/web/exec", ""}, // no WebSocket
		{400, "GET /events", "", ""}, // with a Last-Event-ID that is none
		{400, "PATCH /instances/{id}", "/instances/web", `{}`},
		{400, "PATCH /instances/{id}", "/instances/web", `{"ttl":"1h","expires_at":"2199-01-01T00:00:00Z"}`},
		{400, "PATCH /instances/{id}", "/instances/web", `{"health_check":{"tcp":{"port":80},"colour":"red"}}`},
		{200, "PATCH /instances/{id}", "/instances/web", `{"ttl":"1h","env":{"K":null,"L":"w"}}`},
		{200, "PUT /instances/{id}", "/instances/web", `{"health_check":` + check + `}`},
		{409, "POST /instances/{id}/start", "/instances/web/start", `{}`},
		{409, "DELETE /images/{name}", "/images/app", ""},
		{200, "POST /instances/{id}/stop", "/instances/web/stop", ""},
		{409, "POST /instances/{id}/health/check", "/instances/web/health/check", ""},
		{409, "GET /instances/{id}/exec", "/instances/web/exec", ""},
		{200, "GET /instances/{id}/wait", "/instances/web/wait?health=healthy", ""},
		{200, "POST /instances/{id}/start", "/instances/web/start", ""},
		{204, "DELETE /instances/{id}", "/instances/web?graceful_shutdown=false", ""},
		{404, "DELETE /instances/{id}", "/instances/web", ""},
		{204, "DELETE /images/{name}", "/images/app", ""},
	} {
		method, path, _ := strings.Cut(step.op, " ")
		op, ok := w.doc.operation(method, path)
		if !ok {
			t.Fatalf("the contract has no %s", step.op)
		}
		if step.path != "" {
			path = step.path
		}
		label := fmt.Sprintf("%s %s %s", method, path, step.body)
		resp, body := w.ask(step.op, method, path, step.body)
		if resp.StatusCode != step.status && resp.StatusCode/100 != step.status {
			t.Errorf("%s is %d: want %d\n%s", label, resp.StatusCode, step.status, body)
			continue
		}
		seen[step.op] = seen[step.op] || resp.StatusCode < 300
		for _, fault := range w.doc.checkAnswer(op, resp, body) {
			t.Errorf("%s: %s\n%s", label, fault, body)
		}
	}
	// An exec is a WebSocket and events have no end: their success is tested elsewhere.
	for _, op := range []string{"GET /instances/{id}/exec", "GET /events"} {
		seen[op] = true
	}
	for op := range w.doc.operations() {
		if !seen[op.method+" "+op.path] {
			t.Errorf("%s %s was never answered well", op.method, op.path)
		}
	}
}

func (w *world) ask(op, method, path, body string) (*http.Response, []byte) {
	w.t.Helper()
	var r io.Reader = strings.NewReader(body)
	if body == "archive" {
		r = archive(w.t)
	}
	if op == "GET /events" {
		req, err := http.NewRequest(method, w.url+path, nil)
		if err != nil {
			w.t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+w.bearer)
		req.Header.Set("Last-Event-ID", "none")
		resp, err := direct.Do(req)
		if err != nil {
			w.t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp, b
	}
	return w.call(method, path, w.bearer, r)
}

// TestNothingRedirects asks for what a mux would redirect: a POST that is redirected is not what was asked for.
func TestNothingRedirects(t *testing.T) {
	w := newWorld(t)
	for _, path := range []string{"//instances", "/instances/", "/instances/../instances", "/v2", "/instances/x/volumes", "/instances/x/auto-standby", "/snapshots/", "/nothing"} {
		for _, method := range []string{"GET", "POST"} {
			resp, body := w.call(method, path, w.bearer, nil)
			if resp.StatusCode < 400 {
				t.Errorf("%s %s is %d (%s): want an error", method, path, resp.StatusCode, resp.Header.Get("Location"))
				continue
			}
			for _, fault := range w.doc.check(w.doc.schema("Error"), decoded(t, body), "error") {
				t.Errorf("%s %s: %s", method, path, fault)
			}
		}
	}
	resp, _ := w.call("DELETE", "/instances", w.bearer, nil)
	if allow := resp.Header.Get("Allow"); resp.StatusCode != http.StatusMethodNotAllowed || allow != "GET, POST" {
		t.Errorf("DELETE /instances is %d, Allow %q", resp.StatusCode, allow)
	}
}

func decoded(t *testing.T, body []byte) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(body, &v); err != nil {
		t.Errorf("%.200q is not JSON: %v", body, err)
	}
	return v
}

// A document is an OpenAPI description, as far as these tests read it.
type document struct {
	Paths      map[string]map[string]json.RawMessage
	Components struct {
		Schemas   map[string]map[string]any
		Responses map[string]response
	}
}

type response struct {
	Ref     string `json:"$ref"`
	Content map[string]struct{ Schema map[string]any }
}

type operation struct {
	method, path string
	Security     *[]any
	Responses    map[string]response
}

// open reports whether the operation needs no token.
func (o operation) open() bool { return o.Security != nil && len(*o.Security) == 0 }

func (d document) operation(method, path string) (operation, bool) {
	raw, ok := d.Paths[path][strings.ToLower(method)]
	o := operation{method: method, path: path}
	if ok {
		ok = json.Unmarshal(raw, &o) == nil
	}
	return o, ok
}

// operations yields every operation of the contract.
func (d document) operations() func(yield func(operation) bool) {
	return func(yield func(operation) bool) {
		for _, path := range slices.Sorted(maps.Keys(d.Paths)) {
			for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE"} {
				if o, ok := d.operation(method, path); ok && !yield(o) {
					return
				}
			}
		}
	}
}

func (d document) schema(name string) map[string]any {
	return map[string]any{"$ref": "#/components/schemas/" + name}
}

// checkAnswer returns what an answer has that the contract does not say of that operation.
func (d document) checkAnswer(o operation, resp *http.Response, body []byte) []string {
	said, ok := o.Responses[fmt.Sprint(resp.StatusCode)]
	if !ok {
		return []string{fmt.Sprintf("the contract knows no %d", resp.StatusCode)}
	}
	if said.Ref != "" {
		said = d.Components.Responses[said.Ref[strings.LastIndex(said.Ref, "/")+1:]]
	}
	if said.Content == nil {
		if len(body) > 0 {
			return []string{"the contract says that there is no body"}
		}
		return nil
	}
	kind, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	content, ok := said.Content[kind]
	if !ok {
		return []string{fmt.Sprintf("the contract knows no %q for %d", kind, resp.StatusCode)}
	}
	if kind != "application/json" {
		return nil
	}
	var v any
	if err := json.Unmarshal(body, &v); err != nil {
		return []string{err.Error()}
	}
	return d.check(content.Schema, v, "body")
}

// check returns where v is not of the schema: the part of JSON Schema that the contract uses, and no field beside it.
func (d document) check(schema map[string]any, v any, at string) (faults []string) {
	schema = d.resolve(schema)
	fault := func(format string, args ...any) { faults = append(faults, at+": "+fmt.Sprintf(format, args...)) }
	if v == nil {
		if schema["nullable"] != true && schema["type"] != nil {
			fault("null is not allowed")
		}
		return faults
	}
	if enum, ok := schema["enum"].([]any); ok && !slices.Contains(enum, v) {
		fault("%v is none of %v", v, enum)
	}
	switch schema["type"] {
	case "object":
		object, ok := v.(map[string]any)
		if !ok {
			fault("%v is no object", v)
			return faults
		}
		faults = append(faults, d.checkObject(schema, object, at)...)
	case "array":
		list, ok := v.([]any)
		if !ok {
			fault("%v is no array", v)
		}
		items, _ := schema["items"].(map[string]any)
		for i, item := range list {
			faults = append(faults, d.check(items, item, fmt.Sprintf("%s[%d]", at, i))...)
		}
	case "string":
		s, ok := v.(string)
		if !ok {
			fault("%v is no string", v)
		}
		if _, err := time.Parse(time.RFC3339, s); schema["format"] == "date-time" && err != nil {
			fault("%q is no time", s)
		}
	case "boolean":
		if _, ok := v.(bool); !ok {
			fault("%v is no boolean", v)
		}
	case "integer":
		if n, ok := v.(float64); !ok || n != float64(int64(n)) {
			fault("%v is no whole number", v)
		}
	case "number":
		if _, ok := v.(float64); !ok {
			fault("%v is no number", v)
		}
	}
	return faults
}

func (d document) checkObject(schema, object map[string]any, at string) (faults []string) {
	properties, _ := schema["properties"].(map[string]any)
	required, _ := schema["required"].([]any)
	for _, r := range required {
		if _, ok := object[r.(string)]; !ok {
			faults = append(faults, fmt.Sprintf("%s: %s is missing", at, r))
		}
	}
	for _, key := range slices.Sorted(maps.Keys(object)) {
		sub, known := properties[key].(map[string]any)
		if !known {
			sub, known = schema["additionalProperties"].(map[string]any)
		}
		switch {
		case known:
			faults = append(faults, d.check(sub, object[key], at+"."+key)...)
		case properties != nil:
			faults = append(faults, fmt.Sprintf("%s: the contract has no field %s", at, key))
		}
	}
	return faults
}

// resolve follows references, also one in an allOf of one, beside which a description stands.
func (d document) resolve(schema map[string]any) map[string]any {
	if all, ok := schema["allOf"].([]any); ok && len(all) == 1 {
		inner := maps.Clone(d.resolve(all[0].(map[string]any)))
		maps.Copy(inner, schema)
		return inner
	}
	ref, ok := schema["$ref"].(string)
	if !ok {
		return schema
	}
	return d.resolve(d.Components.Schemas[ref[strings.LastIndex(ref, "/")+1:]])
}
