package shim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/health"
	"github.com/halevm/hale/internal/machine"
	"github.com/halevm/hale/internal/shim/protocol"
)

// oldShimEnv makes a process of this test a shim of before; it says which version it answers with.
const oldShimEnv = "HALE_TEST_OLD_SHIM"

func TestMain(m *testing.M) {
	if v := os.Getenv(oldShimEnv); v != "" {
		if err := oldShim(v); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// oldShim is what a shim of version 1 does, in words of its own: no lines for the log, no credit for an exec, fewer methods, and
// whatever it does not know ends the connection. One of version 2 grants credit.
func oldShim(version string) error {
	ln, err := net.Listen("unix", socketName)
	if err != nil {
		return err
	}
	fmt.Println("here")
	ended := make(chan bool)
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go oldConverse(conn, version, ended)
		}
	}()
	select {
	case <-ended:
	case <-time.After(time.Minute):
	}
	return os.Remove(socketName)
}

// oldConverse serves one connection; the JSON is as it lay on the wire.
func oldConverse(conn net.Conn, version string, ended chan<- bool) {
	defer conn.Close()
	say := func(k protocol.Kind, text string) { protocol.Write(conn, k, []byte(text)) }
	var hello struct {
		MinVersion int `json:"min_version"`
		Secret     string
		Role       string
	}
	kind, b, err := protocol.Read(conn)
	if err != nil || kind != protocol.KindHello || json.Unmarshal(b, &hello) != nil || hello.Secret != secret || hello.MinVersion > 1 {
		return
	}
	if version == "none" {
		say(protocol.KindWelcome, `{"version":3,"build":"","pid":0,"vmm":0,"error":{"kind":"unsupported","message":"the shim speaks versions 7 to 9, the client 1 to 3"}}`)
		return
	}
	say(protocol.KindWelcome, fmt.Sprintf(`{"version":%s,"build":"old","pid":%d}`, version, os.Getpid()))
	if hello.Role == "exec" {
		if version == "2" {
			say(protocol.KindCredit, `{"bytes":1048576}`)
		}
		oldExec(conn, say)
		return
	}
	say(protocol.KindNotice, `{"kind":"agent_ready"}`)
	say(protocol.KindNotice, `{"kind":"started"}`)
	for {
		kind, b, err := protocol.Read(conn)
		var r struct {
			ID     int
			Method string
		}
		if err != nil || kind != protocol.KindRequest || json.Unmarshal(b, &r) != nil {
			return
		}
		switch r.Method {
		case "probe":
			say(protocol.KindReply, fmt.Sprintf(`{"id":%d,"result":{"outcome":"success"}}`, r.ID))
		case "stop":
			say(protocol.KindReply, fmt.Sprintf(`{"id":%d}`, r.ID))
			say(protocol.KindNotice, `{"kind":"exited","exit":{"reason":"stopped","code":143}}`)
			ended <- true
			return
		default:
			say(protocol.KindReply, fmt.Sprintf(`{"id":%d,"error":{"kind":"unimplemented","message":"this shim knows no method"}}`, r.ID))
		}
	}
}

// oldExec gives back its input.
func oldExec(conn net.Conn, say func(protocol.Kind, string)) {
	for {
		kind, b, err := protocol.Read(conn)
		if err != nil || kind != protocol.KindStdin {
			return
		}
		if len(b) == 0 {
			say(protocol.KindExit, `{"exit":{"code":7}}`)
			return
		}
		say(protocol.KindStdout, string(b))
	}
}

const oldID = "a23456789012345678901234"

