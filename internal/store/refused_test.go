package store

import (
	"bytes"
	"errors"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// However often a draft and the file are refused, the draft that was written last is read.
func TestDraftsOfAFullDisk(t *testing.T) {
	r, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	const size = 1 << 20 // larger than what the test's own files are, for the limit is the process's
	d := r.Drafted("x", time.Hour)
	for i := range 6 {
		if err := d.Write(bytes.Repeat([]byte{'a' + byte(i)}, size), false); err != nil {
			t.Fatal(err)
		}
	}
	signal.Ignore(syscall.SIGXFSZ)
	defer signal.Reset(syscall.SIGXFSZ)
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &was); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_FSIZE, &was)
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: size + size/2, Max: was.Max}); err != nil { // as a disk that is full: a part is written
		t.Fatal(err)
	}
	for i := range 3 {
		if err := d.Write(bytes.Repeat([]byte("x"), 2*size), false); err == nil {
			t.Fatal("it was not refused")
		}
		if got, err := d.Read(size); err != nil || got[0] != 'f' {
			t.Errorf("after %d that were refused %q is read, %v", i+1, got[:1], err)
		}
	}
}

// A file that was renamed, and whose directory could then not be synced, is not what drafts were written after: the next write counts all the same.
func TestDraftAfterASyncThatFailed(t *testing.T) {
	dir := t.TempDir()
	if os.Getuid() == 0 { // whom modes do not keep out
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		for d := dir; d != os.TempDir(); d = filepath.Dir(d) {
			if err := os.Chmod(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chown(dir, 65534, 65534); err != nil {
			t.Skip(err)
		}
		defer unix.SetfsuidRetUid(0)
		unix.SetfsuidRetUid(65534)
	}
	r, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	d := r.Drafted("x", time.Hour)
	write(t, d, "a")
	write(t, d, "b")
	os.Chmod(dir, 0o300) // it cannot be opened to be synced
	err = d.Write([]byte("c"), true)
	os.Chmod(dir, 0o700)
	if err == nil {
		t.Skip("it can be synced all the same")
	}
	write(t, d, "d")
	if got, err := d.Read(100); err != nil || string(got) != "d" {
		t.Errorf("%q, %v", got, err)
	}
}

// A directory that is refused when it is there already, for want of a descriptor, is not left.
func TestNoDirectoryWhereItIsRefused(t *testing.T) {
	r, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	next, err := unix.Dup(0) // the lowest that is free
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(next)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(next), Max: was.Max}); err != nil {
		t.Fatal(err)
	}
	err = r.Mkdir("d")
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(err, syscall.EMFILE) {
		t.Fatalf("made: %v", err)
	}
	if there, err := r.Exists("d"); there || err != nil {
		t.Errorf("it is there: %v, %v", there, err)
	}
}
