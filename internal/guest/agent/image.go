package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/halevm/hale/internal/machine"
)

// What a program finds in its environment when the image says nothing, as with Docker.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// The codes of a command that was not run, as shells give them.
const (
	codeCannotRun = 126
	codeNotFound  = 127
	codeTimedOut  = 124
)

// An image is what every program of a machine is started from.
type image struct {
	process       machine.Process
	hostname      string
	passwd, group string // their paths
}

// A command is a program with all that it needs to be started.
type command struct {
	path string
	argv []string
	env  []string
	dir  string
	id   identity
}

// A startError says why a command is not run, with the code that a shell would give.
type startError struct {
	code int
	err  error
}

func (e *startError) Error() string { return e.err.Error() }

func cannotRun(err error) *startError { return &startError{codeCannotRun, err} }

// command resolves what is to be run: who, where, with which environment, and which file.
func (im image) command(r machine.ExecRequest) (*command, *startError) {
	user, dir := im.process.User, im.process.Dir
	if r.User != "" {
		user = r.User
	}
	if r.Dir != "" {
		dir = r.Dir
	}
	if dir == "" {
		dir = "/"
	}
	if len(r.Argv) == 0 || r.Argv[0] == "" {
		return nil, &startError{codeNotFound, errors.New("there is no command to run")}
	}
	id, err := identify(user, im.passwd, im.group)
	if err != nil {
		return nil, cannotRun(err)
	}
	c := &command{argv: r.Argv, dir: filepath.Clean("/" + dir), id: id}
	c.env = im.environ(id, r.TTY, r.Env)
	for _, s := range append(slices.Clone(c.env), c.argv...) {
		if strings.IndexByte(s, 0) >= 0 {
			return nil, cannotRun(errors.New("an argument or a variable holds a zero byte"))
		}
	}
	if fi, err := os.Stat(c.dir); err != nil {
		return nil, cannotRun(fmt.Errorf("working directory %s: %w", c.dir, bare(err)))
	} else if !fi.IsDir() {
		return nil, cannotRun(fmt.Errorf("working directory %s: %w", c.dir, syscall.ENOTDIR))
	}
	var fault *startError
	c.path, fault = lookPath(c.argv[0], c.dir, variable(c.env, "PATH"))
	return c, fault
}

// environ is the image's environment with extra on top, and what a program expects to find besides. Of variables named
// twice the last counts.
func (im image) environ(id identity, tty bool, extra []string) []string {
	all := append(slices.Clone(im.process.Env), extra...)
	add := func(name, value string) {
		if !slices.ContainsFunc(all, func(s string) bool { return strings.HasPrefix(s, name+"=") }) {
			all = append(all, name+"="+value)
		}
	}
	add("PATH", defaultPath)
	add("HOSTNAME", im.hostname)
	home := id.home
	if home == "" {
		home = "/"
	}
	add("HOME", home)
	if tty {
		add("TERM", "xterm")
	}
	var env []string
	seen := map[string]bool{}
	for _, kv := range slices.Backward(all) {
		name, _, ok := strings.Cut(kv, "=")
		if ok && name != "" && !seen[name] {
			seen[name] = true
			env = append(env, kv)
		}
	}
	slices.Reverse(env)
	return env
}

func variable(env []string, name string) string {
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			return v
		}
	}
	return ""
}

// lookPath finds the file of a program: by its path, taken from dir, or in the directories of path. Whether the user may
// execute it is for the kernel to say.
func lookPath(name, dir, path string) (string, *startError) {
	if strings.Contains(name, "/") {
		file := name
		if !filepath.IsAbs(file) {
			file = filepath.Join(dir, file)
		}
		switch err := executable(file); {
		case err == nil:
			return file, nil
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
			return "", &startError{codeNotFound, fmt.Errorf("%s: %w", name, bare(err))}
		default:
			return "", cannotRun(fmt.Errorf("%s: %w", name, bare(err)))
		}
	}
	var denied error
	for _, d := range filepath.SplitList(path) {
		if !filepath.IsAbs(d) {
			d = filepath.Join(dir, d)
		}
		file := filepath.Join(d, name)
		err := executable(file)
		if err == nil {
			return file, nil
		}
		if errors.Is(err, fs.ErrPermission) && denied == nil {
			denied = fmt.Errorf("%s: %w", file, bare(err))
		}
	}
	if denied != nil {
		return "", cannotRun(denied)
	}
	return "", &startError{codeNotFound, fmt.Errorf("%s: not found in PATH (%s)", name, path)}
}

func executable(file string) error {
	fi, err := os.Stat(file)
	switch {
	case err != nil:
		return err
	case fi.IsDir():
		return syscall.EISDIR
	case fi.Mode()&0o111 == 0:
		return fs.ErrPermission
	}
	return nil
}

// failedStart says why the kernel did not start a command.
func (c *command) failedStart(err error) *startError {
	switch {
	case errors.Is(err, syscall.ENOENT): // the file itself was found
		return &startError{codeNotFound, fmt.Errorf("%s: its interpreter or loader is not in the image", c.path)}
	case errors.Is(err, syscall.ENOEXEC):
		return cannotRun(fmt.Errorf("%s: %w (another architecture, or a script without #!)", c.path, err))
	case errors.Is(err, syscall.EACCES):
		return cannotRun(fmt.Errorf("%s, in %s, as uid %d: %w", c.path, c.dir, c.id.uid, err))
	}
	return cannotRun(fmt.Errorf("%s: %w", c.path, err))
}

// bare is the error below the path and the operation.
func bare(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
