package shim

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// A Trace is what an instance's directory says of its shim, for a person who looks for what is left over.
type Trace struct {
	Recorded bool   // a shim is on record
	PID      int    // its
	Alive    bool   // that process runs, and is the shim of this instance
	UID      uint32 // of the instance's machines; 0: the daemon's own
}

// Look reads the traces of instance id, whose directory is dir, and changes nothing.
func Look(dir, id string) (Trace, error) {
	d := &runDir{path: filepath.Join(dir, "vm")}
	t := Trace{UID: readOwner(d.ownerPath()).UID}
	r, err := d.readRecord()
	if errors.Is(err, fs.ErrNotExist) {
		return t, nil
	}
	if errors.Is(err, errNoRecord) { // and what runs is on no record
		t.Recorded = true
		return t, nil
	}
	if err != nil {
		return t, err
	}
	t.Recorded, t.PID = true, r.PID
	boot, err := bootID()
	if err != nil || boot != r.BootID {
		return t, err
	}
	started, err := startTimeOf(r.PID)
	if gone(err) || err == nil && started != r.StartTime {
		return t, nil
	}
	if err != nil {
		return t, err
	}
	t.Alive, err = isShim(r.PID, id)
	return t, err
}

// Instance returns the id of the instance whose shim a process is, by its command line; "" where it is none.
func Instance(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return ""
	}
	args := strings.Split(strings.TrimRight(string(b), "\x00"), "\x00")
	if len(args) != 3 || args[1] != Command || filepath.Base(args[0]) != "hale" {
		return ""
	}
	return args[2]
}

// Children are a process's own.
func Children(pid int) []int {
	var pids []int
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid)) // the pattern is sound
	for _, t := range tasks {
		b, _ := os.ReadFile(t) // a thread that has ended has none
		for f := range strings.FieldsSeq(string(b)) {
			if p, err := strconv.Atoi(f); err == nil {
				pids = append(pids, p)
			}
		}
	}
	return pids
}
