package instance_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/halevm/hale/internal/health"
	"github.com/halevm/hale/internal/instance"
)

// checkedImages are images with a check that is another one each time somebody looks, but for that of the same digest.
type checkedImages struct {
	images
	check string
}

func (i *checkedImages) Image(ctx context.Context, ref string) (instance.Image, error) {
	img, err := i.images.Image(ctx, ref)
	img.Healthcheck, img.Shell = json.RawMessage(i.check), []string{"/bin/ash", "-c"}
	return img, err
}

func policyOf(i instance.Instance) string {
	p, source := i.Spec.Policy()
	if p.Exec == nil {
		return string(p.Type) + " " + string(source)
	}
	return strings.Join(p.Exec.Command, " ") + " every " + p.Interval.String() + " " + string(source)
}

// What the image said at create is in force after a restart of the daemon too, whatever the image says then; and the update that goes
// back to it, or changes a field of it, finds it there.
func TestTheImagesCheckOutlivesTheDaemon(t *testing.T) {
	h := newHost(t)
	imgs := &checkedImages{check: `{"Test":["CMD-SHELL","old"],"Interval":1000000}`}
	h.config = func(c *instance.Config) { c.Images = imgs }
	s := h.open()
	made := create(t, s, "web", "sleep")
	const images = "/bin/ash -c old every 100ms image"
	if got := policyOf(made); got != images {
		t.Fatalf("made with %q, want %q", got, images)
	}
	log, err := os.ReadFile(filepath.Join(h.dir, made.ID, instance.LogName))
	if err != nil || !strings.Contains(string(log), "Interval of 1ms, which is out of range") {
		t.Errorf("its log says %q, %v", log, err)
	}
	h.close(s)

	imgs.check = `{"Test":["CMD","new"]}`
	s = h.open()
	see := func(want string) {
		t.Helper()
		now, err := s.Find("web")
		if got := policyOf(now); err != nil || got != want {
			t.Errorf("%q, %v; want %q", got, err, want)
		}
	}
	see(images)
	update := func(u instance.HealthUpdate, want string) {
		t.Helper()
		if _, err := s.Update(t.Context(), "web", instance.Update{HealthCheck: &u}); err != nil {
			t.Fatal(err)
		}
		see(want)
	}
	override, err := health.ParseOverride(json.RawMessage(`{"interval":"7s"}`))
	if err != nil {
		t.Fatal(err)
	}
	update(instance.HealthUpdate{Override: override}, "/bin/ash -c old every 7s request")
	since := h.events.Last()
	update(instance.HealthUpdate{Override: override}, "/bin/ash -c old every 7s request")
	if told := h.told(since); len(told) > 0 {
		t.Errorf("the same update once more is told as %v", told)
	}
	h.close(s)

	s = h.open()
	see("/bin/ash -c old every 7s request")
	update(instance.HealthUpdate{}, images)
	since = h.events.Last()
	update(instance.HealthUpdate{}, images) // it is the image's already
	if told := h.told(since); len(told) > 0 {
		t.Errorf("going back to what is in force is told as %v", told)
	}
	h.close(s)
	s = h.open()
	see(images)
}

// An update with a policy that is equal to the one in force changes nothing, whosever that is.
func TestAnEqualPolicyChangesNothing(t *testing.T) {
	h := newHost(t)
	h.config = func(c *instance.Config) {
		c.Images = &checkedImages{check: `{"Test":["CMD","ok"],"Interval":20000000000}`}
	}
	s := h.open()
	made := started(t, s, "web", "sleep")
	const images = "ok every 20s image"
	if got := policyOf(made); got != images {
		t.Fatalf("made with %q", got)
	}
	inForce, _ := made.Spec.Policy()
	given := inForce
	given.ConfirmInterval = 2 * time.Second // the default
	since := h.events.Last()
	for _, p := range []health.Policy{inForce, given} {
		now, err := s.Update(t.Context(), "web", instance.Update{HealthCheck: &instance.HealthUpdate{Policy: &p}})
		if got := policyOf(now); err != nil || got != images {
			t.Errorf("%q, %v", got, err)
		}
	}
	if told := h.told(since); slices.Contains(told, "updated") {
		t.Errorf("told is %v", told)
	}
	given.Interval = 21 * time.Second
	now, err := s.Update(t.Context(), "web", instance.Update{HealthCheck: &instance.HealthUpdate{Policy: &given}})
	if got := policyOf(now); err != nil || got != "ok every 21s request" {
		t.Errorf("%q, %v", got, err)
	}
}

