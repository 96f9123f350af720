package pid1

import (
	"time"

	"golang.org/x/sys/unix"
)

// phases are when a boot came to its steps, by the machine's own clock, which begins with its kernel: one line of the
// console tells them, and the benches read it (docs/design/0006-where-a-boot-goes.md).
type phases []any

func (p *phases) reached(step string) {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) == nil {
		*p = append(*p, step, time.Duration(ts.Nano()).Round(100*time.Microsecond))
	}
}
