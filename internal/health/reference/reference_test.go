package reference

import (
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestNext puts random histories to Next and to the reference, and compares all that can be seen after every input. The history in
// which they differ is printed, with what it can do without taken out. 20,000 of them, or HALE_HISTORIES (make reference: 1,000,000).
func TestNext(t *testing.T) {
	histories := uint64(20_000)
	if s := os.Getenv("HALE_HISTORIES"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil || n == 0 {
			t.Fatalf("HALE_HISTORIES is a number of histories, not %q", s)
		}
		histories = n
	}
	base := time.Now() // the results do not depend on it: only differences do
	policies := somePolicies(t, 1024)
	var hits [Branches]uint64
	var steps uint64
	var mu sync.Mutex
	var next, failed atomic.Uint64
	failed.Store(histories)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			w := newWorld(policies, base)
			for {
				first := next.Add(1000) - 1000
				for i := first; i < min(first+1000, histories); i++ {
					if i > failed.Load() {
						break
					}
					if d := w.history(i, nil); d != "" {
						for old := failed.Load(); i < old && !failed.CompareAndSwap(old, i); old = failed.Load() {
						}
						break
					}
				}
				if first+1000 >= min(histories, failed.Load()) {
					break
				}
			}
			mu.Lock()
			defer mu.Unlock()
			for b, n := range w.pair.ref.Hits {
				hits[b] += n
			}
			steps += w.pair.taken
		})
	}
	wg.Wait()

	if i := failed.Load(); i < histories {
		w := newWorld(policies, base)
		var all []step
		w.history(i, &all)
		few, diff := w.pair.shrink(all)
		t.Fatalf("history %d: after %d steps, these of %d:\n%s%s", i, len(few), len(all), w.pair.print(few), diff)
	}
	least := max(1, histories/1000)
	for b := range Branches {
		t.Logf("%9d  %v", hits[b], b)
	}
	t.Logf("%9d  histories, %d inputs", histories, steps)
	for b := range Branches {
		if hits[b] < least {
			t.Errorf("%v: reached %d times, %d are needed", b, hits[b], least)
		}
	}
}
