package cli

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/creack/pty"
	"golang.org/x/term"

	"github.com/halevm/hale/api"
)

// execServer lets a test play the program: it gets the request, the program's input by and by, and what to send back with.
func (d *fakeDaemon) execServer(t *testing.T, program func(req api.ExecRequest, in <-chan []byte, send func(channel byte, data string))) {
	d.mux.HandleFunc("GET /instances/web/exec", func(w http.ResponseWriter, r *http.Request) {
		ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"hale.exec.v1"}})
		if err != nil {
			t.Error(err)
			return
		}
		defer ws.CloseNow()
		_, first, err := ws.Read(r.Context())
		var req api.ExecRequest
		if err != nil || json.Unmarshal(first, &req) != nil {
			t.Errorf("first message %q, %v", first, err)
			return
		}
		in := make(chan []byte)
		go func() {
			defer close(in)
			for {
				_, b, err := ws.Read(r.Context())
				if err != nil {
					return
				}
				select {
				case in <- b:
				case <-r.Context().Done():
					return
				}
			}
		}()
		program(req, in, func(channel byte, data string) {
			ws.Write(r.Context(), websocket.MessageBinary, append([]byte{channel}, data...))
		})
		for range in { // until the client has closed
		}
	})
}

const (
	toStdout  = 1
	toStderr  = 2
	toControl = 3
)

func TestExecStreams(t *testing.T) {
	d := newDaemon(t)
	var got api.ExecRequest
	var input []byte
	d.execServer(t, func(req api.ExecRequest, in <-chan []byte, send func(byte, string)) {
		got = req
		for b := range in {
			if b[0] == toControl {
				break // the end of the input
			}
			input = append(input, b[1:]...)
		}
		send(toStdout, "out \x1b[1m")
		send(toStderr, "err")
		send(toControl, `{"type":"exit","exitCode":42}`)
	})
	code, out, stderr := d.haleIn("what comes in", "exec", "-i", "-e", "A=1", "-w", "/srv", "-u", "app", "--timeout", "1500ms", "web", "cat", "-n", "-e")
	if code != 42 || out != "out \x1b[1m" || stderr != "err" {
		t.Errorf("exit %d, %q, %q", code, out, stderr)
	}
	if string(input) != "what comes in" {
		t.Errorf("the program read %q", input)
	}
	if strings.Join(got.Command, " ") != "cat -n -e" || got.TTY || got.Cwd != "/srv" || got.User != "app" || got.Timeout != 2 || got.Env["A"] != "1" {
		t.Errorf("asked %+v", got)
	}
}

// Without -i the program's input is empty: a loop that reads the same standard input keeps it.
func TestExecLeavesInputAlone(t *testing.T) {
	d := newDaemon(t)
	d.execServer(t, func(_ api.ExecRequest, in <-chan []byte, send func(byte, string)) {
		if b := <-in; b[0] != toControl || !strings.Contains(string(b), "eof") {
			t.Errorf("the program got %q, want the end of its input", b)
		}
		send(toControl, `{"type":"exit","exitCode":0}`)
	})
	stdin := strings.NewReader("for somebody else")
	var out bytes.Buffer
	env := map[string]string{"HALE_URL": d.URL, "HALE_TOKEN": "secret"}
	code := Run([]string{"exec", "web", "true"}, Config{Stdin: stdin, Stdout: &out, Stderr: &out, Getenv: func(k string) string { return env[k] }})
	if code != 0 || stdin.Len() != len("for somebody else") {
		t.Errorf("exit %d, %d bytes of input left, %q", code, stdin.Len(), out.String())
	}
}

func TestExecExits(t *testing.T) {
	tests := []struct {
		control string
		code    int
		say     string
	}{
		{`{"type":"exit","exitCode":0}`, 0, ""},
		{`{"type":"exit","exitCode":137,"signal":"SIGKILL"}`, 137, ""},
		{`{"type":"exit","exitCode":124,"timedOut":true}`, 124, "it took longer than 3s and was killed"},
		{`{"type":"exit","exitCode":127,"message":"no such file: nosuch"}`, 127, "no such file: nosuch"},
		{`{"type":"exit","exitCode":126,"message":"/etc/passwd: permission denied"}`, 126, "permission denied"},
		{`{"type":"error","code":"invalid_state","message":"web is Stopped"}`, 125, "web is Stopped"},
	}
	for _, tt := range tests {
		d := newDaemon(t)
		d.execServer(t, func(_ api.ExecRequest, _ <-chan []byte, send func(byte, string)) { send(toControl, tt.control) })
		code, _, stderr := d.hale("exec", "--timeout", "3s", "web", "nosuch")
		if code != tt.code || !strings.Contains(stderr, tt.say) || tt.say == "" && stderr != "" {
			t.Errorf("%s: exit %d, %q; want %d, %q", tt.control, code, stderr, tt.code, tt.say)
		}
	}
	d := newDaemon(t)
	if code, _, stderr := d.hale("exec", "nobody", "true"); code != exitExecFailed || !strings.Contains(stderr, "there is no instances/nobody") {
		t.Errorf("no instance: exit %d, %q", code, stderr)
	}
	if code, _, _ := d.hale("exec", "web"); code != exitUsage {
		t.Errorf("no command: exit %d", code)
	}
}

