package instance_test

import (
	"context"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/egress"
	"github.com/halevm/hale/internal/instance"
	"github.com/halevm/hale/internal/machine"
)

func ranges(s ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range s {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

// What an instance may reach is its own ranges and the configuration's as they are when the machine starts.
func TestOutboundPolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		var configs []machine.Config
		h.driver = starter(func(ctx context.Context, c machine.Config) (instance.Machine, error) {
			configs = append(configs, c)
			return h.fake.Start(ctx, c)
		})
		h.config = func(c *instance.Config) { c.AllowNets = ranges("10.1.0.0/16") }
		s := h.open()
		create(t, s, "plain", "sleep")
		spec := instance.Spec{Name: "own", Image: "sleep", VCPUs: 1, Memory: instance.Size{Bytes: 1 << 20}, Overlay: instance.Size{Bytes: 1 << 20}}
		spec.AllowNets = ranges("192.168.7.0/24")
		if _, err := s.Create(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
		h.close(s)
		h.config = func(c *instance.Config) { c.AllowNets = ranges("10.2.0.0/16") }
		s = h.open()
		if _, err := s.Stop(t.Context(), "own"); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Start(t.Context(), "own", instance.StartOptions{}); err != nil {
			t.Fatal(err)
		}
		none := spec
		none.Name, none.AllowNets, none.NoOutbound = "none", nil, true
		if _, err := s.Create(t.Context(), none); err != nil {
			t.Fatal(err)
		}
		instances := netip.MustParsePrefix("10.77.0.0/16")
		for i, want := range []egress.Policy{
			{Allow: ranges("10.1.0.0/16"), Instances: instances},
			{Allow: ranges("192.168.7.0/24", "10.1.0.0/16"), Instances: instances},
			{Allow: ranges("192.168.7.0/24", "10.2.0.0/16"), Instances: instances},
			{None: true, Allow: ranges("10.2.0.0/16"), Instances: instances},
		} {
			if got := configs[i].Network.Outbound; !reflect.DeepEqual(got, want) {
				t.Errorf("start %d: %+v, want %+v", i, got, want)
			}
		}
		none.AllowNets = ranges("10.0.0.0/8")
		if _, err := s.Create(t.Context(), none); !isInvalid(err, "network.allow") {
			t.Errorf("ranges of an instance without traffic: %v", err)
		}
		for _, ours := range []string{"10.77.0.0/16", "10.77.3.0/24", "10.77.0.9/32"} {
			spec.Name, spec.AllowNets = "ours", ranges("10.0.0.0/8", ours)
			if _, err := s.Create(t.Context(), spec); !isInvalid(err, "network.allow") {
				t.Errorf("a range of the instances' own: %v", err)
			}
		}
		h.close(s)
		c := instance.Config{Dir: t.TempDir(), AllowNets: ranges("10.77.3.0/24")}
		if _, err := instance.Open(t.Context(), c); err == nil || !strings.Contains(err.Error(), "10.77.3.0/24 lies in 10.77.0.0/16") {
			t.Errorf("the same for all instances: %v", err)
		}
	})
}

func isInvalid(err error, field string) bool {
	e, ok := err.(*api.Error)
	return ok && e.Kind == api.Invalid && len(e.Details) == 1 && e.Details[0].Field == field
}
