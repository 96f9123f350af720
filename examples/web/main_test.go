package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
)

func TestHandler(t *testing.T) {
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	var logged []string
	h := handler(func(_ string, args ...any) { logged = append(logged, args[0].(string)) })
	for _, step := range []struct {
		method, path string
		status       int
		body         string
	}{
		{"GET", "/", 200, "hello from " + name},
		{"GET", "/healthz", 200, "ok"},
		{"POST", "/break", 200, "broken"},
		{"GET", "/healthz", 500, "broken on purpose"},
		{"GET", "/", 200, "hello from " + name},
		{"POST", "/mend", 200, "mended"},
		{"GET", "/healthz", 200, "ok"},
		{"GET", "/break", 405, "Method Not Allowed"},
		{"GET", "/nowhere", 404, "404 page not found"},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(step.method, step.path, http.NoBody))
		if body := strings.TrimSpace(w.Body.String()); w.Code != step.status || body != step.body {
			t.Errorf("%s %s: %d %q, want %d %q", step.method, step.path, w.Code, body, step.status, step.body)
		}
	}
	if got := strings.Join(logged, " "); got != "broken mended" {
		t.Errorf("logged %q", got)
	}
}
