package instance_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/health"
	"github.com/halevm/hale/internal/instance"
	"github.com/halevm/hale/internal/machine"
)

func TestRefusedCreate(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := netip.MustParseAddrPort(l.Addr().String())
	tcp, err := health.Parse(json.RawMessage(`{"tcp":{"port":80}}`))
	if err != nil {
		t.Fatal(err)
	}
	h := newHost(t)
	h.config = func(c *instance.Config) { c.Memory = 3 << 30 }
	s := h.open()
	create(t, s, "web", "sleep")
	before, beside := h.events.Last(), len(h.left())
	for name, tt := range map[string]struct {
		edit  func(*instance.Spec)
		kind  api.Kind
		code  string
		field string
	}{
		"name taken":   {func(s *instance.Spec) { s.Name = "web" }, api.Conflict, "name_conflict", "name"},
		"bad name":     {func(s *instance.Spec) { s.Name = "Web" }, api.Invalid, "invalid_request", "name"},
		"long name":    {func(s *instance.Spec) { s.Name = strings.Repeat("a", 64) }, api.Invalid, "invalid_request", "name"},
		"no room":      {func(s *instance.Spec) { s.Memory.Bytes = 2<<30 + 1 }, api.Exhausted, "insufficient_resources", ""},
		"no image":     {func(s *instance.Spec) { s.Image = "missing" }, api.NotFound, "", ""},
		"no program":   {func(s *instance.Spec) { s.Image = "empty" }, api.Invalid, "invalid_request", "cmd"},
		"no cpus":      {func(s *instance.Spec) { s.VCPUs = 0 }, api.Invalid, "invalid_request", "vcpus"},
		"no memory":    {func(s *instance.Spec) { s.Memory.Bytes = 0 }, api.Invalid, "invalid_request", "size"},
		"no layer":     {func(s *instance.Spec) { s.Overlay.Bytes = 0 }, api.Invalid, "invalid_request", "overlay_size"},
		"bad env":      {func(s *instance.Spec) { s.Env = map[string]string{"A=B": ""} }, api.Invalid, "invalid_request", "env"},
		"expired":      {func(s *instance.Spec) { s.ExpiresAt = time.Unix(1, 0) }, api.Invalid, "invalid_request", "expires_at"},
		"no such port": {func(s *instance.Spec) { s.Ports = []machine.Port{{}} }, api.Invalid, "invalid_request", "network.ports[0].guest_port"},
		"port in use": {func(s *instance.Spec) {
			s.Ports = []machine.Port{{GuestPort: 1}, {HostPort: taken.Port(), GuestPort: 80}}
		}, api.Conflict, "port_in_use", "network.ports[1].host_port"},
		"port twice": {func(s *instance.Spec) {
			s.Ports = []machine.Port{{HostPort: 1, GuestPort: 80}, {HostPort: 1, GuestPort: 81}}
		}, api.Invalid, "invalid_request", "network.ports[1].host_port"},
		"ports without a network": {func(s *instance.Spec) {
			s.NoNetwork, s.Ports = true, []machine.Port{{GuestPort: 80}}
		}, api.Invalid, "invalid_request", "network.ports"},
		"check without a network": {func(s *instance.Spec) {
			s.NoNetwork, s.HealthCheck = true, &tcp
		}, api.Invalid, "invalid_health_check", "health_check.tcp"},
	} {
		t.Run(name, func(t *testing.T) {
			want := spec("other", "sleep")
			tt.edit(&want)
			i, err := s.Create(t.Context(), want)
			if !errors.Is(err, tt.kind) {
				t.Fatalf("%+v, %v; want %s", i, err, tt.kind)
			}
			e, ok := errors.AsType[*api.Error](err)
			if tt.code != "" && (!ok || e.Code != tt.code || !e.NoRetry) {
				t.Errorf("error %+v, want code %s", e, tt.code)
			}
			if tt.field != "" && (len(e.Details) != 1 || e.Details[0].Field != tt.field) {
				t.Errorf("details %+v, want field %s", e.Details, tt.field)
			}
		})
	}
	if got := h.told(before); !slices.Equal(got, []string{"state Running"}) && len(got) != 0 {
		t.Errorf("events %v", got)
	}
	if got := h.left(); len(got) != beside {
		t.Errorf("left: %v", got)
	}
	if n := h.fake.Running(); n != 1 {
		t.Errorf("%d machines run, want 1", n)
	}
	if a := s.Allocated(); a.Instances != 1 || a.Active != 1 || a.Memory != 1<<30 || a.VCPUs != 1 {
		t.Errorf("allocated %+v", a)
	}
	if i, err := s.Create(t.Context(), spec("other", "sleep")); err != nil || i.IP != "10.77.0.4" && i.IP != "10.77.0.3" {
		t.Errorf("after all that: %+v, %v", i, err)
	}
}

// A create whose caller has gone makes an instance that is seen, or leaves nothing: never a name that is taken by nobody.
func TestCreatorGoesAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		s := h.open()
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		for n := range 20 {
			s.Create(gone, spec(fmt.Sprint("n", n), "sleep"))
		}
		synctest.Wait()
		for _, i := range s.List() {
			if err := s.Delete(t.Context(), i.ID, false); err != nil {
				t.Error(err)
			}
		}
		if a := s.Allocated(); a.Instances != 0 || len(h.left()) != 0 {
			t.Errorf("left %+v, %v", a, h.left())
		}
	})
}
