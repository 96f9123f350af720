package hale

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/halevm/hale/api"
)

func TestFrames(t *testing.T) {
	for _, test := range []struct {
		name, in string
		want     []frame
		err      error
	}{
		{name: "nothing", in: ""},
		{name: "one", in: "id: e-1\nevent: state\ndata: {}\n\n", want: []frame{{id: "e-1", event: "state", data: []byte("{}")}}},
		{name: "comments keep it alive", in: ": \n\ndata: a\n: still here\n\n:\n\n", want: []frame{{data: []byte("a")}}},
		{name: "lines end with CR LF too", in: "data: a\r\n\r\ndata: b\n\n", want: []frame{{data: []byte("a")}, {data: []byte("b")}}},
		{name: "data of several lines", in: "data: a\ndata\ndata:  b\n\n", want: []frame{{data: []byte("a\n\n b")}}},
		{name: "no space is needed", in: "data:a\n\n", want: []frame{{data: []byte("a")}}},
		{name: "data may be empty", in: "data:\n\n", want: []frame{{data: []byte{}}}},
		{name: "an id alone is a place", in: "id: e-1\n\ndata: a\n\n", want: []frame{{id: "e-1"}, {data: []byte("a")}}},
		{name: "a frame with neither is none", in: "event: x\n\ndata: a\n\n", want: []frame{{data: []byte("a")}}},
		{name: "unknown fields are skipped", in: "retry: 5\ndata: a\nx\n\n", want: []frame{{data: []byte("a")}}},
		{name: "cut after a line", in: "data: a\n\ndata: b\n", want: []frame{{data: []byte("a")}}, err: io.ErrUnexpectedEOF},
		{name: "cut in a line", in: "data: a\n\nda", want: []frame{{data: []byte("a")}}, err: io.ErrUnexpectedEOF},
		{name: "cut in a comment", in: "data: a\n\n: x", want: []frame{{data: []byte("a")}}, err: io.ErrUnexpectedEOF},
		{name: "too long a line", in: "data: " + strings.Repeat("a", maxFrame) + "\n\n", err: errFrameTooLong},
		{name: "too long in all", in: strings.Repeat("data: "+strings.Repeat("a", maxFrame/4)+"\n", 4) + "\n", err: errFrameTooLong},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, r := range []io.Reader{strings.NewReader(test.in), iotest.DataErrReader(strings.NewReader(test.in))} {
				var got []frame
				var last error
				for f, err := range frames(r) {
					if last = err; err == nil {
						got = append(got, f)
					}
				}
				if !reflect.DeepEqual(got, test.want) || !errors.Is(last, test.err) || (last == nil) != (test.err == nil) {
					t.Errorf("got %+v, %v\nwant %+v, %v", got, last, test.want, test.err)
				}
			}
		})
	}
}

// FuzzFrames: whatever a server sends, what is read ends, stays within its bound, and is the same however it arrives.
func FuzzFrames(f *testing.F) {
	f.Add("id: e-1\nevent: state\ndata: {}\n\n")
	f.Add(": \n\ndata: a\r\ndata:b\n\n")
	f.Add("data\n\n\n:\nid")
	f.Fuzz(func(t *testing.T, in string) {
		read := func(r io.Reader) (got []frame, last error) {
			for f, err := range frames(r) {
				if last = err; err == nil {
					got = append(got, f)
				}
				if len(f.data) > maxFrame {
					t.Errorf("%d bytes of data", len(f.data))
				}
			}
			return got, last
		}
		whole, wholeErr := read(strings.NewReader(in))
		bytewise, bytewiseErr := read(iotest.OneByteReader(strings.NewReader(in)))
		if !reflect.DeepEqual(whole, bytewise) || !errors.Is(wholeErr, bytewiseErr) {
			t.Errorf("%q: at once %+v, %v; in pieces %+v, %v", in, whole, wholeErr, bytewise, bytewiseErr)
		}
	})
}

// streaming is a handler that sends each piece as it comes from next, until next is closed or the client has gone; gone
// is closed when it returns.
func streaming(next <-chan string, gone chan<- struct{}) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		defer close(gone)
		w.Header().Set("Content-Type", "text/event-stream")
		http.NewResponseController(w).Flush()
		for {
			select {
			case s, ok := <-next:
				if !ok {
					return
				}
				io.WriteString(w, s)
				http.NewResponseController(w).Flush()
			case <-r.Context().Done():
				return
			}
		}
	}
}

