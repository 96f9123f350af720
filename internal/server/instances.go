package server

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/health"
	"github.com/halevm/hale/internal/instance"
	"github.com/halevm/hale/internal/machine"
)

// ListInstances lists what matches all filters.
func (s *Server) ListInstances(w http.ResponseWriter, r *http.Request, p api.ListInstancesParams) {
	var f faults
	if p.State != nil && !p.State.Valid() {
		f.invalid("state", "a state such as Running or Stopped")
	}
	if p.Health != nil && !p.Health.Valid() {
		f.invalid("health", "disabled, unknown, starting, healthy or unhealthy")
	}
	if err := f.err(); err != nil {
		s.fail(w, r, err)
		return
	}
	list := []api.Instance{}
	for _, in := range s.config.Instances.List() {
		if p.State != nil && string(in.State) != string(*p.State) || !tagged(in.Spec.Tags, p.Tags) {
			continue
		}
		shown := s.render(in)
		if p.Health == nil || shown.HealthStatus.Status == *p.Health {
			list = append(list, shown)
		}
	}
	writeJSON(w, http.StatusOK, list)
}

// tagged reports whether tags has all of wanted.
func tagged(tags, wanted map[string]string) bool {
	for k, v := range wanted {
		if have, ok := tags[k]; !ok || have != v {
			return false
		}
	}
	return true
}

// GetInstance shows one.
func (s *Server) GetInstance(w http.ResponseWriter, r *http.Request, id string) {
	in, err := s.config.Instances.Find(id)
	s.answer(w, r, http.StatusOK, s.render(in), err)
}

// UpdateInstance changes one in place.
func (s *Server) UpdateInstance(w http.ResponseWriter, r *http.Request, id string) {
	s.update(w, r, id, decode)
}

// PutInstance means the same, and is no route of the compatible client.
func (s *Server) PutInstance(w http.ResponseWriter, r *http.Request, id string) {
	s.update(w, r, id, decodeStrict)
}

func (s *Server) update(w http.ResponseWriter, r *http.Request, id string, decode func(http.ResponseWriter, *http.Request, any) error) {
	var q api.UpdateInstanceRequest
	if err := decode(w, r, &q); err != nil {
		s.fail(w, r, err)
		return
	}
	u, err := updateOf(q, time.Now())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	in, err := s.config.Instances.Update(r.Context(), id, u)
	if err == nil {
		s.config.Settled(r.Context(), in.ID)
	}
	s.answer(w, r, http.StatusOK, s.render(in), err)
}

// updateOf checks an update and makes of it what the domain takes.
func updateOf(q api.UpdateInstanceRequest, now time.Time) (instance.Update, error) {
	var f faults
	var u instance.Update
	f.refusePolicies(q.AutoStandby, q.RestartPolicy)
	switch {
	case q.HealthCheck == nil:
	case isNull(q.HealthCheck):
		u.HealthCheck = &instance.HealthUpdate{}
	default:
		u.HealthCheck = &instance.HealthUpdate{Policy: f.healthCheck(q.HealthCheck)}
	}
	if o := f.healthOverride(q.HealthCheckOverride, q.HealthCheck != nil); o != nil {
		u.HealthCheck = &instance.HealthUpdate{Override: o}
	}
	if len(q.Env) > 0 {
		u.Env = q.Env
		set := make(map[string]string)
		for _, k := range slices.Sorted(maps.Keys(q.Env)) {
			set[k] = ""
			if v := q.Env[k]; v != nil {
				set[k] = *v
			}
		}
		f.env(set)
	}
	if q.Tags != nil {
		u.Tags = q.Tags
		f.tags(q.Tags)
	}
	if q.TTL != nil && *q.TTL != "" || q.ExpiresAt != nil {
		at := f.expiry(q.TTL, q.ExpiresAt, now)
		u.ExpiresAt = &at
	}
	if len(f) == 0 && u.HealthCheck == nil && u.Env == nil && u.Tags == nil && u.ExpiresAt == nil && q.AutoStandby == nil && q.RestartPolicy == nil {
		return u, &api.Error{Kind: api.Invalid, Message: "the update changes nothing: name at least one of health_check, env, tags, ttl, expires_at"}
	}
	return u, f.err()
}

// StartInstance starts a stopped one.
func (s *Server) StartInstance(w http.ResponseWriter, r *http.Request, id string) {
	var q api.StartInstanceRequest
	if err := decode(w, r, &q); err != nil {
		s.fail(w, r, err)
		return
	}
	var f faults
	f.texts("entrypoint", q.Entrypoint)
	f.texts("cmd", q.Cmd)
	if err := f.err(); err != nil {
		s.fail(w, r, err)
		return
	}
	in, err := s.config.Instances.Start(r.Context(), id, instance.StartOptions{Entrypoint: q.Entrypoint, Cmd: q.Cmd})
	if err == nil {
		s.config.Settled(r.Context(), in.ID)
	}
	s.answer(w, r, http.StatusOK, s.render(in), err)
}

// StopInstance stops one.
func (s *Server) StopInstance(w http.ResponseWriter, r *http.Request, id string) {
	in, err := s.config.Instances.Stop(r.Context(), id)
	if err == nil {
		s.config.Settled(r.Context(), in.ID)
	}
	s.answer(w, r, http.StatusOK, s.render(in), err)
}

