package instance_test

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/egress"
	"github.com/halevm/hale/internal/instance"
	"github.com/halevm/hale/internal/instance/fake"
	"github.com/halevm/hale/internal/machine"
)

// talker is a driver that keeps what it was asked for, and whose machines have something to say.
type talker struct {
	*fake.Driver
	configs []machine.Config
	remarks chan string
}

type talkerMachine struct {
	instance.Machine
	d *talker
}

func (d *talker) Start(ctx context.Context, c machine.Config) (instance.Machine, error) {
	d.configs = append(d.configs, c)
	m, err := d.Driver.Start(ctx, c)
	return &talkerMachine{m, d}, err
}

func (m *talkerMachine) Remarks() <-chan string { return m.d.remarks }

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
		d := &talker{Driver: h.fake, remarks: make(chan string)}
		h.driver = d
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
			if got := d.configs[i].Network.Outbound; !reflect.DeepEqual(got, want) {
				t.Errorf("start %d: %+v, want %+v", i, got, want)
			}
		}
		none.AllowNets = ranges("10.0.0.0/8")
		if _, err := s.Create(t.Context(), none); !isInvalid(err, "network.allow") {
			t.Errorf("ranges of an instance without traffic: %v", err)
		}
	})
}

func isInvalid(err error, field string) bool {
	e, ok := err.(*api.Error)
	return ok && e.Kind == api.Invalid && len(e.Details) == 1 && e.Details[0].Field == field
}

// What a machine has to say is in the instance's own log.
func TestRemarks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		d := &talker{Driver: h.fake, remarks: make(chan string)}
		h.driver = d
		s := h.open()
		i := create(t, s, "web", "sleep")
		d.remarks <- "outbound refused: tcp 10.0.0.1:80"
		close(d.remarks)
		synctest.Wait()
		b, err := os.ReadFile(filepath.Join(h.dir, i.ID, instance.LogName))
		if err != nil || !strings.Contains(string(b), `level=WARN msg="outbound refused: tcp 10.0.0.1:80"`) {
			t.Errorf("its log, %v:\n%s", err, b)
		}
		if _, err := s.Stop(t.Context(), "web"); err != nil { // the loop goes on without remarks
			t.Error(err)
		}
	})
}
