package api

import "time"

// A Kind is a class of error that a caller can act on. It is itself an error, so that the domain writes
//
//	fmt.Errorf("instance %q: %w", id, api.NotFound)
//
// and a caller on either side of the socket asks errors.Is(err, api.NotFound).
type Kind string

// The kinds. The server has one table from Kind to HTTP status; an error of no kind is Internal, and its detail
// stays in the log.
const (
	Invalid       Kind = "invalid"       // the request is wrong as it stands: 400
	Unsupported   Kind = "unsupported"   // asks for something this server cannot do (yet): 400
	Unauthorized  Kind = "unauthorized"  // no token, or not a valid one: 401
	NotFound      Kind = "not_found"     // 404
	Conflict      Kind = "conflict"      // a name in use, an image in use: 409
	InvalidState  Kind = "invalid_state" // not possible in the state the thing is in: 409
	NotReady      Kind = "not_ready"     // will be possible later without anyone's doing: 409 with Retry-After
	Exhausted     Kind = "exhausted"     // the host has no room for it: 409
	TooLarge      Kind = "too_large"     // a body or an image over its bound: 413
	Denied        Kind = "denied"        // somebody else whom the server asked for it, a registry, refuses it to these credentials: 403
	RateLimited   Kind = "rate_limited"  // somebody else whom the server asked for it is asked too often: 429 with Retry-After where it said when
	Unavailable   Kind = "unavailable"   // something the server needs does not answer: 503 with Retry-After
	Unimplemented Kind = "unimplemented" // a route of the compatible client that this server does not have: 501
	Internal      Kind = "internal"      // ours: 500
)

// Error makes a Kind an error.
func (k Kind) Error() string { return string(k) }

// A Detail is one fault of a request that may have several.
type Detail struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Field   string `json:"field,omitempty"` // full path, "health_check.http.port"
}

// An Error is a Kind with a stable code of its own and what was wrong where.
// It unwraps to its Kind. Use it where a client needs more than the Kind's default code.
type Error struct {
	Kind    Kind
	Code    string // stable, snake_case: "invalid_health_check", "name_conflict"
	Message string // for a person: what was wrong and what would be right
	Details []Detail
	// NoRetry says that waiting will not change the answer; the server sends x-should-retry: false.
	NoRetry bool
	// RetryAfter is when the answer may be another one, where somebody said so; 0 where nobody did.
	RetryAfter time.Duration
}

func (e *Error) Error() string {
	if e.Message != "" {
		return e.Message
	}
	return e.Code
}

// Unwrap makes errors.Is(err, kind) work.
func (e *Error) Unwrap() error { return e.Kind }
