package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/egress"
	"github.com/halevm/hale/internal/health"
	"github.com/halevm/hale/internal/image"
	"github.com/halevm/hale/internal/instance"
	"github.com/halevm/hale/internal/machine"
)

// What an instance gets unless told.
const (
	defaultMemory  = "1GB"
	defaultOverlay = "10GB"
	defaultVCPUs   = 2
	platform       = "linux/amd64"
)

// Bounds of what a create may ask for.
const (
	minMemory  = 128 << 20 // at 64 MB the guest's kernel has nothing left to start the agent with (measured),
	vcpuMemory = 4 << 20   // nor with 64 processors at 128 MB; at 160 it has
	maxVCPUs   = 64
	minOverlay = 16 << 20
	maxOverlay = 16 << 40
	maxArgs    = 1024
	maxPorts   = 128
	maxTags    = 64
	maxText    = 32 << 10 // one argument, variable or tag
)

// CreateInstance makes an instance and starts it.
func (s *Server) CreateInstance(w http.ResponseWriter, r *http.Request) {
	var q api.CreateInstanceRequest
	if err := decode(w, r, &q); err != nil {
		s.fail(w, r, err)
		return
	}
	spec, err := specOf(q, time.Now())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	in, err := s.createWhenReady(r.Context(), spec)
	if err == nil {
		s.config.Settled(r.Context(), in.ID)
	}
	s.answer(w, r, http.StatusCreated, s.render(in), err)
}

// imagePatience is how long a create waits for an image that is on its way.
const imagePatience = 10 * time.Second

// createWhenReady creates, once the image is ready or will not be within imagePatience. An image that is not here is pulled.
func (s *Server) createWhenReady(ctx context.Context, spec instance.Spec) (instance.Instance, error) {
	if err := s.config.Instances.Refuses(spec); err != nil {
		return instance.Instance{}, err // before a pull, or a wait, that would be for nothing
	}
	patient, cancel := context.WithTimeout(ctx, imagePatience)
	defer cancel()
	for pulled := false; ; {
		changed := s.config.Images.Changed()
		in, err := s.config.Instances.Create(ctx, spec)
		switch {
		case isAbsent(err) && !pulled:
			if pulled = true; !s.justFailed(spec.Image) {
				if _, err := s.config.Images.Pull(patient, spec.Image, image.PullOptions{}); err != nil {
					return in, err
				}
				continue
			}
			fallthrough
		case isAbsent(err):
			return in, s.whyAbsent(spec.Image, err)
		case !errors.Is(err, api.NotReady):
			return in, err
		}
		pulled = true // by somebody; should it fail, that is the answer
		select {
		case <-changed:
		case <-patient.Done():
			if ctx.Err() != nil {
				return in, context.Cause(ctx)
			}
			return in, err
		}
	}
}

// isAbsent reports whether a create was refused because the image is not here, and is not on its way.
func isAbsent(err error) bool {
	e, ok := errors.AsType[*api.Error](err)
	return ok && (e.Code == "image_not_found" || e.Code == "image_failed")
}

// failureStands is how long a create is told why the last pull failed, before it starts another one: who was told to come
// again learns of it, and a registry is not asked at every try.
const failureStands = time.Minute

func (s *Server) justFailed(ref string) bool {
	img, err := s.config.Images.Find(ref)
	if err != nil || img.Status != image.Failed {
		return false
	}
	stands := failureStands
	if e, ok := errors.AsType[*api.Error](img.Cause); ok {
		stands = max(stands, e.RetryAfter)
	}
	return time.Since(img.FailedAt) < stands
}

// whyAbsent is what the pull said, where one failed, and err elsewhere.
func (s *Server) whyAbsent(ref string, err error) error {
	img, found := s.config.Images.Find(ref)
	e, told := errors.AsType[*api.Error](img.Cause)
	if found != nil || !told {
		return err
	}
	in := *e
	in.Message = fmt.Sprintf("image %s cannot be used: %s", img.Ref, e.Message)
	if in.NoRetry = true; e.Kind == api.Unavailable || e.Kind == api.RateLimited {
		in.RetryAfter = max(time.Second, max(failureStands, e.RetryAfter)-time.Since(img.FailedAt))
	}
	return &in
}

