package agent

import (
	"encoding/json"
	"time"

	"github.com/halevm/hale/internal/guest/protocol"
)

// The pace at which the watched port is looked up, from the end of one look to the start of the next. It is fast while something may be
// about to listen: until the port is open for the first time, and for a while after it has ceased to be. A program that takes longer
// than this to start, if it ever does, is no matter of half a second.
const (
	fastLook = 50 * time.Millisecond
	slowLook = 500 * time.Millisecond
	startFor = 10 * time.Minute // after the Watch
	againFor = time.Minute      // after it has ceased
)

// watch takes the port that the host wants to hear of. It never waits: the newest is the one that counts.
func (a *Agent) watch(s *session, payload []byte) {
	var m protocol.Watch
	if err := json.Unmarshal(payload, &m); err != nil {
		a.log.Warn("a port to watch that makes no sense", "err", err)
		return
	}
	select {
	case <-s.watches: // replaced by this one
	default:
	}
	s.watches <- m // has room: only the reader of the control port comes here
	if !s.watching {
		s.watching = true
		a.start("ports", func() { a.lookAtPorts(s, newPortTables("/proc")) })
	}
}

// lookAtPorts tells the host of the port that it watches, until the session ends.
func (a *Agent) lookAtPorts(s *session, tables *portTables) {
	defer tables.close()
	look := time.NewTimer(0)
	defer look.Stop()
	var (
		watch     protocol.Watch
		told      protocol.Where // "": nothing yet
		fastUntil time.Time
	)
	for {
		select {
		case watch = <-s.watches:
			told, fastUntil = "", time.Now().Add(startFor)
		case <-look.C:
		case <-s.ctx.Done():
			return
		}
		if !watch.Addr.IsValid() {
			look.Stop() // until the next Watch
			continue
		}
		where := tables.where(watch.Addr)
		if where != told {
			if told == protocol.Open {
				fastUntil = time.Now().Add(againFor)
			}
			told = where
			a.send(s, protocol.TypeListening, protocol.Listening{Port: watch.Addr.Port(), Where: where})
		}
		if where != protocol.Open && time.Now().Before(fastUntil) {
			look.Reset(fastLook)
		} else {
			look.Reset(slowLook)
		}
	}
}
