package server_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/halevm/hale/api"
	hale "github.com/halevm/hale/sdk/go"
)

// create makes an instance that serves on port 80 and waits until it is Running.
func (w *world) create(name string) {
	w.t.Helper()
	if resp, body := w.call("POST", "/images/import", w.bearer, archive(w.t)); resp.StatusCode != http.StatusCreated {
		w.t.Fatalf("import: %d %s", resp.StatusCode, body)
	}
	if resp, body := w.call("POST", "/instances", w.bearer, strings.NewReader(`{"image":"app","name":"`+name+`"}`)); resp.StatusCode != http.StatusCreated {
		w.t.Fatalf("create: %d %s", resp.StatusCode, body)
	}
	if _, body := w.call("GET", "/instances/"+name+"/wait?state=Running", w.bearer, nil); !strings.Contains(string(body), `"Running"`) {
		w.t.Fatalf("wait: %s", body)
	}
}

func (w *world) client() *hale.Client {
	w.t.Helper()
	c, err := hale.New(w.url, w.bearer)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// TestExecFramed speaks hale.exec.v1 through the Go client.
func TestExecFramed(t *testing.T) {
	w := newWorld(t)
	w.create("web")
	c := w.client()
	for _, tc := range []struct {
		name           string
		request        api.ExecRequest
		stdin          string
		stdout, stderr string
		code           int
		timedOut       bool
	}{
		{"output", api.ExecRequest{Command: []string{"echo", "hello"}}, "", "hello\n", "", 0, false},
		{"error output", api.ExecRequest{Command: []string{"sh", "-c", "echo bad >&2"}}, "", "", "bad\n", 0, false},
		{"code", api.ExecRequest{Command: []string{"exit", "3"}}, "", "", "", 3, false},
		{"input and its end", api.ExecRequest{Command: []string{"cat"}}, strings.Repeat("0123456789abcdef", 20000), strings.Repeat("0123456789abcdef", 20000), "", 0, false},
		{"no such program", api.ExecRequest{Command: []string{"absent"}}, "", "", "", 127, false},
		{"too long", api.ExecRequest{Command: []string{"sleep", "infinity"}, Timeout: 1}, "", "", "", 124, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e, err := c.Exec(t.Context(), "web", tc.request)
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close()
			if _, err := io.WriteString(e, tc.stdin); err != nil {
				t.Fatal(err)
			}
			if err := e.CloseWrite(); err != nil && tc.stdin != "" {
				t.Fatal(err)
			}
			var stdout, stderr bytes.Buffer
			exit, err := e.Copy(&stdout, &stderr)
			if err != nil {
				t.Fatal(err)
			}
			if exit.Code != tc.code || exit.TimedOut != tc.timedOut || stdout.String() != tc.stdout || stderr.String() != tc.stderr {
				t.Errorf("exit %+v, stdout %.40q, stderr %.40q: want %d, %.40q, %.40q", exit, &stdout, &stderr, tc.code, tc.stdout, tc.stderr)
			}
		})
	}
}

// TestExecSignalPassesWhatIsNotRead fills the input of a program that does not read, and signals it.
func TestExecSignalPassesWhatIsNotRead(t *testing.T) {
	w := newWorld(t)
	w.create("web")
	e, err := w.client().Exec(t.Context(), "web", api.ExecRequest{Command: []string{"sleep", "infinity"}})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if _, err := e.Write(bytes.Repeat([]byte("x"), 900_000)); err != nil {
		t.Fatal(err)
	}
	if err := e.Signal("SIGINT"); err != nil {
		t.Fatal(err)
	}
	exit, err := e.Copy(io.Discard, io.Discard)
	if err != nil || exit.Code != 130 {
		t.Errorf("%+v, %v: want 130", exit, err)
	}
}

