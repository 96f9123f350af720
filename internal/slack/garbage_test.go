package slack

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"
)

// What is kept follows what is alive, up and down.
func TestCollect(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	Collect()
	becomes := func(want uint64) {
		t.Helper()
		percent := []metrics.Sample{{Name: "/gc/gogc:percent"}}
		for end := time.Now().Add(20 * time.Second); ; runtime.Gosched() {
			runtime.GC()
			if metrics.Read(percent); percent[0].Value.Uint64() == want {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("it is %d, not %d", percent[0].Value.Uint64(), want)
			}
		}
	}
	becomes(ifLittle)
	much := make([]*[1 << 20]byte, 2*littleLive>>20)
	for i := range much {
		much[i] = new([1 << 20]byte)
	}
	becomes(ifMuch)
	runtime.KeepAlive(much)
	much = nil
	becomes(ifLittle)
}
