package daemon

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/halevm/hale/internal/health"
	"github.com/halevm/hale/internal/instance/fake"
	"github.com/halevm/hale/internal/machine"
)

// A machine that is booted once more has no network yet, whatever the first had: health hears of it, and waits.
func TestHealthHearsOfABootRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		machines := fake.New(fake.Config{Boot: time.Hour})
		d := watched(t, machines, &slowDisk{})
		in := d.make(t, "web")
		results := func() (n int) {
			s, ok := d.health.Snapshot(in.ID)
			if !ok {
				t.Fatal("health does not know it")
			}
			for _, r := range s.Results {
				if r.Cause != health.CauseNoNetwork && r.Cause != health.CauseNoMachine {
					t.Errorf("%+v", r)
				}
			}
			return len(s.Results)
		}
		time.Sleep(10 * time.Second)
		machines.Say(in.ID, machine.Notice{Kind: machine.NetworkUp})
		time.Sleep(10 * time.Second)
		before := results()
		if before < 5 {
			t.Errorf("%d probes of a guest that has a network and does not answer", before)
		}
		machines.Crash(in.ID, machine.Exit{Reason: machine.BootTimeout, Silent: true})
		time.Sleep(10 * time.Second)
		if i, err := d.instances.Find(in.ID); err != nil || i.Boots != 2 {
			t.Errorf("%+v, %v", i, err)
		}
		if more := results() - before; more > 2 {
			t.Errorf("%d probes of a guest that has no network yet", more)
		}
		if err := d.instances.Delete(t.Context(), in.ID, false); err != nil {
			t.Error(err)
		}
	})
}
