package health

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// Counters are written every few seconds, transitions at once, and everything at the end.
func TestSaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.seen(1, Running, pacedPolicy)
		b.is(StatusHealthy)
		status := func() string {
			var r record
			if err := json.Unmarshal(b.journal.record(), &r); err != nil {
				t.Fatal(err)
			}
			return fmt.Sprint(r.Status, r.Successes)
		}
		if got := status(); got != "healthy1" {
			t.Errorf("after the transition: %s", got)
		}
		saves := b.journal.writes()
		time.Sleep(time.Minute)
		if n := b.journal.writes(); n-saves < 10 || n-saves > 12 {
			t.Errorf("%d writes in a minute", n)
		}
		b.journal.breaks(0, errors.New("disk full"))
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := strings.Count(b.log.String(), "cannot be written"); n != 1 {
			t.Errorf("told %d times", n)
		}
		b.journal.breaks(0, nil)
		b.close()
		if got := status(); got != fmt.Sprint("healthy", b.snapshot().ConsecutiveSuccesses) {
			t.Errorf("at the end: %s", got)
		}
	})
}

// The opening of a window is written at once, also where it is no transition.
func TestWindowIsSavedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.answers(bad, 0)
		b.seen(1, Running, pacedPolicy)
		time.Sleep(7 * time.Second)
		b.answers(bad, time.Second)
		b.seen(2, Running, pacedPolicy)
		var r record
		if err := json.Unmarshal(b.journal.record(), &r); err != nil {
			t.Fatal(err)
		}
		if r.Run != 2 || r.Window != 2 {
			t.Errorf("the record is of run %d and window %d", r.Run, r.Window)
		}
	})
}

// So are a check that is not probed yet, and the end of one; an instance that never had one has no record.
func TestWhatIsNotProbedIsSaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		status := func() Status {
			var r record
			if err := json.Unmarshal(b.journal.record(), &r); err != nil {
				t.Fatal(err)
			}
			return r.Status
		}
		b.seen(0, Inactive, "null")
		time.Sleep(time.Minute)
		if n := b.journal.writes(); n != 0 {
			t.Errorf("%d writes", n)
		}
		b.seen(0, Inactive, `{"interval":"1h","tcp":{"port":80}}`)
		time.Sleep(time.Minute)
		if s := status(); s != StatusUnknown {
			t.Errorf("before the first start: %s", s)
		}
		b.seen(1, Running, `{"interval":"1h","tcp":{"port":80}}`)
		b.is(StatusHealthy)
		time.Sleep(time.Minute)
		b.seen(1, Running, "null")
		if s := status(); s != StatusDisabled {
			t.Errorf("without a check: %s", s)
		}
	})
}

// A slow disk: one write at a time, and Close waits for the last, which holds everything.
func TestSlowSaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		var writing atomic.Int64
		b.journal.onSave = func([]byte) error {
			if writing.Add(1) > 1 {
				t.Error("two writes at once")
			}
			time.Sleep(3 * time.Second)
			writing.Add(-1)
			return nil
		}
		b.seen(1, Running, pacedPolicy)
		b.is(StatusHealthy)
		time.Sleep(20 * time.Second)
		want := b.is(StatusHealthy).ConsecutiveSuccesses
		b.close()
		_, s, _, err := decode(b.clock, b.journal.record())
		if err != nil || s.Successes != want || want < 15 {
			t.Errorf("%d successes are written, of %d: %v", s.Successes, want, err)
		}
		select {
		case <-b.Changed("a"): // nobody waits for one that has ended
		default:
			t.Error("a change will be waited for that never comes")
		}
	})
}

// That the last write fails is told, too.
func TestLastSaveFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.seen(1, Running, `{"interval":"1h","tcp":{"port":80}}`)
		b.is(StatusHealthy)
		time.Sleep(time.Second)
		b.Ask("a") // a counter that is not written yet
		synctest.Wait()
		b.journal.breaks(0, errors.New("disk full"))
		b.close()
		if !strings.Contains(b.log.String(), "cannot be written") {
			t.Errorf("the log: %s", b.log)
		}
	})
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
