package shim

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// turns are what the host's scheduler says of the threads of a process, by their ids. It is empty where the kernel does not count
// (CONFIG_SCHED_INFO).
type turns map[string]turn

// A turn is how long a thread has run, and waited for a processor while it could have run.
type turn struct{ ran, waited time.Duration }

// readTurn reads a schedstat (proc(5)): time on the processor, time waiting for it, both in nanoseconds, and the number of turns, which
// the kernel keeps to the last switch. What makes no sense is no time at all.
func readTurn(stat []byte) turn {
	first, rest, _ := bytes.Cut(stat, []byte(" "))
	second, _, _ := bytes.Cut(rest, []byte(" "))
	ran, err := strconv.ParseInt(string(first), 10, 64)
	waited, err2 := strconv.ParseInt(string(bytes.TrimSpace(second)), 10, 64)
	if err != nil || err2 != nil {
		return turn{}
	}
	return turn{time.Duration(ran), time.Duration(waited)}
}

// turnsOf reads those of a process.
func turnsOf(pid int) turns {
	dir := fmt.Sprintf("/proc/%d/task", pid)
	tasks, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	all := make(turns, len(tasks))
	for _, t := range tasks {
		b, err := os.ReadFile(filepath.Join(dir, t.Name(), "schedstat"))
		if err != nil {
			continue // it has ended
		}
		if one := readTurn(b); one != (turn{}) {
			all[t.Name()] = one
		}
	}
	return all
}

// longestWait is that of the thread which waited longest since before. A sum would count twice when two wait at a time; the thread
// that runs the guest is the one that has to.
func (t turns) longestWait(before turns) time.Duration {
	var longest time.Duration
	for id, now := range t {
		longest = max(longest, now.waited-before[id].waited)
	}
	return longest
}

// ran is how long they have run since before, together.
func (t turns) ran(before turns) time.Duration {
	var sum time.Duration
	for id, now := range t {
		sum += now.ran - before[id].ran
	}
	return sum
}
