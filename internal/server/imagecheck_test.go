package server_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/halevm/hale/api"
)

// checked is a docker-archive of an image that has a check, nil for none.
func checked(t *testing.T, ref string, check *v1.HealthConfig, shell ...string) io.Reader {
	t.Helper()
	img := app(t)
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config.Config.Healthcheck, config.Config.Shell = check, shell
	if img, err = mutate.ConfigFile(img, config); err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag(ref)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := tarball.Write(tag, img, &b); err != nil {
		t.Fatal(err)
	}
	return &b
}

// into makes a request that must be answered with a status, and reads the answer into v.
func (w *world) into(method, path, body string, status int, v any) {
	w.t.Helper()
	resp, b := w.call(method, path, w.bearer, strings.NewReader(body))
	if resp.StatusCode != status {
		w.t.Fatalf("%s %s %s: %d %s, want %d", method, path, body, resp.StatusCode, b, status)
	}
	if err := json.Unmarshal(b, v); err != nil {
		w.t.Fatal(err)
	}
}

// inForce is a policy as answered, in short.
func inForce(t *testing.T, raw json.RawMessage, source api.HealthCheckSource) string {
	t.Helper()
	if len(raw) == 0 {
		return "nothing" + string(source)
	}
	var hc api.HealthCheck
	if err := json.Unmarshal(raw, &hc); err != nil {
		t.Fatal(err)
	}
	what := "none"
	switch {
	case hc.Exec != nil:
		what = fmt.Sprintf("%q every %s, %s, %s, %d", hc.Exec.Command, *hc.Interval, *hc.Timeout, *hc.StartPeriod, *hc.FailureThreshold)
	case hc.TCP != nil:
		what = fmt.Sprintf("tcp %d", hc.TCP.Port)
	}
	return what + " by " + string(source)
}

func TestTheImagesCheck(t *testing.T) {
	w := newWorld(t)
	load := func(archive io.Reader) {
		t.Helper()
		if resp, b := w.call("POST", "/images/import", w.bearer, archive); resp.StatusCode != 201 {
			t.Fatalf("%d %s", resp.StatusCode, b)
		}
	}
	load(checked(t, "app:checked", &v1.HealthConfig{Test: []string{"CMD-SHELL", "is well"}, Interval: time.Minute, Retries: 7}, "/bin/bash", "-c"))
	load(checked(t, "app:odd", &v1.HealthConfig{Test: []string{"CMD", "true"}, Interval: time.Millisecond}))
	load(checked(t, "app:bare", nil))
	load(checked(t, "app:off", &v1.HealthConfig{Test: []string{"NONE"}}))

	const images = `["/bin/bash" "-c" "is well"] every 1m0s, 30s, 1m0s, 7 by image`
	for ref, want := range map[string]string{"app:checked": images, "app:bare": "nothing", "app:off": "nothing", "app:odd": `["true"] every 100ms, 30s, 100ms, 3 by image`} {
		var img api.Image
		w.into("GET", "/images/"+ref, "", 200, &img)
		if len(img.HealthCheck) > 0 {
			if got := inForce(t, img.HealthCheck, "image"); got != want {
				t.Errorf("image %s: %s, want %s", ref, got, want)
			}
		} else if want != "nothing" {
			t.Errorf("image %s shows no check", ref)
		}
		if (img.HealthCheckWarnings != nil) != (ref == "app:odd") {
			t.Errorf("image %s: warnings %v", ref, img.HealthCheckWarnings)
		}
	}

	create := func(rest string) string {
		t.Helper()
		var in, again api.Instance
		w.into("POST", "/instances", `{`+rest+`}`, 201, &in)
		w.into("GET", "/instances/"+in.ID, "", 200, &again)
		got := inForce(t, in.HealthCheck, in.HealthCheckSource)
		if shown := inForce(t, again.HealthCheck, again.HealthCheckSource); shown != got {
			t.Errorf("%s: made with %s, and then %s", rest, got, shown)
		}
		var h api.InstanceHealth
		w.into("GET", "/instances/"+in.ID+"/health", "", 200, &h)
		if shown := inForce(t, h.HealthCheck, h.HealthCheckSource); shown != got {
			t.Errorf("%s: made with %s, and its health shows %s", rest, got, shown)
		}
		none := len(in.HealthCheck) == 0 || strings.HasPrefix(got, "none")
		if (in.HealthStatus.Status == api.HealthStateDisabled) != none || (h.Status == api.HealthStateDisabled) != none {
			t.Errorf("%s: %s, and its health is %s, then %s", rest, got, in.HealthStatus.Status, h.Status)
		}
		return got
	}
	for _, tt := range []struct{ ask, want string }{
		{`"image":"app:checked"`, images},
		{`"image":"app:checked","health_check":null`, images},
		{`"image":"app:checked","health_check_override":{}`, images},
		{`"image":"app:checked","network":{"enabled":false}`, images},
		{`"image":"app:checked","health_check":{"type":"none"}`, "none by request"},
		{`"image":"app:checked","health_check":{"tcp":{"port":80}}`, "tcp 80 by request"},
		{`"image":"app:checked","health_check_override":{"interval":"5s"}`, `["/bin/bash" "-c" "is well"] every 5s, 2s, 30s, 7 by request`},
		{`"image":"app:checked","health_check_override":{"cmd":"other"}`, `["/bin/bash" "-c" "other"] every 1m0s, 2s, 30s, 7 by request`},
		{`"image":"app:bare"`, "nothing"},
		{`"image":"app:bare","health_check_override":{"cmd":"other"}`, `["/bin/sh" "-c" "other"] every 10s, 2s, 30s, 3 by request`},
		{`"image":"app:off"`, "nothing"},
		{`"image":"app:odd"`, `["true"] every 100ms, 30s, 100ms, 3 by image`},
	} {
		if got := create(tt.ask); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.ask, got, tt.want)
		}
	}

	for body, field := range map[string]string{
		`{"image":"app:bare","health_check_override":{"interval":"5s"}}`:                                       "health_check_override",
		`{"image":"app:off","health_check_override":{"interval":"5s"}}`:                                        "health_check_override",
		`{"image":"app:checked","health_check_override":{"interval":"5s"},"health_check":{"tcp":{"port":80}}}`: "health_check_override",
		`{"image":"app:checked","health_check_override":{"interval":"5s"},"health_check":{"type":"none"}}`:     "health_check_override",
		`{"image":"app:checked","health_check_override":{"start_interval":"5m"}}`:                              "health_check_override.start_interval",
		`{"image":"app:checked","health_check_override":{"retries":5}}`:                                        "health_check_override.retries",
	} {
		var e api.ErrorBody
		w.into("POST", "/instances", body, 400, &e)
		if e.Code != "invalid_health_check" || len(e.Details) != 1 || e.Details[0].Field != field {
			t.Errorf("%s: %+v, want %s", body, e, field)
		}
	}
}

