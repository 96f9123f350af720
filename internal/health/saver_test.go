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
					b.Hint("a", 81, true) // which is no port of the check: the loop looks once more
				}
				_, saves := b.journal.record()
				breaks(true)
				time.Sleep(saveEvery + 100*ms)
				synctest.Wait()
				log := b.log.String()
				if n := strings.Count(log, what+" the health record panicked"); n < 1 || strings.Contains(log, "loop panicked") || !strings.Contains(log, "cannot be written") {
					t.Errorf("told %d times, log %s", n, log)
				}
				if _, n := b.journal.record(); n != saves || strings.Contains(log, "written again") {
					t.Errorf("%d writes that tell nothing, log %s", n-saves, log)
				}
				if b.panics.Load() != 1 || failed.Load() != 1 || b.count() < 6 {
					t.Errorf("%d panics, %d writes failed, %d probes", b.panics.Load(), failed.Load(), b.count())
				}
				breaks(false)
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

// Records are written in room that was used before, but for that of a write which failed: somebody may still read it.
func TestRoomOfRecords(t *testing.T) {
	for _, refuse := range []error{nil, errors.New("disk full")} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t)
			j := &keeper{journal: b.journal, refuse: refuse}
			b.Set.config.Journal = j
			b.seen(1, Running, pacedPolicy)
			time.Sleep(20 * time.Minute)
			b.close()
			rooms := map[*byte]bool{}
			for i, blob := range j.given {
				rooms[&blob[0]] = true
				if refuse != nil && !bytes.Equal(blob, j.were[i]) {
					t.Fatalf("what a write that failed was given is now\n%s\nand was\n%s", blob, j.were[i])
				}
			}
			if n := len(j.given); n < 200 || refuse == nil && len(rooms) > n/2 {
				t.Errorf("%d writes from %d rooms", n, len(rooms))
			}
		})
	}
}

// A keeper is a journal that keeps what it is given to write, which it must not where it wrote it.
type keeper struct {
	*journal
	refuse      error
	given, were [][]byte
}

func (k *keeper) Save(_ string, blob []byte) error {
	k.given, k.were = append(k.given, blob), append(k.were, bytes.Clone(blob))
	return k.refuse
}
