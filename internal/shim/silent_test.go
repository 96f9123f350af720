package shim

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/machine"
)

// mute starts a process that looks like the shim of an instance and says nothing, with its record.
func mute(t *testing.T, id string) (*runDir, *exec.Cmd) {
	t.Helper()
	d := &runDir{path: filepath.Join(t.TempDir(), "vm")}
	vm, err := d.make()
	if err != nil {
		t.Fatal(err)
	}
	vm.Close()
	if err := unix.Mkfifo(filepath.Join(d.path, Command), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("cat", Command, id) // waits for a writer of the fifo
	cmd.Args[0], cmd.Dir = "hale", d.path
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	go cmd.Wait()
	start, err := startTimeOf(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	boot, err := bootID()
	if err != nil {
		t.Fatal(err)
	}
	// Until the exec has happened it looks like this test.
	for shim := false; !shim; {
		if shim, err = isShim(cmd.Process.Pid, id); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.writeRecord(record{PID: cmd.Process.Pid, StartTime: start, BootID: boot, Secret: secret}); err != nil {
		t.Fatal(err)
	}
	return d, cmd
}

func TestSilentShimIsGivenTime(t *testing.T) {
	const id = "abc"
	d, cmd := mute(t, id)
	l := NewLauncher(nil, "test", slog.New(slog.DiscardHandler))
	c := machine.Config{ID: id, Dir: d.path}
	for range 2 {
		m, err := l.Recover(t.Context(), c)
		if err == nil || errors.Is(err, api.NotFound) {
			t.Fatalf("recovered %v, %v", m, err)
		}
	}
	if shim, err := isShim(cmd.Process.Pid, id); !shim || err != nil {
		t.Fatalf("it was killed at once: %v", err)
	}
	if _, err := d.readRecord(); err != nil {
		t.Errorf("its record is gone: %v", err)
	}

	l.silent.since[id] = l.silent.since[id].Add(-silencePatience)
	_, err := l.Recover(t.Context(), c)
	ended, ok := errors.AsType[*Ended](err)
	if !ok || ended.Exit.Reason != machine.ShimFailed || !strings.Contains(ended.Exit.Message, "did not answer for 30s, and was killed") {
		t.Errorf("after its time: %v", err)
	}
	if shim, _ := isShim(cmd.Process.Pid, id); shim {
		t.Error("it lives")
	}
	if _, err := d.readRecord(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its record stays: %v", err)
	}
	if len(l.silent.since) != 0 {
		t.Errorf("%v", l.silent.since)
	}
}

// A record that cannot be read is in nobody's way: a shim that runs is found by its command line and can be killed, and one that does not has
// ended.
func TestUnreadableRecord(t *testing.T) {
	const id = "unreadable"
	d, cmd := mute(t, id)
	spoil := func() {
		t.Helper()
		if err := os.WriteFile(d.recordPath(), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	spoil()
	if found, err := Look(filepath.Dir(d.path), id); err != nil || !found.Recorded || found.Alive {
		t.Errorf("a person who looks finds %+v, %v", found, err)
	}
	l := NewLauncher(nil, "test", slog.New(slog.DiscardHandler))
	c := machine.Config{ID: id, Dir: d.path}
	if m, err := l.Recover(t.Context(), c); err == nil || errors.Is(err, api.NotFound) {
		t.Errorf("recovered %v, %v", m, err)
	}
	if e, err := l.Kill(t.Context(), c); err != nil || e.Reason != machine.Killed {
		t.Errorf("%+v, %v", e, err)
	}
	if shim, _ := isShim(cmd.Process.Pid, id); shim {
		t.Error("it lives")
	}
	spoil()
	if _, err := l.Recover(t.Context(), c); !errors.Is(err, api.NotFound) {
		t.Errorf("nobody runs: %v", err)
	}
	if _, err := d.readRecord(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its record stays: %v", err)
	}
}

// What keeps the daemon from looking is no word of the shim's end.
func TestOnlyWhatIsGoneHasEnded(t *testing.T) {
	for _, c := range []struct {
		err        error
		gone, ours bool
	}{
		{nil, false, false},
		{fmt.Errorf("process 7: %w", syscall.ESRCH), true, false},
		{&fs.PathError{Op: "open", Path: "/proc/7/stat", Err: syscall.ENOENT}, true, false},
		{fmt.Errorf("process 7: %w", errOtherProcess), true, false},
		{&fs.PathError{Op: "open", Path: "/proc/7/stat", Err: syscall.EMFILE}, false, true},
		{os.NewSyscallError("socket", syscall.ENFILE), false, true},
		{syscall.ENOMEM, false, true},
		{syscall.ECONNREFUSED, false, false},
	} {
		if got := gone(c.err); got != c.gone {
			t.Errorf("%v: gone %v", c.err, got)
		}
		if got := ours(t.Context(), c.err); got != c.ours {
			t.Errorf("%v: ours %v", c.err, got)
		}
	}
	over, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	<-over.Done()
	if !ours(over, errors.New("dial")) {
		t.Error("a daemon without time blames the shim")
	}
}
