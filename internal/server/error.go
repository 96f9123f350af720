package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/health"
	"github.com/halevm/hale/internal/store"
)

// An answer is what a Kind of error becomes on the wire.
type answer struct {
	status  int
	code    string        // unless the error has one of its own
	noRetry bool          // waiting will not change it, and the compatible client would repeat it by itself
	after   time.Duration // Retry-After
	unsaid  bool          // the answer does not say the error, though it is no internal one: the log does
}

// answers is the one table from Kind to HTTP. What is not in it is internal.
var answers = map[api.Kind]answer{
	api.Invalid:       {status: http.StatusBadRequest, code: "invalid_request"},
	api.Unsupported:   {status: http.StatusBadRequest, code: "unsupported"},
	api.Unauthorized:  {status: http.StatusUnauthorized, code: "unauthorized"},
	api.NotFound:      {status: http.StatusNotFound, code: "not_found"},
	api.Conflict:      {status: http.StatusConflict, code: "conflict", noRetry: true},
	api.InvalidState:  {status: http.StatusConflict, code: "invalid_state", noRetry: true},
	api.NotReady:      {status: http.StatusConflict, code: "not_ready", after: 2 * time.Second},
	api.Exhausted:     {status: http.StatusConflict, code: "insufficient_resources", noRetry: true},
	api.TooLarge:      {status: http.StatusRequestEntityTooLarge, code: "too_large"},
	api.Denied:        {status: http.StatusForbidden, code: "denied", noRetry: true},
	api.RateLimited:   {status: http.StatusTooManyRequests, code: "rate_limited", noRetry: true, after: time.Minute},
	api.Unavailable:   {status: http.StatusServiceUnavailable, code: "unavailable", after: 5 * time.Second},
	api.Unimplemented: {status: http.StatusNotImplemented, code: "unimplemented", noRetry: true},
}

var internalAnswer = answer{status: http.StatusInternalServerError, code: "internal"}

// errDiskFull is what a write becomes that found no room: the person can mend it, and the host's paths are not theirs to know.
var errDiskFull = errors.New("disk full: no room is left where hale keeps its data")

// describe turns an error into what is sent. The words of an internal one stay in the log.
func describe(err error, requestID string) (answer, api.ErrorBody) {
	var policy *health.PolicyError
	if errors.As(err, &policy) {
		return answers[api.Invalid], policyBody(policy)
	}
	kind := api.Internal
	errors.As(err, &kind)
	a, ok := answers[kind]
	if !ok && store.NoSpace(err) {
		a, ok, err = answers[api.Exhausted], true, errDiskFull
		a.unsaid = true
	}
	if !ok {
		return internalAnswer, api.ErrorBody{
			Code: internalAnswer.code, RequestID: requestID,
			Message: "something went wrong on our side; the daemon's log says what (request " + requestID + ")",
		}
	}
	// Domain code ends what it wraps with the kind, which the code says already.
	body := api.ErrorBody{Code: a.code, Message: strings.TrimSuffix(err.Error(), ": "+string(kind))}
	if e, ok := errors.AsType[*api.Error](err); ok {
		if e.Code != "" {
			body.Code = e.Code
		}
		body.Message = e.Error()
		body.Details = append(body.Details, e.Details...)
		a.noRetry = a.noRetry || e.NoRetry
		if e.RetryAfter > 0 || a.noRetry && kind != api.Unavailable && kind != api.RateLimited {
			a.after = e.RetryAfter // for a person: no client comes again by itself
		}
	}
	if a.status >= 500 {
		body.RequestID = requestID
	}
	return a, body
}

// policyBody names every fault of a health check that was refused.
func policyBody(p *health.PolicyError) api.ErrorBody {
	b := api.ErrorBody{Code: codeHealthCheck, Message: p.Error()}
	for _, f := range p.Faults {
		b.Details = append(b.Details, api.Detail{Code: codeHealthCheck, Message: f.Message, Field: f.Field})
	}
	return b
}

// ErrStopping is the cause with which the base context of all requests is to end when the daemon stops.
var ErrStopping = &api.Error{Kind: api.Unavailable, Message: "the daemon is stopping: ask again when it is back"}

// stopping reports whether a request was cut short by the end of the daemon, and not by its client.
func stopping(r *http.Request) bool { return errors.Is(context.Cause(r.Context()), ErrStopping) }

// fail answers a request with an error. The edge is where an error is logged: 5xx, and what the answer does not say; the rest not at all.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	if cut := errors.Is(err, context.Canceled) || errors.Is(err, ErrStopping); cut && r.Context().Err() != nil {
		if !stopping(r) {
			return // the client has gone; there is nobody to tell
		}
		err = ErrStopping
	}
	info := infoOf(r.Context())
	a, body := describe(err, info.id)
	info.code = body.Code
	if a.unsaid || a.status >= 500 {
		level := slog.LevelError
		if a.status == http.StatusNotImplemented || err == ErrStopping {
			level = slog.LevelInfo // nobody need act, but the answer names its request
		}
		s.log.Log(r.Context(), level, "request failed", "request", info.id, "method", r.Method, "path", r.URL.Path, "err", err)
	}
	h := w.Header()
	if a.noRetry {
		h.Set("X-Should-Retry", "false")
	}
	if a.after > 0 {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(a.after.Seconds()))))
	}
	if a.status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="hale"`)
	}
	writeError(w, a.status, body)
}

func writeError(w http.ResponseWriter, status int, body api.ErrorBody) {
	if body.Details == nil {
		body.Details = []api.Detail{}
	}
	writeJSON(w, status, body)
}

// writeTime is how long a client may take over an answer, before which net/http may wait for what it still owes of its body.
const writeTime = bodyTime + 15*time.Second

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v) // an error is a client that has gone
}

// faults collects what is wrong with a request, so that all of it is told at once.
type faults []api.Detail

func (f *faults) add(code, field, message string) {
	*f = append(*f, api.Detail{Code: code, Field: field, Message: message})
}

func (f *faults) invalid(field, message string)     { f.add("invalid_request", field, message) }
func (f *faults) unsupported(field, message string) { f.add("unsupported", field, message) }

// codeHealthCheck is that of a refusal which names something of a health check, whatever else it names.
const codeHealthCheck = "invalid_health_check"

// maxFaults is how many are told at once; a body of a megabyte may have a hundred thousand.
const maxFaults = 100

// err is nil where there are none. The code of the whole is that of the first, unless a health check is refused too.
func (f faults) err() error {
	if len(f) == 0 {
		return nil
	}
	code := f[0].Code
	for _, d := range f {
		if d.Code == codeHealthCheck {
			code = d.Code
		}
	}
	told := f[:min(len(f), maxFaults)]
	var message strings.Builder
	for i, d := range told {
		if i > 0 {
			message.WriteString("; ")
		}
		message.WriteString(d.Field + ": " + d.Message)
	}
	if more := len(f) - len(told); more > 0 {
		fmt.Fprintf(&message, "; and %d more", more)
	}
	return &api.Error{Kind: api.Invalid, Code: code, Message: message.String(), Details: told, NoRetry: true}
}

// invalid is a refusal of one parameter.
func invalid(field, accepted string) error {
	return &api.Error{
		Kind: api.Invalid, Message: field + ": " + accepted,
		Details: []api.Detail{{Code: "invalid_request", Field: field, Message: accepted}},
	}
}
