package logfile

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func open(t *testing.T) (string, *os.Root) {
	t.Helper()
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return dir, root
}

func lines(t *testing.T, root *os.Root, tail int) []string {
	t.Helper()
	var got []string
	for line, err := range Lines(t.Context(), root, "app.log", tail, false) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, line)
	}
	return got
}

func TestTail(t *testing.T) {
	for _, c := range []struct {
		name    string
		content string
		tail    int
		want    []string
	}{
		{"empty", "", 10, nil},
		{"none wanted", "a\nb\n", 0, nil},
		{"fewer than wanted", "a\nb\n", 10, []string{"a", "b"}},
		{"exactly", "a\nb\n", 2, []string{"a", "b"}},
		{"last", "a\nb\nc\n", 1, []string{"c"}},
		{"unfinished", "a\nb", 1, []string{"b"}},
		{"empty lines", "a\n\n\n", 2, []string{"", ""}},
		{"all", "a\nb\n", -1, []string{"a", "b"}},
		{"long", strings.Repeat("x", 40<<10) + "\ny\n", 2, []string{strings.Repeat("x", 40<<10), "y"}},
		{"over the bound", strings.Repeat("x", MaxLine+3) + "\n", -1, []string{strings.Repeat("x", MaxLine), "xxx"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, root := open(t)
			if err := os.WriteFile(filepath.Join(dir, "app.log"), []byte(c.content), 0o600); err != nil {
				t.Fatal(err)
			}
			if got := lines(t, root, c.tail); !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestRotationKeepsItsBoundAndOrder(t *testing.T) {
	dir, root := open(t)
	w, err := Create(root, "app.log", 100, 3)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for i := range 100 {
		fmt.Fprintf(w, "line %03d\n", i)
	}
	var total int64
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		st, _ := e.Info()
		total += st.Size()
	}
	if len(entries) != 3 || total > 300 {
		t.Errorf("%d files of %d bytes in all, want 3 of at most 300", len(entries), total)
	}
	got := lines(t, root, 15)
	if len(got) != 15 || got[0] != "line 085" || got[14] != "line 099" {
		t.Errorf("the last 15 lines are %q", got)
	}
	all := lines(t, root, -1)
	if !slices.IsSorted(all) || len(all) < 20 {
		t.Errorf("all lines: %q", all)
	}
}

func TestFollowAcrossRotations(t *testing.T) {
	_, root := open(t)
	w, err := Create(root, "app.log", 64, 3)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	seen := make(chan string)
	go func() {
		defer close(seen)
		for line, err := range Lines(ctx, root, "app.log", -1, true) {
			if err != nil {
				t.Error(err)
				return
			}
			select {
			case seen <- line:
			case <-ctx.Done():
				return
			}
		}
	}()
	for i := range 10 {
		for j := range 4 { // four lines: each batch rotates once
			fmt.Fprintf(w, "line number %d\n", 4*i+j)
		}
		for j := range 4 {
			if got, want := <-seen, fmt.Sprintf("line number %d", 4*i+j); got != want {
				t.Fatalf("got %q, want %q", got, want)
			}
		}
	}
	cancel()
	for range seen {
	}
}

func TestOpensOnlyRegularFiles(t *testing.T) {
	dir, root := open(t)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "disk"), []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, plant := range map[string]func(path string) error{
		"link":        func(path string) error { return os.Symlink(secret, path) },
		"fifo":        func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"link within": func(path string) error { return os.Symlink("disk", path) },
		"second name": func(path string) error { return os.Link(filepath.Join(dir, "disk"), path) },
		"socket": func(path string) error {
			fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
			if err != nil {
				return err
			}
			defer syscall.Close(fd)
			return syscall.Bind(fd, &syscall.SockaddrUnix{Name: path})
		},
	} {
		path := filepath.Join(dir, "app.log")
		os.Remove(path)
		if err := plant(path); err != nil {
			t.Fatal(err)
		}
		for line, err := range Lines(t.Context(), root, "app.log", -1, false) {
			if err == nil {
				t.Errorf("%s: read %q", name, line)
			}
		}
		if w, err := Create(root, "app.log", 0, 0); err == nil {
			w.Close()
			t.Errorf("%s: opened for writing", name)
		}
	}
}

// On a full disk a rotation gets as far as the rename: what was written before is read all the same, and what comes later follows it.
func TestReadsOnWhereTheNewFileIsNotThereYet(t *testing.T) {
	dir, root := open(t)
	w, err := Create(root, "app.log", 10, 3)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	fmt.Fprintln(w, "before")
	if err := os.Rename(filepath.Join(dir, "app.log"), filepath.Join(dir, "app.log.1")); err != nil {
		t.Fatal(err)
	}
	for _, tail := range []int{1, -1} {
		if got := lines(t, root, tail); !slices.Equal(got, []string{"before"}) {
			t.Errorf("the last %d lines are %q", tail, got)
		}
	}
	var got []string
	for line, err := range Lines(t.Context(), root, "app.log", 1, true) {
		if err != nil {
			t.Fatal(err)
		}
		if got = append(got, line); len(got) == 2 {
			break
		}
		if err := os.WriteFile(filepath.Join(dir, "app.log"), []byte("after\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(got, []string{"before", "after"}) {
		t.Errorf("followed %q", got)
	}
}

// Who may write in the directory can put there more than a Writer does: it is not read.
func TestReadsNoMoreThanAWriterWrites(t *testing.T) {
	dir, root := open(t)
	for i := range 100 {
		if err := os.WriteFile(filepath.Join(dir, rotated("app.log", i)), []byte("x\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := lines(t, root, -1); len(got) != mostFiles {
		t.Errorf("%d files are open at a time, want %d", len(got), mostFiles)
	}
	if err := os.Truncate(filepath.Join(dir, "app.log"), 1<<40); err != nil { // without a line's end, and without a block
		t.Fatal(err)
	}
	if got := lines(t, root, 1); len(got) != mostBack/MaxLine {
		t.Errorf("%d pieces of one line", len(got))
	}
}

// From the place of any line the log goes on behind it, over rotations, and with the oldest line where they have done away with it.
func TestLinesFromAPlace(t *testing.T) {
	dir, root := open(t)
	write := func(name, content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	read := func(place Place) (got []string, places []Place) {
		t.Helper()
		for line, err := range LinesFrom(t.Context(), root, "app.log", &place, false) {
			if err != nil {
				t.Fatal(err)
			}
			got, places = append(got, line), append(places, place)
		}
		return got, places
	}
	begin, err := At(root, "app.log", 5)
	if err != nil {
		t.Fatal(err)
	}
	write("app.log", "a\nb\nc\n")
	all := []string{"a", "b", "c", "d", "", "e"}
	if got, _ := read(begin); !slices.Equal(got, all[:3]) {
		t.Errorf("from before there was a file: %q", got)
	}
	os.Rename(filepath.Join(dir, "app.log"), filepath.Join(dir, "app.log.1"))
	write("app.log", "d\n\ne\n")
	if at, err := At(root, "app.log", 4); err != nil {
		t.Fatal(err)
	} else if got, _ := read(at); !slices.Equal(got, all[2:]) {
		t.Errorf("the last four: %q", got)
	}
	_, places := read(Place{})
	for i, p := range places {
		said, err := ParsePlace(p.String())
		if got, _ := read(said); err != nil || !slices.Equal(got, all[i+1:]) {
			t.Errorf("behind %q: %q, %v", all[i], got, err)
		}
	}
	os.Remove(filepath.Join(dir, "app.log.1"))
	if got, _ := read(places[0]); !slices.Equal(got, all[3:]) {
		t.Errorf("from a file that is gone: %q", got)
	}
	for _, s := range []string{"", "7", "-1-2", "7--1", "a-b-0", "7-8", "7-8--9", "7-8-9-10"} {
		if p, err := ParsePlace(s); err == nil {
			t.Errorf("%q is the place %v", s, p)
		}
	}
}
