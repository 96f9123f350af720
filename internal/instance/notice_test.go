package instance_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/halevm/hale/internal/instance"
	"github.com/halevm/hale/internal/machine"
)

// The agent's HELLO is published, and whoever asked is told, though there is no event of it.
func TestAgentReady(t *testing.T) {
	h := newHost(t)
	h.survives()
	told := make(chan string, 2)
	h.config = func(c *instance.Config) { c.AgentReady = func(id string) { told <- id } }
	s := h.open()
	i := create(t, s, "web", "sleep")
	for range 2 { // a machine that is taken back says it again
		if id := <-told; id != i.ID {
			t.Errorf("told of %s", id)
		}
		if got, err := s.Find("web"); err != nil || !got.Agent {
			t.Errorf("%+v, %v", got, err)
		}
		await(t, s, i.ID, instance.Running)
		h.close(s)
		s = h.open()
	}
	if stopped, err := s.Stop(t.Context(), "web"); err != nil || stopped.Agent {
		t.Errorf("%+v, %v", stopped, err)
	}
}

// When an instance became what it is is known by a clock that nobody sets, too, unless another daemon saw it.
func TestEntered(t *testing.T) {
	h := newHost(t)
	h.survives()
	s := h.open()
	made := create(t, s, "web", "sleep")
	for _, in := range []instance.Instance{made, await(t, s, made.ID, instance.Running)} {
		monotonic := strings.Contains(in.Entered.String(), " m=")
		if apart := in.Entered.Round(0).Sub(in.Since); !monotonic || apart.Abs() > time.Millisecond {
			t.Errorf("%s since %v, entered %v", in.State, in.Since, in.Entered)
		}
	}
	h.close(s)
	s = h.open()
	if in, err := s.Find("web"); err != nil || in.State != instance.Running || !in.Entered.IsZero() || in.Since.IsZero() {
		t.Errorf("taken back: %+v, %v", in, err)
	}
}

// The first frame from the guest is published in the same way, and a hint is handed on as it is.
func TestNetworkUpAndHints(t *testing.T) {
	h := newHost(t)
	told := make(chan string, 2)
	h.config = func(c *instance.Config) {
		c.NetworkUp = func(id string) { told <- "network of " + id }
		c.Hinted = func(id string, port uint16, listening bool) { told <- fmt.Sprint(id, " ", port, " ", listening) }
	}
	s := h.open()
	i := create(t, s, "web", "sleep")
	if running := await(t, s, i.ID, instance.Running); running.Network {
		t.Errorf("before any frame: %+v", running)
	}
	if _, err := s.Update(t.Context(), "web", instance.Update{}); err != nil { // after this its event is in the log, too
		t.Fatal(err)
	}
	before := h.events.Last()
	h.fake.Say(i.ID, machine.Notice{Kind: machine.NetworkUp})
	if got, want := <-told, "network of "+i.ID; got != want {
		t.Errorf("told %q, want %q", got, want)
	}
	if got, err := s.Find("web"); err != nil || !got.Network {
		t.Errorf("%+v, %v", got, err)
	}
	h.fake.Say(i.ID, machine.Notice{Kind: machine.Hinted, Port: 80, Listening: true})
	if got, want := <-told, i.ID+" 80 true"; got != want {
		t.Errorf("told %q, want %q", got, want)
	}
	if h.events.Last() != before {
		t.Error("there are events of it")
	}
	if stopped, err := s.Stop(t.Context(), "web"); err != nil || stopped.Network {
		t.Errorf("%+v, %v", stopped, err)
	}
}
