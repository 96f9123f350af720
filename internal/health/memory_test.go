package health

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// A watched instance with full histories costs at most 24 KiB, its goroutine included.
func TestMemory(t *testing.T) {
	const instances, bound = 500, 24 << 10
	p := mustParse(t, `{"interval":"24h","http":{"port":80,"path":"/healthz"}}`)
	var full history
	for i := range keep {
		full.addResult(WindowResult{Result: Result{Start: time.Now(), Outcome: Failure, Reason: fmt.Sprintf("status 50%d, expected 200", i%3)}})
		full.addTransition(Transition{Time: time.Now(), From: StatusHealthy, To: StatusUnhealthy, Reason: fmt.Sprintf("timeout after %ds: no answer to GET /healthz", i)})
	}
	blob, err := encode(nil, newClock(hostBoot(nil)), p, State{Run: 1, Window: 1, Status: StatusUnknown}, &full)
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

// An archive is a journal that begins every instance with the same record, and keeps nothing.
type archive []byte

func (archive) Commit(context.Context, string, Transition) error { return nil }
func (archive) Save(string, []byte) error                        { return nil }
func (a archive) Load(string) ([]byte, error)                    { return a, nil }

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

// BenchmarkRecord is one write of a record with full histories, encoding only.
func BenchmarkRecord(b *testing.B) {
	var h history
	for range keep {
		h.addResult(WindowResult{Result: Result{Start: time.Now(), Outcome: Success, Reason: "status 200"}})
		h.addTransition(Transition{Time: time.Now(), From: StatusHealthy, To: StatusUnhealthy, Reason: "timeout after 2s: no answer to GET /healthz"})
	}
	p := mustParse(b, `{"http":{"port":80}}`)
	c := newClock(hostBoot(nil))
	b.ReportAllocs()
	var room []byte
	for b.Loop() {
		blob, err := encode(room[:0], c, p, State{}, &h)
		if err != nil {
			b.Fatal(err)
		}
		room = blob
	}
}

// The lists of a record are written as encoding/json would, to the byte.
func TestEncodedLists(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var h history
		text := rapid.OneOf(rapid.Just(""), rapid.Just("status 200"), rapid.String())
		for range rapid.IntRange(0, 5).Draw(t, "results") {
			h.addResult(WindowResult{Window: rapid.Uint64().Draw(t, "window"), Result: Result{
				Start: time.Unix(0, rapid.Int64Range(0, 1<<62).Draw(t, "start")), Duration: time.Duration(rapid.Int64().Draw(t, "took")),
				Outcome: rapid.SampledFrom(outcomes).Draw(t, "outcome"), Reason: text.Draw(t, "reason"), Output: text.Draw(t, "output"),
				Cause: text.Draw(t, "cause"), Definite: rapid.Bool().Draw(t, "definite"),
			}})
			moved := Transition{
				Time: time.Unix(0, rapid.Int64Range(0, 1<<62).Draw(t, "time")), From: rapid.SampledFrom(statuses).Draw(t, "from"),
				To: rapid.SampledFrom(statuses).Draw(t, "to"), Reason: text.Draw(t, "reason"), Output: text.Draw(t, "output"),
				Window: rapid.Uint64Range(0, 2).Draw(t, "window"), N: rapid.Uint64Range(0, 2).Draw(t, "n"), Stale: rapid.SampledFrom(stales).Draw(t, "stale"),
			}
			if rapid.Bool().Draw(t, "lost") {
				moved.Persisted = lost
			}
			h.addTransition(moved)
		}
		got, err := encode(nil, newClock(Boot{ID: "boot", Uptime: uptime}), Policy{}, State{}, &h)
		if err != nil {
			t.Fatal(err)
		}
		results, err := json.Marshal(h.listResults())
		if err != nil {
			t.Fatal(err)
		}
		transitions, err := json.Marshal(h.listTransitions())
		if err != nil {
			t.Fatal(err)
		}
		if want := `"results":` + string(results) + `,"transitions":` + string(transitions) + "}"; !strings.HasSuffix(string(got), want) {
			t.Fatalf("%s\nwant at its end\n%s", got, want)
		}
	})
}