func TestLogs(t *testing.T) {
	next, gone := make(chan string, 8), make(chan struct{})
	next <- "data: \"one\"\n\n"
	next <- ": \n\n"
	next <- "data: \"two \\u00e9\\n\"\n\n"
	close(next)
	var got []string
	for line, err := range serve(t, streaming(next, gone)).InstanceLogs(t.Context(), "web", Logs{}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, line)
	}
	if want := []string{"one", "two é\n"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestStreamsAsTheyCome: a line is there as soon as it was sent, and leaving the loop ends the connection.
func TestStreamsAsTheyCome(t *testing.T) {
	next, gone := make(chan string), make(chan struct{})
	c := serve(t, streaming(next, gone))
	seen := 0
	go func() { next <- "data: \"0\"\n\n" }()
	for line, err := range c.InstanceLogs(t.Context(), "web", Logs{Follow: true}) {
		if err != nil || line != fmt.Sprint(seen) {
			t.Fatalf("line %d: %q, %v", seen, line, err)
		}
		if seen++; seen == 3 {
			break
		}
		next <- fmt.Sprintf("data: \"%d\"\n\n", seen) // is sent only when the one before was read
	}
	<-gone
}

func TestStreamEndsWithContext(t *testing.T) {
	next, gone := make(chan string, 1), make(chan struct{})
	c := serve(t, streaming(next, gone))
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	next <- "data: \"a\"\n\n"
	var last error
	for _, err := range c.InstanceLogs(ctx, "web", Logs{Follow: true}) {
		if last = err; err == nil {
			cancel(cause)
		}
	}
	if !errors.Is(last, cause) {
		t.Errorf("ended with %v, want the context's cause", last)
	}
	<-gone
}

func TestBrokenStream(t *testing.T) {
	for name, test := range map[string]struct {
		sent string
		away bool // the server is at fault for going away, not for what it said
	}{
		"cut":      {sent: "data: \"b", away: true},
		"no line":  {sent: "data: {}\n\n"},
		"no JSON":  {sent: "data: <html>\n\n"},
		"too long": {sent: "data: " + strings.Repeat("x", maxFrame) + "\n\n", away: true},
	} {
		t.Run(name, func(t *testing.T) {
			c := serve(t, answer(http.StatusOK, "data: \"a\"\n\n"+test.sent))
			lines, errs := 0, []error(nil)
			for _, err := range c.InstanceLogs(t.Context(), "web", Logs{}) {
				if err != nil {
					errs = append(errs, err)
					continue
				}
				lines++
			}
			if lines != 1 || len(errs) != 1 {
				t.Fatalf("%d lines and %v, want one of each", lines, errs)
			}
			if _, away := errors.AsType[*UnreachableError](errs[0]); away != test.away {
				t.Errorf("%v: is an UnreachableError: %v, want %v", errs[0], away, test.away)
			}
		})
	}
}

func TestEvents(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.Header.Get("Last-Event-ID") {
		case "":
			io.WriteString(w, "id: e-1\nevent: state\ndata: {\"id\":\"e-1\",\"time\":\"2026-01-02T03:04:05.678Z\",\"type\":\"state\",\"instance\":\"i\",\"name\":\"web\",\"data\":{\"from\":\"Initializing\",\"to\":\"Running\"}}\n\n")
		case "e-1":
			io.WriteString(w, "id: f-9\nevent: resync\ndata: {\"id\":\"f-9\",\"time\":\"2026-01-02T03:04:05.678Z\",\"type\":\"resync\"}\n\n")
		}
	})
	follow := func(after string) (got []api.Event) {
		for e, err := range c.Events(t.Context(), after) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, e)
		}
		return got
	}
	got := follow("")
	if len(got) != 1 || got[0].ID != "e-1" || got[0].Type != "state" || got[0].Instance != "i" || got[0].Name != "web" || string(got[0].Data) != `{"from":"Initializing","to":"Running"}` || got[0].Time.UnixMilli() != 1767323045678 {
		t.Errorf("got %+v", got)
	}
	got = follow(got[0].ID)
	if len(got) != 1 || got[0].Type != EventResync {
		t.Errorf("after it: %+v, want a resync", got)
	}
}

// TestStreamsAreRequestsOfTheirOwn: an iterator may be used again.
func TestStreamsAreRequestsOfTheirOwn(t *testing.T) {
	requests := 0
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		requests++
		io.WriteString(w, "data: \"a\"\n\n")
	})
	logs := c.InstanceLogs(t.Context(), "web", Logs{})
	if requests != 0 {
		t.Error("a request was made before anyone wanted a line")
	}
	if err := errors.Join(drain(logs), drain(logs)); err != nil || requests != 2 {
		t.Errorf("%d requests, %v; want 2", requests, err)
	}
}
