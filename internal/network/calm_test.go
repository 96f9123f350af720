package network

import (
	"context"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

// After a crowd memory is given back once, when the last of it has gone and nobody came for a while; after a few it is not.
func TestCalmAfterACrowd(t *testing.T) {
	returned := func() uint32 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.NumForcedGC
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := &Stack{ctx: ctx}
		before := returned()
		leave := func(of int32, crowded bool) {
			s.open.Store(of)
			s.crowded.Store(crowded)
			for range of {
				s.left()
				time.Sleep(time.Millisecond)
			}
			time.Sleep(2 * calmAfter)
			synctest.Wait()
		}
		leave(3, false)
		if n := returned() - before; n != 0 {
			t.Errorf("after a few connections memory was given back %d times", n)
		}
		leave(3, true)
		if n := returned() - before; n != 1 {
			t.Errorf("after a crowd memory was given back %d times", n)
		}
		if s.crowded.Load() {
			t.Error("it still counts as crowded")
		}
		s.open.Store(1)
		s.crowded.Store(true)
		s.left()
		cancel() // the stack closes, and waits for nothing
		s.wg.Wait()
		if n := returned() - before; n != 1 {
			t.Errorf("memory was given back %d times, once by a stack that was closed", n)
		}
	})
}
