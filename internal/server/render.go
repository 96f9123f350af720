package server

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/health"
	"github.com/halevm/hale/internal/image"
	"github.com/halevm/hale/internal/instance"
	"github.com/halevm/hale/internal/machine"
)

// render is an instance as the API shows it, with its health as it is now.
func (s *Server) render(in instance.Instance) api.Instance {
	since := in.Since
	out := api.Instance{
		ID: in.ID, Name: in.Spec.Name, Image: in.Spec.Image, ImageDigest: in.Spec.ImageDigest, Platform: in.Spec.Platform,
		State: api.InstanceState(in.State), CreatedAt: in.CreatedAt,
		StartedAt: when(in.StartedAt), RunningAt: when(in.RunningAt), Boots: in.Boots, StoppedAt: when(in.StoppedAt), ExpiresAt: when(in.Spec.ExpiresAt),
		CurrentPhase: strings.ToLower(string(in.State)), CurrentPhaseSince: &since,
		Entrypoint: in.Spec.Entrypoint, Cmd: in.Spec.Cmd, Env: in.Spec.Env, Tags: in.Spec.Tags,
		VCPUs: in.Spec.VCPUs, Size: in.Spec.Memory.String(), OverlaySize: in.Spec.Overlay.String(),
		Hypervisor: api.HypervisorQemu, StateError: stateError(in), Network: renderNetwork(in),
	}
	if e := in.Exit; e != nil && in.State == instance.Stopped {
		out.ExitCode, out.ExitMessage, out.ExitReason = e.Code, printable(e.Message), string(e.Reason)
	}
	out.HealthCheck, out.HealthCheckSource = policyOf(in)
	status := s.healthStatus(in)
	out.HealthStatus = &status
	return out
}

// policyOf is the policy in force and where it came from.
func policyOf(in instance.Instance) (json.RawMessage, api.HealthCheckSource) {
	p, source := in.Spec.Policy()
	if source == "" {
		return nil, ""
	}
	return renderPolicy(p), api.HealthCheckSource(source)
}

// renderPolicy is a policy as JSON, nil for none.
func renderPolicy(p health.Policy) json.RawMessage {
	b, err := json.Marshal(p)
	if p.Type == "" || err != nil {
		return nil
	}
	return b
}

func renderNetwork(in instance.Instance) *api.InstanceNetwork {
	n := &api.InstanceNetwork{Enabled: !in.Spec.NoNetwork}
	if in.Spec.NoNetwork {
		return n
	}
	n.Name = "default"
	outbound := !in.Spec.NoOutbound
	n.Outbound = &outbound
	for _, p := range in.Spec.AllowNets {
		n.Allow = append(n.Allow, p.String())
	}
	n.IP, n.MAC = text(in.IP), text(in.MAC)
	ports := in.Ports
	if ports == nil {
		ports = in.Spec.Ports
	}
	for _, p := range ports {
		n.Ports = append(n.Ports, renderPort(p))
	}
	return n
}

func renderPort(p machine.Port) api.PortMapping {
	return api.PortMapping{HostAddr: p.HostAddr.String(), HostPort: int(p.HostPort), GuestPort: int(p.GuestPort), Protocol: "tcp"}
}

// stateError says why an instance is stopped, where that is nobody's wish.
func stateError(in instance.Instance) *string { return text(printable(in.StateError())) }

// printable drops control characters: what a guest said is shown, not obeyed. Newlines and tabs stay.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' || r >= 0x7f && r < 0xa0 {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "\ufffd"))
}

// healthStatus is an instance's health as it is now.
func (s *Server) healthStatus(in instance.Instance) api.InstanceHealthStatus {
	return renderStatus(s.status(in))
}

// status is the health of an instance without its history.
func (s *Server) status(in instance.Instance) health.Snapshot {
	return s.shown(in, s.config.Health.Status)
}

func (s *Server) shown(in instance.Instance, look func(id string) (health.Snapshot, bool)) health.Snapshot {
	h, ok := look(in.ID)
	if !ok {
		return health.Snapshot{Status: unseenStatus(in), Since: in.Since}
	}
	return seen(in, h)
}

