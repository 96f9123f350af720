package shim

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// What no daemon has acknowledged is told to the next one, and nothing twice.
func TestRemarks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		var r remarks
		go func() {
			time.Sleep(10 * time.Second)
			r.add("one")
		}()
		start := time.Now()
		got := r.after(ctx, 0)
		if len(got.Lines) != 1 || got.Lines[0] != "one" || got.Last != 1 || time.Since(start) != 10*time.Second {
			t.Fatalf("%+v after %v", got, time.Since(start))
		}
		r.add("two")
		if got := r.after(ctx, 0); len(got.Lines) != 2 { // a daemon that knows nothing: none was acknowledged
			t.Errorf("a new daemon is told %+v", got)
		}
		if got := r.after(ctx, 1); len(got.Lines) != 1 || got.Lines[0] != "two" || got.Last != 2 {
			t.Errorf("after one: %+v", got)
		}
		start = time.Now()
		if got := r.after(ctx, 2); len(got.Lines) != 0 || got.Last != 2 || time.Since(start) != remarkWait {
			t.Errorf("after all: %+v after %v", got, time.Since(start))
		}
		if got := r.after(ended(ctx), 0); len(got.Lines) != 0 {
			t.Errorf("what was acknowledged is told again: %+v", got)
		}
		if got := r.after(ended(ctx), 99); len(got.Lines) != 0 || got.Last != 2 { // a daemon that is mistaken
			t.Errorf("after what never was: %+v", got)
		}
	})
}

func ended(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	return ctx
}

func TestRemarksAreBounded(t *testing.T) {
	var r remarks
	for i := range keptRemarks + 10 {
		r.add(fmt.Sprint(i))
	}
	got := r.after(t.Context(), 0)
	if len(got.Lines) != maxRemarks || got.Lines[0] != "10 (10 before it were not kept)" || got.Lines[1] != "11" {
		t.Errorf("%+v", got)
	}
	n := len(got.Lines)
	for len(r.lines) > 0 {
		got = r.after(ended(t.Context()), got.Last)
		n += len(got.Lines)
	}
	if n != keptRemarks || got.Last != keptRemarks+10 {
		t.Errorf("%d lines in all, the last has number %d", n, got.Last)
	}
}

func TestPlain(t *testing.T) {
	if got := plain("a\x1b[31mb\n\u009bc\xff" + strings.Repeat("x", 2*maxRemark)); !strings.HasPrefix(got, "a[31mbcx") || len(got) > maxRemark {
		t.Errorf("%q", got)
	}
}