// An instance whose own check equals its image's goes back to that: it is whose it is that changes.
func TestBackToAnEqualCheckOfTheImage(t *testing.T) {
	h := newHost(t)
	h.config = func(c *instance.Config) {
		c.Images = &checkedImages{check: `{"Test":["CMD","ok"],"Interval":20000000000}`}
	}
	s := h.open()
	own, err := health.Parse(json.RawMessage(`{"exec":{"command":["ok"]},"interval":"20s","timeout":"30s","start_period":"20s","start_interval":"5s"}`))
	if err != nil {
		t.Fatal(err)
	}
	images, _ := started(t, s, "images", "sleep").Spec.Policy()
	if !own.Equal(images) {
		t.Fatalf("%+v is not %+v", own, images)
	}
	web := spec("web", "sleep")
	web.HealthCheck = &own
	i, err := s.Create(t.Context(), web)
	if err != nil {
		t.Fatal(err)
	}
	await(t, s, i.ID, instance.Running)
	now, err := s.Update(t.Context(), "web", instance.Update{HealthCheck: &instance.HealthUpdate{}})
	if got := policyOf(now); err != nil || got != "ok every 20s image" {
		t.Errorf("%q, %v", got, err)
	}
}

// A check that no record could hold is left out, and the instance runs.
func TestAnImagesCheckOfAnySize(t *testing.T) {
	h := newHost(t)
	h.config = func(c *instance.Config) {
		c.Images = &checkedImages{check: `{"Test":["CMD","` + strings.Repeat("a", 5<<20) + `"]}`}
	}
	s := h.open()
	if got := policyOf(create(t, s, "web", "sleep")); got != " " {
		t.Errorf("made with %q", got)
	}
	h.close(s)
	s = h.open()
	if _, err := s.Find("web"); err != nil {
		t.Error(err)
	}
}

// A check in a record that an earlier version accepted, and this one refuses, costs the check and not the instance: its log says so.
func TestARecordedCheckThatIsRefused(t *testing.T) {
	for _, of := range []string{"health_check", "image_check"} {
		t.Run(of, func(t *testing.T) {
			h := newHost(t)
			s := h.open()
			sp := spec("web", "sleep")
			policy, err := health.Parse(json.RawMessage(`{"http":{"port":80,"path":"/old"}}`))
			if err != nil {
				t.Fatal(err)
			}
			sp.NoNetwork, sp.HealthCheck = false, &policy
			made, err := s.Create(t.Context(), sp)
			if err != nil {
				t.Fatal(err)
			}
			h.close(s)
			record := filepath.Join(h.dir, made.ID, "instance.json")
			b, err := os.ReadFile(record)
			if err != nil {
				t.Fatal(err)
			}
			older := strings.Replace(string(b), `"/old"`, `"/`+strings.Repeat("x", 9000)+`"`, 1)
			older = strings.Replace(older, `"health_check"`, `"`+of+`"`, 1)
			if err := os.WriteFile(record, []byte(older), 0o600); err != nil {
				t.Fatal(err)
			}
			s = h.open()
			got, err := s.Find("web")
			if err != nil || got.ID != made.ID || got.Spec.Image != made.Spec.Image {
				t.Fatalf("%+v, %v", got, err)
			}
			if p, _ := got.Spec.Policy(); !p.Disabled() {
				t.Errorf("its check is %+v", p)
			}
			log, err := os.ReadFile(filepath.Join(h.dir, made.ID, instance.LogName))
			if err != nil || strings.Count(string(log), "health_check.http.path: must be at most 8192 bytes") != 1 {
				t.Errorf("its log says %q, %v", log, err)
			}
		})
	}
}
