package shim

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/machine"
)

// How a machine ended is known also to the daemon after the one that was told of it, and died before it could say so: until the next start,
// which leaves nothing of it.
func TestAnEndIsKnownUntilTheNextStart(t *testing.T) {
	d := &runDir{path: filepath.Join(t.TempDir(), "vm")}
	l := NewLauncher(nil, "test", slog.New(slog.DiscardHandler))
	recovered := func() (*Ended, error) {
		m, err := l.Recover(t.Context(), machine.Config{ID: "abc", Dir: d.path})
		if m != nil || !errors.Is(err, api.NotFound) {
			t.Fatalf("%v, %v", m, err)
		}
		ended, _ := errors.AsType[*Ended](err)
		return ended, err
	}
	if ended, err := recovered(); ended != nil {
		t.Errorf("before there was any: %v", err)
	}
	for range 2 {
		vm, err := d.make()
		if err != nil {
			t.Fatal(err)
		}
		vm.Close()
		if ended, err := recovered(); ended != nil {
			t.Errorf("as one is started: %v", err)
		}
		if err := os.WriteFile(filepath.Join(d.path, exitName), []byte(`{"reason":"boot_timeout","silent":true}`), 0o600); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if ended, err := recovered(); ended == nil || ended.Exit.Reason != machine.BootTimeout || !ended.Exit.Silent {
				t.Errorf("after its end: %v", err)
			}
		}
	}
}
