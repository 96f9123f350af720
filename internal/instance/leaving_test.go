package instance_test

import (
	"slices"
	"testing"
	"testing/synctest"

	"github.com/halevm/hale/internal/instance"
)

// Leaving is told before a deletion is in the log, once the instance has ended; and that it stays, where it could not be deleted.
func TestLeaving(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		var told []string
		var s *instance.Set
		h.config = func(c *instance.Config) {
			c.Leaving = func(id string) func() {
				in, err := s.Find(id)
				if err != nil {
					t.Error(err)
				}
				told = append(told, "leaves "+string(in.State))
				return func() { told = append(told, "stays") }
			}
		}
		s = h.open()
		in := started(t, s, "web", "sleep")
		synctest.Wait()
		back := s.Unreachable()
		if err := s.Delete(t.Context(), in.ID, false); err == nil {
			t.Fatal("deleted")
		}
		synctest.Wait()
		if err := back(); err != nil {
			t.Fatal(err)
		}
		if err := s.Delete(t.Context(), in.ID, false); err != nil {
			t.Fatal(err)
		}
		if want := []string{"leaves Stopped", "stays", "leaves Stopped"}; !slices.Equal(told, want) {
			t.Errorf("told %v, want %v", told, want)
		}
	})
}
