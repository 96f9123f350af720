package instance_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/halevm/hale/internal/instance"
	"github.com/halevm/hale/internal/machine"
)

// An operation that has begun is finished without its caller.
func TestCallerGoesAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		s := h.open()
		i := started(t, s, "web", "hang")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.Stop(ctx, "web"); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("stop: %v", err)
		}
		if got, _ := s.Find("web"); got.State != instance.Shutdown {
			t.Errorf("state %s", got.State)
		}
		// Another that waits its turn and gives up does nothing.
		if _, err := s.Start(ctx, "web", instance.StartOptions{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("start: %v", err)
		}
		stopped := await(t, s, i.ID, instance.Stopped)
		if stopped.Run != 1 {
			t.Errorf("run %d", stopped.Run)
		}
	})
}

func TestStopIsBounded(t *testing.T) {
	for _, tt := range []struct {
		program string
		want    machine.Reason
		after   time.Duration
	}{
		{"sleep", machine.Stopped, 0},
		{"hang", machine.Stopped, 10 * time.Second},
		{"stuck", machine.Killed, 15 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			h := newHost(t)
			s := h.open()
			started(t, s, "web", tt.program)
			begun := time.Now()
			stopped, err := s.Stop(t.Context(), "web")
			if err != nil || stopped.Exit.Reason != tt.want || time.Since(begun) != tt.after {
				t.Errorf("%s: %+v after %s, %v; want %s after %s", tt.program, stopped.Exit, time.Since(begun), err, tt.want, tt.after)
			}
			if tt.want == machine.Killed && !strings.Contains(stopped.StateError(), "did not stop within") {
				t.Errorf("%s: %q", tt.program, stopped.StateError())
			}
		})
	}
}

// Who stops an instance that boots gets what was asked for, and no error.
func TestStopWhileItBoots(t *testing.T) {
	h := newHost(t)
	s := h.open()
	create(t, s, "web", "sleep")
	stopped, err := s.Stop(t.Context(), "web")
	if err != nil || stopped.State != instance.Stopped || stopped.StateError() != "" {
		t.Errorf("%+v: %q, %v", stopped, stopped.StateError(), err)
	}
}

// A deletion by force does not wait for an orderly stop, and leaves the next one its time.
func TestForcedDeleteInterruptsAStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		s := h.open()
		started(t, s, "web", "stuck")
		stopped := make(chan error)
		go func() {
			i, err := s.Stop(t.Context(), "web")
			if err == nil && (i.State != instance.Stopped || !strings.Contains(i.Exit.Message, "forced")) {
				err = fmt.Errorf("stopped %+v", i.Exit)
			}
			stopped <- err
		}()
		time.Sleep(time.Second)
		begun := time.Now()
		if err := s.Delete(t.Context(), "web", false); err != nil || time.Since(begun) != 0 {
			t.Errorf("deleted after %v: %v", time.Since(begun), err)
		}
		if err := <-stopped; err != nil {
			t.Error(err)
		}

		started(t, s, "web", "hang")
		begun = time.Now()
		if i, err := s.Stop(t.Context(), "web"); err != nil || time.Since(begun) != 10*time.Second || i.Exit.Reason != machine.Stopped {
			t.Errorf("%+v after %v, %v", i.Exit, time.Since(begun), err)
		}
	})
}
