package instance_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/halevm/hale/api"
	guest "github.com/halevm/hale/internal/guest/protocol"
	"github.com/halevm/hale/internal/instance"
	"github.com/halevm/hale/internal/machine"
)

// many are variables of so many bytes together, each of which is one that may be.
func many(bytes int, of string) map[string]string {
	const each = 16 << 10
	env := map[string]string{}
	for i := 0; bytes > 0; i++ {
		env[fmt.Sprint("V", i)] = strings.Repeat(of, min(bytes, each))
		bytes -= each
	}
	return env
}

// What no guest can be told is refused, by its field and with the bound, when it is asked for: not by a machine that comes up with nothing
// to run.
func TestProgramTooLargeForAGuest(t *testing.T) {
	h := newHost(t)
	s := h.open()
	arg := strings.Repeat("a", 100<<10)
	for name, tc := range map[string]struct {
		env             map[string]string
		cmd, entrypoint []string
		field           string
	}{
		"env":                    {env: many(600<<10, "x"), field: "env"},
		"env that JSON inflates": {env: many(40<<10, "<"), field: "env"},
		"cmd":                    {cmd: []string{"sleep", arg, arg}, field: "cmd"},
		"entrypoint":             {entrypoint: []string{"sleep", arg, arg}, field: "entrypoint"},
		"together":               {cmd: []string{"sleep", arg}, env: many(110<<10, "x"), field: "env"},
	} {
		want := spec("web", "sleep")
		want.Env, want.Cmd, want.Entrypoint = tc.env, tc.cmd, tc.entrypoint
		_, err := s.Create(t.Context(), want)
		refused(t, name, err, tc.field)
	}
	if left := h.left(); len(left) > 0 {
		t.Errorf("left %v", left)
	}

	want := spec("web", "sleep")
	want.Env = many(180<<10, "x")
	i, err := s.Create(t.Context(), want)
	if err != nil {
		t.Fatalf("what fits: %v", err)
	}
	await(t, s, i.ID, instance.Running)
	more := strings.Repeat("x", 20<<10)
	_, err = s.Update(t.Context(), "web", instance.Update{Env: map[string]*string{"MORE": &more}})
	refused(t, "update", err, "env")
	if _, err := s.Stop(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	_, err = s.Start(t.Context(), "web", instance.StartOptions{Cmd: []string{"sleep", arg}})
	refused(t, "start", err, "env")
}

func refused(t *testing.T, name string, err error, field string) {
	t.Helper()
	e, ok := errors.AsType[*api.Error](err)
	if !ok || e.Kind != api.Invalid || len(e.Details) != 1 || e.Details[0].Field != field || !strings.Contains(e.Message, "at most 196608") {
		t.Errorf("%s: %v", name, err)
	}
}

// What is taken fits into a message to the agent.
func TestProgramFitsAMessage(t *testing.T) {
	h := newHost(t)
	var told machine.Config
	h.driver = starter(func(ctx context.Context, c machine.Config) (instance.Machine, error) {
		told = c
		return h.fake.Start(ctx, c)
	})
	s := h.open()
	want := spec(strings.Repeat("n", 63), "sleep")
	for n := 192 << 10; ; n -= 64 {
		want.Env = many(n, "x")
		if _, err := s.Create(t.Context(), want); err == nil {
			break
		} else if !errors.Is(err, api.Invalid) {
			t.Fatal(err)
		}
	}
	body, err := json.Marshal(guest.Boot{Process: told.Process, Hostname: told.Hostname, Network: &guest.Network{Addr: told.Network.Addr, Gateway: told.Network.Addr.Addr()}})
	if err != nil {
		t.Fatal(err)
	}
	message, err := json.Marshal(guest.Request{ID: 1 << 60, Op: guest.OpBoot, Body: body})
	if err != nil || len(message) > guest.MaxPayload || len(body) < 190<<10 {
		t.Errorf("%d bytes, %v", len(message), err)
	}
}
