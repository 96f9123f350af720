package daemon

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/instance"
	"github.com/halevm/hale/internal/instance/fake"
	"github.com/halevm/hale/internal/machine"
	hale "github.com/halevm/hale/sdk/go"
)

// A frame from the guest is seen by health.
func TestTheFirstFrameIsSeen(t *testing.T) {
	in := instance.Instance{ID: "a", Run: 1, State: instance.Initializing}
	if observed(in).Network {
		t.Error("a network is seen that has sent nothing")
	}
	in.Network = true
	if !observed(in).Network {
		t.Error("the first frame is not seen")
	}
}

// The guest is told which port is checked, when its agent is there, when the policy changes and by the next daemon; its hint has the
// check made, long before the next is due, and nothing else does.
func TestAHintAsksForACheck(t *testing.T) {
	driver := fake.Surviving{Driver: fake.New(fake.Config{})}
	dir := t.TempDir()
	c, stop := run(t, dir, driver)
	load(t, c)
	in, err := c.CreateInstance(t.Context(), api.CreateInstanceRequest{Name: "web", Image: "app", HealthCheck: json.RawMessage(`{"http":{"port":80},"interval":"1h"}`)})
	if err != nil {
		t.Fatal(err)
	}
	wait(t, c, hale.Wait{Health: api.HealthStateHealthy})
	wait(t, c, hale.Wait{State: api.InstanceStateRunning})
	last := func() uint16 {
		ports := driver.Watched(in.ID)
		if len(ports) == 0 {
			return 0
		}
		return ports[len(ports)-1]
	}
	// quiet joins the check that the start, or a new policy, asked for: after it none is due for an hour.
	quiet := func() {
		t.Helper()
		if _, err := c.CheckInstanceHealth(t.Context(), "web"); err != nil {
			t.Fatal(err)
		}
	}
	checked := func() time.Time {
		t.Helper()
		h, err := c.InstanceHealth(t.Context(), "web")
		if err != nil || h.LastCheckedAt == nil {
			t.Fatalf("%+v, %v", h, err)
		}
		return *h.LastCheckedAt
	}
	soon := func(what string, so func() bool) {
		t.Helper()
		for end := time.Now().Add(time.Minute); !so(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("not after a minute: ", what)
			}
		}
	}
	soon("the checked port is watched", func() bool { return last() == 80 })
	quiet()
	before := checked()
	driver.Say(in.ID, machine.Notice{Kind: machine.Hinted, Port: 81}) // not the checked one
	driver.Say(in.ID, machine.Notice{Kind: machine.Hinted, Port: 80}) // ceased, it says
	soon("the hint has it checked", func() bool { return checked().After(before) })
	if h, err := c.InstanceHealth(t.Context(), "web"); err != nil || h.Status != api.HealthStateHealthy {
		t.Errorf("a hint decided: %+v, %v", h, err)
	}

	if _, err := c.UpdateInstance(t.Context(), "web", api.UpdateInstanceRequest{HealthCheck: json.RawMessage(`{"tcp":{"port":81},"interval":"1h","start_interval":"1h"}`)}); err != nil {
		t.Fatal(err)
	}
	soon("the new port is watched", func() bool { return last() == 81 })
	quiet()
	stop()
	watched := len(driver.Watched(in.ID))
	c, stop = run(t, dir, driver)
	defer stop()
	soon("the next daemon has it watched", func() bool { return len(driver.Watched(in.ID)) > watched && last() == 81 })
	before = checked()
	driver.Say(in.ID, machine.Notice{Kind: machine.Hinted, Port: 81, Listening: true}) // it does not, but a guest may say so
	soon("the hint has it checked", func() bool { return checked().After(before) })

	// Without a check over the network nothing is watched.
	if _, err := c.UpdateInstance(t.Context(), "web", api.UpdateInstanceRequest{HealthCheck: json.RawMessage(`{"exec":{"command":["true"]}}`)}); err != nil {
		t.Fatal(err)
	}
	soon("nothing is watched", func() bool { return last() == 0 })
	if ports := slices.Compact(driver.Watched(in.ID)); !slices.Equal(ports, []uint16{80, 81, 0}) {
		t.Errorf("watched were %v", ports)
	}
	if err := c.DeleteInstance(t.Context(), "web", false); err != nil {
		t.Error(err)
	}
}
