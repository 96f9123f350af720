package agent

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// killPatience is how long what was killed may take to be gone.
const killPatience = 5 * time.Second

// groups makes a cgroup for each thing that must be killed as a whole. Without cgroup v2 it makes process groups, which
// a child that begins a session of its own escapes.
type groups struct {
	log *slog.Logger

	mu   sync.Mutex
	root *os.Root // where cgroup v2 is mounted, by descriptor: what the guest mounts over it does not matter
}

func newGroups(log *slog.Logger) *groups { return &groups{log: log} }

// use takes the mount point, once the machine has one.
func (g *groups) use(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	// Without the memory controller a program killed for want of memory cannot be told from another.
	if err := writeIn(root, "cgroup.subtree_control", "+memory +pids"); err != nil {
		g.log.Warn("cgroup controllers", "err", err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.root = root
	return nil
}

// A group is what one program and its descendants live in.
type group struct {
	root *os.Root // nil: a process group
	name string
	dir  *os.File // of the cgroup, for the child to be made in

	mu     sync.Mutex
	leader *process // of the process group; nil: not started
}

// open makes a group. A leftover of the same name cannot be: names are not used twice.
func (g *groups) open(name string) *group {
	g.mu.Lock()
	root := g.root
	g.mu.Unlock()
	if root == nil {
		return &group{}
	}
	name = "hale." + name
	err := root.Mkdir(name, 0o755)
	if err == nil {
		var dir *os.File
		if dir, err = root.Open(name); err == nil {
			return &group{root: root, name: name, dir: dir}
		}
		root.Remove(name)
	}
	g.log.Warn("no cgroup; a process group instead", "name", name, "err", err)
	return &group{}
}

// attr says in which group, and as whose session leader, a child is made.
func (g *group) attr(c *syscall.Credential) *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Setsid: true, Credential: c}
	if g.root != nil {
		a.UseCgroupFD, a.CgroupFD = true, int(g.dir.Fd())
	}
	return a
}

// led tells who the group's first process is.
func (g *group) led(p *process) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.leader = p
	if g.dir != nil {
		g.dir.Close()
	}
}

// kill sends SIGKILL to everything in the group. No fork escapes it: the kernel sees to that (cgroup.kill, Linux 5.14).
func (g *group) kill() {
	if g.root != nil {
		writeIn(g.root, path.Join(g.name, "cgroup.kill"), "1")
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.leader != nil {
		syscall.Kill(-g.leader.pid, syscall.SIGKILL)
	}
}

// empty reports whether nothing is left in the cgroup.
func (g *group) empty() bool {
	b, err := readIn(g.root, path.Join(g.name, "cgroup.events"))
	return errors.Is(err, fs.ErrNotExist) || err == nil && bytes.Contains(b, []byte("populated 0"))
}

// end kills the group, waits until it is gone and removes it; it reports whether it is. A process group is gone when it
// was killed: who waits for one sees zombies until somebody else reaps them.
func (g *group) end() bool {
	if g.root == nil {
		g.kill()
		return true
	}
	deadline := time.Now().Add(killPatience)
	for pause := time.Millisecond; !g.empty(); pause = min(2*pause, 50*time.Millisecond) {
		if time.Now().After(deadline) {
			return false
		}
		g.kill()
		time.Sleep(pause)
	}
	g.remove()
	return true
}

// remove removes the cgroup with those that were made below it.
func (g *group) remove() {
	var dirs []string
	fs.WalkDir(g.root.FS(), g.name, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, p)
		}
		return nil
	})
	for _, d := range slices.Backward(dirs) {
		g.root.Remove(d)
	}
}

// oomKills is how many processes of the group the kernel has killed for want of memory.
func (g *group) oomKills() int {
	if g.root == nil {
		return 0
	}
	b, err := readIn(g.root, path.Join(g.name, "memory.events"))
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(b) {
		if v, ok := bytes.CutPrefix(line, []byte("oom_kill ")); ok {
			n, _ := strconv.Atoi(string(bytes.TrimSpace(v)))
			return n
		}
	}
	return 0
}

func writeIn(root *os.Root, name, text string) error {
	f, err := root.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		return fmt.Errorf("write %q: %w", text, err)
	}
	return nil
}

func readIn(root *os.Root, name string) ([]byte, error) {
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, 4096)
	n, err := f.Read(b)
	if n > 0 {
		err = nil
	}
	return b[:n], err
}
