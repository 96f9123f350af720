package crash

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/halevm/hale/api"
	hale "github.com/halevm/hale/sdk/go"
)

// A slot is a name, and what was acknowledged about the instance of that name. Its worker owns it while a daemon runs, and the check
// while none does.
type slot struct {
	name string
	id   string // "": there is no instance
	tags string // the value of the tag "v"
	ends bool   // its program ends by itself

	// The last acknowledged beginning or end of a run, whichever was later. Both zero: neither is known.
	started, stopped time.Time
	reason           string // of the end
	running          bool   // it was seen to run since it was started

	pending string // the kind of the operation that was cut off; "": none
	wanted  string // the tag that a create or an update was to set
}

// operate does one operation, and reports whether it was answered.
func (x *test) operate(ctx context.Context, s *slot, r *rand.Rand) bool {
	if s.id == "" {
		return x.create(ctx, s, r)
	}
	switch n := r.IntN(100); {
	case n < 15:
		return x.begun(s, "start", func() (api.Instance, error) { return x.StartInstance(ctx, s.id, api.StartInstanceRequest{}) })
	case n < 25:
		return x.ended(s, func() (api.Instance, error) { return x.StopInstance(ctx, s.id) })
	case n < 45:
		return x.update(ctx, s, r)
	case n < 50:
		return x.exec(ctx, s)
	case n < 90:
		return x.awaitRunning(ctx, s)
	default:
		return x.delete(ctx, s, r)
	}
}

// refused reports whether err is an answer that says no, where that may be: nothing has changed then. An answer that may not be
// fails the test. Whatever is no answer is an operation that was cut off.
func (x *test) refused(what string, err error) bool {
	e, ok := errors.AsType[*hale.Error](err)
	if !ok {
		return false
	}
	if !errors.Is(e, api.InvalidState) {
		x.Errorf("%s: %v (%s)", what, e, e.Code)
	}
	return true
}

// pend says what is about to be asked for. What is answered takes it back.
func (s *slot) pend(what, wanted string) { s.pending, s.wanted = what, wanted }

func (x *test) create(ctx context.Context, s *slot, r *rand.Rand) bool {
	s.ends = r.IntN(5) == 0
	s.pend("create", fmt.Sprint(r.Uint32()))
	in, err := x.CreateInstance(ctx, api.CreateInstanceRequest{
		Name: s.name, Image: x.image, Size: api.Size(x.Size), Entrypoint: x.program(s), Tags: api.Tags{"v": s.wanted},
		Network: &api.InstanceNetworkRequest{Ports: []api.PortMapping{{GuestPort: 80}}},
	})
	if x.refused("create", err) {
		s.pending = ""
		return true
	}
	if !x.count("create", err == nil) {
		return false
	}
	s.pending = ""
	s.exists(in)
	return true
}

func (x *test) program(s *slot) []string {
	if s.ends {
		return x.Ends
	}
	return x.Runs
}

// exists takes in that the instance was made.
func (s *slot) exists(in api.Instance) {
	s.id, s.tags = in.ID, in.Tags["v"]
	s.began(in)
}

// began takes in that a run has begun.
func (s *slot) began(in api.Instance) {
	s.started, s.stopped, s.reason, s.running = time.Time{}, time.Time{}, "", false
	if in.StartedAt != nil {
		s.started = *in.StartedAt
	}
}

func (x *test) begun(s *slot, what string, do func() (api.Instance, error)) bool {
	s.pend(what, "")
	in, err := do()
	if x.refused(what, err) {
		s.pending = ""
		return true
	}
	if !x.count(what, err == nil) {
		return false
	}
	s.pending = ""
	s.began(in)
	return true
}

func (x *test) ended(s *slot, do func() (api.Instance, error)) bool {
	s.pend("stop", "")
	in, err := do()
	if x.refused("stop", err) {
		s.pending = ""
		return true
	}
	if !x.count("stop", err == nil) {
		return false
	}
	s.pending = ""
	if in.State != api.InstanceStateStopped || in.StoppedAt == nil {
		x.Errorf("after its stop %s is %s", s.name, in.State)
		return false
	}
	s.stopped, s.reason = *in.StoppedAt, in.ExitReason
	return true
}

func (x *test) update(ctx context.Context, s *slot, r *rand.Rand) bool {
	s.pend("update", fmt.Sprint(r.Uint32()))
	in, err := x.UpdateInstance(ctx, s.id, api.UpdateInstanceRequest{Tags: api.Tags{"v": s.wanted}})
	if x.refused("update", err) {
		s.pending = ""
		return true
	}
	if !x.count("update", err == nil) {
		return false
	}
	s.pending = ""
	if s.tags = in.Tags["v"]; s.tags != s.wanted {
		x.Errorf("after its update %s has the tag %q, want %q", s.name, s.tags, s.wanted)
	}
	return true
}

func (x *test) delete(ctx context.Context, s *slot, r *rand.Rand) bool {
	s.pend("delete", "")
	err := x.DeleteInstance(ctx, s.id, r.IntN(2) == 0)
	if x.refused("delete", err) {
		s.pending = ""
		return true
	}
	if !x.count("delete", err == nil) {
		return false
	}
	*s = slot{name: s.name}
	return true
}

// exec changes nothing; its answer must be the right one.
func (x *test) exec(ctx context.Context, s *slot) bool {
	e, err := x.Client.Exec(ctx, s.id, api.ExecRequest{Command: x.Command, Timeout: 30})
	if x.refused("exec", err) {
		return true
	}
	if err != nil {
		return x.count("exec", false)
	}
	defer e.Close()
	e.CloseWrite()
	exit, err := e.Copy(io.Discard, io.Discard)
	if !s.ends && err == nil && exit.Code != 7 {
		x.Errorf("exec in %s ended with %+v, want 7", s.name, exit)
	}
	if _, ok := errors.AsType[*hale.Error](err); ok {
		return true // its machine ended
	}
	return x.count("exec", err == nil)
}

func (x *test) awaitRunning(ctx context.Context, s *slot) bool {
	w, err := x.WaitInstance(ctx, s.id, hale.Wait{State: api.InstanceStateRunning, Timeout: x.Boots})
	if x.refused("wait", err) {
		return true
	}
	if !x.count("wait", err == nil) {
		return false
	}
	if s.running = w.State == api.InstanceStateRunning; s.running {
		return x.exec(ctx, s)
	}
	return true
}
