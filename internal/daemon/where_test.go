package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/halevm/hale/internal/store"
)

// What a daemon wrote down counts as long as that daemon lives: at its address somebody else may listen after it, and is to get no token.
func TestFind(t *testing.T) {
	dir := t.TempDir()
	root, err := store.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if _, err := Find(dir); !errors.Is(err, ErrNone) {
		t.Errorf("nothing is written down: %v", err)
	}
	if err := writeWhere(dir, "http://127.0.0.1:4973"); err != nil {
		t.Fatal(err)
	}
	if _, err := Find(dir); !errors.Is(err, ErrNone) {
		t.Errorf("there is no lock: %v", err)
	}
	lock, err := root.Lock(lockFile)
	if err != nil {
		t.Fatal(err)
	}
	if w, err := Find(dir); err != nil || w.URL != "http://127.0.0.1:4973" || w.PID != os.Getpid() {
		t.Errorf("it runs: %+v, %v", w, err)
	}
	if err := os.WriteFile(filepath.Join(dir, lockFile), []byte("1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if w, err := Find(dir); err == nil || errors.Is(err, ErrNone) || !strings.Contains(err.Error(), "process 1") {
		t.Errorf("the next one has not written down where it is: %+v, %v", w, err)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	if w, err := Find(dir); !errors.Is(err, ErrNone) {
		t.Errorf("it was killed: %+v, %v", w, err)
	}
	if lock, err = root.Lock(lockFile); err != nil {
		t.Errorf("who looks holds nothing: %v", err)
	}
	lock.Close()
}
