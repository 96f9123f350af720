package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// read is what another process would read.
func (d *Drafted) readAgain(t *testing.T) string {
	t.Helper()
	b, err := d.r.Drafted(d.name, d.every).Read(1000)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func write(t *testing.T, d *Drafted, content string) {
	t.Helper()
	if err := d.Write([]byte(content), false); err != nil {
		t.Fatal(err)
	}
	if got := d.readAgain(t); got != content {
		t.Fatalf("%q was written, and %q is read", content, got)
	}
}

func file(t *testing.T, r *Root, name string) string {
	t.Helper()
	b, err := os.ReadFile(r.Path(name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// What was written last is read, whatever was longer before it; the file itself is written once in a while.
func TestDrafted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := open(t)
		d := r.Drafted("f", time.Minute)
		for i := range 30 {
			write(t, d, strings.Repeat(fmt.Sprintf("%d ", i), 30-i))
			if i < 12 && !strings.HasPrefix(file(t, r, "f"), "0 ") || i == 12 && !strings.HasPrefix(file(t, r, "f"), "12 ") {
				t.Fatalf("after %d times 5 s the file holds %q", i, file(t, r, "f"))
			}
			time.Sleep(5 * time.Second)
		}
		if got := names(t, r); !slices.Equal(got, []string{"f", "f.draft-0", "f.draft-1"}) {
			t.Errorf("in the directory: %q", got)
		}
		if info, err := os.Stat(r.Path("f.draft-1")); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
		}
		// The next process writes the file first, and drafts from then on.
		d = r.Drafted("f", time.Minute)
		write(t, d, "of the next")
		if got := file(t, r, "f"); got != "of the next" {
			t.Errorf("the file holds %q", got)
		}
		write(t, d, "and its draft")
		if err := d.Write([]byte("whole"), true); err != nil || file(t, r, "f") != "whole" || d.readAgain(t) != "whole" {
			t.Errorf("the file holds %q, and %q is read, %v", file(t, r, "f"), d.readAgain(t), err)
		}
	})
}

// Of a draft that is not as it was written, wherever it was cut or changed, nothing is read: what was written before it is.
func TestTornDraft(t *testing.T) {
	r := open(t)
	d := r.Drafted("f", time.Hour)
	for _, content := range []string{"the file", "the first draft", "the second draft"} {
		write(t, d, content)
	}
	whole := file(t, r, "f.draft-0")
	if !strings.Contains(whole, "the second draft") {
		t.Fatalf("the second draft is %q", whole)
	}
	spoil := func(content string) {
		t.Helper()
		if err := os.WriteFile(r.Path("f.draft-0"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := d.readAgain(t); got != "the first draft" {
			t.Errorf("%q is read where the second draft is %q", got, content)
		}
	}
	for i := range len(whole) {
		spoil(whole[:i])
		changed := []byte(whole)
		changed[i] ^= 1
		spoil(string(changed))
	}
	spoil(strings.Repeat("\x00", len(whole)))
	os.Remove(r.Path("f.draft-1"))
	if got := d.readAgain(t); got != "the file" {
		t.Errorf("without a draft that is whole %q is read", got)
	}
}

// A file that somebody else wrote stands above the drafts, and so does one that cannot be read.
func TestDraftsOfAnother(t *testing.T) {
	r := open(t)
	d := r.Drafted("f", time.Hour)
	write(t, d, "the file")
	write(t, d, "its draft")
	if err := r.WriteFile("f", []byte("another")); err != nil {
		t.Fatal(err)
	}
	if got := d.readAgain(t); got != "another" {
		t.Errorf("%q is read", got)
	}
	if _, err := r.Drafted("f", time.Hour).Read(3); err == nil {
		t.Error("a file over the limit is read")
	} else if _, ok := errors.AsType[*Unreadable](err); !ok {
		t.Error(err)
	}
	if err := d.SetAside(); err != nil {
		t.Fatal(err)
	}
	if got := names(t, r); len(got) != 2 || !IsAside(got[0]) || !IsAside(got[1]) {
		t.Errorf("set aside: %q", got)
	}
	if _, err := d.Read(1000); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("once it is set aside: %v", err)
	}
	write(t, d, "a new one")
	if got := file(t, r, "f"); got != "a new one" {
		t.Errorf("the file holds %q", got)
	}
}

// Where a draft cannot be written the file is; where neither can, the error says so, and a missing directory is not made.
func TestNoDraft(t *testing.T) {
	r := open(t)
	if err := r.Mkdir("dir"); err != nil {
		t.Fatal(err)
	}
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, []byte("theirs"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := r.Drafted("dir/f", time.Hour)
	write(t, d, "the file")
	if err := os.Symlink(outside, r.Path("dir/f.draft-1")); err != nil {
		t.Fatal(err)
	}
	write(t, d, "no draft where a link is")
	if err := syscall.Mkfifo(r.Path("dir/f.draft-0"), 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		write(t, d, fmt.Sprint("nor where a pipe is ", i))
	}
	if got, err := os.ReadFile(outside); err != nil || string(got) != "theirs" {
		t.Errorf("outside of the root: %q, %v", got, err)
	}
	if err := r.RemoveDir("dir"); err != nil {
		t.Fatal(err)
	}
	if err := d.Write([]byte("x"), false); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("where no directory is: %v", err)
	}
}

func BenchmarkDrafted(b *testing.B) {
	r, err := Open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	content := []byte(strings.Repeat("x", 8000))
	for name, every := range map[string]time.Duration{"whole": 0, "draft": time.Hour} {
		b.Run(name, func(b *testing.B) {
			d := r.Drafted("f", every)
			for b.Loop() {
				if err := d.Write(content, false); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// On a disk that has no room for the file there is some for drafts, which take the place of others: what is written is read, also in a process
// that has written nothing before.
func TestDraftsWhereTheFileIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := open(t)
		d := r.Drafted("f", time.Minute)
		for _, content := range []string{"the file", "a draft", "another"} {
			write(t, d, content)
		}
		if err := os.MkdirAll(r.Path("f.next/x"), 0o700); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		write(t, d, "an hour later")
		if err := d.Write([]byte("whole"), true); err == nil || d.readAgain(t) != "whole" {
			t.Errorf("%q is read, %v", d.readAgain(t), err)
		}
		next := r.Drafted("f", time.Minute)
		if b, err := next.Read(100); err != nil || string(b) != "whole" {
			t.Errorf("the next reads %q, %v", b, err)
		}
		write(t, next, "of the next")
		if err := os.RemoveAll(r.Path("f.next")); err != nil {
			t.Fatal(err)
		}
		write(t, next, "with room")
		if got := file(t, r, "f"); got != "with room" {
			t.Errorf("the file holds %q", got)
		}
	})
}
