package health

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A watch is a suspect and what it told.
type watch struct {
	*testing.T
	*suspect
	mu   sync.Mutex
	told []Suspicion
}

func newWatch(t *testing.T) *watch {
	w := &watch{T: t}
	w.suspect = newSuspect(func(what Suspicion) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if !what.Time.Equal(time.Now()) {
			t.Errorf("%+v is told at %v", what, time.Now())
		}
		what.Time = time.Time{}
		w.told = append(w.told, what)
	})
	return w
}

func (w *watch) falls(watched int, ids ...int) {
	for _, id := range ids {
		w.moved(fmt.Sprint(id), StatusHealthy, StatusUnhealthy, time.Now(), watched)
	}
}

func (w *watch) rises(ids ...int) {
	for _, id := range ids {
		w.moved(fmt.Sprint(id), StatusUnhealthy, StatusHealthy, time.Now(), 1000)
	}
}

// is checks what was told since it was asked last, and whether the suspicion stands.
func (w *watch) is(suspect bool, told ...Suspicion) {
	w.Helper()
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.on() != suspect || !slices.Equal(w.told, told) {
		w.Fatalf("suspect %v, told %+v; want %v, %+v", w.on(), w.told, suspect, told)
	}
	w.told = nil
}

// At least 5 instances that were healthy, and at least half of all watched, within 30 s.
func TestSuspicionArises(t *testing.T) {
	bubble := func(name string, f func(*watch)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWatch(t)
				f(w)
				w.close()
			})
		})
	}
	bubble("five of ten", func(w *watch) {
		w.falls(10, 1, 2, 3, 4)
		w.is(false)
		w.falls(10, 5)
		w.is(true, Suspicion{Suspect: true, Turned: 5, Watched: 10})
	})
	bubble("five of eleven", func(w *watch) {
		w.falls(11, 1, 2, 3, 4, 5)
		w.is(false)
		w.falls(11, 6)
		w.is(true, Suspicion{Suspect: true, Turned: 6, Watched: 11})
	})
	bubble("all four", func(w *watch) {
		w.falls(4, 1, 2, 3, 4)
		w.is(false)
	})
	bubble("one five times", func(w *watch) {
		w.falls(5, 1, 1, 1, 1, 1)
		w.is(false)
		w.falls(5, 2, 3, 4)
		w.is(false)
	})
	bubble("within 30 s", func(w *watch) {
		w.falls(10, 1)
		time.Sleep(30 * time.Second)
		w.falls(10, 2, 3, 4, 5)
		w.is(true, Suspicion{Suspect: true, Turned: 5, Watched: 10})
	})
	bubble("within a little more", func(w *watch) {
		w.falls(10, 1)
		time.Sleep(30*time.Second + 1)
		w.falls(10, 2, 3, 4, 5)
		w.is(false)
		w.falls(10, 1)
		w.is(true, Suspicion{Suspect: true, Turned: 5, Watched: 10})
	})
	bubble("one after the other, each well again", func(w *watch) {
		for i := range 5 {
			w.falls(10, i)
			time.Sleep(time.Second)
			w.is(false)
			w.rises(i)
		}
		w.falls(10, 5, 6, 7, 8) // nine, of which five are well
		w.is(false)
		w.falls(10, 9)
		w.is(false)
		w.falls(10, 1) // one that was
		w.is(true, Suspicion{Suspect: true, Turned: 10, Healthy: 4, Watched: 10})
		w.rises(9)
		w.is(false, Suspicion{Turned: 10, Healthy: 5})
	})
	bubble("only what was healthy", func(w *watch) {
		for i := range 10 {
			for _, from := range []Status{StatusStarting, StatusUnknown} {
				w.moved(fmt.Sprint(i), from, StatusUnhealthy, time.Now(), 10)
			}
			for _, to := range []Status{StatusStarting, StatusUnknown, StatusHealthy} {
				w.moved(fmt.Sprint(i), StatusHealthy, to, time.Now(), 10)
			}
		}
		w.is(false)
	})
}

// It ends when half of them are healthy again, or 2 minutes after the last such turn.
func TestSuspicionEnds(t *testing.T) {
	bubble := func(name string, f func(*watch)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWatch(t)
				w.falls(10, 1, 2, 3, 4, 5)
				w.is(true, Suspicion{Suspect: true, Turned: 5, Watched: 10})
				f(w)
				w.close()
			})
		})
	}
	bubble("half", func(w *watch) {
		w.rises(1, 2)
		w.rises(1, 2, 9) // again, and one that did not turn
		w.is(true)
		w.rises(3)
		w.is(false, Suspicion{Turned: 5, Healthy: 3})
		time.Sleep(time.Hour)
		w.is(false)
	})
	bubble("half of six", func(w *watch) {
		w.falls(10, 6) // while it stands
		w.rises(1, 2)
		w.is(true)
		w.rises(6)
		w.is(false, Suspicion{Turned: 6, Healthy: 3})
	})
	bubble("as many again", func(w *watch) {
		w.falls(10, 6, 7, 8, 9, 10)
		w.is(true)
		w.rises(1, 2, 3, 4)
		w.is(true)
		w.rises(5)
		w.is(false, Suspicion{Turned: 10, Healthy: 5})
	})
	bubble("one that falls again", func(w *watch) {
		w.rises(1, 2)
		w.falls(10, 1)
		w.rises(3)
		w.is(true)
		w.rises(1)
		w.is(false, Suspicion{Turned: 5, Healthy: 3})
	})
	bubble("time", func(w *watch) {
		w.rises(1)
		time.Sleep(2*time.Minute - 1)
		w.is(true)
		time.Sleep(time.Nanosecond)
		w.is(false, Suspicion{Turned: 5, Healthy: 1})
	})
	bubble("time after the last turn", func(w *watch) {
		time.Sleep(time.Minute)
		w.falls(10, 5)
		time.Sleep(2*time.Minute - 1)
		w.is(true)
		time.Sleep(time.Nanosecond)
		w.is(false, Suspicion{Turned: 5})
	})
	bubble("the turns of before do not count again", func(w *watch) {
		w.rises(1, 2, 3)
		w.is(false, Suspicion{Turned: 5, Healthy: 3})
		w.falls(10, 1, 2, 3, 6)
		w.is(false)
		w.falls(10, 7)
		w.is(true, Suspicion{Suspect: true, Turned: 5, Watched: 10})
		w.rises(4, 5) // of the suspicion before
		w.is(true)
		w.rises(1, 2, 3)
		w.is(false, Suspicion{Turned: 5, Healthy: 3})
	})
}