// specOf checks a create and makes of it what the domain takes. Everything that is wrong is told at once.
func specOf(q api.CreateInstanceRequest, now time.Time) (instance.Spec, error) {
	var f faults
	f.refuseUnbuilt(q)
	spec := instance.Spec{
		Name: q.Name, Image: q.Image, Platform: platform,
		Entrypoint: q.Entrypoint, Cmd: q.Cmd, Env: q.Env, Tags: q.Tags,
		VCPUs:   f.vcpus(q.VCPUs),
		Overlay: f.size("overlay_size", q.OverlaySize, defaultOverlay, minOverlay, maxOverlay),
	}
	spec.Memory = f.size("size", q.Size, defaultMemory, max(minMemory, int64(min(spec.VCPUs, maxVCPUs))*vcpuMemory), 1<<44)
	if q.Image == "" {
		f.invalid("image", "an image reference is needed, such as nginx or docker.io/library/nginx:latest")
	} else if _, err := image.Normalize(q.Image); err != nil {
		f.add("invalid_image_name", "image", err.Error())
	}
	if q.Name != "" && !instance.ValidName(q.Name) {
		f.invalid("name", "lower-case letters, digits and dashes, beginning and ending with a letter or digit, at most 63")
	}
	if q.Platform != "" && q.Platform != platform {
		f.add("invalid_platform", "platform", "this server runs "+platform)
	}
	f.texts("entrypoint", q.Entrypoint)
	f.texts("cmd", q.Cmd)
	f.env(q.Env)
	f.tags(q.Tags)
	spec.ExpiresAt = f.expiry(q.TTL, q.ExpiresAt, now)
	if n := q.Network; n != nil {
		spec.NoNetwork = n.Enabled != nil && !*n.Enabled
		spec.Ports = f.ports(n.Ports)
		spec.NoOutbound = n.Outbound != nil && !*n.Outbound
		spec.AllowNets = f.ranges(n.Allow)
		if len(n.Allow) > 0 && (spec.NoNetwork || spec.NoOutbound) {
			f.invalid("network.allow", "an instance without traffic to the outside reaches no private range")
		}
	}
	spec.HealthCheck = f.healthCheck(q.HealthCheck)
	spec.Override = f.healthOverride(q.HealthCheckOverride, given(q.HealthCheck))
	if e, refused := errors.AsType[*api.Error](instance.CheckPolicy(spec)); refused {
		f = append(f, e.Details...)
	}
	return spec, f.err()
}

// refuseUnbuilt refuses what this server cannot do. A value that asks for nothing is none.
func (f *faults) refuseUnbuilt(q api.CreateInstanceRequest) {
	f.refusePolicies(q.AutoStandby, q.RestartPolicy)
	const notBuilt = "not built yet"
	if p := q.SnapshotPolicy; p != nil && (p.StandbyCompressionDelay != nil && *p.StandbyCompressionDelay != "" || p.Compression != nil && p.Compression.Enabled) {
		f.unsupported("snapshot_policy", notBuilt)
	}
	if len(q.Volumes) > 0 {
		f.unsupported("volumes", notBuilt)
	}
	if len(q.Devices) > 0 {
		f.unsupported("devices", "no devices of the host are passed through")
	}
	if q.GPU != nil && q.GPU.Profile != nil && *q.GPU.Profile != "" {
		f.unsupported("gpu", "there are no GPUs here")
	}
	if len(q.Credentials) > 0 {
		f.unsupported("credentials", notBuilt)
	}
	if q.Hypervisor != "" && q.Hypervisor != api.HypervisorQemu {
		f.unsupported("hypervisor", "this server runs qemu")
	}
	if q.SkipGuestAgent {
		f.unsupported("skip_guest_agent", "every machine has the guest agent")
	}
	if !zeroSize(q.HotplugSize) {
		f.unsupported("hotplug_size", notBuilt)
	}
	if !zeroSize(q.DiskIOBps) {
		f.unsupported("disk_io_bps", notBuilt)
	}
	if n := q.Network; n != nil {
		if !zeroSize(n.BandwidthDownload) {
			f.unsupported("network.bandwidth_download", notBuilt)
		}
		if !zeroSize(n.BandwidthUpload) {
			f.unsupported("network.bandwidth_upload", notBuilt)
		}
		if n.Egress != nil && n.Egress.Enabled {
			f.unsupported("network.egress.enabled", notBuilt)
		}
	}
}

