package instance

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path"
	"strings"
	"syscall"
	"time"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/event"
	"github.com/halevm/hale/internal/health"
	"github.com/halevm/hale/internal/machine"
)

// diskReserve is what must be free where instances are kept for a new one to be begun, in bytes: the records and logs of
// those that are there need room too.
const diskReserve = 64 << 20

// Create makes an instance and starts it; it returns when that is durable and the machine has a process, with the instance Initializing.
// Spec.Name may be empty, and Spec.Image is any reference that Images knows. A refused create leaves nothing behind. Errors: api.Invalid,
// api.NotFound and api.NotReady of the image, *api.Error with code name_conflict, insufficient_resources or port_in_use, and the driver's.
func (s *Set) Create(ctx context.Context, spec Spec) (Instance, error) {
	img, err := s.c.Images.Image(ctx, spec.Image)
	if err != nil {
		return Instance{}, err
	}
	spec.Image, spec.ImageDigest, spec.Platform = img.Ref, img.Digest, img.Platform
	spec.ExpiresAt = spec.ExpiresAt.UTC().Round(0)
	warnings, err := spec.takeImageCheck(&img)
	if err != nil {
		return Instance{}, err
	}
	if spec.Ports, err = s.check(spec); err != nil {
		return Instance{}, err
	}
	if _, err := process(spec, img); err != nil {
		return Instance{}, err
	}
	if err := s.roomOnDisk(); err != nil {
		return Instance{}, err
	}
	o, err := s.reserve(spec, img)
	if err != nil {
		return Instance{}, err
	}
	made := make(chan Instance, 1)
	// What was reserved is freed in there, so it is begun also for a caller that has gone; nothing is before it in the queue.
	begun, err := o.queue(s.ctx, func() error {
		whole := false
		defer func() { // also when it panics
			if !whole {
				o.over = true
				s.forget(o)
			}
		}()
		if err := s.imageIsThere(s.ctx, img); err != nil {
			return err
		}
		if err := o.create(); err != nil {
			return err
		}
		for _, w := range warnings {
			o.log.Warn(w)
		}
		whole = true
		made <- o.rec.Instance
		return nil
	})
	if err == nil {
		err = o.result(ctx, begun)
	}
	if err != nil {
		return Instance{}, err
	}
	return <-made, nil
}

// check refuses a spec that no instance of this host can have. It returns its ports.
func (s *Set) check(spec Spec) ([]machine.Port, error) {
	ports, err := checkSpec(spec)
	if err != nil {
		return nil, err
	}
	if err := s.pool.allowable(spec.AllowNets); err != nil {
		return nil, invalid("network.allow", err.Error())
	}
	return ports, nil
}

