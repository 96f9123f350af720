package shim

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/halevm/hale/internal/health"
	"github.com/halevm/hale/internal/shim/protocol"
)

// What is written by hand says to encoding/json what it was written from, and is read by hand as encoding/json reads it.
func TestAnswerIsJSON(t *testing.T) {
	at := time.Date(2031, 2, 3, 4, 5, 6, 7_000_000, time.FixedZone("", 3600))
	ok := health.Result{Start: at, Duration: 1234567, Outcome: health.Success, Reason: "status 200"}
	with := func(change func(*health.Result)) health.Result { r := ok; change(&r); return r }
	for name, c := range map[string]struct {
		found health.Result
		hand  bool
	}{
		"a success":                  {ok, true},
		"at once":                    {with(func(r *health.Result) { r.Duration = 0 }), true},
		"with signs":                 {with(func(r *health.Result) { r.Reason = "a <b> & c's" }), true},
		"in other words":             {with(func(r *health.Result) { r.Reason = "größer" }), false},
		"in quotes":                  {with(func(r *health.Result) { r.Reason = `"x"` }), false},
		"with a line's end":          {with(func(r *health.Result) { r.Reason = "x\n" }), false},
		"without words":              {with(func(r *health.Result) { r.Reason = "" }), false},
		"before it began":            {with(func(r *health.Result) { r.Duration = -1 }), false},
		"a failure":                  {with(func(r *health.Result) { r.Outcome, r.Definite = health.Failure, true }), false},
		"with output":                {with(func(r *health.Result) { r.Output = "x" }), false},
		"that waited":                {with(func(r *health.Result) { r.Wait = 1 }), false},
		"an inconclusive, of cause":  {with(func(r *health.Result) { r.Outcome, r.Cause = health.Inconclusive, health.CauseStarved }), false},
		"one that queued beforehand": {with(func(r *health.Result) { r.Queued = 1 }), false},
	} {
		t.Run(name, func(t *testing.T) {
			b, hand := appendAnswer(nil, 41, &c.found)
			if hand != c.hand {
				t.Fatalf("by hand: %v", hand)
			}
			result, err := json.Marshal(c.found)
			if err != nil {
				t.Fatal(err)
			}
			theirs, err := json.Marshal(protocol.Reply{ID: 41, Result: result})
			if err != nil {
				t.Fatal(err)
			}
			for _, text := range [][]byte{b, theirs} {
				if len(text) == 0 {
					continue
				}
				var reply protocol.Reply
				var want health.Result
				if err := json.Unmarshal(text, &reply); err != nil || reply.ID != 41 || reply.Error != nil {
					t.Fatalf("%s: %+v, %v", text, reply, err)
				}
				if err := json.Unmarshal(reply.Result, &want); err != nil {
					t.Fatalf("%s: %v", reply.Result, err)
				}
				if !want.Start.Equal(c.found.Start) || want.Reason != c.found.Reason || want.Duration != c.found.Duration || want.Outcome != c.found.Outcome {
					t.Errorf("%s says %+v of %+v", text, want, c.found)
				}
				got := health.Result{Reason: "status 200"}
				id, read := readAnswer(text, &got)
				if got.Start = got.Start.UTC(); read && (id != 41 || !got.Start.Equal(want.Start) || got.Reason != want.Reason || got.Duration != want.Duration || got.Outcome != want.Outcome) {
					t.Errorf("%s is read as %+v, not %+v", text, got, want)
				}
				if c.hand && !read && !strings.Contains(string(text), `\u`) {
					t.Errorf("%s is not read by hand", text)
				}
			}
		})
	}
}

// What is not exactly that is left to encoding/json.
func TestAnswersOfOthers(t *testing.T) {
	const good = `{"id":7,"result":{"time":"2031-02-03T04:05:06.007Z","duration":5,"outcome":"success","reason":"status 200"}}`
	var r health.Result
	if id, ok := readAnswer([]byte(good), &r); !ok || id != 7 || r.Duration != 5 {
		t.Fatalf("%d, %v, %+v", id, ok, r)
	}
	before := r
	for _, bad := range []string{
		"", "{}", good + " ", good[:len(good)-1], " " + good, strings.Replace(good, ":7", ":07", 1), strings.Replace(good, ":7", ":-7", 1),
		strings.Replace(good, ":7", ":1234567890123456789", 1), strings.Replace(good, ":5", ":5.5", 1), strings.Replace(good, ":5", ":", 1),
		strings.Replace(good, "success", "failure", 1), strings.Replace(good, "2031-02-03", "2031-02-33", 1), strings.Replace(good, "status", `stat\us`, 1),
		strings.Replace(good, `"}}`, `","wait":3}}`, 1), strings.Replace(good, "}}", `},"error":{"kind":"internal","message":"x"}}`, 1),
		strings.Replace(good, "status", "stat\x00us", 1), strings.Replace(good, "status", "stat\xffus", 1),
	} {
		if _, ok := readAnswer([]byte(bad), &r); ok || r != before {
			t.Errorf("%q is taken, %+v", bad, r)
		}
	}
}

// Each request is decoded as encoding/json does, whatever came before it.
func TestRecall(t *testing.T) {
	policy := json.RawMessage(`{"policy":{"type":"http"}}`)
	asked := func(id uint64, params string) string { return string(appendQuestion(nil, id, json.RawMessage(params))) }
	var q recall
	for _, text := range []string{
		asked(1, string(policy)), asked(2, string(policy)), asked(3, `{"policy":{"type":"tcp"}}`), asked(4, `{"policy":{"type":"tcp"}}`), asked(5, string(policy)),
		`{"id":6,"method":"kill"}`, asked(7, string(policy)), ` {"id":8,"method":"probe"}`, `{"method":"stats","id":9}`, asked(10, string(policy)),
		`{"id":11,"method":"probe","id":12}`, `{"id":13,"method":"probe","id":12}`, `{"id":14,"method":"probe"`, asked(15, string(policy)), `{"id":-1,"method":"probe"}`,
		`{"id":016,"method":"probe","params":{"policy":{"type":"http"}}}`,
		`{"id":17,"method":"probe","Id":18}`, `{"id":19,"method":"probe","Id":18}`, `{"id":20,"method":"probe","i\u0064":18}`, `{"id":21,"method":"probe","i\u0064":18}`,
	} {
		var want protocol.Request
		werr := json.Unmarshal([]byte(text), &want)
		payload := []byte(text)
		got, err := q.decode(payload)
		clear(payload) // it is its reader's
		if (err == nil) != (werr == nil) || err == nil && !reflect.DeepEqual(got, want) {
			t.Errorf("%s is %+v, %v, not %+v, %v", text, got, err, want, werr)
		}
	}
}

func FuzzReadAnswer(f *testing.F) {
	f.Add([]byte(`{"id":7,"result":{"time":"2031-02-03T04:05:06.007Z","duration":5,"outcome":"success","reason":"status 200"}}`))
	f.Add([]byte(`{"id":7,"result":{"time":"2031-02-03T04:05:06+01:00","duration":0,"outcome":"success","reason":"port 80 is open"}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var got, want health.Result
		id, ok := readAnswer(text, &got)
		if !ok {
			return
		}
		var reply protocol.Reply
		if err := json.Unmarshal(text, &reply); err != nil || reply.ID != id || reply.Error != nil {
			t.Fatalf("%q: %+v, %v", text, reply, err)
		}
		if err := json.Unmarshal(reply.Result, &want); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%q is %+v, not %+v", text, got, want)
		}
	})
}