// seen is what health says of an instance, which it may not have heard of yet that it is not active any more.
func seen(in instance.Instance, h health.Snapshot) health.Snapshot {
	if in.State == instance.Initializing || in.State == instance.Running {
		return h
	}
	switch h.Status {
	case health.StatusStarting, health.StatusHealthy, health.StatusUnhealthy:
		h.Status, h.LastStatus, h.Since = health.StatusUnknown, h.Status, in.Since
		h.Stale, h.StaleReason = false, ""
	}
	return h
}

func renderStatus(h health.Snapshot) api.InstanceHealthStatus {
	return api.InstanceHealthStatus{
		Status: api.HealthState(h.Status), LastStatus: api.HealthState(h.LastStatus), Since: when(h.Since),
		ConsecutiveSuccesses: h.ConsecutiveSuccesses, ConsecutiveFailures: h.ConsecutiveFailures, GraceFailures: h.GraceFailures,
		LastCheckedAt: when(h.LastCheckedAt), LastSuccessAt: when(h.LastSuccessAt), LastFailureAt: when(h.LastFailureAt),
		LastError: text(h.LastError), WindowStartedAt: when(h.WindowStartedAt), Stale: h.Stale, StaleReason: h.StaleReason,
	}
}

func (s *Server) renderHealth(in instance.Instance) api.InstanceHealth {
	h := s.shown(in, s.config.Health.Snapshot)
	st := renderStatus(h)
	out := api.InstanceHealth{
		Status: st.Status, LastStatus: st.LastStatus, Since: st.Since,
		ConsecutiveSuccesses: st.ConsecutiveSuccesses, ConsecutiveFailures: st.ConsecutiveFailures, GraceFailures: st.GraceFailures,
		LastCheckedAt: st.LastCheckedAt, LastSuccessAt: st.LastSuccessAt, LastFailureAt: st.LastFailureAt,
		LastError: st.LastError, WindowStartedAt: st.WindowStartedAt, Stale: st.Stale, StaleReason: st.StaleReason,
		Results: []api.HealthResult{}, Transitions: []api.HealthTransition{},
	}
	out.HealthCheck, out.HealthCheckSource = policyOf(in)
	for _, r := range h.Results {
		out.Results = append(out.Results, renderResult(r))
	}
	for _, t := range h.Transitions {
		out.Transitions = append(out.Transitions, api.HealthTransition{
			Time: t.Time, From: api.HealthState(t.From), To: api.HealthState(t.To), Reason: t.Reason, Output: t.Output,
			Persisted: t.Persisted, Window: t.Window, Stale: t.Stale, N: t.N,
		})
	}
	return out
}

func renderResult(r health.WindowResult) api.HealthResult {
	return api.HealthResult{
		Time: r.Start, DurationMs: float64(r.Duration) / float64(time.Millisecond), Outcome: string(r.Outcome),
		Reason: r.Reason, Output: r.Output, Cause: r.Cause, Window: r.Window,
	}
}

// renderImage is an image as the API shows it.
func renderImage(img image.Image) api.Image {
	out := api.Image{
		Name: img.Ref, Digest: img.Digest, Status: api.ImageStatus(img.Status), Platform: img.Platform, CreatedAt: img.CreatedAt,
		Entrypoint: img.Entrypoint, Cmd: img.Cmd, WorkingDir: text(img.WorkingDir), User: img.User, StopSignal: img.StopSignal,
		Tags: img.Tags, Error: text(img.Error), QueuePosition: img.QueuePosition,
	}
	policy, warnings := health.FromImage(img.Healthcheck, img.Shell)
	out.HealthCheck, out.HealthCheckWarnings = renderPolicy(policy), warnings
	if img.Size > 0 {
		out.SizeBytes = &img.Size
	}
	for _, e := range img.Env {
		if k, v, ok := strings.Cut(e, "="); ok {
			if out.Env == nil {
				out.Env = make(map[string]string)
			}
			out.Env[k] = v
		}
	}
	if img.Status == image.Pulling || img.Status == image.Converting {
		out.Progress = &api.ImageProgress{DoneBytes: img.Progress.Done}
		if img.Progress.Total > 0 {
			out.Progress.TotalBytes = &img.Progress.Total
		}
	}
	return out
}

// when and text make what is empty absent.

func when(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func text(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
