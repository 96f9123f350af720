package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/halevm/hale/api"
)

// maxBody bounds a JSON body; a create with a large environment has some kilobytes.
const maxBody = 1 << 20

// decode reads a JSON body into v. None at all, null and {} leave it as it is; unknown fields are ignored, as the compatible client expects.
func decode(w http.ResponseWriter, r *http.Request, v any) error {
	bounded(w, r, maxBody)
	b, err := io.ReadAll(r.Body)
	if err != nil {
		if tooLarge := tooLarge(err); tooLarge != err {
			return tooLarge
		}
		return fmt.Errorf("read the body: %v: %w", err, api.Invalid)
	}
	if b = bytes.TrimSpace(b); len(b) == 0 {
		return nil
	}
	err = json.Unmarshal(b, v)
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && wrong.Field != "" {
		return invalid(wrong.Field, fmt.Sprintf("a JSON %s is not what this field takes", wrong.Value))
	}
	if err != nil {
		return &api.Error{Kind: api.Invalid, Message: "the body is not the JSON that this route takes: " + err.Error()}
	}
	return nil
}

// given reports whether a raw field was in the body, and was not null.
func given(raw json.RawMessage) bool { return len(raw) > 0 && !isNull(raw) }

func isNull(raw json.RawMessage) bool { return string(bytes.TrimSpace(raw)) == "null" }

// duration reads a query's duration.
func duration(field, s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, invalid(field, `a duration such as "30s" or "2m"`)
	}
	return d, nil
}
