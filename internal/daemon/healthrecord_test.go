package daemon

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/health"
	"github.com/halevm/hale/internal/instance/fake"
	hale "github.com/halevm/hale/sdk/go"
)

// A health record that cannot be read, whatever is wrong with it, is kept aside; and as the event log knows the status, the next daemon
// flips nothing.
func TestUnreadableHealthRecord(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, file string) error{
		"torn":      func(_ *testing.T, file string) error { return os.Truncate(file, 40) },
		"too large": func(_ *testing.T, file string) error { return os.Truncate(file, health.MaxRecord+1) },
		"no file": func(t *testing.T, file string) error {
			if err := os.Remove(file); err != nil {
				t.Error(err)
			}
			return os.Mkdir(file, 0o700)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			driver := fake.Surviving{Driver: fake.New(fake.Config{Version: "x"})}
			c, stop := run(t, dir, driver)
			load(t, c)
			in, err := c.CreateInstance(t.Context(), api.CreateInstanceRequest{
				Name: "web", Image: "app", HealthCheck: json.RawMessage(`{"tcp":{"port":80},"interval":"200ms"}`),
			})
			if err != nil {
				t.Fatal(err)
			}
			wait(t, c, hale.Wait{Health: api.HealthStateHealthy})
			stop()
			record := filepath.Join(dir, "instances", in.ID, "health.json")
			if err := spoil(t, record); err != nil {
				t.Fatal(err)
			}

			c, stop = run(t, dir, driver)
			defer stop()
			wait(t, c, hale.Wait{Health: api.HealthStateHealthy})
			got, err := c.InstanceHealth(t.Context(), "web")
			if err != nil {
				t.Fatal(err)
			}
			var statuses []api.HealthState
			for _, tr := range got.Transitions {
				statuses = append(statuses, tr.To)
			}
			// What the log holds: the status of before, and perhaps that it is no longer stale.
			if i := slices.Index(statuses, api.HealthStateHealthy); i < 0 || slices.ContainsFunc(statuses[i:], func(s api.HealthState) bool { return s != api.HealthStateHealthy }) {
				t.Errorf("it was %v", statuses)
			}
			if aside, err := filepath.Glob(record + ".unreadable-*"); err != nil || len(aside) != 1 {
				t.Errorf("set aside: %v, %v", aside, err)
			}
		})
	}
}