// Refuses says why Create would refuse a spec now, whatever its image is; nil where that depends on the image.
func (s *Set) Refuses(spec Spec) error {
	if _, err := s.check(spec); err != nil {
		return err
	}
	if err := s.roomOnDisk(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.roomAndName(spec)
}

// roomAndName refuses a spec whose name is taken, or for which there is no memory. The caller holds s.mu.
func (s *Set) roomAndName(spec Spec) error {
	if other, taken := s.names[spec.Name]; taken {
		message := fmt.Sprintf("the name %q is taken by instance %s", spec.Name, other)
		return &api.Error{Kind: api.Conflict, Code: "name_conflict", Message: message, NoRetry: true,
			Details: []api.Detail{{Code: "name_conflict", Message: message, Field: "name"}}}
	}
	return s.roomFor(spec)
}

// takeImageCheck settles what the image's HEALTHCHECK means for the instance. Its warnings are for the instance's log.
func (s *Spec) takeImageCheck(img *Image) (warnings []string, err error) {
	policy, warnings := health.FromImage(img.Healthcheck, img.Shell)
	if !policy.Disabled() {
		s.ImageCheck = &policy
	}
	if !health.ImageCheckFits(img.Healthcheck, img.Shell) {
		img.Healthcheck, img.Shell = nil, nil // no record takes it
	}
	if s.Override != nil {
		if policy, warnings, err = s.Override.Apply(img.Healthcheck, img.Shell); err != nil {
			return nil, err
		}
		s.HealthCheck, s.Override = &policy, nil
	}
	return warnings, nil
}

// imageIsThere looks once more for the image of an instance that ImageUser knows of by now: what was deleted or replaced before that
// is found out here, and nothing is deleted after it.
func (s *Set) imageIsThere(ctx context.Context, img Image) error {
	now, err := s.c.Images.Image(ctx, img.Ref)
	if err == nil && now.Digest != img.Digest {
		err = &api.Error{Kind: api.NotReady, Code: "image_not_ready", Message: fmt.Sprintf("image %s was replaced at this moment", img.Ref)}
	}
	return err
}

// checkSpec refuses what no instance can be, and returns its ports with their defaults.
func checkSpec(spec Spec) ([]machine.Port, error) {
	switch {
	case spec.Name != "" && !ValidName(spec.Name):
		return nil, invalid("name", fmt.Sprintf("want %s, at most %d characters", namePattern, maxName))
	case spec.VCPUs < 1:
		return nil, invalid("vcpus", "want at least 1")
	case spec.Memory.Bytes < 1<<20:
		return nil, invalid("size", "want at least 1MB of memory")
	case spec.Overlay.Bytes < 1<<20:
		return nil, invalid("overlay_size", "want at least 1MB for the writable layer")
	case !spec.ExpiresAt.IsZero() && !spec.ExpiresAt.After(time.Now()):
		return nil, invalid("expires_at", "want a time that is yet to come")
	case spec.NoNetwork && len(spec.Ports) > 0:
		return nil, invalid("network.ports", "an instance without a network has no ports to publish")
	case len(spec.AllowNets) > 0 && (spec.NoNetwork || spec.NoOutbound):
		return nil, invalid("network.allow", "an instance without traffic to the outside reaches no private range")
	}
	for name := range spec.Env {
		if err := checkEnv(name, spec.Env[name]); err != nil {
			return nil, err
		}
	}
	if err := CheckPolicy(spec); err != nil {
		return nil, err
	}
	return checkPorts(spec.Ports)
}

func checkEnv(name, value string) error {
	if name == "" || strings.ContainsAny(name, "=\x00") || strings.ContainsRune(value, 0) {
		return invalid("env", fmt.Sprintf("%q: a name is not empty and holds no = and no NUL, a value holds no NUL", clip(name)))
	}
	return nil
}

// CheckPolicy refuses a health check that the instance could never make. Its error is an *api.Error.
func CheckPolicy(spec Spec) error {
	if spec.HealthCheck == nil || !spec.NoNetwork || !spec.HealthCheck.NeedsNetwork() {
		return nil
	}
	e := invalid("health_check."+string(spec.HealthCheck.Type), "the instance has no network; an exec check needs none")
	e.Code, e.Details[0].Code = "invalid_health_check", "invalid_health_check"
	return e
}

func checkPorts(given []machine.Port) ([]machine.Port, error) {
	var ports []machine.Port
	seen := map[netip.AddrPort]bool{}
	for i, p := range given {
		field := fmt.Sprintf("network.ports[%d]", i)
		if p.GuestPort == 0 {
			return nil, invalid(field+".guest_port", "want 1 to 65535")
		}
		if !p.HostAddr.IsValid() {
			p.HostAddr = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		}
		at := netip.AddrPortFrom(p.HostAddr, p.HostPort)
		if p.HostPort != 0 && seen[at] {
			return nil, invalid(field+".host_port", fmt.Sprintf("%s is published twice", at))
		}
		seen[at] = true
		ports = append(ports, p)
	}
	return ports, nil
}

func (s *Set) roomOnDisk() error {
	var st syscall.Statfs_t
	if err := syscall.Statfs(s.store.Path("."), &st); err != nil {
		return fmt.Errorf("look at the disk of %s: %w", s.store.Path("."), err)
	}
	if free := st.Bavail * uint64(st.Bsize); free < diskReserve {
		return noRoom("the disk of %s has %d MB left; a new instance wants at least %d MB", s.store.Path("."), free>>20, diskReserve>>20)
	}
	return nil
}

// reserve takes name, address and memory for a new instance, or none of them, and begins its goroutine. Nobody sees it yet.
func (s *Set) reserve(spec Spec, img Image) (*owner, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errClosing
	}
	for spec.Name == "" {
		if name := newName(img.Ref); s.names[name] == "" {
			spec.Name = name
		}
	}
	if err := s.roomAndName(spec); err != nil {
		return nil, err
	}
	t := now()
	r := record{Image: img, Instance: Instance{
		ID: newID(), Spec: spec, State: Initializing, Since: t, CreatedAt: t, StartedAt: t, Run: 1, Boots: 1, BootedAt: t,
	}}
	if !spec.NoNetwork {
		addr, err := s.pool.take()
		if err != nil {
			return nil, err
		}
		r.Addr = netip.PrefixFrom(addr, s.pool.net.Bits())
		r.Instance.IP, r.Instance.MAC = addr.String(), mac(addr)
	}
	o := s.newOwner(r)
	s.owners[o.id] = o
	s.names[spec.Name] = o.id
	s.wg.Go(o.run)
	return o, nil
}

