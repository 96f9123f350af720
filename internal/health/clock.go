package health

import (
	"log/slog"
	"os"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// A Boot is the host's monotonic clock: durations on it go on while the daemon is away, steps of the wall clock do not touch it,
// and it begins anew, under another id, when the host boots.
type Boot struct {
	ID     string
	Uptime func() time.Duration
}

// HostBoot returns the clock of this host: the kernel's CLOCK_MONOTONIC, which is the one that Go's timers run on.
func HostBoot() (Boot, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return Boot{}, err
	}
	return Boot{ID: strings.TrimSpace(string(id)), Uptime: uptime}, nil
}

// hostBoot returns this host's clock. Without a boot id a record of an earlier boot could be taken for one of this: so it gets one
// that no record has.
func hostBoot(log *slog.Logger) Boot {
	b, err := HostBoot()
	if err != nil {
		log.Warn("the host's boot id cannot be read; health windows will not outlive this daemon", "error", err)
		b = Boot{ID: "unknown since " + time.Now().UTC().Format(time.RFC3339Nano), Uptime: uptime}
	}
	return b
}

func uptime() time.Duration {
	const clockMonotonic = 1
	var ts syscall.Timespec
	// Cannot fail: the clock exists since Linux 2.6, and ts is ours.
	syscall.Syscall(syscall.SYS_CLOCK_GETTIME, clockMonotonic, uintptr(unsafe.Pointer(&ts)), 0)
	return time.Duration(ts.Nano())
}

// A clock translates between time.Time, with Go's monotonic reading, and the time since boot that a record holds.
type clock struct {
	bootID string
	origin time.Time
	uptime time.Duration // at origin
}

func newClock(b Boot) clock { return clock{bootID: b.ID, origin: time.Now(), uptime: b.Uptime()} }

// boot is the first moment that a record can hold.
func (c clock) boot() time.Time { return c.fromBoot(1) }

// sinceBoot returns t as time since boot; 0 for the zero time, and the first moment for what is said to have been before.
func (c clock) sinceBoot(t time.Time) time.Duration {
	if t.IsZero() {
		return 0
	}
	return max(c.uptime+t.Sub(c.origin), 1)
}

func (c clock) fromBoot(d time.Duration) time.Time {
	if d == 0 {
		return time.Time{}
	}
	d = max(d, 1) // an earlier version wrote down what a clock that was set made of it
	return c.origin.Add(d - c.uptime)
}
