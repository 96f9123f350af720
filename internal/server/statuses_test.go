package server_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/server"
)

// parameters are what an operation needs to be asked at all.
var parameters = map[string]string{
	"GET /instances/{id}/stat": "?path=/", "GET /instances/{id}/wait": "?state=Running", "GET /images/{name}": "?wait=1s",
}

// asks makes a request of an operation, {id} and {name} filled in, and returns where the answer is not what the contract says of it.
func (w *world) asks(o operation, id, name, body string) (status int, faults []string) {
	w.t.Helper()
	path := strings.NewReplacer("{id}", id, "{name}", name).Replace(o.path) + parameters[o.method+" "+o.path]
	switch { // the strict ones take what is theirs
	case len(body) > 1<<20:
	case o.method == "PUT":
		body = `{"ttl":"1h"}`
	case o.path == "/instances/{id}/health/check":
		body = ""
	}
	req, err := http.NewRequestWithContext(w.t.Context(), o.method, w.url+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+w.bearer)
	if o.path == "/instances/{id}/exec" {
		for name, value := range map[string]string{"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="} {
			req.Header.Set(name, value)
		}
	}
	resp, err := direct.Do(req)
	if err != nil {
		return 0, nil // a stream that ends with the daemon
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusSwitchingProtocols || o.path == "/events" && resp.StatusCode == http.StatusOK {
		return resp.StatusCode, nil
	}
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return resp.StatusCode, nil
	}
	return resp.StatusCode, w.doc.checkAnswer(o, resp, answer)
}

// every operation is asked of things of some kind; each that matches takes the status.
func (w *world) everyOperation(id, name, body string, status int, matches func(o operation) bool) {
	w.t.Helper()
	for o := range w.doc.operations() {
		got, faults := w.asks(o, id, name, body)
		for _, f := range faults {
			w.t.Errorf("%s %s: %s", o.method, o.path, f)
		}
		if matches(o) && got != status {
			w.t.Errorf("%s %s is %d: want %d", o.method, o.path, got, status)
		}
	}
}

// The contract knows each refusal that a client can bring about wherever it goes: by what is not there, by what is not plain, by what is
// too long, while the daemon stops.
func TestRefusalsAreInTheContract(t *testing.T) {
	w := newWorld(t)
	w.create("web")
	first := map[byte]bool{}
	prefix := ""
	for i := 0; prefix == ""; i++ {
		var in api.Instance
		w.into("POST", "/instances", fmt.Sprintf(`{"image":"app","name":"n-%d"}`, i), http.StatusCreated, &in)
		if first[in.ID[0]] {
			prefix = in.ID[:1]
		}
		first[in.ID[0]] = true
	}
	takes := func(segment string) func(operation) bool {
		return func(o operation) bool { return strings.Contains(o.path, segment) }
	}
	w.everyOperation("nobody", "nothing", `{"ttl":"1h","target":"x"}`, http.StatusNotFound, func(o operation) bool {
		return takes("{id}")(o) || takes("{name}")(o)
	})
	w.everyOperation(prefix, "UPPER", `{"ttl":"1h","target":"x"}`, http.StatusBadRequest, func(o operation) bool { return takes("{id}")(o) || takes("{name}")(o) })
	w.everyOperation("nobody", "nothing", `{"image":"`+strings.Repeat("x", 1<<20)+`"}`, http.StatusRequestEntityTooLarge, func(o operation) bool {
		switch o.method + " " + o.path {
		case "POST /instances", "PATCH /instances/{id}", "PUT /instances/{id}", "POST /instances/{id}/start", "POST /instances/{id}/health/check", "POST /images", "POST /images/{name}/tag":
			return true
		}
		return false
	})
	w.create("stopped")
	w.create("deleted")
	w.stop()
	w.everyOperation("n-0", "app", `{}`, 0, func(operation) bool { return false })
	// What is refused goes on in the instance's own time: each has one of its own.
	for name, only := range map[string]string{"stopped": "POST /instances/{id}/stop", "deleted": "DELETE /instances/{id}"} {
		for o := range w.doc.operations() {
			if o.method+" "+o.path != only {
				continue
			}
			if got, faults := w.asks(o, name, "app", `{}`); got != http.StatusServiceUnavailable || len(faults) > 0 {
				w.t.Errorf("%s is %d: %q", only, got, faults)
			}
		}
	}
}

// What a daemon says that has closed its parts is in the contract too.
func TestRefusalsOfAClosedDaemon(t *testing.T) {
	var parts server.Config
	w := newWorld(t, func(c *server.Config) { parts = *c })
	w.create("web")
	w.into("PATCH", "/instances/web", `{"health_check":{"tcp":{"port":80}}}`, http.StatusOK, new(json.RawMessage))
	w.call("POST", "/images/import", w.bearer, archiveOf(t, "unused"))
	parts.Health.Close(t.Context())
	parts.Instances.Close(t.Context())
	parts.Images.Close()
	w.everyOperation("web", "unused", `{"ttl":"1h","target":"x"}`, http.StatusServiceUnavailable, func(o operation) bool {
		switch o.method + " " + o.path {
		case "PATCH /instances/{id}", "PUT /instances/{id}", "DELETE /instances/{id}", "POST /instances/{id}/stop", "POST /images/{name}/tag", "DELETE /images/{name}":
			return true
		}
		return false
	})
}