// An instance keeps the check of the image that it was made of, whatever becomes of the image, and goes back to it.
func TestTheImagesCheckIsKept(t *testing.T) {
	w := newWorld(t)
	load := func(archive io.Reader) {
		t.Helper()
		if resp, b := w.call("POST", "/images/import", w.bearer, archive); resp.StatusCode != 201 {
			t.Fatalf("%d %s", resp.StatusCode, b)
		}
	}
	load(checked(t, "app:v1", &v1.HealthConfig{Test: []string{"CMD", "old"}, Interval: time.Minute}))
	var in api.Instance
	w.into("POST", "/instances", `{"image":"app:v1","name":"web"}`, 201, &in)
	load(checked(t, "app:v1", &v1.HealthConfig{Test: []string{"CMD", "new"}, Interval: time.Hour})) // the name moves

	const images = `["old"] every 1m0s, 30s, 1m0s, 3 by image`
	for _, tt := range []struct{ patch, want string }{
		{`{"env":{"A":"1"}}`, images},
		{`{"health_check":null}`, images},
		{`{"health_check":{"tcp":{"port":80}}}`, "tcp 80 by request"},
		{`{"env":{"A":"2"}}`, "tcp 80 by request"},
		{`{"health_check_override":{"timeout":"3s"}}`, `["old"] every 1m0s, 3s, 30s, 3 by request`},
		{`{"health_check":{"type":"none"}}`, "none by request"},
		{`{"health_check_override":{"cmd":"mine"}}`, `["/bin/sh" "-c" "mine"] every 1m0s, 2s, 30s, 3 by request`},
		{`{"health_check":null}`, images},
	} {
		w.into("PATCH", "/instances/web", tt.patch, 200, &in)
		if got := inForce(t, in.HealthCheck, in.HealthCheckSource); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.patch, got, tt.want)
		}
		in = api.Instance{}
	}
	w.into("PATCH", "/instances/web", `{"health_check":{"type":"none"}}`, 200, &in)
	var e api.ErrorBody
	if w.into("POST", "/instances/web/health/check", ``, 409, &e); e.Code != "invalid_state" || !strings.Contains(e.Message, "no health check is set") {
		t.Errorf("a check without a policy: %+v", e)
	}
	w.into("PATCH", "/instances/web", `{"health_check":null,"health_check_override":{"timeout":"3s"}}`, 400, &e)
	if e.Code != "invalid_health_check" {
		t.Errorf("both: %+v", e)
	}
}