// roomFor reports whether the host has the memory for one more. The caller holds s.mu.
func (s *Set) roomFor(spec Spec) error {
	if s.c.Memory <= 0 {
		return nil
	}
	var taken int64
	for _, o := range s.owners {
		if o.holds {
			taken += o.now.Spec.Memory.Bytes
		}
	}
	if left := s.c.Memory - taken; spec.Memory.Bytes > left {
		return noRoom("the host has no room: %d MB of memory are wanted, and %d of %d MB are left; ask for less, or stop another instance",
			spec.Memory.Bytes>>20, max(left, 0)>>20, s.c.Memory>>20)
	}
	return nil
}

// hold takes the memory of an instance that is about to start.
func (s *Set) hold(o *owner) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.roomFor(o.now.Spec); err != nil {
		return err
	}
	o.holds = true
	return nil
}

func (s *Set) release(o *owner) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o.holds = false
}

// forget frees everything that an instance has here.
func (s *Set) forget(o *owner) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o.visible, o.holds, o.present = false, false, nil
	delete(s.owners, o.id)
	if s.names[o.now.Spec.Name] == o.id {
		delete(s.names, o.now.Spec.Name)
	}
	if o.rec.Addr.IsValid() {
		s.pool.free(o.rec.Addr.Addr())
	}
	close(o.changed)
	o.changed = s.gone
}

// create makes the directory, the record and the machine, and then commits them; each step is undone when a later one fails.
// Until the created event is in the log nobody sees anything, and Open removes what a crash leaves.
func (o *owner) create() (err error) {
	s, name := o.s, path.Join(o.id, machineDir)
	if err := s.store.Mkdir(o.id); err != nil {
		return fmt.Errorf("create instance: %w", err)
	}
	var m Machine
	committed := false
	defer func() {
		if committed {
			return
		}
		if m != nil {
			o.m, o.notices = m, m.Notices()
			if derr := o.discard(); derr != nil { // the next Open finds it by what is on record
				err = errors.Join(err, derr)
				s.log.Error("the machine of an instance that could not be made does not end; the next start tries again", "instance", o.id, "err", derr)
				return
			}
		}
		err = errors.Join(err, s.store.RemoveDir(o.id))
	}()
	o.rec.Instance.State = Created // as the event will say
	if err := fits(o.rec); err != nil {
		return err
	}
	p, err := s.prepare(o.rec)
	if err != nil {
		return fmt.Errorf("create instance: %w", err)
	}
	if err := s.store.Mkdir(name); err != nil {
		return fmt.Errorf("create instance: %w", err)
	}
	if m, err = o.boot(); err != nil {
		return fmt.Errorf("create instance %s: %w", o.rec.Instance.Spec.Name, err)
	}
	created := o.rec.Instance
	_, err = s.c.Events.Commit(s.ctx, event.TypeCreated, o.id, created.Spec.Name, event.Created{Image: created.Spec.Image},
		func(event.Event) { o.appear(created) })
	if err != nil {
		return fmt.Errorf("create instance: %w", err)
	}
	committed = true
	if err := p.Commit(); err != nil {
		o.unsaved = true
		s.c.SaveFailed()
		o.log.Error("the record is behind; it is tried again", "err", err)
	}
	o.attach(m)
	next, c := o.step(Initializing)
	o.happened(next, change{event.TypeState, c})
	return nil
}

