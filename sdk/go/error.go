package hale

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/halevm/hale/api"
)

// An Error is what a server answered instead of what was asked for. It unwraps to its Kind.
type Error struct {
	Kind      api.Kind
	Status    int // of HTTP
	Code      string
	Message   string // for a person
	Details   []api.Detail
	RequestID string // names the request in the server's log; "" where the server gave none
	// RetryAfter is how long the server wants to be left alone before the same request; 0 where it did not say.
	RetryAfter time.Duration
	// NoRetry says that waiting will not change the answer.
	NoRetry bool
}

func (e *Error) Error() string {
	switch {
	case e.Message != "":
		return e.Message
	case e.Code != "":
		return e.Code
	}
	return fmt.Sprintf("the server answered with status %d", e.Status)
}

// Unwrap makes errors.Is(err, kind) work.
func (e *Error) Unwrap() error { return e.Kind }

// An UnreachableError is a server that did not answer, or not to the end.
type UnreachableError struct {
	URL string // the server's address
	Err error
}

func (e *UnreachableError) Error() string { return fmt.Sprintf("no answer from %s: %v", e.URL, e.Err) }

// Unwrap returns Err.
func (e *UnreachableError) Unwrap() error { return e.Err }

// Bounds of an error's answer, in bytes.
const (
	maxErrorBody = 1 << 20
	maxErrorText = 200 // shown of an answer that is not of the API's form
)

// errorOf reads the error that an answer is. What is not of the API's form (a proxy in between) still has its status.
func errorOf(resp *http.Response) *Error {
	e := &Error{Status: resp.StatusCode, NoRetry: resp.Header.Get("X-Should-Retry") == "false"}
	if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && s > 0 {
		e.RetryAfter = time.Duration(min(s, 86400)) * time.Second
	}
	b, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody)) // half a body is as good as none
	var body api.ErrorBody
	if json.Unmarshal(b, &body) == nil && body.Code != "" {
		e.Code, e.Message, e.Details, e.RequestID = body.Code, body.Message, body.Details, body.RequestID
	} else {
		e.Message = fmt.Sprintf("the server answered with status %d", resp.StatusCode)
		if text := strings.TrimSpace(strings.ToValidUTF8(string(b[:min(len(b), maxErrorText)]), "")); text != "" {
			e.Message += ": " + text
		}
	}
	e.Kind = kindOf(e)
	return e
}

// kinds are the codes whose Kind a status does not tell.
var kinds = map[string]api.Kind{
	"unsupported":            api.Unsupported,
	"invalid_state":          api.InvalidState,
	"not_ready":              api.NotReady,
	"image_not_ready":        api.NotReady,
	"insufficient_resources": api.Exhausted,
	"registry_unauthorized":  api.Denied,
	"registry_forbidden":     api.Denied,
	"rate_limited":           api.RateLimited,
}

// kindOfCode is the Kind of an error that has no status. A code that is a Kind's own name is that Kind's.
func kindOfCode(code string) api.Kind {
	if k, ok := kinds[code]; ok {
		return k
	}
	switch k := api.Kind(code); k {
	case api.Unauthorized, api.NotFound, api.Conflict, api.TooLarge, api.Unavailable, api.Unimplemented:
		return k
	}
	if strings.HasPrefix(code, "invalid_") {
		return api.Invalid
	}
	return api.Internal
}

func kindOf(e *Error) api.Kind {
	if k, ok := kinds[e.Code]; ok && e.Status < 500 {
		return k
	}
	switch e.Status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return api.Unauthorized
	case http.StatusNotFound:
		return api.NotFound
	case http.StatusConflict:
		if e.RetryAfter > 0 && !e.NoRetry {
			return api.NotReady
		}
		return api.Conflict
	case http.StatusRequestEntityTooLarge:
		return api.TooLarge
	case http.StatusNotImplemented:
		return api.Unimplemented
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return api.Unavailable
	}
	if e.Status >= 400 && e.Status < 500 {
		return api.Invalid
	}
	return api.Internal
}
