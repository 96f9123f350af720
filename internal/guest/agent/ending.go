package agent

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"syscall"
)

// ending reports whether the program has ended or is about to. What ends closes its connections first, and is reaped last: in between
// the kernel marks its threads (PF_EXITING, in proc(5)'s stat), each before it lets go of the files that they share. One that is not
// marked is enough to go on with: the first thread may end, and the others serve.
func (a *Agent) ending() bool {
	a.mu.Lock()
	p, ended := a.program, a.state.Ended()
	a.mu.Unlock()
	if p == nil || ended {
		return ended
	}
	select {
	case <-p.done:
		return true
	default:
	}
	return allExiting(fmt.Sprintf("/proc/%d/task", p.pid))
}

// threadPiece is how many of a program's threads are listed at a time. Nearly always the first of them goes on.
const threadPiece = 64

// allExiting reports whether each of the threads in dir is at its end, or gone; what cannot be read goes on.
func allExiting(dir string) bool {
	d, err := os.Open(dir)
	if err != nil {
		return isGone(err) // it was reaped a moment ago
	}
	defer d.Close()
	for {
		names, err := d.Readdirnames(threadPiece)
		for _, name := range names {
			stat, err := os.ReadFile(dir + "/" + name + "/stat")
			if err == nil && !exiting(stat) || err != nil && !isGone(err) {
				return false
			}
		}
		if err != nil {
			return errors.Is(err, io.EOF) || isGone(err)
		}
	}
}

func isGone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) }

// exiting reads from the stat of a thread that it is marked, or over.
func exiting(stat []byte) bool {
	const state, flags, pfExiting = 0, 6, 0x4 // of the fields after the name
	f := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(f) <= flags {
		return false
	}
	if s := string(f[state]); s == "Z" || s == "X" {
		return true
	}
	n, err := strconv.ParseUint(string(f[flags]), 10, 64)
	return err == nil && n&pfExiting != 0
}
