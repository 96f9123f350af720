package server_test

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	ggcr "github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/registry/registrytest"
	"github.com/halevm/hale/internal/server"
)

// A slowRegistry has the image app:v1 of team, answers as the repository's name says, and can be told to.
type slowRegistry struct {
	http.Handler
	hang  atomic.Bool // at layers
	asked atomic.Int64
}

func newSlowRegistry(t *testing.T) *slowRegistry {
	t.Helper()
	s := &slowRegistry{Handler: ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0)))}
	front := httptest.NewServer(s.Handler) // outside the bubble, for the push
	defer front.Close()
	for _, repo := range []string{"app", "hangs"} {
		ref, err := name.ParseReference(strings.TrimPrefix(front.URL, "http://") + "/" + repo + ":v1")
		if err != nil {
			t.Fatal(err)
		}
		if err := remote.Write(ref, app(t)); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func (s *slowRegistry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.Contains(r.URL.Path, "/manifests/") {
		s.asked.Add(1)
	}
	switch {
	case strings.HasPrefix(r.URL.Path, "/v2/hangs/"), s.hang.Load() && strings.Contains(r.URL.Path, "/blobs/") && strings.HasPrefix(r.URL.Path, "/v2/app/"):
		<-r.Context().Done()
	case strings.HasPrefix(r.URL.Path, "/v2/limited/"):
		w.Header().Set("Retry-After", "90")
		w.WriteHeader(http.StatusTooManyRequests)
	case strings.HasPrefix(r.URL.Path, "/v2/private/"):
		w.WriteHeader(http.StatusUnauthorized)
	default:
		s.Handler.ServeHTTP(w, r)
	}
}

// asker makes requests of a handler, without a connection: time is the bubble's.
type asker struct {
	t *testing.T
	w *world
	http.Handler
}

type answered struct {
	status int
	header http.Header
	api.ErrorBody
	image api.Image
	took  time.Duration
}

func (a asker) ask(method, path, body string) answered {
	a.t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body)).WithContext(a.t.Context())
	r.Header.Set("Authorization", "Bearer "+a.w.bearer)
	rec := httptest.NewRecorder()
	start := time.Now()
	a.ServeHTTP(rec, r)
	got := answered{status: rec.Code, header: rec.Header(), took: time.Since(start)}
	for _, v := range []any{&got.ErrorBody, &got.image} {
		if err := json.Unmarshal(rec.Body.Bytes(), v); err != nil && rec.Body.Len() > 0 {
			a.t.Fatalf("%s %s: %v: %s", method, path, err, rec.Body)
		}
	}
	return got
}

// inBubble runs a test against a handler whose registry is at localhost:5000.
func inBubble(t *testing.T, test func(t *testing.T, a asker, reg *slowRegistry), edit ...func(*server.Config)) {
	t.Helper()
	reg := newSlowRegistry(t)
	synctest.Test(t, func(t *testing.T) {
		n := registrytest.New(t)
		n.Serve("localhost:5000", reg)
		w, handler := newHandler(t, n.Client(), edit...)
		test(t, asker{t, w, handler}, reg)
	})
}

