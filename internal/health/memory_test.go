package health

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"
)

// A watched instance with full histories costs at most 18 KiB, and no goroutine while it waits.
func TestMemory(t *testing.T) {
	const instances, bound = 500, 18 << 10
	p := mustParse(t, `{"interval":"24h","http":{"port":80,"path":"/healthz"}}`)
	var full history
	for i := range keep {
		full.addResult(WindowResult{Result: Result{Start: time.Now(), Outcome: Failure, Reason: fmt.Sprintf("status 50%d, expected 200", i%3)}})
		full.addTransition(Transition{Time: time.Now(), From: StatusHealthy, To: StatusUnhealthy, Reason: fmt.Sprintf("timeout after %ds: no answer to GET /healthz", i)})
	}
	blob, err := encoded(newClock(hostBoot(nil)), p, State{Run: 1, Window: 1, Status: StatusUnknown}, &full)
	if err != nil {
		t.Fatal(err)
	}
	s := NewSet(Config{Journal: archive(blob), Probe: func(context.Context, string, Policy, func()) Result {
		return Result{Outcome: Success, Reason: "status 200"}
	}})
	before := inUse()
	for i := range instances {
		id := fmt.Sprintf("instance%016d", i)
		s.Sync(Observed{ID: id, Run: 1, Phase: Running, Policy: p, Entered: time.Now()})
		if _, err := s.CheckNow(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	each := (inUse() - before) / instances
	t.Logf("%d bytes for each", each)
	if each > bound && !raceDetector {
		t.Errorf("%d bytes for each instance, more than %d", each, bound)
	}
	if snap, _ := s.Snapshot("instance0000000000000000"); len(snap.Results) != keep || len(snap.Transitions) != keep || snap.Status != StatusHealthy {
		t.Errorf("%s, %d results, %d transitions", snap.Status, len(snap.Results), len(snap.Transitions))
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func inUse() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc + m.StackInuse)
}

// BenchmarkProbe is all that a probe costs beside the probe itself.
func BenchmarkProbe(b *testing.B) {
	s := NewSet(Config{Journal: archive(nil), Probe: func(context.Context, string, Policy, func()) Result {
		return Result{Outcome: Success, Reason: "status 200"}
	}})
	p := mustParse(b, `{"interval":"1h","http":{"port":80}}`)
	s.Sync(Observed{ID: "a", Run: 1, Phase: Running, Policy: p})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.CheckNow(b.Context(), "a"); err != nil {
			b.Fatal(err)
		}
	}
	s.Close(b.Context())
}