// On a terminal the program gets one of its own: keys go through as they are, its size is known, and afterwards the terminal is
// what it was, however the program ended.
func TestExecTerminal(t *testing.T) {
	for name, last := range map[string]string{"an exit": `{"type":"exit","exitCode":7}`, "an error": `{"type":"error","code":"internal","message":"broken"}`, "a broken line": ""} {
		t.Run(name, func(t *testing.T) {
			d := newDaemon(t)
			keyboard, tty, err := pty.Open()
			if err != nil {
				t.Fatal(err)
			}
			defer keyboard.Close()
			defer tty.Close()
			pty.Setsize(keyboard, &pty.Winsize{Rows: 33, Cols: 101})
			before, _ := term.GetState(int(tty.Fd()))
			var raw bool
			d.execServer(t, func(req api.ExecRequest, in <-chan []byte, send func(byte, string)) {
				if !req.TTY || req.Rows != 33 || req.Cols != 101 || req.Env["TERM"] != "vt100" {
					t.Errorf("asked %+v", req)
				}
				for deadline := time.Now().Add(time.Minute); !raw && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
					now, _ := term.GetState(int(tty.Fd()))
					raw = *now != *before // from then on Ctrl-C is the program's
				}
				keyboard.Write([]byte{3})
				if b := <-in; !bytes.Equal(b, []byte{0, 3}) {
					t.Errorf("the program got %q, want Ctrl-C", b)
				}
				send(toStdout, "prompt# ")
				if last != "" {
					send(toControl, last)
					return
				}
				panic(http.ErrAbortHandler)
			})
			env := map[string]string{"HALE_URL": d.URL, "HALE_TOKEN": "secret", "TERM": "vt100"}
			var stderr bytes.Buffer
			code := Run([]string{"exec", "web", "sh"}, Config{Stdin: tty, Stdout: tty, Stderr: &stderr, Getenv: func(k string) string { return env[k] }})
			if want := map[string]int{"an exit": 7, "an error": exitExecFailed, "a broken line": exitExecFailed}[name]; code != want {
				t.Errorf("exit %d, want %d; %s", code, want, stderr.String())
			}
			if said := stderr.String(); said != "" && !strings.HasPrefix(said, "\r\nhale: ") || strings.Contains(said, "frame") {
				t.Errorf("said %q, want it in a line of its own, and no word of frames", said)
			}
			after, _ := term.GetState(int(tty.Fd()))
			if !raw || *after != *before {
				t.Errorf("the terminal was raw: %v; is it as before: %v", raw, *after == *before)
			}
			shown := make([]byte, 8)
			if _, err := io.ReadFull(keyboard, shown); string(shown) != "prompt# " {
				t.Errorf("shown %q, %v", shown, err)
			}
		})
	}
}

// Ctrl-C while a new instance is waited for says that it is there.
func TestInterruptOfRun(t *testing.T) {
	d := newDaemon(t)
	inst := api.Instance{ID: "aaaa", Name: "web", State: api.InstanceStateRunning}
	d.answer("POST /instances", inst)
	d.answer("GET /instances/{id}", inst)
	d.mux.HandleFunc("GET /instances/aaaa/wait", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
		syscall.Kill(os.Getpid(), syscall.SIGINT)
		<-r.Context().Done()
	})
	code, _, stderr := d.hale("run", "--wait", "--name", "web", "nginx")
	if code != exitInterrupted || !strings.Contains(stderr, "web was made, is Running, and goes on") {
		t.Errorf("exit %d, %q", code, stderr)
	}
}

// What a wait that was not reached says: an error that was mended explains nothing, and a console is printed in lines.
func TestNotReached(t *testing.T) {
	refused, panicked := "connection refused (port 80)", "the guest's kernel panicked\nline 1\nline \x1b[31m2"
	healthy := api.WaitForStateResponse{State: "Running", TimedOut: true, HealthStatus: &api.InstanceHealthStatus{Status: "healthy", LastError: &refused}}
	if s := notReached("web", healthy, awaited{state: "Stopped"}, time.Second); s != "web is not Stopped after 1s: it is Running, healthy" {
		t.Errorf("%q", s)
	}
	healthy.HealthStatus.Status = "unhealthy"
	if s := notReached("web", healthy, awaited{health: "healthy"}, time.Second); !strings.HasSuffix(s, "unhealthy: "+refused) {
		t.Errorf("%q", s)
	}
	healthy.HealthStatus.Status, healthy.HealthStatus.GraceFailures = "starting", 3
	if s := notReached("web", healthy, awaited{health: "healthy"}, time.Second); !strings.HasSuffix(s, "starting: "+refused) {
		t.Errorf("%q", s)
	}
	stopped := api.WaitForStateResponse{State: "Stopped", StateError: &panicked}
	if s := notReached("web", stopped, awaited{state: "Running"}, time.Second); s != "web will not be Running: it is Stopped (the guest's kernel panicked)\n  line 1\n  line [31m2" {
		t.Errorf("%q", s)
	}
}

// Ctrl-C ends a command with 130, or as it ends a program that knows nothing of it.
func TestInterrupt(t *testing.T) {
	d := newDaemon(t)
	asked := make(chan struct{})
	d.answer("GET /instances/web", fleet()[0])
	d.mux.HandleFunc("GET /instances/aaaa/wait", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
		close(asked)
		<-r.Context().Done()
	})
	go func() {
		<-asked
		syscall.Kill(os.Getpid(), syscall.SIGINT)
	}()
	var raised os.Signal
	d.raise = func(sig os.Signal) { raised = sig }
	if code, _, stderr := d.hale("wait", "web", "--healthy"); code != exitInterrupted || stderr != "" || raised != syscall.SIGINT {
		t.Errorf("exit %d, %q, raised %v", code, stderr, raised)
	}
}
