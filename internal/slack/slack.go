// Package slack says how late Linux may wake the threads of a process that sleep (prctl(2), PR_SET_TIMERSLACK). A daemon that asks
// thousands of workloads whether they are well has thousands of timers; woken for each alone, it spends more on waking, and on Go's
// monitor, which wakes whenever anything does, than on what it woke for. Timers that may be late fire together.
//
// For the same reason there is a timer of the kernel's (Timer), and it says how many processors a process of Go's has while it has little to do: Processors. And it is told of work that
// wants neither: Work.
//
// Whatever a thread starts, threads and processes, has its slack from then on: Start starts a process with the slack that it is to have.
package slack

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Probing is the slack of a process that probes: what a probe may begin late for it is a fifth of what is allowed.
const Probing = 10 * time.Millisecond

// Ordinary is what Linux gives a process.
const Ordinary = 50 * time.Microsecond

var (
	mu    sync.Mutex
	given time.Duration // by Set; 0: none was
	works int           // that have begun and not ended
)

// Set gives this process's threads a slack: all of them for root, who alone may for those that are there already, else the caller's
// and what comes from it.
func Set(d time.Duration) error {
	mu.Lock()
	defer mu.Unlock()
	given = d
	if works > 0 {
		return nil
	}
	return set(d)
}

// Work takes the slack away until end is called: for what reads and writes much, by many system calls, and it has all processors at once.
// Go's monitor, which takes the processor from a goroutine that waits in a call, is late by the slack, too. Where it cannot be done the work is slower, and no worse.
func Work() (end func()) {
	mu.Lock()
	defer mu.Unlock()
	works++
	giveLocked(false)
	if works == 1 && given > Ordinary {
		set(Ordinary)
	}
	return sync.OnceFunc(func() {
		mu.Lock()
		defer mu.Unlock()
		if works--; works == 0 && given > Ordinary {
			set(given)
		}
	})
}

func set(d time.Duration) error {
	if err := prctl(d); err != nil {
		return err
	}
	threads, err := filepath.Glob("/proc/self/task/*")
	if err != nil {
		return err
	}
	for _, t := range threads {
		// It is in the directory of a process only; that of a thread is there, too, by its number.
		path := filepath.Join("/proc", filepath.Base(t), "timerslack_ns")
		err := os.WriteFile(path, fmt.Append(nil, d.Nanoseconds()), 0)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
			return err
		}
	}
	return nil
}

// Start runs start, which starts a process, on a thread with a slack of d: the process has it from its first thread on, its runtime's
// monitor included.
func Start(d time.Duration, start func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before, err := ofThread()
	if err != nil {
		return err
	}
	if err := prctl(d); err != nil {
		return err
	}
	return errors.Join(start(), prctl(before))
}

// Own is how late this process lets its timers be: 0 where that is what Linux gives everybody. It is looked at once, at the first call.
var Own = sync.OnceValue(func() time.Duration {
	if d, err := ofThread(); err == nil && d > Ordinary {
		return d
	}
	return 0
})

func ofThread() (time.Duration, error) {
	ns, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	return time.Duration(ns), os.NewSyscallError("prctl", err)
}

func prctl(d time.Duration) error {
	return os.NewSyscallError("prctl", unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(d.Nanoseconds()), 0, 0, 0))
}