// startOldShim starts one, on record as a daemon of before left it.
func startOldShim(t *testing.T, version string) machine.Config {
	t.Helper()
	d := &runDir{path: filepath.Join(t.TempDir(), "vm")}
	vm, err := d.make()
	if err != nil {
		t.Fatal(err)
	}
	vm.Close()
	cmd := exec.Command("/proc/self/exe", Command, oldID)
	cmd.Args[0] = "hale"
	cmd.Dir, cmd.Env, cmd.Stderr = d.path, []string{oldShimEnv + "=" + version}, os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	if b := make([]byte, 5); second(io.ReadFull(out, b)) != nil {
		t.Fatal("it did not start")
	}
	start, err := startTimeOf(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	boot, err := bootID()
	if err != nil {
		t.Fatal(err)
	}
	// The record is what a daemon of before wrote, without what came later.
	record := fmt.Sprintf(`{"pid":%d,"start_time":%d,"boot_id":%q,"secret":%q,"build":"old"}`, cmd.Process.Pid, start, boot, secret)
	if err := os.WriteFile(d.recordPath(), []byte(record), 0o600); err != nil {
		t.Fatal(err)
	}
	return machine.Config{ID: oldID, Dir: d.path}
}

func second[T any](_ T, err error) error { return err }

// A daemon takes back the machine of a shim that speaks an older version, and has of it all that such a shim can do.
func TestOlderShimIsTakenBack(t *testing.T) {
	for _, version := range []string{"1", "2"} {
		t.Run(version, func(t *testing.T) { takeBack(t, version) })
	}
}

func takeBack(t *testing.T, version string) {
	c := startOldShim(t, version)
	l := NewLauncher(nil, "new", slog.New(slog.DiscardHandler))
	if trace, err := Look(filepath.Dir(c.Dir), c.ID); err != nil || !trace.Alive || !trace.Recorded {
		t.Errorf("its traces: %+v, %v", trace, err)
	}
	m, err := l.Recover(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	next := func() machine.Notice {
		t.Helper()
		select {
		case n := <-m.Notices():
			return n
		case <-time.After(time.Minute):
			t.Fatal("no notice came")
			return machine.Notice{}
		}
	}
	for _, want := range []machine.NoticeKind{machine.AgentReady, machine.Started} {
		if n := next(); n.Kind != want {
			t.Errorf("it tells %+v, want %s", n, want)
		}
	}
	if r := m.Probe(t.Context(), health.Policy{Timeout: 5 * time.Second}, func() { t.Error("it has no word for that") }); r.Outcome != health.Success {
		t.Errorf("a probe: %+v", r)
	}
	m.Watch(80) // no more than no hints comes of it
	if _, err := m.Stats(t.Context()); !errors.Is(err, api.Unimplemented) {
		t.Errorf("what it does not know: %v", err)
	}

	e, err := m.Exec(t.Context(), machine.ExecRequest{Argv: []string{"cat"}, Stdin: true})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	wrote := make(chan error, 1)
	go func() {
		_, err := e.Stdin().Write(sent)
		wrote <- errors.Join(err, e.Stdin().Close())
	}()
	got, err := io.ReadAll(e.Stdout())
	if err != nil || !bytes.Equal(got, sent) || <-wrote != nil {
		t.Errorf("an exec gave back %d of %d bytes, %v", len(got), len(sent), err)
	}
	if exit, err := e.Wait(t.Context()); err != nil || exit.Code != 7 {
		t.Errorf("the exec ended with %+v, %v", exit, err)
	}

	if err := m.Stop(t.Context(), time.Second); err != nil {
		t.Error(err)
	}
	if n := next(); n.Kind != machine.Exited || n.Exit.Reason != machine.Stopped || n.Exit.Code == nil || *n.Exit.Code != 143 {
		t.Errorf("at last it tells %+v", n)
	}
	if trace, err := Look(filepath.Dir(c.Dir), c.ID); err != nil || trace.Recorded {
		t.Errorf("after its end: %+v, %v", trace, err)
	}
}

// A shim that speaks no version that this daemon does, or one that was not offered, is not taken back, and not killed for it either:
// what it has running goes on, until a daemon comes that it speaks with or a person wants its end.
func TestAShimOfNoVersionInCommonIsLeftAlone(t *testing.T) {
	for version, says := range map[string]string{"none": "the shim speaks versions 7 to 9, the client 1 to 3", "0": "in version 0", "4": "in version 4 of the protocol, and was offered 1 to 3"} {
		t.Run(version, func(t *testing.T) {
			c := startOldShim(t, version)
			l := NewLauncher(nil, "new", slog.New(slog.DiscardHandler))
			l.silent.since = map[string]time.Time{c.ID: time.Now().Add(-time.Hour)}
			for range 2 {
				m, err := l.Recover(t.Context(), c)
				if !errors.Is(err, api.Unsupported) || errors.Is(err, api.NotFound) || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "of hale old") {
					t.Fatalf("%v, %v", m, err)
				}
				l.silent.since = map[string]time.Time{c.ID: time.Now().Add(-time.Hour)}
			}
			look := func() Trace {
				t.Helper()
				trace, err := Look(filepath.Dir(c.Dir), c.ID)
				if err != nil {
					t.Fatal(err)
				}
				return trace
			}
			if trace := look(); !trace.Alive {
				t.Errorf("its traces: %+v", trace)
			}
			if e, err := l.Kill(t.Context(), c); err != nil || e.Reason != machine.Killed || e.Time.IsZero() {
				t.Errorf("killed: %+v, %v", e, err)
			}
			if trace := look(); trace.Recorded || trace.Alive || len(l.silent.since) != 0 {
				t.Errorf("its traces: %+v, %v", trace, l.silent.since)
			}
			if e, err := l.Kill(t.Context(), c); !errors.Is(err, api.NotFound) {
				t.Errorf("killed again: %+v, %v", e, err)
			}
		})
	}
}

// A daemon of before, and one from the future, are served in the newest version that both speak.
func TestOtherDaemons(t *testing.T) {
	for _, tt := range []struct{ least, most, spoken int }{{1, 1, 1}, {1, 2, 2}, {1, 3, 3}, {1, 9, 3}, {3, 9, 3}} {
		t.Run(fmt.Sprint(tt.least, "-", tt.most), func(t *testing.T) {
			_, s, d := play(t)
			s.notify(machine.Notice{Kind: machine.AgentReady})
			s.voice().say(slog.LevelWarn, "a line")
			s.hint(80, true)
			conn, err := d.connect(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(time.Minute))
			var w protocol.Welcome
			hello := protocol.Hello{MinVersion: tt.least, MaxVersion: tt.most, Secret: secret, Role: protocol.RoleControl}
			if err := errors.Join(protocol.WriteJSON(conn, protocol.KindHello, hello), protocol.Expect(conn, protocol.KindWelcome, &w)); err != nil || w.Version != tt.spoken {
				t.Fatalf("%+v, %v: want version %d", w, err, tt.spoken)
			}
			if err := protocol.WriteJSON(conn, protocol.KindRequest, protocol.Request{ID: 1, Method: "begin", Params: json.RawMessage(`1`)}); err != nil {
				t.Fatal(err)
			}
			var kinds []string
			begun := false
			for replied := false; !replied || len(kinds) < tt.spoken; { // a line only from version 2 on, a hint from 3
				kind, b, err := protocol.Read(conn)
				if err != nil {
					t.Fatalf("after %v: %v", kinds, err)
				}
				var n machine.Notice
				switch kind {
				case protocol.KindReply:
					replied = true
				case protocol.KindBegun:
					var m protocol.Begun
					if err := json.Unmarshal(b, &m); err != nil || m.ID != 1 || replied || begun {
						t.Errorf("begun: %s, %v, after a reply: %v", b, err, replied)
					}
					begun = true
				case protocol.KindNotice:
					if err := json.Unmarshal(b, &n); err != nil {
						t.Fatal(err)
					}
					kinds = append(kinds, string(n.Kind))
				}
			}
			if told := slices.Contains(kinds, "told"); told != (tt.spoken >= protocol.VersionTold) {
				t.Errorf("it is told %v", kinds)
			}
			if hinted := slices.Contains(kinds, "hinted"); hinted != (tt.spoken >= protocol.VersionHinted) {
				t.Errorf("it is told %v", kinds)
			}
			if begun != (tt.spoken >= protocol.VersionBegun) {
				t.Errorf("it is told that the probe has begun: %v", begun)
			}
		})
	}
}
