package server

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/health"
	"github.com/halevm/hale/internal/instance"
)

// Bounds of a wait.
const (
	defaultWait = 60 * time.Second
	maxWait     = 5 * time.Minute
)

// A goal is what somebody waits for: a state, or a health status.
type goal struct {
	state  instance.State
	health health.Status
}

// waited is where a wait stands: whether the goal is reached, or cannot be any more, and why.
type waited struct {
	instance instance.Instance
	health   health.Snapshot
	deleted  bool
	reached  bool
	hopeless string
}

// look compares an instance as it is now with the goal. It decides nothing that time could change.
func (g goal) look(in instance.Instance, h health.Snapshot) waited {
	w := waited{instance: in, health: h}
	active := in.State == instance.Initializing || in.State == instance.Running
	ended := in.State == instance.Stopped || in.State == instance.Standby
	if g.health == "" {
		w.reached = in.State == g.state
		if !w.reached && ended && (g.state == instance.Running || g.state == instance.Initializing || g.state == instance.Created) {
			w.hopeless = "the instance is " + string(in.State) + " and does not start by itself"
		}
		if active && g.state == instance.Created {
			w.hopeless = "the instance has been started"
		}
		return w
	}
	w.reached = h.Status == g.health && !(g.health == health.StatusHealthy && h.Stale && h.StaleReason == health.StaleInconclusive)
	switch g.health {
	case health.StatusHealthy, health.StatusUnhealthy, health.StatusStarting:
		w.reached = w.reached && active // health may not have heard of the end yet
	}
	switch {
	case w.reached:
	case h.Status == health.StatusDisabled:
		w.hopeless = "the instance has no health check"
	case ended && g.health != health.StatusUnknown:
		w.hopeless = "the instance is " + string(in.State) + ", and nothing probes it"
	}
	return w
}

// wait blocks until the goal is reached, cannot be reached any more, or the time is over. The headers go out at once, and
// white space keeps the connection alive. A daemon that stops first cuts it off: no answer would be true.
func (s *Server) wait(w http.ResponseWriter, r *http.Request, id string, g goal, timeout time.Duration) {
	in, err := s.config.Instances.Find(id)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.config.Settled(r.Context(), in.ID)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	rc := http.NewResponseController(w)
	rc.Flush()
	if r.Method == http.MethodHead {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	asked := false
	for {
		changed, judged := s.config.Instances.Changed(in.ID), s.config.Health.Changed(in.ID)
		now := s.lookAt(in, g)
		if g.health != "" && now.health.Stale && !asked { // also where it is as wanted: that may be long ago
			asked = true
			s.config.Health.Ask(in.ID)
		}
		if now.reached || now.hopeless != "" || now.deleted {
			finishWait(w, now, false)
			return
		}
		select {
		case <-changed:
			// What the change means for health is known once its controller has seen it.
			s.config.Settled(ctx, in.ID)
		case <-judged:
		case <-beat.C:
			rc.SetWriteDeadline(time.Now().Add(streamWrite))
			if _, err := w.Write([]byte(" ")); err != nil || rc.Flush() != nil {
				return
			}
		case <-ctx.Done():
			now := s.lookAt(in, g)
			if !now.reached && now.hopeless == "" && !now.deleted {
				cut(r) // the next daemon may well see it
			}
			finishWait(w, now, !stopping(r))
			return
		}
	}
}

func (s *Server) lookAt(known instance.Instance, g goal) waited {
	in, err := s.config.Instances.Find(known.ID)
	if errors.Is(err, api.NotFound) {
		return waited{instance: known, deleted: true}
	}
	return g.look(in, s.status(in))
}

// unseenStatus is the status of an instance that the health controller has not taken up yet.
func unseenStatus(in instance.Instance) health.Status {
	policy, _ := in.Spec.Policy()
	switch {
	case policy.Disabled():
		return health.StatusDisabled
	case in.State == instance.Initializing || in.State == instance.Running:
		return health.StatusStarting
	}
	return health.StatusUnknown
}

func finishWait(w http.ResponseWriter, now waited, timedOut bool) {
	a := api.WaitForStateResponse{State: api.InstanceState(now.instance.State), TimedOut: timedOut && !now.reached}
	why := now.hopeless
	if now.deleted {
		a.State, why = api.InstanceStateStopped, "the instance was deleted"
	} else {
		status := renderStatus(now.health) // that which decided
		a.HealthStatus = &status
		if e := stateError(now.instance); e != nil && (why == "" || now.instance.State == instance.Stopped) {
			why = *e
		}
	}
	if why != "" {
		a.StateError = &why
	}
	http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTime))
	json.NewEncoder(w).Encode(a) // an error is a client that has gone
}
