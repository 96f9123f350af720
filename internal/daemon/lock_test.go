package daemon

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/halevm/hale/internal/store"
)

// A daemon that was killed may leave a child that holds the lock for a moment; a daemon that lives is told of at once.
func TestLockOfADaemonThatHasEnded(t *testing.T) {
	dir := t.TempDir()
	root, err := store.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	says := func(pid int) {
		t.Helper()
		if err := os.WriteFile(f.Name(), []byte(strconv.Itoa(pid)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	says(os.Getpid())
	if _, err := lockDir(t.Context(), root, dir); err == nil || !strings.Contains(err.Error(), "process "+strconv.Itoa(os.Getpid())) {
		t.Errorf("beside a daemon: %v", err)
	}
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	says(gone.Process.Pid)
	time.AfterFunc(50*time.Millisecond, func() { f.Close() })
	lock, err := lockDir(t.Context(), root, dir)
	if err != nil {
		t.Fatalf("after the end of what a daemon left: %v", err)
	}
	lock.Close()
}
