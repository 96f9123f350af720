package store

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func open(t *testing.T) *Root {
	t.Helper()
	r, err := Open(filepath.Join(t.TempDir(), "data"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func names(t *testing.T, r *Root) []string {
	t.Helper()
	entries, err := r.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func TestWriteFile(t *testing.T) {
	r := open(t)
	for _, content := range []string{"first", "", "the third is longer than the first"} {
		if err := r.WriteFile("f", []byte(content)); err != nil {
			t.Fatal(err)
		}
		got, err := r.ReadFile("f", 100)
		if err != nil || string(got) != content {
			t.Fatalf("read %q, %v; want %q", got, err, content)
		}
	}
	if got := names(t, r); !slices.Equal(got, []string{"f"}) {
		t.Errorf("left in the directory: %q", got)
	}
	info, err := os.Stat(r.Path("f"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
}

func TestPrepare(t *testing.T) {
	r := open(t)
	if err := r.WriteFile("f", []byte("old")); err != nil {
		t.Fatal(err)
	}
	p, err := r.Prepare("f", []byte("new"))
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := r.ReadFile("f", 100); string(got) != "old" {
		t.Errorf("before Commit: %q", got)
	}
	p.Abort()
	if _, err := r.Prepared("f"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after Abort: %v", err)
	}
	if _, err := r.Prepare("f", []byte("new")); err != nil {
		t.Fatal(err)
	}
	p, err = r.Prepared("f") // as after a crash
	if err != nil {
		t.Fatal(err)
	}
	if got, err := p.Read(100); err != nil || string(got) != "new" {
		t.Errorf("prepared: %q, %v", got, err)
	}
	if err := p.Commit(); err != nil {
		t.Fatal(err)
	}
	if got, _ := r.ReadFile("f", 100); string(got) != "new" {
		t.Errorf("after Commit: %q", got)
	}
}

func TestWriteFileFails(t *testing.T) {
	r := open(t)
	if err := r.Mkdir("f"); err != nil {
		t.Fatal(err)
	}
	err := r.WriteFile("f", []byte("x"))
	if err == nil || !strings.Contains(err.Error(), "write "+r.Path("f")) {
		t.Errorf("a directory in the way: %v", err)
	}
	if err := r.WriteFile("missing/f", nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	if err := r.WriteFile("../f", nil); err == nil {
		t.Error("wrote outside the root")
	}
	if got := names(t, r); !slices.Equal(got, []string{"f"}) {
		t.Errorf("left in the directory: %q", got)
	}
	if !NoSpace(r.fail("write", "f", &fs.PathError{Op: "write", Path: "f", Err: syscall.ENOSPC})) {
		t.Error("a full disk is not seen through the wrapping")
	}
}

// What is no plain file is refused without following or waiting.
func TestReadFileRefuses(t *testing.T) {
	r := open(t)
	if err := os.WriteFile(r.Path("big"), make([]byte, 11), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("big", r.Path("link")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(r.Path("fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, unreadable := range map[string]bool{"big": true, "fifo": true, "link": true, "missing": false} {
		_, err := r.ReadFile(name, 10)
		if err == nil {
			t.Errorf("%s was read", name)
		}
		if _, ok := errors.AsType[*Unreadable](err); ok != unreadable {
			t.Errorf("%s: %v", name, err)
		}
	}
}

type thing struct {
	A int `json:"a"`
}

func TestJSON(t *testing.T) {
	r := open(t)
	if err := WriteJSON(r, "t.json", 3, thing{A: 7}); err != nil {
		t.Fatal(err)
	}
	got, err := ReadJSON[thing](r, "t.json", 3, 1000)
	if err != nil || got.A != 7 {
		t.Fatalf("read %v, %v", got, err)
	}
	if _, err := ReadJSON[thing](r, "none.json", 3, 1000); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
}

func TestJSONSetAside(t *testing.T) {
	whole, err := EncodeJSON(3, thing{A: 7})
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"torn":       whole[:len(whole)-4],
		"empty":      nil,
		"foreign":    []byte("not json"),
		"newer":      []byte(`{"version":4,"value":{"a":7}}`),
		"no version": []byte(`{"a":7}`),
		"too large":  append([]byte(`{"version":3,"value":{"a":7}}`), make([]byte, 2000)...),
		"other type": []byte(`{"version":3,"value":{"a":"x"}}`),
	} {
		t.Run(name, func(t *testing.T) {
			r := open(t)
			if err := os.WriteFile(r.Path("t.json"), data, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := ReadJSON[thing](r, "t.json", 3, 1000)
			bad, ok := errors.AsType[*Unreadable](err)
			if !ok || bad.Aside == "" {
				t.Fatalf("got %v, want it set aside", err)
			}
			if kept, err := os.ReadFile(bad.Aside); err != nil || string(kept) != string(data) {
				t.Errorf("set aside: %q, %v", kept, err)
			}
			if !IsAside(bad.Aside) {
				t.Errorf("%s is not seen as set aside", bad.Aside)
			}
			if ok, err := r.Exists("t.json"); ok || err != nil {
				t.Errorf("still there: %v, %v", ok, err)
			}
		})
	}
}

func TestSetAsideTwice(t *testing.T) {
	r := open(t)
	seen := map[string]bool{}
	for range 3 {
		if err := r.WriteFile("f", nil); err != nil {
			t.Fatal(err)
		}
		aside, err := r.SetAside("f")
		if err != nil || seen[aside] {
			t.Fatalf("%s, %v; seen %v", aside, err, seen)
		}
		seen[aside] = true
	}
}

func TestRemoveDir(t *testing.T) {
	r := open(t)
	if err := r.Mkdir("d"); err != nil {
		t.Fatal(err)
	}
	if err := r.Mkdir("d"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("made twice: %v", err)
	}
	if err := r.WriteFile("d/f", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := r.RemoveDir("d"); err != nil {
		t.Fatal(err)
	}
	if err := r.RemoveDir("d"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("removed twice: %v", err)
	}
	// A crash between the rename and the end of the deletion.
	if err := os.MkdirAll(r.Path(trashPrefix+"x/deep/er"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := r.Sweep("."); err != nil {
		t.Fatal(err)
	}
	if got := names(t, r); len(got) != 0 {
		t.Errorf("left: %q", got)
	}
}

func TestLock(t *testing.T) {
	r := open(t)
	l, err := r.Lock("lock")
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.Lock("lock")
	held, ok := errors.AsType[*LockedError](err)
	if !ok || held.PID != os.Getpid() {
		t.Fatalf("second: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l, err = r.Lock("lock")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}

func FuzzDecodeJSON(f *testing.F) {
	f.Add([]byte(`{"version":3,"value":{"a":7}}`))
	f.Add([]byte(`{"version":3}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := DecodeJSON[thing](3, data)
		if err != nil {
			return
		}
		again, err := EncodeJSON(3, v)
		if err != nil {
			t.Fatal(err)
		}
		if w, err := DecodeJSON[thing](3, again); err != nil || w != v {
			t.Fatalf("%v became %v, %v", v, w, err)
		}
	})
}

// The temporary file of a secret lies beside it, whatever the system's directory for temporary files is.
func TestWriteFileStaysInItsDirectory(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	t.Setenv("TMPDIR", elsewhere)
	long := time.Unix(1_000_000_000, 0) // ago: whatever is made or removed there changes it
	if err := os.Chtimes(elsewhere, long, long); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "secret")
	if err := os.WriteFile(path, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(path, []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil || string(b) != "new" {
		t.Errorf("%q, %v", b, err)
	}
	if after, err := os.Stat(elsewhere); err != nil || !after.ModTime().Equal(long) {
		t.Errorf("something was made in %s: %v", elsewhere, err)
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) != 1 {
		t.Errorf("%v, %v", names, err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
}