// DeleteInstance ends one and removes everything of it.
func (s *Server) DeleteInstance(w http.ResponseWriter, r *http.Request, id string, p api.DeleteInstanceParams) {
	graceful := p.GracefulShutdown == nil || *p.GracefulShutdown
	if err := s.config.Instances.Delete(r.Context(), id, graceful); err != nil {
		s.fail(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// GetInstanceLogs streams a log.
func (s *Server) GetInstanceLogs(w http.ResponseWriter, r *http.Request, id string, p api.GetInstanceLogsParams) {
	source, tail := string(api.LogSourceApp), defaultTail
	if p.Source != nil {
		source = string(*p.Source)
	}
	if p.Tail != nil {
		tail = *p.Tail
	}
	if tail < 0 {
		s.fail(w, r, invalid("tail", "a number of lines, 0 or more"))
		return
	}
	s.logs(w, r, id, source, tail, p.Follow != nil && *p.Follow, p.Ids != nil && *p.Ids, p.LastEventID)
}

// ExecInstance runs a program in the guest.
func (s *Server) ExecInstance(w http.ResponseWriter, r *http.Request, id string) { s.exec(w, r, id) }

// StatInstancePath looks at a path in the guest.
func (s *Server) StatInstancePath(w http.ResponseWriter, r *http.Request, id string, p api.StatInstancePathParams) {
	if p.Path == "" || p.Path[0] != '/' {
		s.fail(w, r, invalid("path", "an absolute path in the guest"))
		return
	}
	m, err := ability[instance.Stater](s, id)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	info, err := m.Stat(r.Context(), p.Path, p.FollowLinks != nil && *p.FollowLinks)
	s.answer(w, r, http.StatusOK, api.PathInfo{
		Exists: info.Exists, IsDir: info.IsDir, IsFile: info.IsFile, IsSymlink: info.IsSymlink,
		LinkTarget: text(info.LinkTarget), Mode: info.Mode, Size: info.Size, Error: text(printable(info.Error)),
	}, err)
}

// GetInstanceStats says what a machine uses now.
func (s *Server) GetInstanceStats(w http.ResponseWriter, r *http.Request, id string) {
	in, err := s.config.Instances.Find(id)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	var st machine.Stats
	m, err := ability[instance.Meter](s, in.ID)
	if err == nil {
		st, err = m.Stats(r.Context())
	}
	if errors.Is(err, api.InvalidState) {
		err = nil // it has no machine, which uses nothing
	}
	ratio := float64(st.RSS) / float64(max(1, in.Spec.Memory.Bytes))
	s.answer(w, r, http.StatusOK, api.InstanceStats{
		InstanceID: in.ID, InstanceName: in.Spec.Name, AllocatedMemoryBytes: in.Spec.Memory.Bytes, AllocatedVCPUs: in.Spec.VCPUs,
		CPUSeconds: st.CPU.Seconds(), MemoryRSSBytes: st.RSS, MemoryVMSBytes: st.VMS, MemoryUtilizationRatio: &ratio,
		NetworkRxBytes: st.RxBytes, NetworkTxBytes: st.TxBytes,
	}, err)
}

// ability finds a machine that can do T.
func ability[T any](s *Server, id string) (T, error) {
	var none T
	m, err := s.config.Instances.Machine(id)
	if err != nil {
		return none, err
	}
	can, ok := m.(T)
	if !ok {
		return none, fmt.Errorf("this driver's machines cannot do that: %w", api.Unsupported)
	}
	return can, nil
}

// WaitForInstance blocks until an instance is as wanted.
func (s *Server) WaitForInstance(w http.ResponseWriter, r *http.Request, id string, p api.WaitForInstanceParams) {
	var f faults
	var g goal
	switch {
	case (p.State == nil) == (p.Health == nil):
		f.invalid("state", "either state or health is needed, and not both")
	case p.State != nil && !p.State.Valid():
		f.invalid("state", "a state such as Running or Stopped")
	case p.Health != nil && !p.Health.Valid():
		f.invalid("health", "disabled, unknown, starting, healthy or unhealthy")
	case p.State != nil:
		g.state = instance.State(*p.State)
	default:
		g.health = health.Status(*p.Health)
	}
	timeout := defaultWait
	if p.Timeout != nil && *p.Timeout != "" {
		d, err := duration("timeout", *p.Timeout)
		if err != nil {
			f.invalid("timeout", `a duration such as "30s"; more than 5m is taken for 5m`)
		}
		timeout = min(d, maxWait)
	}
	if err := f.err(); err != nil {
		s.fail(w, r, err)
		return
	}
	s.wait(w, r, id, g, timeout)
}

// GetInstanceHealth shows an instance's health with its history.
func (s *Server) GetInstanceHealth(w http.ResponseWriter, r *http.Request, id string) {
	in, err := s.config.Instances.Find(id)
	s.answer(w, r, http.StatusOK, s.renderHealth(in), err)
}

// CheckInstanceHealth probes now.
func (s *Server) CheckInstanceHealth(w http.ResponseWriter, r *http.Request, id string) {
	if err := decodeStrict(w, r, new(struct{})); err != nil { // there is nothing to say
		s.fail(w, r, err)
		return
	}
	in, err := s.config.Instances.Find(id)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	result, err := s.config.Health.CheckNow(r.Context(), in.ID)
	switch {
	case errors.Is(err, health.ErrNoPolicy), errors.Is(err, health.ErrInactive), errors.Is(err, health.ErrUnknown):
		err = fmt.Errorf("instance %q cannot be checked: %v: %w", in.Spec.Name, err, api.InvalidState)
	case errors.Is(err, health.ErrClosed):
		err = fmt.Errorf("%v: %w", err, api.Unavailable)
	}
	s.answer(w, r, http.StatusOK, renderResult(result), err)
}
