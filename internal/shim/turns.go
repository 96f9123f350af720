package shim

import (
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// turns are what the host's scheduler says of the threads of a process, by their ids. It is empty where the kernel does not count
// (CONFIG_SCHED_INFO).
type turns map[string]turn

// A turn is how long a thread has run, and waited for a processor while it could have run.
type turn struct{ ran, waited time.Duration }

// turnsOf reads them (Documentation/scheduler/sched-stats.rst: /proc/PID/schedstat, which is one thread's).
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
		var one turn
		if _, err := fmt.Sscan(string(b), &one.ran, &one.waited); err == nil {
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
