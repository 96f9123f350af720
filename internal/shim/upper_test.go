package shim

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/halevm/hale/api"
)

const layerSize = 8 << 20

// Another file in the layer's place is not taken for it, and the refusal says what is wrong with it.
func TestReplacedLayer(t *testing.T) {
	if _, err := lookMke2fs(); err != nil {
		t.Skip(err)
	}
	d := &runDir{path: filepath.Join(t.TempDir(), "vm")}
	vm, err := d.make()
	if err != nil {
		t.Fatal(err)
	}
	defer vm.Close()
	layer := filepath.Join(d.path, upperName)
	openable := func(when, want string) {
		t.Helper()
		f, err := openUpper(t.Context(), vm, layerSize)
		if err == nil {
			f.Close()
		}
		if want == "" {
			if err != nil {
				t.Fatalf("%s: %v", when, err)
			}
		} else if !errors.Is(err, api.Conflict) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want a conflict that says %q", when, err, want)
		}
	}
	openable("at the first start", "")
	openable("at the second", "")
	for _, size := range []int64{layerSize + 1, layerSize - 1, 40 << 30} {
		if err := os.Truncate(layer, size); err != nil {
			t.Fatal(err)
		}
		openable(fmt.Sprint("with a size of ", size), fmt.Sprintf("%d bytes, not %d", size, layerSize))
	}
	if err := os.Truncate(layer, layerSize); err != nil {
		t.Fatal(err)
	}
	openable("as it was", "")
	if os.Geteuid() != 0 {
		return // to give a file away takes a capability
	}
	const other = 0x7a000001
	if err := os.Chown(layer, other, other); err != nil {
		t.Fatal(err)
	}
	openable("of another", fmt.Sprintf("belongs to uid %d, not %d", other, os.Geteuid()))
}

// The uid of a machine can neither remove the layer, nor put something in its place or beside it; it has its logs and its socket.
func TestLayerStaysTheDaemons(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to be another")
	}
	if _, err := lookMke2fs(); err != nil {
		t.Skip(err)
	}
	const other = 0x7a000001
	dir, err := os.MkdirTemp("", "hale-layer")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	d := &runDir{path: filepath.Join(dir, "vm")}
	vm, err := d.make()
	if err != nil {
		t.Fatal(err)
	}
	defer vm.Close()
	f, err := openUpper(t.Context(), vm, layerSize)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	layer := filepath.Join(d.path, upperName)
	// What a uid may do is asked in a thread of its own, which ends with it.
	attempts := func() map[string]error {
		return asAnother(t, other, map[string]func() error{
			"look":    func() error { _, err := os.ReadDir(d.path); return err },
			"unlink":  func() error { return os.Remove(layer) },
			"rename":  func() error { return os.Rename(layer, filepath.Join(d.path, runDirName, "was")) },
			"replace": func() error { return os.Rename(filepath.Join(d.path, runDirName), layer) },
			"beside":  func() error { return os.WriteFile(filepath.Join(d.path, "more"), nil, 0o600) },
			"open":    func() error { f, err := os.OpenFile(layer, os.O_RDWR, 0); f.Close(); return err },
			"log":     func() error { return os.WriteFile(filepath.Join(d.path, logDirName, "app.log"), nil, 0o600) },
			"run":     func() error { return os.WriteFile(filepath.Join(d.path, runDirName, "exit.json"), nil, 0o600) },
		})
	}
	if err := giveTo(vm, other); err != nil {
		t.Fatal(err)
	}
	for what, err := range attempts() {
		if allowed := what == "look" || what == "log" || what == "run"; allowed != (err == nil) || err != nil && !errors.Is(err, fs.ErrPermission) {
			t.Errorf("%s: %v", what, err)
		}
	}
	again, err := d.make()
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
	for what, err := range attempts() {
		if !errors.Is(err, fs.ErrPermission) {
			t.Errorf("%s, when the daemon has taken it back: %v", what, err)
		}
	}
}

// asAnother makes the attempts as uid.
func asAnother(t *testing.T, uid int, attempts map[string]func() error) map[string]error {
	t.Helper()
	done := make(chan map[string]error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread that is somebody else ends with this goroutine
		came := make(map[string]error)
		defer func() { done <- came }()
		for _, call := range [][4]uintptr{
			{syscall.SYS_SETGROUPS, 0, 0, 0},
			{syscall.SYS_SETRESGID, uintptr(uid), uintptr(uid), uintptr(uid)},
			{syscall.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)},
		} {
			if _, _, errno := syscall.RawSyscall(call[0], call[1], call[2], call[3]); errno != 0 {
				came["become another"] = errno
				return
			}
		}
		for what, attempt := range attempts {
			came[what] = attempt()
		}
	}()
	came := <-done
	// The kernel closed this process's /proc when one of its threads became somebody else.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0); err != nil {
		t.Error(err)
	}
	return came
}

// A layer that is larger than the file system's files can be is the caller's fault, and nothing is left of it.
func TestLayerTooLargeForTheFileSystem(t *testing.T) {
	signal.Ignore(syscall.SIGXFSZ)
	defer signal.Reset(syscall.SIGXFSZ)
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &was); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_FSIZE, &was)
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 1 << 40, Max: was.Max}); err != nil {
		t.Fatal(err)
	}
	vm, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer vm.Close()
	_, err = openUpper(t.Context(), vm, 1<<41)
	if e, ok := errors.AsType[*api.Error](err); !ok || !errors.Is(err, api.Invalid) || e.Details[0].Field != "overlay_size" {
		t.Errorf("%v", err)
	}
	if left, err := fs.ReadDir(vm.FS(), "."); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
}
