// Package drivertest says what a driver of machines must do, as a test that every driver passes: the fake in the unit
// tests, the real one in test/e2e.
package drivertest

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/instance"
	"github.com/halevm/hale/internal/machine"
)

// A Program is a behaviour that a test wants of a machine's program.
type Program string

// The programs.
const (
	Sleep    Program = "sleep"     // runs until it is asked to stop, and ends then, with any code
	Exit3    Program = "exit 3"    // ends at once with code 3
	NotFound Program = "not found" // there is no such file in the image
	Hang     Program = "hang"      // runs, and ignores its stop signal
)

// An Env is what a test is given.
type Env struct {
	Driver instance.Driver
	// Config makes the config of a machine of its own, with an empty directory of its own and without published ports, whose program behaves as p
	// says. Its guest has sh, cat, echo and sleep in its PATH, and a file /etc/hostname.
	Config func(t *testing.T, p Program) machine.Config
	// Patience is the longest that a boot, a stop or a kill may take here. Zero: 10 s.
	Patience time.Duration
	// Keeps are patterns (path.Match) of what may lie in a machine's directory when it is gone, beside log/* and rw.ext4.
	Keeps []string
}

// Test runs the conformance test. new is called once for each machine.
func Test(t *testing.T, new func(t *testing.T) Env) {
	t.Run("life", func(t *testing.T) { testLife(t, begin(t, new(t), Sleep)) })
	t.Run("program exits", func(t *testing.T) { testExit(t, begin(t, new(t), Exit3)) })
	t.Run("program not found", func(t *testing.T) { testNotFound(t, begin(t, new(t), NotFound)) })
	t.Run("kill", func(t *testing.T) { testKill(t, begin(t, new(t), Sleep)) })
	t.Run("kill at once", func(t *testing.T) { testKillAtOnce(t, begin(t, new(t), Sleep)) })
	t.Run("program hangs", func(t *testing.T) { testHang(t, begin(t, new(t), Hang)) })
}

// A run is one machine under test.
type run struct {
	env Env
	dir string
	m   instance.Machine
	// exited is set when the last notice came.
	exited *machine.Exit
	// networkUp is set when that notice came.
	networkUp bool
}

func begin(t *testing.T, env Env, p Program) *run {
	t.Helper()
	if env.Patience <= 0 {
		env.Patience = 10 * time.Second
	}
	c := env.Config(t, p)
	ctx, cancel := context.WithTimeout(t.Context(), env.Patience)
	defer cancel()
	m, err := env.Driver.Start(ctx, c)
	if err != nil {
		t.Fatalf("start: %v", err)
	}
	r := &run{env: env, dir: c.Dir, m: m}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), env.Patience)
		defer cancel()
		if err := m.Kill(ctx); err != nil {
			t.Errorf("kill after the test: %v", err)
		}
	})
	return r
}

func (r *run) context(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeoutCause(t.Context(), r.env.Patience, errors.New("the test's patience is over"))
	t.Cleanup(cancel)
	return ctx
}

// next returns the next notice.
func (r *run) next(t *testing.T) machine.Notice {
	t.Helper()
	select {
	case n, ok := <-r.m.Notices():
		if !ok {
			t.Fatal("the notices ended without Exited")
		}
		if n.Kind == machine.NetworkUp { // may come anywhere, once
			if r.networkUp {
				t.Errorf("notice %s again", n.Kind)
			}
			r.networkUp = true
			return r.next(t)
		}
		if n.Time.IsZero() {
			t.Errorf("notice %s has no time", n.Kind)
		}
		if n.Kind == machine.Exited {
			r.exited = &n.Exit
		}
		return n
	case <-time.After(r.env.Patience):
		t.Fatalf("no notice within %s", r.env.Patience)
		panic("unreachable")
	}
}

// up waits for the program's start.
func (r *run) up(t *testing.T) {
	t.Helper()
	for _, want := range []machine.NoticeKind{machine.AgentReady, machine.Started} {
		if n := r.next(t); n.Kind != want {
			t.Fatalf("notice %s (%+v), want %s", n.Kind, n.Exit, want)
		}
	}
}

// end waits for the exit, and checks what is left of the machine then.
func (r *run) end(t *testing.T) machine.Exit {
	t.Helper()
	for r.exited == nil {
		r.next(t)
	}
	if n, ok := <-r.m.Notices(); ok {
		t.Errorf("notice %s after Exited", n.Kind)
	}
	if r.exited.Time.IsZero() {
		t.Error("the exit has no time")
	}
	r.checkGone(t)
	r.checkDir(t)
	return *r.exited
}