// appear makes a new instance visible.
func (o *owner) appear(i Instance) {
	o.s.mu.Lock()
	o.visible = true
	o.s.mu.Unlock()
	o.publish(i)
}

// discard ends the machine of an instance that is not to be, without a word to anyone.
func (o *owner) discard() error {
	ctx, cancel := context.WithTimeoutCause(o.s.ctx, killTime, errSlow)
	defer cancel()
	err := o.m.Kill(ctx)
	o.m, o.notices = nil, nil
	return err
}

// Delete ends an instance and removes everything that belongs to it; graceful asks the guest first. ref is an id, a
// name, or at least 6 characters of an id. When it returns without an error, nothing is left.
func (s *Set) Delete(ctx context.Context, ref string, graceful bool) error {
	s.mu.Lock()
	o, err := s.resolve(ref)
	short := err == nil && ref != o.id && ref != o.now.Spec.Name && len(ref) < minDelete
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if short {
		return invalid("id", fmt.Sprintf("%q is too short to delete by: give the name, the id, or at least %d characters of it", ref, minDelete))
	}
	if !graceful {
		defer o.force()()
	}
	return o.call(ctx, func() error { return o.remove(graceful, "requested") })
}

// force cuts short an orderly stop that is under way or about to begin, until the func that it returns is called.
func (o *owner) force() (done func()) {
	o.s.mu.Lock()
	defer o.s.mu.Unlock()
	if o.forcing++; o.forcing == 1 {
		close(o.forced)
	}
	return func() {
		o.s.mu.Lock()
		defer o.s.mu.Unlock()
		if o.forcing--; o.forcing == 0 {
			o.forced = make(chan struct{})
		}
	}
}

// remove deletes the instance. The event is the commit; what a crash leaves behind it, Open removes.
func (o *owner) remove(graceful bool, reason string) error {
	if err := o.end(graceful); err != nil {
		return err
	}
	stays := o.s.c.Leaving(o.id)
	defer func() { // also when something panics
		if !o.over {
			stays()
		}
	}()
	next := o.rec
	next.Deleting = true
	data := event.Deleted{Reason: reason}
	vanish := func(event.Event) { o.s.forget(o) }
	p, err := o.s.prepare(next)
	if err == nil {
		_, err = o.s.c.Events.Commit(o.s.ctx, event.TypeDeleted, o.id, o.rec.Instance.Spec.Name, data, vanish)
		if err != nil {
			p.Abort()
		}
	}
	if err != nil {
		return o.removeFirst(data, err)
	}
	o.over = true
	o.log.Info("deleted", "reason", reason)
	if err := o.s.store.RemoveDir(o.id); err != nil {
		_ = p.Commit() // the record says so, too: the event is not kept for ever
		o.s.log.Error("a deleted instance's directory cannot be removed; the next start tries again", "instance", o.id, "err", err)
	}
	return nil
}

// removeFirst deletes where nothing can be written: the removal makes the room that the event needs. A directory that is
// gone is a deletion that lasts, event or not.
func (o *owner) removeFirst(data event.Deleted, cause error) error {
	if err := o.s.store.RemoveDir(o.id); err != nil {
		if there, lerr := o.s.store.Exists(o.id); there || lerr != nil { // else a person was there first, or what is left of it is trash
			return fmt.Errorf("delete instance %s: %w", o.rec.Instance.Spec.Name, cmp.Or(cause, err))
		}
	}
	o.over = true
	_, err := o.s.c.Events.Commit(o.s.ctx, event.TypeDeleted, o.id, o.rec.Instance.Spec.Name, data, func(event.Event) { o.s.forget(o) })
	if err != nil {
		o.s.forget(o)
		o.s.c.Unwritten(o.id)
		o.s.log.Error("an instance was deleted, and no event tells of it", "instance", o.id, "err", err)
	}
	return nil
}
