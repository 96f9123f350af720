package agent

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/halevm/hale/internal/machine"
)

// write makes a file below a temporary directory and returns its path.
func write(t *testing.T, name, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

const passwdText = `
# a comment
root:x:0:0:root:/root:/bin/sh
broken line
bob:x:1000:1000::/home/bob:/bin/sh
1000:x:7:7::/weird:/bin/sh
short:x:5
huge:x:99999999999:1::/:/bin/sh
nohome:x:1001:1001
`

const groupText = `root:x:0:
bob:x:1000:
docker:x:998:carol,bob
wheel:x:10:bob,root
`

func TestIdentify(t *testing.T) {
	passwd, group := write(t, "passwd", passwdText, 0o644), write(t, "group", groupText, 0o644)
	for _, c := range []struct {
		user     string
		uid, gid uint32
		groups   []uint32
		home     string
		err      string
	}{
		{user: "", home: "/root", groups: []uint32{10}},
		{user: "root", home: "/root", groups: []uint32{10}},
		{user: "0", home: "/root", groups: []uint32{10}},
		{user: "bob", uid: 1000, gid: 1000, groups: []uint32{998, 10}, home: "/home/bob"},
		{user: "1000", uid: 1000, gid: 1000, groups: []uint32{998, 10}, home: "/home/bob"},
		{user: "bob:docker", uid: 1000, gid: 998, home: "/home/bob"},
		{user: "bob:4321", uid: 1000, gid: 4321, home: "/home/bob"},
		{user: "bob:", uid: 1000, gid: 1000, groups: []uint32{998, 10}, home: "/home/bob"},
		{user: "4000", uid: 4000},
		{user: "4000:5000", uid: 4000, gid: 5000},
		{user: ":wheel", gid: 10, home: "/root"},
		{user: "nohome", uid: 1001, gid: 1001},
		{user: "ghost", err: `no user "ghost"`},
		{user: "bob:ghosts", err: `no group "ghosts"`},
		{user: "short", err: `no user "short"`},
		{user: "huge", err: `no user "huge"`},
		{user: "-1", err: `no user "-1"`},
	} {
		t.Run(c.user, func(t *testing.T) {
			id, err := identify(c.user, passwd, group)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("%+v, %v, want an error with %q", id, err, c.err)
				}
				return
			}
			if err != nil || id.uid != c.uid || id.gid != c.gid || id.home != c.home || !slices.Equal(id.groups, c.groups) {
				t.Errorf("%+v, %v", id, err)
			}
		})
	}
}

func TestIdentifyWithoutFiles(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none")
	for user, ok := range map[string]bool{"": true, "root": true, "root:root": true, "7:8": true, "bob": false} {
		if _, err := identify(user, none, none); (err == nil) != ok {
			t.Errorf("%q: %v", user, err)
		}
	}
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := identify("bob", pipe, pipe); err == nil || !strings.Contains(err.Error(), "no regular file") {
		t.Errorf("a pipe for a passwd: %v", err)
	}
}

