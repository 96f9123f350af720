package shim

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/halevm/hale/internal/shim/protocol"
)

// uids asks for the owner of each name below dir.
func uids(t *testing.T, dir string, names ...string) []int {
	t.Helper()
	var got []int
	for _, n := range names {
		st, err := os.Lstat(filepath.Join(dir, n))
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, int(st.Sys().(*syscall.Stat_t).Uid))
	}
	return got
}

// Whatever lies in a machine's directory, a next shim finds empty directories and the logs that are logs.
func TestMakeTidies(t *testing.T) {
	dir := t.TempDir()
	d := &runDir{path: filepath.Join(dir, "vm")}
	vm, err := d.make()
	if err != nil {
		t.Fatal(err)
	}
	vm.Close()
	outside := filepath.Join(dir, "outside")
	err = errors.Join(
		os.Mkdir(outside, 0o700), os.WriteFile(outside+"/app.log", []byte("mine"), 0o600),
		os.WriteFile(d.path+"/log/app.log", []byte("a line\n"), 0o600),
		os.Symlink(outside+"/app.log", d.path+"/log/app.log.1"),
		os.Link(outside+"/app.log", d.path+"/log/vmm.log"),
		syscall.Mkfifo(d.path+"/log/vmm.log.1", 0o600),
		os.MkdirAll(d.path+"/log/app.log.2/deep", 0o700),
		os.WriteFile(d.path+"/run/exit.json", nil, 0o600),
		os.MkdirAll(d.path+"/run/a/b", 0o700),
		os.Symlink(outside, d.path+"/run/link"),
		os.Chmod(d.path+"/log", 0o777),
	)
	if err != nil {
		t.Fatal(err)
	}
	if vm, err = d.make(); err != nil {
		t.Fatal(err)
	}
	defer vm.Close()
	tree := func() []string {
		var names []string
		filepath.WalkDir(d.path, func(path string, e fs.DirEntry, err error) error {
			names = append(names, strings.TrimPrefix(path, d.path))
			return err
		})
		return names
	}
	if got := tree(); !slices.Equal(got, []string{"", "/log", "/log/app.log", "/run"}) {
		t.Errorf("there is %q", got)
	}
	if st, err := os.Stat(d.path + "/log"); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("the logs' directory: %v, %v", st.Mode(), err)
	}
	if b, err := os.ReadFile(outside + "/app.log"); err != nil || string(b) != "mine" {
		t.Errorf("what lies outside holds %q, %v", b, err)
	}

	// Directories that are none.
	for _, name := range []string{"log", "run"} {
		if err := errors.Join(os.RemoveAll(filepath.Join(d.path, name)), os.Symlink(outside, filepath.Join(d.path, name))); err != nil {
			t.Fatal(err)
		}
	}
	again, err := d.make()
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if got := tree(); !slices.Equal(got, []string{"", "/log", "/run"}) {
		t.Errorf("there is %q", got)
	}
	if names, err := os.ReadDir(outside); err != nil || len(names) != 1 {
		t.Errorf("outside there is %v, %v", names, err)
	}

	// And the directory itself.
	if err := errors.Join(os.RemoveAll(d.path), os.Symlink(outside, d.path)); err != nil {
		t.Fatal(err)
	}
	if vm, err := d.make(); err == nil {
		vm.Close()
		t.Error("a link in the directory's place was followed")
	}
}

