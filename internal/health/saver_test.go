package health

import (
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
				b.open()
				j := &madWriter{journal: b.journal}
				b.Set.config.Journal = j
				b.seen(0, Inactive, pacedPolicy)
				b.seen(1, Running, pacedPolicy)
				b.is(StatusHealthy)
				breaks := func(broken bool) {
					if what == "writing" {
						j.mad.Store(broken)
						return
					}
					stale := &b.loop("a", false).history.transitions.at(0).stale
					if *stale = 0; broken {
						*stale = uint8(len(stales)) // which none is
					}
				}
				breaks(true)
				time.Sleep(saveEvery + 100*ms)
				synctest.Wait()
				log := b.log.String()
				if n := strings.Count(log, what+" the health record panicked"); n < 1 || strings.Contains(log, "loop panicked") || !strings.Contains(log, "cannot be written") {
					t.Errorf("told %d times, log %s", n, log)
				}
				if b.panics.Load() != 1 || failed.Load() != 1 || b.count() < 6 {
					t.Errorf("%d panics, %d writes failed, %d probes", b.panics.Load(), failed.Load(), b.count())
				}
				breaks(false)
				_, saves := b.journal.record()
				time.Sleep(saveEvery)
				if _, n := b.journal.record(); n != saves+1 || !strings.Contains(b.log.String(), "can be written again") {
					t.Errorf("%d writes, log %s", n-saves, b.log)
				}
				b.close()
			})
		})
	}
}

// A madWriter is a journal that may panic when it is to write a record.
type madWriter struct {
	*journal
	mad atomic.Bool
}

func (j *madWriter) Save(id string, blob []byte) error {
	if j.mad.Load() {
		panic("the disk has a bug")
	}
	return j.journal.Save(id, blob)
}
