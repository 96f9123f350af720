package qemu

import (
	"bytes"
	"fmt"
	"os"
	"time"
)

// An emulated processor's time stamp counter is the host's. A guest's kernel that must find out how fast it counts watches it beside an
// emulated timer for some 150 ms, and on a busy host, which keeps the guest waiting in the middle of it, about one in a hundred
// comes to a number that is wrong by a factor of 5 to 12 (measured, Linux 6.1: "PIT calibration deviates from PMTIMER: 459391 2600024",
// and the former is believed): the guest's clock is that much too fast until its watchdog notices. So it is told.
//
// What tells is tsc_early_khz, which the kernel refines later.

const (
	leastApart = 5 * time.Millisecond  // between two readings, for a part in ten thousand
	closeTo    = 500 * time.Nanosecond // how exactly a reading's time is to be known
	closeBy    = 5 * time.Microsecond  // and must be
	mostTries  = 200                   // for that
)

// clockSource is what the host's kernel takes its time from: one that does not trust its counter must not hand it on.
const clockSource = "/sys/devices/system/clocksource/clocksource0/current_clocksource"

// A reading is the counter at a time.
type reading struct {
	count uint64
	at    time.Time
}

// readTSC reads the counter; ok is false on a host where that is of no use.
func readTSC() (r reading, ok bool) {
	source, err := os.ReadFile(clockSource)
	if err != nil || string(bytes.TrimSpace(source)) != "tsc" {
		return r, false
	}
	return readCounter()
}

// readCounter reads it between two looks at the clock, until the two are close together.
func readCounter() (best reading, ok bool) {
	nearest := closeBy
	for range mostTries {
		before := time.Now()
		count := rdtsc()
		took := time.Since(before)
		if count != 0 && took < nearest {
			best, nearest, ok = reading{count, before.Add(took / 2)}, took, true
		}
		if nearest < closeTo {
			break
		}
	}
	return best, ok
}

// kHz is how fast the counter has counted since r; 0: not known.
func (r reading) kHz() uint64 {
	if r.count == 0 {
		return 0
	}
	time.Sleep(leastApart - time.Since(r.at))
	now, ok := readCounter()
	if !ok || now.count <= r.count {
		return 0
	}
	return uint64(float64(now.count-r.count) / (float64(now.at.Sub(r.at)) / float64(time.Millisecond)))
}

// tscCmdline tells a guest's kernel.
func (r reading) tscCmdline() string {
	if khz := r.kHz(); khz > 0 {
		return fmt.Sprintf("tsc_early_khz=%d", khz)
	}
	return ""
}