func TestGiveTo(t *testing.T) {
	d := &runDir{path: filepath.Join(t.TempDir(), "vm")}
	vm, err := d.make()
	if err != nil {
		t.Fatal(err)
	}
	defer vm.Close()
	if err := errors.Join(os.WriteFile(d.path+"/log/app.log", nil, 0o600), os.WriteFile(d.path+"/rw.ext4", nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	me := os.Getuid()
	names := []string{".", "run", "log", "log/app.log", "rw.ext4"}
	if err := giveTo(vm, 0); err != nil {
		t.Fatal(err)
	}
	if got := uids(t, d.path, names...); !slices.Equal(got, []int{me, me, me, me, me}) {
		t.Errorf("the daemon's own: %v", got)
	}
	const other = 0x7a000001
	err = giveTo(vm, other)
	if me != 0 {
		if !errors.Is(err, fs.ErrPermission) {
			t.Errorf("an ordinary user gives away: %v", err)
		}
		return
	}
	if got := uids(t, d.path, names...); err != nil || !slices.Equal(got, []int{0, other, other, other, 0}) {
		t.Errorf("a machine's: %v, %v", got, err)
	}
	again, err := d.make()
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if got := uids(t, d.path, names[:3]...); !slices.Equal(got, []int{0, 0, 0}) {
		t.Errorf("taken back: %v", got)
	}
}

func TestOwnerComesBack(t *testing.T) {
	instances := t.TempDir()
	dirs := map[string]*runDir{}
	for i, name := range []string{"a", "b", "c"} {
		if err := os.Mkdir(filepath.Join(instances, name), 0o700); err != nil {
			t.Fatal(err)
		}
		dirs[name] = &runDir{path: filepath.Join(instances, name, "vm")}
		if name == "c" {
			break
		}
		if err := dirs[name].writeOwner(owner{UID: uint32(100 + i)}); err != nil {
			t.Fatal(err)
		}
	}
	if o := readOwner(dirs["b"].ownerPath()); o.UID != 101 {
		t.Errorf("got %+v", o)
	}
	if o := readOwner(dirs["c"].ownerPath()); o.UID != 0 {
		t.Errorf("where there is none: %+v", o)
	}
	if n := dirs["a"].neighbours(); len(n) != 1 || !n[101] {
		t.Errorf("the neighbours of a: %v", n)
	}
	if n := dirs["c"].neighbours(); len(n) != 2 {
		t.Errorf("the neighbours of c: %v", n)
	}
	if err := os.WriteFile(dirs["b"].ownerPath(), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if o := readOwner(dirs["b"].ownerPath()); o.UID != 0 {
		t.Errorf("where it is damaged: %+v", o)
	}
}

// The secret alone is not enough: a hypervisor has the machine's uid, and the daemon has not.
func TestAnotherUIDIsNotServed(t *testing.T) {
	d := &runDir{path: filepath.Join(t.TempDir(), "vm")}
	vm, err := d.make()
	if err != nil {
		t.Fatal(err)
	}
	defer vm.Close()
	s, err := listen(filepath.Join(d.path, socketName), secret, os.Getuid()+1)
	if err != nil {
		t.Fatal(err)
	}
	s.serve(&player{}, protocol.Welcome{})
	t.Cleanup(s.close)
	conn, _, err := d.dial(t.Context(), record{PID: os.Getpid(), Secret: secret}, protocol.Hello{Role: protocol.RoleControl})
	if err == nil {
		conn.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "is not served") {
		t.Errorf("it is answered %v", err)
	}
}

// The writable layer is made once, whole or not at all, and never elsewhere.
func TestUpper(t *testing.T) {
	if _, err := lookMke2fs(); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	vm, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer vm.Close()
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, upperName+".next")); err != nil {
		t.Fatal(err)
	}
	f, err := openUpper(t.Context(), vm, 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	st, err := os.Lstat(filepath.Join(dir, upperName))
	if err != nil || !st.Mode().IsRegular() || st.Size() != 64<<20 || st.Mode().Perm() != 0o600 {
		t.Errorf("it is %v of %d bytes, %v", st.Mode(), st.Size(), err)
	}
	f, err = openUpper(t.Context(), vm, 64<<20) // the second start
	if err != nil {
		t.Fatal(err)
	}
	if again, err := f.Stat(); err != nil || !os.SameFile(st, again) {
		t.Errorf("at the second start: %v, %v", again, err)
	}
	f.Close()
	if err := errors.Join(os.Remove(filepath.Join(dir, upperName)), os.Symlink(outside, filepath.Join(dir, upperName))); err != nil {
		t.Fatal(err)
	}
	if f, err := openUpper(t.Context(), vm, 64<<20); err == nil {
		f.Close()
		t.Error("a link in its place was followed")
	}
	if err := os.Remove(filepath.Join(dir, upperName)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if f, err := openUpper(ctx, vm, 64<<20); err == nil {
		f.Close()
		t.Error("it was made although nobody wanted it any more")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("half-made, it left %v, %v", left, err)
	}
	if b, err := os.ReadFile(outside); err != nil || string(b) != "mine" {
		t.Errorf("what lies outside holds %q, %v", b, err)
	}
}
