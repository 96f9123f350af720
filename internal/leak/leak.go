// Package leak says what the processes of a data directory hold (processes, sockets, files, uids), and what is left over and by
// whom. It looks from outside, at /proc and at what is on record, so that it needs no daemon and believes none; it changes nothing.
//
// Shims are not dumpable: what they hold is seen by root only. A machine that begins or ends at the moment may look like a leftover; one that is
// still there at the second look is one.
package leak

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/halevm/hale/internal/shim"
)

// A Holding is something that somebody holds.
type Holding struct {
	Owner string `json:"owner"`          // "daemon", "instance ID", "images", or "nobody"
	Kind  string `json:"kind"`           // process, socket, file, uid, directory
	What  string `json:"what"`           // for a person
	PID   int    `json:"pid,omitempty"`  // of the process that holds it, or that it is
	Left  bool   `json:"left,omitempty"` // it is left over
	Mend  string `json:"mend,omitempty"` // what becomes of it
}

// The kinds.
const (
	process   = "process"
	socket    = "socket"
	file      = "file"
	uid       = "uid"
	directory = "directory"
)

// nobody is the owner of what has none.
const nobody = "nobody"

// What becomes of leftovers.
const (
	nextDaemon = "the next hale serve clears it up"
	byHand     = "look at it, and delete it by hand"
)

// A survey is one look.
type survey struct {
	dir    string
	daemon int            // 0: none
	known  map[int]string // processes that have an owner
	ids    map[string]bool
	found  []Holding
}

// Look lists what the processes of the data directory dir hold.
func Look(dir string) ([]Holding, error) {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, err
	}
	s := &survey{dir: dir, known: map[int]string{}, ids: map[string]bool{}}
	if err := errors.Join(s.lookDaemon(), s.lookInstances(), s.lookImages(), s.lookStrays()); err != nil {
		return nil, err
	}
	return s.found, nil
}

func (s *survey) add(h Holding) { s.found = append(s.found, h) }

// lookDaemon finds the daemon by its lock.
func (s *survey) lookDaemon() error {
	st, err := os.Stat(filepath.Join(s.dir, "lock"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	pid := holder(st.Sys().(*syscall.Stat_t).Ino, s.dir)
	if pid == 0 {
		return nil
	}
	s.daemon = pid
	s.own("daemon", pid, "hale serve")
	return nil
}

// holder is who holds the lock with that inode: trying it would keep a daemon out that starts at the moment.
func holder(inode uint64, dir string) int {
	b, err := os.ReadFile("/proc/locks")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 6 || f[1] != "FLOCK" || !strings.HasSuffix(f[5], fmt.Sprintf(":%d", inode)) {
			continue
		}
		if pid, err := strconv.Atoi(f[4]); err == nil && says(dir, pid) { // another file system may have the same inode
			return pid
		}
	}
	return 0
}

// says reports whether the lock file says that it is held by pid.
func says(dir string, pid int) bool {
	b, err := os.ReadFile(filepath.Join(dir, "lock"))
	return err == nil && strings.TrimSpace(string(b)) == strconv.Itoa(pid)
}

// own lists a process and what it holds.
func (s *survey) own(owner string, pid int, what string) {
	s.known[pid] = owner
	s.add(Holding{Owner: owner, Kind: process, What: what, PID: pid})
	s.lookInto(owner, pid)
}

// lookInto lists what a process has open: files of the data directory and sockets that listen each, the rest in numbers.
func (s *survey) lookInto(owner string, pid int) {
	proc := fmt.Sprintf("/proc/%d", pid)
	fds, err := os.ReadDir(proc + "/fd")
	if err != nil {
		s.add(Holding{Owner: owner, Kind: file, What: "what it has open is hidden from this user", PID: pid})
		return
	}
	listening := listeners(proc)
	others := map[string]int{}
	for _, fd := range fds {
		to, err := os.Readlink(filepath.Join(proc, "fd", fd.Name()))
		if err != nil {
			continue // closed meanwhile
		}
		kind, inode, is := strings.Cut(to, ":[")
		switch rel, below := strings.CutPrefix(to, s.dir+"/"); {
		case below:
			s.add(Holding{Owner: owner, Kind: file, What: rel, PID: pid})
		case is && kind == "socket" && listening[strings.TrimSuffix(inode, "]")] != "":
			s.add(Holding{Owner: owner, Kind: socket, What: listening[strings.TrimSuffix(inode, "]")], PID: pid})
		case is && kind == "socket":
			others[socket]++
		default:
			others[file]++
		}
	}
	for _, kind := range []string{socket, file} {
		if n := others[kind]; n > 0 {
			s.add(Holding{Owner: owner, Kind: kind, What: fmt.Sprintf("%d others", n), PID: pid})
		}
	}
}

// listeners are the sockets that listen in the network of a process, by inode.
func listeners(proc string) map[string]string {
	found := map[string]string{}
	for _, table := range []string{"tcp", "tcp6"} {
		for _, f := range rows(filepath.Join(proc, "net", table)) {
			if len(f) > 9 && f[3] == "0A" { // TCP_LISTEN
				_, port, _ := strings.Cut(f[1], ":")
				if n, err := strconv.ParseUint(port, 16, 16); err == nil {
					found[f[9]] = fmt.Sprintf("%s port %d", table, n)
				}
			}
		}
	}
	for _, f := range rows(filepath.Join(proc, "net", "unix")) {
		if len(f) > 7 && f[3] == "00010000" { // __SO_ACCEPTCON
			found[f[6]] = "unix " + f[7]
		}
	}
	return found
}

// rows are a table's, without its head.
func rows(name string) [][]string {
	f, err := os.Open(name)
	if err != nil {
		return nil // a process that has gone
	}
	defer f.Close()
	var all [][]string
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		all = append(all, strings.Fields(lines.Text()))
	}
	if len(all) > 0 {
		all = all[1:]
	}
	return all
}