// refusePolicies refuses the two policies that an update can name as well.
func (f *faults) refusePolicies(a *api.AutoStandbyPolicy, p *api.RestartPolicy) {
	asks := func(s *string) bool { return s != nil && *s != "" }
	if a != nil && !(a.Enabled != nil && !*a.Enabled) &&
		(a.Enabled != nil || asks(a.IdleTimeout) || len(a.IgnoreDestinationPorts) > 0 || len(a.IgnoreSourceCIDRs) > 0) {
		f.unsupported("auto_standby", "not built yet")
	}
	if p != nil && !(p.Policy != nil && *p.Policy == "never") &&
		(asks(p.Policy) || asks(p.Backoff) || asks(p.StableAfter) || p.MaxAttempts != nil) {
		f.unsupported("restart_policy", "not built yet")
	}
}

// zeroSize reports whether a size asks for nothing: "", "0", "0B".
func zeroSize(s string) bool {
	return strings.TrimRight(strings.TrimLeft(strings.TrimSpace(s), "0."), "kKmMgGtTiIbBps/") == ""
}

func (f *faults) vcpus(n *int) int {
	switch {
	case n == nil || *n == 0:
		return defaultVCPUs
	case *n < 0 || *n > maxVCPUs:
		f.invalid("vcpus", fmt.Sprintf("1 to %d", maxVCPUs))
	}
	return *n
}

func (f *faults) size(field, given, unset string, lo, hi int64) instance.Size {
	if given == "" {
		given = unset
	}
	s, err := instance.ParseSize(given)
	switch {
	case err != nil:
		f.invalid(field, err.Error())
	case s.Bytes < lo:
		f.invalid(field, fmt.Sprintf("at least %s", instance.Size{Bytes: lo}))
	case s.Bytes > hi:
		f.invalid(field, fmt.Sprintf("at most %s", instance.Size{Bytes: hi}))
	}
	return s
}

func (f *faults) texts(field string, args []string) {
	if len(args) > maxArgs {
		f.invalid(field, fmt.Sprintf("at most %d", maxArgs))
	}
	for i, a := range args {
		if len(a) > maxText || strings.ContainsRune(a, 0) {
			f.invalid(fmt.Sprintf("%s[%d]", field, i), fmt.Sprintf("at most %d bytes, and no NUL", maxText))
		}
	}
}

func (f *faults) env(env map[string]string) {
	for _, k := range slices.Sorted(maps.Keys(env)) {
		if k == "" || strings.ContainsAny(k, "=\x00") || strings.ContainsRune(env[k], 0) || len(k)+len(env[k]) > maxText {
			f.invalid("env."+k, fmt.Sprintf("a name without = and NUL, a value without NUL, at most %d bytes together", maxText))
		}
	}
}

func (f *faults) tags(tags map[string]string) {
	if len(tags) > maxTags {
		f.invalid("tags", fmt.Sprintf("at most %d", maxTags))
	}
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		if k == "" || len(k) > 256 || len(tags[k]) > 1024 {
			f.invalid("tags."+k, "a key of 1 to 256 bytes and a value of at most 1024")
		}
	}
}

