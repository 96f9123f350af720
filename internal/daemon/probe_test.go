package daemon

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/halevm/hale/internal/health"
	"github.com/halevm/hale/internal/instance"
	"github.com/halevm/hale/internal/instance/fake"
	"github.com/halevm/hale/internal/machine"
)

// A told driver's machines answer what a test says.
type told struct {
	*fake.Driver
	answer func() health.Result
}

func (d *told) Start(ctx context.Context, c machine.Config) (instance.Machine, error) {
	m, err := d.Driver.Start(ctx, c)
	return toldMachine{m, d}, err
}

type toldMachine struct {
	instance.Machine
	d *told
}

func (m toldMachine) Probe(context.Context, health.Policy, func()) health.Result { return m.d.answer() }

// What is ended by us while it is asked has not failed, whether or not health has heard of that; nor is what failed a matter of the next
// run. An agent that is missing is a failure to health, once it has had its time.
func TestWhatWeEndHasNotFailed(t *testing.T) {
	stop := func(ctx context.Context, s *instance.Set, id string) error {
		_, err := s.Stop(ctx, id)
		return err
	}
	refused := health.Result{Outcome: health.Failure, Reason: "connection refused (port 80)", Definite: true}
	noAgent := health.Result{Outcome: health.Inconclusive, Cause: health.CauseNoAgent}
	well := health.Result{Outcome: health.Success}
	for name, c := range map[string]struct {
		meanwhile func(ctx context.Context, s *instance.Set, id string) error
		cut       bool
	}{
		"nothing":    {func(context.Context, *instance.Set, string) error { return nil }, false},
		"a stop":     {stop, true},
		"a deletion": {func(ctx context.Context, s *instance.Set, id string) error { return s.Delete(ctx, id, false) }, true},
		"a stop and a start": {func(ctx context.Context, s *instance.Set, id string) error {
			if err := stop(ctx, s, id); err != nil {
				return err
			}
			_, err := s.Start(ctx, id, instance.StartOptions{})
			return err
		}, true},
	} {
		for _, answer := range []health.Result{refused, noAgent, well} {
			t.Run(fmt.Sprintf("%s, %s %s", name, answer.Outcome, answer.Cause), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					driver := &told{Driver: fake.New(fake.Config{})}
					d := watched(t, driver, nil)
					in, err := d.instances.Create(t.Context(), instance.Spec{
						Name: "web", Image: "app", VCPUs: 1, Memory: instance.Size{Bytes: 1 << 30}, Overlay: instance.Size{Bytes: 1 << 30},
					})
					if err != nil {
						t.Fatal(err)
					}
					synctest.Wait()
					driver.answer = func() health.Result {
						if err := c.meanwhile(t.Context(), d.instances, in.ID); err != nil {
							t.Error(err)
						}
						return answer
					}
					r := d.probe(t.Context(), in.ID, health.Policy{}, func() {})
					switch {
					case c.cut && answer.Outcome != health.Success:
						if r.Outcome != health.Inconclusive || r.Cause != health.CauseCutShort {
							t.Errorf("%+v", r)
						}
					case r != answer:
						t.Errorf("%+v, want %+v", r, answer)
					}
				})
			})
		}
	}
}