func TestEnviron(t *testing.T) {
	im := image{hostname: "web-1", process: machine.Process{Env: []string{"A=1", "B=2", "PATH=/bin", "A=3", "nonsense", "=x"}}}
	got := im.environ(identity{home: "/home/bob"}, true, []string{"B=4", "C=a=b", "TERM=dumb"})
	want := []string{"PATH=/bin", "A=3", "B=4", "C=a=b", "TERM=dumb", "HOSTNAME=web-1", "HOME=/home/bob"}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	got = image{hostname: "h"}.environ(identity{}, true, nil)
	want = []string{"PATH=" + defaultPath, "HOSTNAME=h", "HOME=/", "TERM=xterm"}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestLookPath(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"a/tool": 0o755, "b/tool": 0o755, "a/data": 0o644, "c/data": 0o755} {
		os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755)
		if err := os.WriteFile(filepath.Join(dir, name), nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	os.Mkdir(filepath.Join(dir, "a/dir"), 0o755)
	path := dir + "/a:" + dir + "/b"
	for _, c := range []struct {
		name, path, want string
		code             int
	}{
		{name: "tool", path: path, want: dir + "/a/tool"},
		{name: "tool", path: dir + "/b", want: dir + "/b/tool"},
		{name: "tool", path: "b", want: dir + "/b/tool"},
		{name: "./a/tool", path: "", want: dir + "/a/tool"},
		{name: dir + "/b/tool", path: "", want: dir + "/b/tool"},
		{name: "data", path: path + ":" + dir + "/c", want: dir + "/c/data"}, // one that may not be executed is passed over
		{name: "data", path: path, code: codeCannotRun},
		{name: "dir", path: path, code: codeNotFound},
		{name: "./a/dir", path: path, code: codeCannotRun},
		{name: "./a/data", path: path, code: codeCannotRun},
		{name: "nope", path: path, code: codeNotFound},
		{name: "./nope", path: path, code: codeNotFound},
		{name: "a/tool/x", path: path, code: codeNotFound},
	} {
		got, fault := lookPath(c.name, dir, c.path)
		switch {
		case fault == nil && (c.code != 0 || got != c.want):
			t.Errorf("%s in %s: %s, want %s (%d)", c.name, c.path, got, c.want, c.code)
		case fault != nil && fault.code != c.code:
			t.Errorf("%s in %s: %d (%v), want %d", c.name, c.path, fault.code, fault, c.code)
		}
	}
}

func TestFailedStart(t *testing.T) {
	c := command{path: "/bin/x", dir: "/d"}
	for err, want := range map[error]int{
		syscall.ENOENT: codeNotFound, syscall.ENOEXEC: codeCannotRun, syscall.EACCES: codeCannotRun, errors.New("?"): codeCannotRun,
	} {
		if f := c.failedStart(err); f.code != want || !strings.Contains(f.Error(), "/bin/x") {
			t.Errorf("%v: %d %v", err, f.code, f)
		}
	}
}

func TestParseSignal(t *testing.T) {
	for text, want := range map[string]syscall.Signal{
		"SIGTERM": 15, "term": 15, "9": 9, "SIGRTMIN+3": 37, "RTMIN": 34, "SIGRTMAX-1": 63, "sigwinch": 28,
		"": 0, "0": 0, "65": 0, "-9": 0, "SIGNOPE": 0, "SIGRTMIN+31": 0, "SIGRTMAX+1": 0, "SIGRTMIN+x": 0,
	} {
		got, err := parseSignal(text)
		if got != want || (err == nil) != (want != 0) {
			t.Errorf("%q: %d, %v, want %d", text, got, err, want)
		}
		if want != 0 {
			if again, err := parseSignal(signalName(want)); again != want {
				t.Errorf("%d is called %q: %d, %v", want, signalName(want), again, err)
			}
		}
	}
}

func TestFileInfo(t *testing.T) {
	dir := t.TempDir()
	os.WriteFile(dir+"/file", []byte("12345"), 0o600)
	os.Chmod(dir+"/file", 0o4750|os.ModeSetuid)
	os.Symlink("file", dir+"/link")
	os.Symlink("loop", dir+"/loop")
	syscall.Mkfifo(dir+"/pipe", 0o600)
	for _, c := range []struct {
		path   string
		follow bool
		want   machine.FileInfo
	}{
		{"/file", false, machine.FileInfo{Exists: true, IsFile: true, Mode: 0o4750, Size: 5}},
		{"/link", true, machine.FileInfo{Exists: true, IsFile: true, Mode: 0o4750, Size: 5}},
		{"/link", false, machine.FileInfo{Exists: true, IsSymlink: true, LinkTarget: "file", Mode: 0o777, Size: 4}},
		{"/pipe", true, machine.FileInfo{Exists: true, Mode: 0o600}},
		{"/none", true, machine.FileInfo{}},
		{"/file/below", true, machine.FileInfo{}},
		{"/loop", true, machine.FileInfo{Error: "too many levels of symbolic links"}},
	} {
		if got := fileInfo(dir+c.path, c.follow); got != c.want {
			t.Errorf("%s (follow %v): %+v, want %+v", c.path, c.follow, got, c.want)
		}
	}
	if got := fileInfo(dir, true); !got.IsDir || !got.Exists {
		t.Errorf("the directory: %+v", got)
	}
}

func FuzzAccounts(f *testing.F) {
	f.Add("bob:wheel", passwdText, groupText)
	f.Add("::", "::::::\n:x:0:0", ":::")
	f.Fuzz(func(t *testing.T, user, passwd, group string) {
		id, err := identify(user, write(t, "passwd", passwd, 0o600), write(t, "group", group, 0o600))
		if err != nil {
			return
		}
		if id.uid > 1<<31-1 || id.gid > 1<<31-1 {
			t.Errorf("%+v", id)
		}
	})
}