// checkGone asks a machine that is gone for everything: errors, no panics.
func (r *run) checkGone(t *testing.T) {
	t.Helper()
	ctx := r.context(t)
	if err := r.m.Kill(ctx); err != nil {
		t.Errorf("kill of a machine that is gone: %v", err)
	}
	_ = r.m.Stop(ctx, time.Second) // an error or not
	if x, ok := r.m.(instance.Execer); ok {
		if _, err := x.Exec(ctx, machine.ExecRequest{Argv: []string{"true"}}); err == nil {
			t.Error("exec in a machine that is gone succeeds")
		}
	}
	if s, ok := r.m.(instance.Stater); ok {
		if _, err := s.Stat(ctx, "/", true); err == nil {
			t.Error("stat in a machine that is gone succeeds")
		}
	}
	if s, ok := r.m.(instance.Meter); ok {
		if _, err := s.Stats(ctx); err == nil {
			t.Error("stats of a machine that is gone succeed")
		}
	}
}

func (r *run) checkDir(t *testing.T) {
	t.Helper()
	keeps := append([]string{"log", "log/*", "rw.ext4"}, r.env.Keeps...)
	err := filepath.WalkDir(r.dir, func(name string, e fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(r.dir, name)
		if err != nil || rel == "." {
			return err
		}
		if !e.IsDir() && !e.Type().IsRegular() {
			t.Errorf("left in the machine's directory: %s, %s", rel, e.Type())
		}
		for _, k := range keeps {
			if ok, _ := path.Match(k, rel); ok {
				return nil
			}
		}
		t.Errorf("left in the machine's directory: %s", rel)
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func testLife(t *testing.T, r *run) {
	r.up(t)
	r.testExec(t)
	r.testStat(t)
	if m, ok := r.m.(instance.Meter); ok {
		if s, err := m.Stats(r.context(t)); err != nil || s.RSS <= 0 || s.CPU <= 0 {
			t.Errorf("stats %+v, %v", s, err)
		}
	}
	for range 2 { // asked twice is asked once
		if err := r.m.Stop(r.context(t), 30*time.Second); err != nil { // which only one that hangs takes
			t.Fatalf("stop: %v", err)
		}
	}
	e := r.end(t)
	if e.Reason != machine.Stopped || e.Code == nil {
		t.Errorf("exit %+v, want stopped with a code", e)
	}
}

func (r *run) testExec(t *testing.T) {
	x, ok := r.m.(instance.Execer)
	if !ok {
		t.Fatal("the machine runs no programs")
	}
	for _, tt := range []struct {
		name        string
		req         machine.ExecRequest
		stdin       string
		out, errOut string
		code        int
	}{
		{"output", machine.ExecRequest{Argv: []string{"echo", "hello", "you"}}, "", "hello you\n", "", 0},
		{"error output", machine.ExecRequest{Argv: []string{"sh", "-c", "echo oops >&2"}}, "", "", "oops\n", 0},
		{"exit code", machine.ExecRequest{Argv: []string{"sh", "-c", "exit 3"}}, "", "", "", 3},
		{"input", machine.ExecRequest{Argv: []string{"cat"}, Stdin: true}, "one\ntwo\n", "one\ntwo\n", "", 0},
		{"no input", machine.ExecRequest{Argv: []string{"cat"}}, "", "", "", 0},
		{"directory", machine.ExecRequest{Argv: []string{"pwd"}, Dir: "/etc"}, "", "/etc\n", "", 0},
		{"not found", machine.ExecRequest{Argv: []string{"/no/such/program"}}, "", "", "", 127},
	} {
		t.Run("exec "+tt.name, func(t *testing.T) {
			ctx := r.context(t)
			e, err := x.Exec(ctx, tt.req)
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close()
			if tt.req.Stdin {
				go func() {
					_, _ = io.WriteString(e.Stdin(), tt.stdin)
					_ = e.Stdin().Close()
				}()
			}
			errOut := make(chan string, 1)
			go func() {
				b, _ := io.ReadAll(e.Stderr())
				errOut <- string(b)
			}()
			out, err := io.ReadAll(e.Stdout())
			if err != nil {
				t.Errorf("read: %v", err)
			}
			exit, err := e.Wait(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if exit.Code != tt.code || exit.TimedOut || (exit.Error != "") != (tt.code == 127) {
				t.Errorf("exit %+v, want code %d", exit, tt.code)
			}
			if got := <-errOut; string(out) != tt.out || got != tt.errOut {
				t.Errorf("printed %q and %q, want %q and %q", out, got, tt.out, tt.errOut)
			}
		})
	}
	t.Run("exec captured", func(t *testing.T) {
		exit := wait(t, r, x, machine.ExecRequest{Argv: []string{"echo", "0123456789"}, Capture: 4})
		if exit.Code != 0 || string(exit.Output) != "789\n" {
			t.Errorf("exit %+v, want the last 4 bytes", exit)
		}
	})
	t.Run("exec timeout", func(t *testing.T) {
		exit := wait(t, r, x, machine.ExecRequest{Argv: []string{"sleep", "600"}, Timeout: 200 * time.Millisecond, Capture: 1})
		if !exit.TimedOut || exit.Code != 124 || exit.Duration < 100*time.Millisecond {
			t.Errorf("exit %+v, want timed out with 124", exit)
		}
	})
	t.Run("exec signal", func(t *testing.T) {
		ctx := r.context(t)
		e, err := x.Exec(ctx, machine.ExecRequest{Argv: []string{"sleep", "600"}})
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		go func() { _, _ = io.Copy(io.Discard, e.Stderr()) }()
		if err := e.Signal(ctx, "SIGKILL"); err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, e.Stdout())
		exit, err := e.Wait(ctx)
		if err != nil || exit.Code != 137 || exit.Signal != "SIGKILL" {
			t.Errorf("exit %+v, %v; want 137 by SIGKILL", exit, err)
		}
	})
	t.Run("exec closed", func(t *testing.T) {
		e, err := x.Exec(r.context(t), machine.ExecRequest{Argv: []string{"sleep", "600"}, Stdin: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		if _, err := e.Stdin().Write([]byte("x")); err == nil {
			t.Error("wrote to a command that was closed")
		}
	})
}

// wait runs a command without streams.
func wait(t *testing.T, r *run, x instance.Execer, req machine.ExecRequest) machine.ExecExit {
	t.Helper()
	ctx := r.context(t)
	e, err := x.Exec(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	exit, err := e.Wait(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return exit
}

func (r *run) testStat(t *testing.T) {
	s, ok := r.m.(instance.Stater)
	if !ok {
		t.Fatal("the machine looks at no paths")
	}
	for _, tt := range []struct {
		path              string
		exists, dir, file bool
	}{
		{"/", true, true, false},
		{"/etc", true, true, false},
		{"/etc/hostname", true, false, true},
		{"/no/such/file", false, false, false},
	} {
		i, err := s.Stat(r.context(t), tt.path, true)
		if err != nil || i.Exists != tt.exists || i.IsDir != tt.dir || i.IsFile != tt.file {
			t.Errorf("stat %s: %+v, %v", tt.path, i, err)
		}
	}
}

func testExit(t *testing.T, r *run) {
	r.up(t)
	e := r.end(t)
	if e.Reason != machine.ProgramExited || e.Code == nil || *e.Code != 3 || !e.Reason.GuestFault() {
		t.Errorf("exit %+v, want the program's, with code 3", e)
	}
}

func testNotFound(t *testing.T, r *run) {
	if n := r.next(t); n.Kind != machine.AgentReady {
		t.Fatalf("notice %s (%+v), want %s", n.Kind, n.Exit, machine.AgentReady)
	}
	if n := r.next(t); n.Kind != machine.Exited {
		t.Fatalf("notice %s, want %s: nothing was started", n.Kind, machine.Exited)
	}
	e := r.end(t)
	if e.Reason != machine.ProgramFailed || e.Code == nil || *e.Code != 127 || e.Message == "" || strings.Contains(e.Message, "\n") {
		t.Errorf("exit %+v, want program_failed with 127 and one line that says why", e)
	}
}

func testKill(t *testing.T, r *run) {
	r.up(t)
	if err := r.m.Kill(r.context(t)); err != nil {
		t.Fatal(err)
	}
	if e := r.end(t); e.Reason != machine.Killed {
		t.Errorf("exit %+v, want killed", e)
	}
}

func testKillAtOnce(t *testing.T, r *run) {
	if err := r.m.Stop(r.context(t), time.Second); err != nil && !errors.Is(err, api.InvalidState) {
		t.Errorf("stop before the agent is there: %v, want none or of kind %s", err, api.InvalidState)
	}
	if err := r.m.Kill(r.context(t)); err != nil {
		t.Fatal(err)
	}
	if e := r.end(t); e.Reason != machine.Killed {
		t.Errorf("exit %+v, want killed", e)
	}
}

func testHang(t *testing.T, r *run) {
	r.up(t)
	begun := time.Now()
	const grace = 500 * time.Millisecond
	if err := r.m.Stop(r.context(t), grace); err != nil {
		t.Fatal(err)
	}
	e := r.end(t)
	if took := time.Since(begun); took < grace {
		t.Errorf("ended after %s, within the grace period of %s", took, grace)
	}
	switch {
	case e.Reason == machine.Killed:
	case e.Reason == machine.Stopped && e.Code != nil && *e.Code == 137:
	default:
		t.Errorf("exit %+v, want killed, or stopped with 137", e)
	}
}
