package instance

import (
	"context"
	"maps"
	"time"

	"github.com/halevm/hale/internal/event"
	"github.com/halevm/hale/internal/health"
)

// An Update changes an instance in place. Zero fields leave what they name alone.
type Update struct {
	HealthCheck *HealthUpdate
	Env         map[string]*string // merged key by key for the next start: nil removes the key, "" sets it to nothing
	ExpiresAt   *time.Time         // the zero time: never
	Tags        map[string]string  // nil leaves them; else replaces them whole
}

// A HealthUpdate replaces the policy whole: by Policy, or by what Override makes of the image's check. With neither the request's is
// dropped, and the image's applies again.
type HealthUpdate struct {
	Policy   *health.Policy
	Override *health.Override
}

// policy is the request's policy after the update.
func (u HealthUpdate) policy(img Image) (*health.Policy, error) {
	if u.Override == nil {
		return u.Policy, nil
	}
	p, _, err := u.Override.Apply(img.Healthcheck, img.Shell) // what it warns of was said at create
	if err != nil {
		return nil, err
	}
	return &p, nil
}

// Update changes an instance in place and returns it. It is durable on return, and one event names the fields that
// changed; an update that changes nothing makes no event. It waits behind an operation in progress.
func (s *Set) Update(ctx context.Context, ref string, u Update) (Instance, error) {
	return s.operate(ctx, ref, func(o *owner) error { return o.update(u) })
}

func (o *owner) update(u Update) error {
	next := o.rec
	spec := &next.Instance.Spec
	var fields []string
	if u.Env != nil {
		env := map[string]string{}
		maps.Copy(env, spec.Env)
		for name, value := range u.Env {
			if value == nil {
				delete(env, name)
				continue
			}
			if err := checkEnv(name, *value); err != nil {
				return err
			}
			env[name] = *value
		}
		if !maps.Equal(env, spec.Env) {
			fields = append(fields, "env")
			spec.Env = env
			if _, err := process(*spec, next.Image); err != nil {
				return err
			}
		}
	}
	if u.ExpiresAt != nil && !u.ExpiresAt.Equal(spec.ExpiresAt) {
		if !u.ExpiresAt.IsZero() && !u.ExpiresAt.After(time.Now()) {
			return invalid("expires_at", "want a time that is yet to come")
		}
		fields = append(fields, "expires_at")
		spec.ExpiresAt = u.ExpiresAt.UTC().Round(0)
	}
	if u.HealthCheck != nil {
		policy, err := u.HealthCheck.policy(next.Image)
		if err != nil {
			return err
		}
		given := *spec
		given.HealthCheck = policy
		if dropped := policy == nil && spec.HealthCheck != nil; dropped || !sameInForce(*spec, given) {
			fields = append(fields, "health_check")
			spec.HealthCheck = policy
			if err := CheckPolicy(*spec); err != nil {
				return err
			}
		}
	}
	if u.Tags != nil && !maps.Equal(u.Tags, spec.Tags) {
		fields = append(fields, "tags")
		spec.Tags = maps.Clone(u.Tags)
	}
	if len(fields) == 0 {
		return nil
	}
	if err := fits(next); err != nil {
		return err
	}
	if err := o.commit(next, change{event.TypeUpdated, event.Updated{Fields: fields}}); err != nil {
		return err
	}
	o.log.Info("updated", "fields", fields)
	return nil
}

// sameInForce reports whether the same is checked by both: then an update changes nothing, and the check stays whose it was.
func sameInForce(a, b Spec) bool {
	before, _ := a.Policy()
	after, _ := b.Policy()
	return before.Equal(after)
}
