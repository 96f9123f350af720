package shim

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/halevm/hale/internal/machine"
)

// clockTick is the unit of the times in /proc/PID/stat: USER_HZ, which is 100 on every Linux architecture that runs QEMU.
const clockTick = time.Second / 100

// stats tells what the machine uses now. Probes are not charged to its traffic.
func (r *run) stats() (machine.Stats, error) {
	s, err := usageOf(r.vm.PID())
	if err != nil {
		return s, err
	}
	if r.net != nil {
		c := r.net.Counters()
		s.RxBytes, s.TxBytes, s.Connections = c.RxBytes, c.TxBytes, c.Connections
	}
	return s, nil
}

// usageOf reads a process's times and memory (proc(5): stat, statm).
func usageOf(pid int) (machine.Stats, error) {
	var s machine.Stats
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return s, err
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 13 {
		return s, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	for _, f := range fields[11:13] { // utime, stime
		ticks, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return s, fmt.Errorf("/proc/%d/stat: %w", pid, err)
		}
		s.CPU += time.Duration(ticks) * clockTick
	}
	statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return s, err
	}
	page := int64(os.Getpagesize())
	var size, resident int64
	if _, err := fmt.Sscan(string(statm), &size, &resident); err != nil {
		return s, fmt.Errorf("/proc/%d/statm: %w", pid, err)
	}
	s.VMS, s.RSS = size*page, resident*page
	return s, nil
}
