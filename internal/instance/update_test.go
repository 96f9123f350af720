package instance_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/event"
	"github.com/halevm/hale/internal/health"
	"github.com/halevm/hale/internal/instance"
)

func TestUpdate(t *testing.T) {
	h := newHost(t)
	s := h.open()
	started(t, s, "web", "sleep")
	policy := func(text string) *instance.HealthUpdate {
		p, err := health.Parse(json.RawMessage(text))
		if err != nil {
			t.Fatal(err)
		}
		return &instance.HealthUpdate{Policy: &p}
	}
	str := func(s string) *string { return &s }
	later := time.Now().Add(time.Hour)
	if _, err := s.Update(t.Context(), "web", instance.Update{}); err != nil { // behind the event of Running, which is seen a moment before
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		u    instance.Update
		want []string // fields of the event; nil: none
	}{
		{"nothing", instance.Update{}, nil},
		{"a policy", instance.Update{HealthCheck: policy(`{"tcp":{"port":80}}`)}, []string{"health_check"}},
		{"an equal one", instance.Update{HealthCheck: policy(`{"type":"tcp","tcp":{"port":80},"interval":"10s"}`)}, nil},
		{"another", instance.Update{HealthCheck: policy(`{"tcp":{"port":81}}`)}, []string{"health_check"}},
		{"the image's", instance.Update{HealthCheck: &instance.HealthUpdate{}}, []string{"health_check"}},
		{"the image's again", instance.Update{HealthCheck: &instance.HealthUpdate{}}, nil},
		{"env", instance.Update{Env: map[string]*string{"A": str("1"), "B": str("2")}}, []string{"env"}},
		{"the same env", instance.Update{Env: map[string]*string{"A": str("1"), "C": nil}}, nil},
		{"env merged", instance.Update{Env: map[string]*string{"A": nil, "B": str("")}}, []string{"env"}},
		{"two at once", instance.Update{ExpiresAt: &later, Tags: map[string]string{"k": "v"}}, []string{"expires_at", "tags"}},
		{"never", instance.Update{ExpiresAt: &time.Time{}}, []string{"expires_at"}},
	} {
		before := h.events.Last()
		got, err := s.Update(t.Context(), "web", tt.u)
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if found, _ := s.Find("web"); fmt.Sprint(found) != fmt.Sprint(got) {
			t.Errorf("%s: returned %+v, found %+v", tt.name, got, found)
		}
		if tt.want == nil {
			if h.events.Last() != before {
				t.Errorf("%s: published %v", tt.name, h.told(before))
			}
			continue
		}
		r := h.events.Follow(before, "test")
		e, err := r.Next(t.Context())
		r.Close()
		var u event.Updated
		if err != nil || json.Unmarshal(e.Data, &u) != nil || e.Type != event.TypeUpdated || !slices.Equal(u.Fields, tt.want) || h.events.Last() != e.ID {
			t.Errorf("%s: event %+v, %v; want one of %v", tt.name, e, err, tt.want)
		}
	}
	past := time.Now().Add(-time.Hour)
	if _, err := s.Update(t.Context(), "web", instance.Update{ExpiresAt: &past}); !errors.Is(err, api.Invalid) {
		t.Errorf("an expiry in the past: %v", err)
	}
	if _, err := s.Update(t.Context(), "web", instance.Update{Env: map[string]*string{"=": str("")}}); !errors.Is(err, api.Invalid) {
		t.Errorf("a bad name: %v", err)
	}
	h.close(s)
	s = h.open()
	if got, err := s.Find("web"); err != nil || got.Spec.Tags["k"] != "v" || len(got.Spec.Env) != 1 || got.Spec.HealthCheck != nil {
		t.Errorf("after a restart %+v, %v", got, err)
	}
}