// A slow reader delays nobody, is told in order, and Close waits for it. What ends with the Set is not told.
func TestSuspicionIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []bool
		s := newSuspect(func(what Suspicion) {
			time.Sleep(time.Second)
			told = append(told, what.Suspect)
		})
		start := time.Now()
		for range 3 {
			for i := range 5 {
				s.moved(fmt.Sprint(i), StatusHealthy, StatusUnhealthy, time.Now(), 5)
			}
			for i := range 5 {
				s.moved(fmt.Sprint(i), StatusUnhealthy, StatusHealthy, time.Now(), 5)
			}
		}
		for i := range 5 {
			s.moved(fmt.Sprint(i), StatusHealthy, StatusUnhealthy, time.Now(), 5)
		}
		if time.Since(start) != 0 {
			t.Error("it waited")
		}
		s.close()
		if want := []bool{true, false, true, false, true, false, true}; !slices.Equal(told, want) || time.Since(start) != 7*time.Second {
			t.Errorf("%v after %v", told, time.Since(start))
		}
		for i := range 5 {
			s.moved(fmt.Sprint(i), StatusHealthy, StatusUnhealthy, time.Now(), 5)
		}
		if s.on() {
			t.Error("it stands after the end")
		}
		time.Sleep(time.Hour)
		if len(told) != 7 {
			t.Errorf("%v", told)
		}
	})
}

// While telling hangs only the newest are kept, and beginnings and ends go on to follow each other.
func TestSuspicionsUntold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []Suspicion
		hangs := make(chan struct{})
		s := newSuspect(func(what Suspicion) { <-hangs; told = append(told, what) })
		const times = 10 * maxUntold
		for range times {
			for i := range 5 {
				s.moved(fmt.Sprint(i), StatusHealthy, StatusUnhealthy, time.Now(), 5)
			}
			synctest.Wait() // the first is being told
			for i := range 5 {
				s.moved(fmt.Sprint(i), StatusUnhealthy, StatusHealthy, time.Now(), 5)
			}
			time.Sleep(time.Minute)
		}
		last := time.Now().Add(-time.Minute)
		close(hangs)
		s.close()
		for i, what := range told {
			if what.Suspect != (i%2 == 0) {
				t.Errorf("%d is %+v", i, what)
			}
		}
		if n := len(told); n > maxUntold+1 || n < maxUntold || !told[n-1].Time.Equal(last) {
			t.Errorf("%d are told, the last %+v", n, told[n-1])
		}
	})
}

// The Set reads its own transitions, once they are announced.
func TestSetSuspects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex // of what follows
		answer, panics := good, 0
		var told []Suspicion
		log := new(book)
		s := NewSet(Config{
			Journal: archive(nil), Log: slog.New(slog.NewTextHandler(log, nil)), Boot: Boot{ID: "boot", Uptime: func() time.Duration { return time.Hour }},
			Probe: func(context.Context, string, Policy, func()) Result {
				mu.Lock()
				defer mu.Unlock()
				return answer
			},
			Hooks: Hooks{
				Suspected: func(what Suspicion) {
					mu.Lock()
					defer mu.Unlock()
					if told = append(told, what); len(told) == 2 {
						panic("the hook has a bug")
					}
				},
				Panicked: func() { mu.Lock(); defer mu.Unlock(); panics++ },
			},
		})
		for i := range 10 {
			id, policy := fmt.Sprint(i), pacedPolicy
			if i >= 6 {
				policy = `{"interval":"1h","tcp":{"port":80}}`
			}
			s.Sync(Observed{ID: id, Run: 1, Phase: Running, Policy: mustParse(t, policy)})
		}
		synctest.Wait()
		if s.Suspect() {
			t.Error("at once")
		}
		answers := func(r Result) { mu.Lock(); defer mu.Unlock(); answer = r }
		answers(refusal)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		mu.Lock()
		if !s.Suspect() || len(told) != 1 || told[0].Turned != 5 || told[0].Watched != 10 || !told[0].Suspect || told[0].Time.IsZero() {
			t.Errorf("suspect %v, %+v", s.Suspect(), told)
		}
		mu.Unlock()
		answers(good)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		mu.Lock()
		if s.Suspect() || len(told) != 2 || told[1].Suspect || told[1].Healthy != 3 || told[1].Turned != 6 {
			t.Errorf("suspect %v, %+v", s.Suspect(), told)
		}
		mu.Unlock()
		s.Close(t.Context())
		if n := strings.Count(log.String(), "no longer suspected"); n != 1 || panics != 1 || strings.Count(log.String(), "likelier culprit") != 1 {
			t.Errorf("%d panics, log %s", panics, log)
		}
	})
}
