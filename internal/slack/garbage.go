package slack

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// How much garbage a process that probes keeps, in parts of what it needs. While it needs little it keeps what Go would, for a
// collection looks at every stack, of which there are thousands, and shrinks some that then grow again. Once it needs much it keeps half
// of that: ten thousand histories, some 30 MiB beside their stacks, are worth more than the processor time.
const (
	littleLive = 16 << 20 // bytes of the heap
	ifLittle   = 100
	ifMuch     = 50
)

// Collect has this process keep so much garbage from now on. It looks after each collection, and is called once.
func Collect() {
	percent := ifLittle
	debug.SetGCPercent(percent)
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	type collected struct{ _ *byte } // what holds no pointer may share its place with something that stays
	var look func(*collected)
	look = func(c *collected) {
		metrics.Read(live)
		if want := percentOf(live[0].Value.Uint64()); want != percent {
			percent = want
			debug.SetGCPercent(percent)
		}
		runtime.SetFinalizer(c, look) // it is not reachable, so the next collection finds it again
	}
	runtime.SetFinalizer(new(collected), look)
}

func percentOf(live uint64) int {
	if live < littleLive {
		return ifLittle
	}
	return ifMuch
}
