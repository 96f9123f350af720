package hale

import (
	"errors"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/halevm/hale/api"
)

func TestErrors(t *testing.T) {
	for _, test := range []struct {
		status  int
		body    string
		header  []string
		want    Error
		message string // a part of what it says; "": the body's message
	}{
		{
			status: 400, body: `{"code":"invalid_health_check","message":"two faults","details":[{"code":"invalid_health_check","message":"want 1 to 65535","field":"health_check.http.port"}]}`,
			want: Error{Kind: api.Invalid, Code: "invalid_health_check", Message: "two faults", Details: []api.Detail{{Code: "invalid_health_check", Message: "want 1 to 65535", Field: "health_check.http.port"}}},
		},
		{status: 400, body: `{"code":"unsupported","message":"m"}`, want: Error{Kind: api.Unsupported, Code: "unsupported", Message: "m"}},
		{status: 401, body: `{"code":"unauthorized","message":"m"}`, want: Error{Kind: api.Unauthorized, Code: "unauthorized", Message: "m"}},
		{status: 404, body: `{"code":"image_not_found","message":"m"}`, header: []string{"x-should-retry", "false"}, want: Error{Kind: api.NotFound, Code: "image_not_found", Message: "m", NoRetry: true}},
		{status: 409, body: `{"code":"name_conflict","message":"m"}`, want: Error{Kind: api.Conflict, Code: "name_conflict", Message: "m"}},
		{status: 409, body: `{"code":"invalid_state","message":"m"}`, want: Error{Kind: api.InvalidState, Code: "invalid_state", Message: "m"}},
		{status: 409, body: `{"code":"insufficient_resources","message":"m"}`, want: Error{Kind: api.Exhausted, Code: "insufficient_resources", Message: "m"}},
		{status: 409, body: `{"code":"image_not_ready","message":"m"}`, header: []string{"Retry-After", "2"}, want: Error{Kind: api.NotReady, Code: "image_not_ready", Message: "m", RetryAfter: 2 * time.Second}},
		{status: 409, body: `{"code":"later_still","message":"m"}`, header: []string{"Retry-After", "2"}, want: Error{Kind: api.NotReady, Code: "later_still", Message: "m", RetryAfter: 2 * time.Second}},
		{status: 413, body: `{"code":"too_large","message":"m"}`, want: Error{Kind: api.TooLarge, Code: "too_large", Message: "m"}},
		{status: 500, body: `{"code":"internal","message":"m","request_id":"r1"}`, want: Error{Kind: api.Internal, Code: "internal", Message: "m", RequestID: "r1"}},
		{status: 501, body: `{"code":"unimplemented","message":"m"}`, want: Error{Kind: api.Unimplemented, Code: "unimplemented", Message: "m"}},
		{status: 503, body: `{"code":"unavailable","message":"m"}`, header: []string{"Retry-After", "junk"}, want: Error{Kind: api.Unavailable, Code: "unavailable", Message: "m"}},
		// Not of the API's form: something in between.
		{status: 502, body: "<html>Bad Gateway</html>", want: Error{Kind: api.Unavailable}, message: "status 502: <html>Bad Gateway"},
		{status: 404, body: "", want: Error{Kind: api.NotFound}, message: "status 404"},
		{status: 418, body: `{"message":"no code"}`, want: Error{Kind: api.Invalid}, message: "status 418"},
		{status: 500, body: strings.Repeat("é", 1000), want: Error{Kind: api.Internal}, message: "status 500"},
	} {
		c := serve(t, answer(test.status, test.body, test.header...))
		_, err := c.Instance(t.Context(), "web")
		got, ok := errors.AsType[*Error](err)
		if !ok {
			t.Errorf("%d %.60s: %v, want an *Error", test.status, test.body, err)
			continue
		}
		if !errors.Is(err, test.want.Kind) {
			t.Errorf("%d %.60s: is not of kind %s: %v", test.status, test.body, test.want.Kind, err)
		}
		test.want.Status = test.status
		if test.message != "" {
			if !strings.Contains(got.Message, test.message) || len(got.Message) > 300 {
				t.Errorf("%d: says %q, want %q in it", test.status, got.Message, test.message)
			}
			test.want.Message = got.Message
		}
		if !reflect.DeepEqual(*got, test.want) {
			t.Errorf("%d: got %+v\nwant %+v", test.status, *got, test.want)
		}
	}
}

// TestKindsOfStatus: every Kind that the server's table sends comes back as itself.
func TestKindsOfStatus(t *testing.T) {
	for kind, sent := range map[api.Kind]Error{
		api.Invalid:       {Status: http.StatusBadRequest, Code: "invalid_request"},
		api.Unsupported:   {Status: http.StatusBadRequest, Code: "unsupported"},
		api.Unauthorized:  {Status: http.StatusUnauthorized, Code: "unauthorized"},
		api.NotFound:      {Status: http.StatusNotFound, Code: "not_found"},
		api.Conflict:      {Status: http.StatusConflict, Code: "conflict", NoRetry: true},
		api.InvalidState:  {Status: http.StatusConflict, Code: "invalid_state", NoRetry: true},
		api.NotReady:      {Status: http.StatusConflict, Code: "not_ready", RetryAfter: time.Second},
		api.Exhausted:     {Status: http.StatusConflict, Code: "insufficient_resources", NoRetry: true},
		api.TooLarge:      {Status: http.StatusRequestEntityTooLarge, Code: "too_large"},
		api.Unavailable:   {Status: http.StatusServiceUnavailable, Code: "unavailable"},
		api.Unimplemented: {Status: http.StatusNotImplemented, Code: "unimplemented"},
		api.Internal:      {Status: http.StatusInternalServerError, Code: "internal"},
	} {
		if got := kindOf(&sent); got != kind {
			t.Errorf("%d %s is of kind %s, want %s", sent.Status, sent.Code, got, kind)
		}
		if got := kindOfCode(sent.Code); got != kind {
			t.Errorf("the code %s alone is of kind %s, want %s", sent.Code, got, kind)
		}
	}
}