func TestExecWhereNothingRuns(t *testing.T) {
	w := newWorld(t)
	w.create("web")
	c := w.client()
	if _, err := c.Exec(t.Context(), "nobody", api.ExecRequest{Command: []string{"true"}}); !errors.Is(err, api.NotFound) {
		t.Errorf("%v: want not found", err)
	}
	e, err := c.Exec(t.Context(), "web", api.ExecRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Copy(io.Discard, io.Discard); !errors.Is(err, api.Invalid) {
		t.Errorf("no command: %v: want invalid", err)
	}
	e.Close()
	if _, err := c.StopInstance(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Exec(t.Context(), "web", api.ExecRequest{Command: []string{"true"}}); !errors.Is(err, api.InvalidState) {
		t.Errorf("%v: want invalid state", err)
	}
}

// TestExecPlain speaks the compatible client's dialect.
func TestExecPlain(t *testing.T) {
	w := newWorld(t)
	w.create("web")
	for _, tc := range []struct {
		name, request string
		stdin         []string
		output, end   string
	}{
		{"output", `{"command":["echo","hello"]}`, nil, "hello\n", `{"exitCode":0}`},
		{"merged output", `{"command":["sh","-c","echo bad >&2"],"a_field_of_tomorrow":1}`, nil, "bad\n", `{"exitCode":0}`},
		{"input, and its end as an empty message", `{"command":["cat"]}`, []string{"one ", "two", ""}, "one two", `{"exitCode":0}`},
		{"code", `{"command":["exit","3"]}`, nil, "", `{"exitCode":3}`},
		{"too long", `{"command":["sleep","infinity"],"timeout":1}`, nil, "", `{"exitCode":124}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			output, end := w.plain(tc.request, tc.stdin)
			if output != tc.output || end != tc.end {
				t.Errorf("%q and then %q: want %q and then %q", output, end, tc.output, tc.end)
			}
		})
	}
	for _, request := range []string{`{"command":["absent"]}`, `{"command":[]}`, `{`} {
		output, end := w.plain(request, nil)
		if output == "" || end != `{"exitCode":127}` {
			t.Errorf("%s: %q and then %q: want words and then 127", request, output, end)
		}
	}
}

// plain holds one conversation and returns the output and the last message.
func (w *world) plain(request string, stdin []string) (output, end string) {
	w.t.Helper()
	ctx := w.t.Context()
	ws, _, err := websocket.Dial(ctx, w.url+"/instances/web/exec", &websocket.DialOptions{HTTPHeader: http.Header{"Authorization": {"Bearer " + w.bearer}}})
	if err != nil {
		w.t.Fatal(err)
	}
	defer ws.CloseNow()
	if err := ws.Write(ctx, websocket.MessageText, []byte(request)); err != nil {
		w.t.Fatal(err)
	}
	for _, s := range stdin {
		if err := ws.Write(ctx, websocket.MessageBinary, []byte(s)); err != nil {
			w.t.Fatal(err)
		}
	}
	for {
		kind, b, err := ws.Read(ctx)
		switch {
		case websocket.CloseStatus(err) == websocket.StatusNormalClosure:
			return output, end
		case err != nil:
			w.t.Fatal(err)
		case end != "":
			w.t.Errorf("%q after the end", b)
		case kind == websocket.MessageText:
			end = string(b)
		default:
			output += string(b)
		}
	}
}

// TestExecEndsWithItsClient leaves a program that would run for ever.
func TestExecEndsWithItsClient(t *testing.T) {
	w := newWorld(t)
	w.create("web")
	ctx, cancel := context.WithCancel(t.Context())
	e, err := w.client().Exec(ctx, "web", api.ExecRequest{Command: []string{"cat"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	first := make([]byte, 1)
	done := make(chan error, 1)
	go func() { _, err := e.Copy(sink(func(b []byte) { copy(first, b); cancel() }), io.Discard); done <- err }()
	if err := <-done; err == nil || first[0] != 'x' {
		t.Errorf("%v, %q: want an end without an exit after x", err, first)
	}
	<-w.execs
}

// TestExecEndsWithItsClientBehindInput: one that goes away in the middle of 20 MB, of which its program reads nothing.
func TestExecEndsWithItsClientBehindInput(t *testing.T) {
	w := newWorld(t)
	w.create("web")
	ctx, cancel := context.WithCancel(t.Context())
	e, err := w.client().Exec(ctx, "web", api.ExecRequest{Command: []string{"sleep", "infinity"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Write(make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	wrote := make(chan error, 1)
	go func() {
		_, err := e.Write(make([]byte, 19<<20))
		wrote <- err
	}()
	cancel()
	if err := <-wrote; !errors.Is(err, context.Canceled) {
		t.Errorf("the write ended with %v", err)
	}
	<-w.execs
}

// TestExecWithoutCredit: a client of hale.exec.v1 sends as it likes; a signal passes what waits within bounds.
func TestExecWithoutCredit(t *testing.T) {
	w := newWorld(t)
	w.create("web")
	ctx := t.Context()
	ws, _, err := websocket.Dial(ctx, w.url+"/instances/web/exec", &websocket.DialOptions{
		HTTPHeader: http.Header{"Authorization": {"Bearer " + w.bearer}}, Subprotocols: []string{"hale.exec.v1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	send := func(b []byte) {
		t.Helper()
		if err := ws.Write(ctx, websocket.MessageBinary, b); err != nil {
			t.Fatal(err)
		}
	}
	send([]byte(`{"command":["sleep","infinity"]}`))
	for range 15 {
		send(make([]byte, 60<<10)) // the first byte is the channel: input
	}
	send([]byte("\x03" + `{"type":"signal","signal":"SIGKILL"}`))
	if _, b, err := ws.Read(ctx); err != nil || !strings.Contains(string(b), `"exitCode":137`) {
		t.Errorf("%q, %v: want 137 and no credit before", b, err)
	}
}

// TestExecRefusals: what is wrong is named by its field, and the connection does not stay for a client that says no goodbye.
func TestExecRefusals(t *testing.T) {
	w := newWorld(t)
	w.create("web")
	for name, tc := range map[string]struct{ request, says string }{
		"a name with =":        {`{"command":["true"],"env":{"A=B":"x"}}`, "env.A=B: "},
		"an endless timeout":   {`{"command":["true"],"timeout":9300000000}`, "timeout: seconds, 0 to 31536000"},
		"an endless wait":      {`{"command":["true"],"wait_for_agent":9300000000}`, "wait_for_agent: "},
		"a command of 300 KB":  {`{"command":["echo","` + strings.Repeat("x", 300_000) + `"]}`, "command: at most 192 KiB"},
		"no command, no words": {`{}`, "command: must not be empty"},
	} {
		t.Run(name, func(t *testing.T) {
			said, took := w.sullen(tc.request)
			if !strings.Contains(said, tc.says) || took > 4500*time.Millisecond { // the library would wait for five
				t.Errorf("%q after %v: want %q and the end a second later", said, took, tc.says)
			}
		})
	}
}

// sullen sends a request and never answers; it returns what came until the end of the connection, and how long that took.
func (w *world) sullen(request string) (string, time.Duration) {
	w.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://"))
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET /instances/web/exec HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: hale.exec.v1\r\n\r\n", w.bearer)
	frame := []byte{0x81, 0x80 | 127} // a text, whose length is of eight bytes, with a mask of zeros
	frame = binary.BigEndian.AppendUint64(frame, uint64(len(request)))
	frame = append(append(frame, 0, 0, 0, 0), request...)
	if len(request) < 126 {
		frame = append([]byte{0x81, 0x80 | byte(len(request)), 0, 0, 0, 0}, request...)
	} else if len(request) < 1<<16 {
		w.t.Fatal("no frame of this length is made here")
	}
	start := time.Now()
	conn.Write(frame)
	b, err := io.ReadAll(conn)
	if err != nil {
		w.t.Errorf("the connection ended with %v", err)
	}
	return string(b), time.Since(start)
}

type sink func([]byte)

func (s sink) Write(b []byte) (int, error) { s(b); return len(b), nil }

// A handshake that is none is refused in the words of this API.
func TestExecHandshake(t *testing.T) {
	w := newWorld(t)
	w.create("web")
	op, _ := w.doc.operation("GET", "/instances/{id}/exec")
	good := map[string]string{"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="}
	for name, value := range map[string]string{"Upgrade": "h2c", "Connection": "close", "Sec-WebSocket-Version": "12", "Sec-WebSocket-Key": "x"} {
		req := w.request(t.Context(), "/instances/web/exec")
		for k, v := range good {
			req.Header.Set(k, v)
		}
		req.Header.Set(name, value)
		resp, err := direct.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		for _, fault := range w.doc.checkAnswer(op, resp, body) {
			t.Errorf("%s: %s: %s\n%s", name, value, fault, body)
		}
		if resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %s: %d", name, value, resp.StatusCode)
		}
	}
}