// A create pulls what is not here. It waits for 10 s, then says to come again; what the registry refuses it says at once, and
// nobody need come again for that.
func TestCreatePulls(t *testing.T) {
	inBubble(t, func(t *testing.T, a asker, reg *slowRegistry) {
		if got := a.ask("POST", "/instances", `{"name":"at-once","image":"localhost:5000/app:v1"}`); got.status != http.StatusCreated {
			t.Fatalf("%+v", got)
		}
		// What is refused whatever the image is pulls none.
		asked := reg.asked.Load()
		for code, body := range map[string]string{"name_conflict": `"name":"at-once"`, "invalid_request": `"network":{"enabled":false,"ports":[{"guest_port":80}]}`} {
			got := a.ask("POST", "/instances", `{"image":"localhost:5000/hangs:v1",`+body+`}`)
			if got.Code != code || got.took != 0 || reg.asked.Load() != asked {
				t.Errorf("%s: %+v", body, got)
			}
		}
		for repo, want := range map[string]struct {
			status int
			code   string
			after  string
		}{
			"absent":  {404, "image_not_found", ""},
			"private": {403, "registry_unauthorized", ""},
			"limited": {429, "rate_limited", "90"},
		} {
			got := a.ask("POST", "/instances", fmt.Sprintf(`{"name":"no","image":"localhost:5000/%s"}`, repo))
			if got.status != want.status || got.Code != want.code || got.header.Get("Retry-After") != want.after || got.header.Get("X-Should-Retry") != "false" || got.took > time.Second {
				t.Errorf("%s: %+v", repo, got)
			}
		}
		// It answers in time, and is made once the image is there.
		got := a.ask("POST", "/instances", `{"name":"later","image":"localhost:5000/hangs:v1"}`)
		if got.status != http.StatusConflict || got.Code != "image_not_ready" || got.header.Get("Retry-After") == "" || got.header.Get("X-Should-Retry") != "" || got.took != 10*time.Second {
			t.Errorf("%+v", got)
		}
		// Who comes again learns why it failed, and does not make the registry be asked at each try.
		time.Sleep(51 * time.Second)
		before := reg.asked.Load()
		for _, after := range []string{"59", "49"} { // when it is asked again
			got = a.ask("POST", "/instances", `{"name":"later","image":"localhost:5000/hangs:v1"}`)
			if got.status != http.StatusServiceUnavailable || got.Code != "pull_stalled" || !strings.Contains(got.Message, "sent no byte for 1m0s") || got.header.Get("X-Should-Retry") != "false" || got.header.Get("Retry-After") != after {
				t.Errorf("%+v", got)
			}
			time.Sleep(10 * time.Second)
		}
		if n := reg.asked.Load() - before; n != 0 {
			t.Errorf("the registry was asked %d times more", n)
		}
		time.Sleep(time.Minute)
		if got = a.ask("POST", "/instances", `{"name":"later","image":"localhost:5000/hangs:v1"}`); got.Code != "image_not_ready" {
			t.Errorf("a minute later: %+v", got)
		}
	})
}

// The answer to a pull waits 10 s for the manifest, and no longer; the digest is empty until then, and there is always either a
// place in the line or progress.
func TestPullAnswersInTime(t *testing.T) {
	inBubble(t, func(t *testing.T, a asker, reg *slowRegistry) {
		got := a.ask("POST", "/images", `{"name":"localhost:5000/hangs:v1","credentials":{}}`)
		if got.status != http.StatusAccepted || got.image.Digest != "" || got.image.Status != api.ImageStatusPulling || got.image.Progress == nil || got.took != 10*time.Second {
			t.Errorf("%+v", got)
		}
		reg.hang.Store(true)
		// The configuration hangs too, which is a part of what the name stands for.
		for i := range 3 { // the later ones join the first
			got = a.ask("POST", "/images", fmt.Sprintf(`{"name":"localhost:5000/app:v1","tags":{"n":"%d"}}`, i))
			if got.status != http.StatusAccepted {
				t.Errorf("%+v", got)
			}
		}
		got = a.ask("GET", "/images/localhost:5000%2Fapp:v1", "")
		if got.image.Tags["n"] != "2" || got.image.Status != api.ImageStatusPulling {
			t.Errorf("%+v", got)
		}
		if got = a.ask("DELETE", "/images/localhost:5000%2Fapp:v1", ""); got.status != http.StatusNoContent {
			t.Errorf("a pull that is under way: %+v", got)
		}
		if got = a.ask("GET", "/images/localhost:5000%2Fapp:v1", ""); got.status != http.StatusNotFound {
			t.Errorf("%+v", got)
		}
		got = a.ask("GET", "/images/localhost:5000%2Fhangs:v1?wait=2m", "")
		if got.image.Status != api.ImageStatusFailed || got.image.Error == nil || !strings.Contains(*got.image.Error, "sent no byte") {
			t.Errorf("%+v", got)
		}
	})
}

func TestPullIsRefusedByItsFields(t *testing.T) {
	w := newWorld(t)
	for body, want := range map[string]string{
		`{}`:                                    "name",
		`{"name":"app","platform":"linux/arm"}`: "platform",
		`{"name":"app","tags":{"":"x"}}`:        "tags.",
		`{"name":"app","credentials":{"password":"secret"}}`:                 "credentials.username",
		`{"name":"app","credentials":{"registry_token":"a\nb"}}`:             "credentials.registry_token",
		`{"name":"app","credentials":{"username":"a\u0000","password":"x"}}`: "credentials.username",
	} {
		resp, b := w.call("POST", "/images", w.bearer, strings.NewReader(body))
		var e api.ErrorBody
		if err := json.Unmarshal(b, &e); err != nil || resp.StatusCode != 400 || len(e.Details) != 1 || e.Details[0].Field != want || strings.Contains(string(b), "secret") {
			t.Errorf("%s: %d %s", body, resp.StatusCode, b)
		}
	}
}
