package health

import (
	"bytes"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A panic while the record is made or written is a write that failed: told, counted, and tried again; the loop does not rest for it.
func TestPanicsOfTheRecord(t *testing.T) {
	for _, what := range []string{"encoding", "writing"} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				var failed atomic.Int64
				b.hooks.SaveFailed = func() { failed.Add(1) }
				var mad atomic.Bool
				b.journal.onSave = func([]byte) error {
					if mad.Load() {
						panic("the disk has a bug")
					}
					return nil
				}
				b.seen(0, Inactive, pacedPolicy)
				b.seen(1, Running, pacedPolicy)
				b.is(StatusHealthy)
				breaks := func(broken bool) {
					if what == "writing" {
						mad.Store(broken)
						return
					}
					stale := &b.loop("a", false).history.transitions.at(0).stale
					if *stale = 0; broken {
						*stale = uint8(len(stales)) // which none is
					}
					b.Hint("a", 81, true) // which is no port of the check: the loop looks once more
				}
				saves := b.journal.writes()
				breaks(true)
				time.Sleep(saveEvery + 100*ms)
				synctest.Wait()
				log := b.log.String()
				if n := strings.Count(log, what+" the health record panicked"); n < 1 || strings.Contains(log, "loop panicked") || !strings.Contains(log, "cannot be written") {
					t.Errorf("told %d times, log %s", n, log)
				}
				if n := b.journal.writes(); n != saves || strings.Contains(log, "written again") {
					t.Errorf("%d writes that tell nothing, log %s", n-saves, log)
				}
				if b.panics.Load() != 1 || failed.Load() != 1 || b.count() < 6 {
					t.Errorf("%d panics, %d writes failed, %d probes", b.panics.Load(), failed.Load(), b.count())
				}
				breaks(false)
				time.Sleep(saveEvery)
				if n := b.journal.writes(); n != saves+1 || !strings.Contains(b.log.String(), "can be written again") {
					t.Errorf("%d writes, log %s", n-saves, b.log)
				}
			})
		})
	}
}

// Records are written in room that was used before, but for that of a write which failed: somebody may still read it.
func TestRoomOfRecords(t *testing.T) {
	for _, refuse := range []error{nil, errors.New("disk full")} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t)
			var given, were [][]byte // what is given to write is kept, which it must not be where it was written
			b.journal.onSave = func(blob []byte) error {
				given, were = append(given, blob), append(were, bytes.Clone(blob))
				return refuse
			}
			b.seen(1, Running, pacedPolicy)
			time.Sleep(20 * time.Minute)
			b.close()
			rooms := map[*byte]bool{}
			for i, blob := range given {
				rooms[&blob[0]] = true
				if refuse != nil && !bytes.Equal(blob, were[i]) {
					t.Fatalf("what a write that failed was given is now\n%s\nand was\n%s", blob, were[i])
				}
			}
			if n := len(given); n < 200 || refuse == nil && len(rooms) > n/2 {
				t.Errorf("%d writes from %d rooms", n, len(rooms))
			}
		})
	}
}