// lookInstances goes through the instances' directory.
func (s *survey) lookInstances() error {
	entries, err := os.ReadDir(filepath.Join(s.dir, "instances"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := e.Name()
		path := filepath.Join(s.dir, "instances", name)
		switch _, err := os.Stat(filepath.Join(path, "instance.json")); {
		case strings.Contains(name, ".unreadable-"):
			s.add(Holding{Owner: nobody, Kind: directory, What: "instances/" + name + ": an instance that could not be read", Left: true, Mend: byHand})
		case strings.HasPrefix(name, ".trash-"):
			s.add(Holding{Owner: nobody, Kind: directory, What: "instances/" + name + ": a deletion that was cut short", Left: true, Mend: nextDaemon})
		case !e.IsDir():
			s.add(Holding{Owner: nobody, Kind: file, What: "instances/" + name + " is no instance", Left: true, Mend: byHand})
		default:
			s.ids[name] = true
			if err := s.lookInstance(path, name, err == nil); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *survey) lookInstance(path, id string, whole bool) error {
	owner := "instance " + id
	t, err := shim.Look(path, id)
	if err != nil {
		return err
	}
	if !whole {
		s.add(Holding{Owner: owner, Kind: directory, What: "instances/" + id + ": a creation that was cut short, or is under way", Left: s.daemon == 0, Mend: nextDaemon})
	}
	if t.UID != 0 {
		s.add(Holding{Owner: owner, Kind: uid, What: fmt.Sprint(t.UID)})
	}
	if t.Recorded && !t.Alive {
		s.add(Holding{Owner: owner, Kind: file, What: "instances/" + id + "/shim.json: its shim (pid " + fmt.Sprint(t.PID) + ") is gone", Left: true, Mend: nextDaemon})
		return nil
	}
	if !t.Alive {
		return nil
	}
	s.own(owner, t.PID, "hale shim "+id)
	for _, pid := range shim.Children(t.PID) {
		s.own(owner, pid, "its hypervisor")
	}
	return nil
}

// lookImages looks for what an import or a pull had under way when its daemon died.
func (s *survey) lookImages() error {
	entries, err := os.ReadDir(filepath.Join(s.dir, "images", "staging"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		s.add(Holding{
			Owner: "images", Kind: directory, What: "images/staging/" + e.Name() + ": an import", Left: s.daemon == 0, Mend: nextDaemon,
		})
	}
	return nil
}

// lookStrays looks for processes that nobody knows of: below the data directory, or shims of instances here.
func (s *survey) lookStrays() error {
	procs, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	for _, p := range procs {
		pid, err := strconv.Atoi(p.Name())
		if err != nil || s.known[pid] != "" || slices.Contains([]int{os.Getpid(), os.Getppid()}, pid) {
			continue
		}
		cwd, _ := os.Readlink(filepath.Join("/proc", p.Name(), "cwd"))
		rest, below := strings.CutPrefix(cwd, filepath.Join(s.dir, "instances")+"/")
		id, _, _ := strings.Cut(rest, "/")
		if !below {
			if id = shim.Instance(pid); id == "" || !s.ids[id] {
				continue
			}
		}
		s.add(Holding{
			Owner: nobody, Kind: process, What: "a process of instance " + id + " that is not on its record", PID: pid, Left: true,
			Mend: fmt.Sprintf("look at it, and end it: kill -9 %d", pid),
		})
		s.lookInto(nobody, pid)
	}
	return nil
}
