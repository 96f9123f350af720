package slack

import (
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A process has the slack that Start was told, one that is started beside it ours.
func TestSlack(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := Set(Probing); err != nil {
		t.Fatal(err)
	}
	defer Set(Ordinary)
	if got := started(t, (*exec.Cmd).Start); got != Probing {
		t.Errorf("a process that we start has %v, not %v", got, Probing)
	}
	if got := started(t, func(c *exec.Cmd) error { return Start(Ordinary, c.Start) }); got != Ordinary {
		t.Errorf("one that is started with the ordinary one has %v, not %v", got, Ordinary)
	}
	if got := Own(); got != Probing {
		t.Errorf("our own is %v, not %v", got, Probing)
	}
	if got := started(t, (*exec.Cmd).Start); got != Probing {
		t.Errorf("after that, a process that we start has %v, not %v", got, Probing)
	}
}

// started is the slack of a process, as it sees it itself.
func started(t *testing.T, start func(*exec.Cmd) error) time.Duration {
	t.Helper()
	cmd := exec.Command("cat", "/proc/self/timerslack_ns")
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	if err := start(cmd); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	ns, err := strconv.Atoi(strings.TrimSpace(out.String()))
	if err != nil {
		t.Fatal(err)
	}
	return time.Duration(ns)
}

// Work that overlaps has the ordinary slack until the last of it has ended; an end that comes twice ends nothing else.
func TestWork(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := Set(Probing); err != nil {
		t.Fatal(err)
	}
	defer Set(Ordinary)
	is := func(want time.Duration) {
		t.Helper()
		if got := started(t, (*exec.Cmd).Start); got != want {
			t.Errorf("%v, want %v", got, want)
		}
	}
	first, second := Work(), Work()
	is(Ordinary)
	first()
	first()
	is(Ordinary)
	second()
	is(Probing)
}
