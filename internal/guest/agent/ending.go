package agent

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"syscall"
)

// ending reports whether the program has ended or is about to. What ends closes its connections first, and is reaped last: in between
// the kernel marks it (PF_EXITING, in proc(5)'s stat), from before the first connection is closed.
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
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.pid))
	if err != nil { // it was reaped a moment ago
		return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH)
	}
	return exiting(stat)
}

// exiting reads the flags of a process from its stat.
func exiting(stat []byte) bool {
	const flags, pfExiting = 6, 0x4 // of the fields after the name
	f := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(f) <= flags {
		return false
	}
	n, err := strconv.ParseUint(string(f[flags]), 10, 64)
	return err == nil && n&pfExiting != 0
}
