package daemon

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// On a full disk a daemon starts, for it is with one that room is made: it says where it is once it can, and what a daemon that was killed
// had said is not believed until then.
func TestAFullDiskKeepsNoDaemonFromStarting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		path := filepath.Join(dir, WhereFile)
		if err := writeWhere(dir, "http://127.0.0.1:1"); err != nil {
			t.Fatal(err)
		}
		var full atomic.Bool
		full.Store(true)
		d := &Daemon{log: slog.New(slog.DiscardHandler)}
		forget, err := d.tell(t.Context(), path, func() error {
			if full.Load() {
				return &os.PathError{Op: "write", Path: path, Err: syscall.ENOSPC}
			}
			return writeWhere(dir, "http://127.0.0.1:2")
		})
		if err != nil {
			t.Fatal(err)
		}
		there := func(want bool) {
			t.Helper()
			time.Sleep(2 * loopPause)
			synctest.Wait()
			if _, err := os.Stat(path); (err == nil) != want {
				t.Errorf("%v, want it there: %v", err, want)
			}
		}
		there(false)
		full.Store(false)
		there(true)
		forget()
		there(false)
		refused := errors.New("a read-only file system")
		if _, err := d.tell(t.Context(), path, func() error { return refused }); !errors.Is(err, refused) {
			t.Errorf("told of %v", err)
		}
	})
}
