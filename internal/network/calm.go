package network

import (
	"runtime/debug"
	"time"
)

// calmAfter is from the end of the last connection of a crowd to the return of its memory.
const calmAfter = 2 * time.Second

// left takes in that a connection through a published port has ended. What a crowd of them needed would stay with this process,
// which has nothing to do from then on and so collects no garbage: it is given back to the host.
func (s *Stack) left() {
	if s.open.Add(-1) > 0 || !s.crowded.CompareAndSwap(true, false) {
		return
	}
	s.wg.Go(func() {
		select {
		case <-time.After(calmAfter):
			debug.FreeOSMemory()
		case <-s.ctx.Done():
		}
	})
}
