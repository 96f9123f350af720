package server

import (
	"encoding/json"
	"net/http/httptest"
	"testing"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/health"
	"github.com/halevm/hale/internal/instance"
)

// What only an active instance can be is not reached by another, whatever health still says of it; and the answer shows what decided.
func TestAGoalIsComparedWithOneMoment(t *testing.T) {
	for _, tt := range []struct {
		want              health.Status
		state             instance.State
		status            health.Status
		reached, hopeless bool
	}{
		{health.StatusHealthy, instance.Running, health.StatusHealthy, true, false},
		{health.StatusHealthy, instance.Stopped, health.StatusHealthy, false, true},
		{health.StatusHealthy, instance.Shutdown, health.StatusHealthy, false, false},
		{health.StatusHealthy, instance.Unknown, health.StatusHealthy, false, false},
		{health.StatusUnhealthy, instance.Running, health.StatusUnhealthy, true, false},
		{health.StatusUnhealthy, instance.Stopped, health.StatusUnhealthy, false, true},
		{health.StatusStarting, instance.Initializing, health.StatusStarting, true, false},
		{health.StatusStarting, instance.Stopped, health.StatusStarting, false, true},
		{health.StatusUnknown, instance.Stopped, health.StatusUnknown, true, false},
		{health.StatusDisabled, instance.Stopped, health.StatusDisabled, true, false},
	} {
		w := goal{health: tt.want}.look(instance.Instance{State: tt.state}, health.Snapshot{Status: tt.status})
		if w.reached != tt.reached || (w.hopeless != "") != tt.hopeless {
			t.Errorf("%s of one that is %s and %s: reached %v, hopeless %q", tt.want, tt.state, tt.status, w.reached, w.hopeless)
		}
		rec := httptest.NewRecorder()
		finishWait(rec, w, false)
		var a api.WaitForStateResponse
		if err := json.Unmarshal(rec.Body.Bytes(), &a); err != nil || a.HealthStatus == nil || a.HealthStatus.Status != api.HealthState(tt.status) {
			t.Errorf("answered %s, %v", rec.Body, err)
		}
	}
}

// Health may not have heard yet that an instance is not active any more: it is unknown all the same.
func TestOneThatIsNotActiveIsUnknown(t *testing.T) {
	known := health.Snapshot{Status: health.StatusHealthy, Stale: true, StaleReason: health.StaleRestarted}
	for state, want := range map[instance.State]health.Status{
		instance.Initializing: health.StatusHealthy, instance.Running: health.StatusHealthy,
		instance.Shutdown: health.StatusUnknown, instance.Stopped: health.StatusUnknown, instance.Unknown: health.StatusUnknown,
	} {
		h := seen(instance.Instance{State: state}, known)
		if stale := want != health.StatusUnknown; h.Stale != stale || (h.StaleReason != "") != stale {
			t.Errorf("%s: stale %v %q", state, h.Stale, h.StaleReason)
		}
		if h.Status != want || (want == health.StatusUnknown) != (h.LastStatus == health.StatusHealthy) {
			t.Errorf("%s: %s, before that %q", state, h.Status, h.LastStatus)
		}
	}
	if h := seen(instance.Instance{State: instance.Stopped}, health.Snapshot{Status: health.StatusDisabled}); h.Status != health.StatusDisabled {
		t.Errorf("without a check: %s", h.Status)
	}
}
