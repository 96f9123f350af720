package server

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/halevm/hale/api"
)

// maxBody bounds a JSON body; a create with a large environment has some kilobytes.
const maxBody = 1 << 20

// bodyTime is how long a client may take to send a JSON body.
const bodyTime = 30 * time.Second

// decode reads a JSON body into v. None at all, null and {} leave it as it is; unknown fields are ignored, as the compatible client expects.
func decode(w http.ResponseWriter, r *http.Request, v any) error { return decodeFields(w, r, v, false) }

// decodeStrict is decode for what no other client knows: an unknown field is refused.
func decodeStrict(w http.ResponseWriter, r *http.Request, v any) error {
	return decodeFields(w, r, v, true)
}

func decodeFields(w http.ResponseWriter, r *http.Request, v any, strict bool) error {
	b, err := jsonBody(w, r)
	if err != nil || len(b) == 0 {
		return err
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(b, &fields); err != nil {
		if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			return &api.Error{Kind: api.Invalid, Message: "the body is a JSON " + wrong.Value + ": this route takes an object"}
		}
		return misfit(err)
	}
	// One by one, so that every field that does not fit is named.
	var all faults
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		one, err := json.Marshal(map[string]json.RawMessage{name: fields[name]})
		if err != nil {
			return misfit(err)
		}
		d := json.NewDecoder(bytes.NewReader(one))
		if strict {
			d.DisallowUnknownFields()
		}
		err = d.Decode(v)
		if field, ok := unknownField(err); ok {
			if field != name { // what takes fields of its own takes no further objects
				field = name + "." + field
			}
			all.invalid(field, "there is no such field")
			continue
		}
		switch err := misfit(located(err, one)).(type) {
		case nil:
		case *api.Error:
			all = append(all, err.Details...)
			if len(err.Details) == 0 {
				all.invalid(name, err.Message)
			}
		default:
			return err
		}
	}
	return all.err()
}

// located completes the field of what does not fit by the places in arrays, which encoding/json leaves out.
func located(err error, body []byte) error {
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		wrong.Field = cmp.Or(fieldAt(body, wrong.Offset), wrong.Field)
	}
	return err
}

// fieldAt is the path of the value that ends at offset, or begins there if it holds others: network.ports[0].guest_port.
func fieldAt(body []byte, offset int64) string {
	type level struct {
		array bool
		n     int    // tokens of this level so far
		key   string // of an object
	}
	var levels []level
	d := json.NewDecoder(bytes.NewReader(body))
	for {
		t, err := d.Token()
		if err != nil {
			return ""
		}
		delim, isDelim := t.(json.Delim)
		if isDelim && (delim == '}' || delim == ']') {
			levels = levels[:len(levels)-1]
			continue
		}
		if top := len(levels) - 1; top >= 0 {
			l := &levels[top]
			l.n++
			if !l.array && l.n%2 == 1 {
				l.key, _ = t.(string)
				continue
			}
		}
		if d.InputOffset() >= offset {
			path := ""
			for _, l := range levels {
				if l.array {
					path += fmt.Sprintf("[%d]", l.n-1)
				} else {
					path += "." + l.key
				}
			}
			return strings.TrimPrefix(path, ".")
		}
		if isDelim {
			levels = append(levels, level{array: delim == '['})
		}
	}
}

// jsonBody reads a body of bounded size in bounded time; one of white space is none.
func jsonBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	bounded(w, r, maxBody)
	rc := http.NewResponseController(w)
	rc.SetReadDeadline(time.Now().Add(bodyTime)) // not every connection has one
	b, err := io.ReadAll(r.Body)
	switch {
	case err == nil:
		// What watches for the client's going reads on: a deadline that stayed would end the request.
		rc.SetReadDeadline(time.Time{})
		return bytes.TrimSpace(b), nil
	// Otherwise it stays: net/http reads what is left of the body before it sends the answer.
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, &api.Error{Kind: api.Invalid, Message: fmt.Sprintf("the body did not come within %v", bodyTime)}
	case tooLarge(err) != err:
		return nil, tooLarge(err)
	}
	return nil, fmt.Errorf("read the body: %v: %w", err, api.Invalid)
}

// misfit says which field of a body does not fit.
func misfit(err error) error {
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && wrong.Field != "" {
		return invalid(wrong.Field, fmt.Sprintf("a JSON %s is not what this field takes", wrong.Value))
	}
	if err == nil {
		return nil
	}
	return &api.Error{Kind: api.Invalid, Message: "the body is not the JSON that this route takes: " + err.Error()}
}

// unknownField is the name of a field that a strict decoder refused, without what it is in.
func unknownField(err error) (string, bool) {
	if err == nil {
		return "", false
	}
	quoted, ok := strings.CutPrefix(err.Error(), "json: unknown field ")
	if !ok {
		return "", false
	}
	name, err := strconv.Unquote(quoted)
	return name, err == nil
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