// expiry reads ttl or expires_at; the zero time is never.
func (f *faults) expiry(ttl *string, at *time.Time, now time.Time) time.Time {
	switch {
	case ttl != nil && *ttl != "" && at != nil:
		f.invalid("ttl", "either ttl or expires_at, not both")
	case ttl != nil && *ttl != "":
		d, err := time.ParseDuration(*ttl)
		if err != nil || d < 0 {
			f.invalid("ttl", `a duration such as "24h"; "0s" is for ever`)
		} else if d > 0 {
			return now.Add(d)
		}
	case at != nil:
		if !at.After(now) {
			f.invalid("expires_at", "a time that is yet to come")
		} else if at.UTC().Year() > 9999 { // JSON has no words for it
			f.invalid("expires_at", "a time before the year 10000, in UTC")
		}
		return *at
	}
	return time.Time{}
}

func (f *faults) ports(given []api.PortMapping) []machine.Port {
	if len(given) > maxPorts {
		f.invalid("network.ports", fmt.Sprintf("at most %d", maxPorts))
		return nil
	}
	var ports []machine.Port
	for i, p := range given {
		field := func(name string) string { return fmt.Sprintf("network.ports[%d].%s", i, name) }
		addr := netip.AddrFrom4([4]byte{127, 0, 0, 1})
		if p.HostAddr != "" {
			var err error
			if addr, err = netip.ParseAddr(p.HostAddr); err != nil || addr.Zone() != "" {
				f.invalid(field("host_addr"), "an IP address of the host, such as 127.0.0.1 or 0.0.0.0")
			}
		}
		if p.GuestPort < 1 || p.GuestPort > 65535 {
			f.invalid(field("guest_port"), "1 to 65535")
		}
		if p.HostPort < 0 || p.HostPort > 65535 {
			f.invalid(field("host_port"), "1 to 65535, or 0 for a free one")
		}
		if p.Protocol != "" && p.Protocol != "tcp" {
			f.unsupported(field("protocol"), "tcp is published")
		}
		ports = append(ports, machine.Port{HostAddr: addr, HostPort: uint16(p.HostPort), GuestPort: uint16(p.GuestPort)})
	}
	return ports
}

// ranges reads the private ranges that an instance may reach.
func (f *faults) ranges(given []string) []netip.Prefix {
	if len(given) > egress.MaxRanges {
		f.invalid("network.allow", fmt.Sprintf("at most %d", egress.MaxRanges))
		return nil
	}
	var nets []netip.Prefix
	for i, s := range given {
		p, err := egress.ParseRange(s)
		if err != nil {
			f.invalid(fmt.Sprintf("network.allow[%d]", i), err.Error())
			continue
		}
		if !slices.Contains(nets, p) {
			nets = append(nets, p)
		}
	}
	return nets
}

// healthCheck reads a policy; nil is none.
func (f *faults) healthCheck(raw json.RawMessage) *health.Policy {
	if !given(raw) {
		return nil
	}
	p, err := health.Parse(raw)
	if err != nil {
		f.policy("health_check", err)
		return nil
	}
	return &p
}

// healthOverride reads what is to change of the image's check; nil is nothing.
func (f *faults) healthOverride(raw json.RawMessage, whole bool) *health.Override {
	const field = "health_check_override"
	if !given(raw) {
		return nil
	}
	o, err := health.ParseOverride(raw)
	if err != nil {
		f.policy(field, err)
		return nil
	}
	if o != nil && whole {
		f.add(codeHealthCheck, field, "excludes health_check: give one of the two")
	}
	return o
}

// policy adds what is wrong with a policy.
func (f *faults) policy(field string, err error) {
	refused, ok := errors.AsType[*health.PolicyError](err)
	if !ok {
		f.add(codeHealthCheck, field, err.Error())
		return
	}
	for _, fault := range refused.Faults {
		f.add(codeHealthCheck, fault.Field, fault.Message)
	}
}
