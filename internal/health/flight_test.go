package health

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A flight is a context as those of package context are.
func TestFlightIsAContext(t *testing.T) {
	type afterFunc interface{ AfterFunc(func()) func() bool }
	for name, open := range map[string]func(c *crew, until time.Time) (ctx context.Context, end func(error)){
		"a flight": func(c *crew, until time.Time) (context.Context, func(error)) {
			f := &flight{crew: c, until: until}
			return f, f.end
		},
		"context's": func(_ *crew, until time.Time) (context.Context, func(error)) {
			ctx, cancel := context.WithDeadline(context.Background(), until)
			return ctx, func(error) { cancel() }
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			var c crew
			defer c.close()
			until := time.Now().Add(time.Hour)
			ctx, end := open(&c, until)
			var mu sync.Mutex
			var called []string
			after := func(what string) func() bool {
				do := func() { mu.Lock(); defer mu.Unlock(); called = append(called, what) }
				if f, ok := ctx.(afterFunc); ok {
					return f.AfterFunc(do)
				}
				return context.AfterFunc(ctx, do)
			}
			expect := func(want ...string) {
				t.Helper()
				synctest.Wait()
				mu.Lock()
				defer mu.Unlock()
				if slices.Sort(called); !slices.Equal(called, want) {
					t.Errorf("%s: called %v, want %v", name, called, want)
				}
			}
			if at, ok := ctx.Deadline(); !ok || !at.Equal(until) || ctx.Err() != nil || ctx.Value(until) != nil {
				t.Errorf("%s: %v, %v, %v", name, at, ok, ctx.Err())
			}
			done := ctx.Done()
			select {
			case <-done:
				t.Errorf("%s: done at once", name)
			default:
			}
			after("a")
			stopB, stopC := after("b"), after("c")
			after("d")
			if !stopB() || stopB() {
				t.Errorf("%s: taken back once and no more", name)
			}
			child, cancel := context.WithCancel(ctx)
			defer cancel()
			expect()
			end(errCutShort)
			<-done
			<-child.Done()
			if ctx.Done() != done || !errors.Is(ctx.Err(), context.Canceled) {
				t.Errorf("%s: %v", name, ctx.Err())
			}
			expect("a", "c", "d")
			if stopC() || after("e")() {
				t.Errorf("%s: taken back though it was called", name)
			}
			end(errOverdue) // which changes nothing
			expect("a", "c", "d", "e")
			if !errors.Is(ctx.Err(), context.Canceled) {
				t.Errorf("%s: another reason: %v", name, ctx.Err())
			}
			ctx, end = open(&c, until) // whose channel nobody asked for before its end
			end(errCutShort)
			<-ctx.Done()
		})
	}
}

// Why a probe is to end, in our words and in context's.
func TestWhyAFlightEnds(t *testing.T) {
	for why, kind := range map[error]error{errOverdue: context.DeadlineExceeded, errCutShort: context.Canceled, errLanded: context.Canceled} {
		f := &flight{crew: new(crew)}
		f.end(why)
		if err := context.Cause(f); err != why || !errors.Is(err, kind) || err.Error() == kind.Error() || err.Error() == "" {
			t.Errorf("%v, want %v", err, kind)
		}
	}
}
