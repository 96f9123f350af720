package instance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/egress"
	"github.com/halevm/hale/internal/event"
	"github.com/halevm/hale/internal/machine"
)

// Bounds on what a driver may take, beyond the grace period.
const (
	startTime   = 30 * time.Second // from asking for a machine to its process
	askTime     = 5 * time.Second  // from asking the guest to stop to its answer
	stopMargin  = 5 * time.Second  // from the end of the grace period, for the guest to sync and power off
	killTime    = 15 * time.Second // from the kill to the machine's end
	recoverTime = 15 * time.Second // from looking for a machine to holding it
	openTime    = 2 * time.Second  // of Open, for machines to be taken back; those that take longer are on their own
	againEvery  = 5 * time.Second  // from one try to take back a machine that may run to the next
)

const (
	daemonStopped = "the daemon stopped while it ran"
	neverAsked    = "stopped before its guest agent was there to be asked"
)

// StartOptions change what runs, in this and in later runs. A nil field leaves what was; an entrypoint without a cmd
// drops the image's cmd, as at create.
type StartOptions struct {
	Entrypoint []string
	Cmd        []string
}

// Start starts a stopped instance and returns it Initializing. Errors: api.NotFound, api.InvalidState unless it is
// stopped, api.Exhausted when the host has no room, api.Conflict when a published port is in use, and the driver's;
// the instance is Stopped again then.
func (s *Set) Start(ctx context.Context, ref string, opt StartOptions) (Instance, error) {
	return s.operate(ctx, ref, func(o *owner) error { return o.start(opt) })
}

// Stop stops an instance and returns it Stopped: in an orderly way, and by force when that takes longer than the grace
// period and a margin. One that is stopped already is no error.
func (s *Set) Stop(ctx context.Context, ref string) (Instance, error) {
	return s.operate(ctx, ref, func(o *owner) error { return o.end(true) })
}

// operate carries out do in the owner's goroutine and returns the instance as do left it.
func (s *Set) operate(ctx context.Context, ref string, do func(*owner) error) (Instance, error) {
	s.mu.Lock()
	o, err := s.resolve(ref)
	s.mu.Unlock()
	if err != nil {
		return Instance{}, err
	}
	left := make(chan Instance, 1)
	err = o.call(ctx, func() error {
		err := do(o)
		left <- o.rec.Instance
		return err
	})
	if err != nil {
		return Instance{}, err
	}
	return <-left, nil
}

func (o *owner) start(opt StartOptions) error {
	if st := o.rec.Instance.State; st != Stopped {
		return invalidState(o.rec.Instance, "only a stopped instance can be started")
	}
	next, c := o.step(Initializing)
	spec := &next.Instance.Spec
	if opt.Entrypoint != nil {
		spec.Entrypoint = opt.Entrypoint
	}
	if opt.Cmd != nil {
		spec.Cmd = opt.Cmd
	}
	if _, err := process(*spec, next.Image); err != nil {
		return err
	}
	if err := fits(next); err != nil {
		return err
	}
	next.Image.Disk = o.disk()
	next.Instance.Run++
	next.Instance.Boots, next.Instance.BootedAt = 1, next.Instance.Since
	next.Instance.Agent, next.Instance.Network = false, false
	next.Instance.StartedAt = next.Instance.Since
	next.Instance.RunningAt = time.Time{}
	if e := next.Instance.Exit; e != nil {
		next.Ended = e.Time
	}
	next.Instance.Exit = nil
	if err := o.s.hold(o); err != nil {
		return err
	}
	if err := o.commit(next, change{event.TypeState, c}); err != nil {
		o.s.release(o)
		return err
	}
	m, err := o.boot()
	if err != nil {
		o.ended(machine.Exit{Reason: machine.VMMFailed, Message: err.Error()})
		return fmt.Errorf("start instance %s: %w", o.rec.Instance.Spec.Name, err)
	}
	o.attach(m)
	return nil
}

// disk is where the image's disk lies now: the data directory may have moved, or the image may have been made again.
func (o *owner) disk() string {
	img, err := o.s.c.Images.Image(o.s.ctx, o.rec.Instance.Spec.Image)
	if err != nil || img.Digest != o.rec.Image.Digest {
		return o.rec.Image.Disk
	}
	return img.Disk
}

// boot asks the driver for a machine.
func (o *owner) boot() (Machine, error) {
	ctx, cancel := context.WithTimeoutCause(o.s.ctx, startTime, errSlow)
	defer cancel()
	o.log.Info("starting", "run", o.rec.Instance.Run, "image", o.rec.Instance.Spec.Image)
	return o.s.c.Driver.Start(ctx, o.s.machineConfig(o.rec))
}

// machineConfig is what the driver makes a machine from. It is a function of the record, so that the same machine is
// found again later.
func (s *Set) machineConfig(r record) machine.Config {
	spec := r.Instance.Spec
	p, _ := process(spec, r.Image) // was checked before it came into the record
	c := machine.Config{
		ID:           r.Instance.ID,
		Dir:          s.vmDir(r.Instance.ID),
		RootDisk:     r.Image.Disk,
		VCPUs:        spec.VCPUs,
		Memory:       spec.Memory.Bytes,
		Overlay:      spec.Overlay.Bytes,
		Process:      p,
		Hostname:     spec.Name,
		BootDeadline: s.c.Boot,
	}
	if r.Addr.IsValid() {
		c.Network = &machine.Network{Addr: r.Addr, MAC: r.Instance.MAC, Ports: spec.Ports, Outbound: egress.Policy{
			None: spec.NoOutbound, Allow: slices.Concat(spec.AllowNets, s.c.AllowNets), Instances: r.Addr.Masked(),
		}}
	}
	return c
}

// attach makes m the present run.
func (o *owner) attach(m Machine) {
	o.m, o.notices, o.because, o.faulty = m, m.Notices(), "", false
	o.rec.Instance.Ports = publishedPorts(m, o.rec.Instance.Spec)
	o.s.mu.Lock()
	o.present = m
	o.s.mu.Unlock()
	o.publish(o.rec.Instance)
}

func publishedPorts(m Machine, spec Spec) []machine.Port {
	if l, ok := m.(PortLister); ok {
		return l.Ports()
	}
	return spec.Ports
}

// notice takes in what the machine says. ok is false when it went without a last word.
func (o *owner) notice(n machine.Notice, ok bool) {
	switch {
	case !ok:
		o.ended(machine.Exit{Reason: machine.VMMFailed, Message: "the machine went without saying why"})
	case n.Kind == machine.AgentReady:
		o.agentReady(n.Time)
	case n.Kind == machine.NetworkUp:
		o.networkUp()
	case n.Kind == machine.Hinted:
		if o.s.c.Hinted != nil {
			o.s.c.Hinted(o.id, n.Port, n.Listening)
		}
	case n.Kind == machine.Started && o.rec.Instance.State == Initializing:
		next, c := o.step(Running)
		next.Instance.Since, next.Instance.Entered = o.startedAt(n.Time)
		next.Instance.RunningAt = next.Instance.Since
		o.happened(next, change{event.TypeState, c})
		o.log.Info("running", "after", o.sinceStart(n.Time))
	case n.Kind == machine.Told:
		o.log.Log(o.s.ctx, n.Level, n.Message)
	case n.Kind == machine.Exited:
		o.ended(n.Exit)
	}
}

// startedAt is when the program was started, by the machine's word, which may be of a time when no daemon listened. A word that cannot be
// true, because a clock was set or there is none, is replaced by now. The second is the same by the monotonic clock.
func (o *owner) startedAt(said time.Time) (since, entered time.Time) {
	t, in := time.Now(), o.rec.Instance
	if said.Before(in.StartedAt) || said.Before(in.BootedAt) || said.After(t) {
		return t.UTC().Round(0), t
	}
	return said.UTC().Round(0), t.Add(-t.Sub(said))
}

// sinceStart is how long after the run's start something was. A machine that was taken back tells of what was long ago.
func (o *owner) sinceStart(at time.Time) time.Duration {
	return at.Sub(o.rec.Instance.StartedAt).Round(time.Millisecond)
}

// agentReady takes in the agent's HELLO. A machine that was taken back repeats it: that is no news to the log.
func (o *owner) agentReady(at time.Time) {
	if o.rec.Instance.State == Initializing {
		o.log.Info("guest agent ready", "after", o.sinceStart(at))
	}
	o.rec.Instance.Agent = true
	o.publish(o.rec.Instance)
	if o.s.c.AgentReady != nil {
		o.s.c.AgentReady(o.id)
	}
}

// networkUp takes in that a frame came from the guest, which a machine that was taken back repeats, too.
func (o *owner) networkUp() {
	o.rec.Instance.Network = true
	o.publish(o.rec.Instance)
	if o.s.c.NetworkUp != nil {
		o.s.c.NetworkUp(o.id)
	}
}

// ended makes the instance Stopped, unless its machine is booted once more.
func (o *owner) ended(e machine.Exit) {
	o.m, o.notices = nil, nil
	if e.Time.IsZero() {
		e.Time = now()
	}
	e.Message, e.Console = head(e.Message), tail(e.Console)
	e.Reason, e.Signal = machine.Reason(clip(string(e.Reason))), clip(e.Signal) // a shim's word
	if o.bootAgain(e) {
		return
	}
	switch {
	case o.because == daemonStopped:
		e.Reason, e.Message = machine.DaemonStopped, daemonStopped
	case o.because != "" && e.Reason == machine.Killed:
		e.Message = o.because
	}
	o.because = ""
	next, c := o.step(Stopped)
	next.Instance.StoppedAt = next.Instance.Since
	next.Instance.Exit = &e
	next.Instance.Ports = nil
	next.Instance.Agent, next.Instance.Network = false, false
	c.Reason, c.Code = why(e), e.Code
	o.happened(next, change{event.TypeState, c})
	attrs := []any{"reason", e.Reason}
	if e.Code != nil {
		attrs = append(attrs, "exit_code", *e.Code)
	}
	if e.Message != "" {
		attrs = append(attrs, "message", e.Message)
	}
	o.log.Info("stopped", attrs...)
}

// maxWords bounds, in bytes, each text of an exit that is kept: a guest has a say in them.
const maxWords = 4 << 10

func head(s string) string {
	if len(s) > maxWords {
		s = strings.ToValidUTF8(s[:maxWords], "") + "…"
	}
	return s
}

func tail(s string) string {
	if len(s) > maxWords {
		s = "…" + strings.ToValidUTF8(s[len(s)-maxWords:], "")
	}
	return s
}

// end ends the run, and returns when it is over: in an orderly way first, where that is wanted.
func (o *owner) end(graceful bool) error {
	if o.m == nil && o.rec.Instance.State == Unknown {
		o.takeBack()
	}
	if o.m == nil {
		switch in := o.rec.Instance; {
		case !in.State.Active():
			return nil
		case graceful:
			return fmt.Errorf("instance %s: its machine cannot be reached (%s); only a deletion by force (hale rm --force) ends it now: %w", in.Spec.Name, in.Unreachable, api.Unavailable)
		}
		return o.killUnreached()
	}
	if o.rec.Instance.State != Shutdown {
		next, c := o.step(Shutdown)
		o.happened(next, change{event.TypeState, c})
	}
	if graceful {
		over, err := o.askToStop()
		if over || err != nil {
			return err
		}
	}
	return o.kill()
}

// askToStop gives the guest its grace period; it reports whether the run is over.
func (o *owner) askToStop() (over bool, err error) {
	grace := o.s.c.Grace
	ctx, cancel := context.WithTimeoutCause(o.s.ctx, askTime, errSlow)
	defer cancel()
	o.log.Info("stopping", "grace", grace)
	if err := o.m.Stop(ctx, grace); err != nil {
		o.log.Warn("the guest cannot be asked to stop: the machine is killed", "err", err)
		if !o.rec.Instance.Agent {
			o.because = neverAsked
		}
		return false, nil
	}
	var closing <-chan struct{}
	if o.s.recovers() {
		closing = o.s.closing
	}
	o.s.mu.Lock()
	forced := o.forced
	o.s.mu.Unlock()
	if o.await(grace+stopMargin, closing, forced) {
		return true, nil
	}
	select {
	case <-closing:
		return false, errClosing // the next daemon goes on with it
	case <-forced:
		o.because = "its deletion was forced while it stopped"
		o.log.Info("the machine is killed: its deletion is forced")
		return false, nil
	default:
	}
	o.because = fmt.Sprintf("it did not stop within %s", grace+stopMargin)
	o.log.Warn("the guest does not stop: the machine is killed", "after", grace+stopMargin)
	return false, nil
}

func (o *owner) kill() error {
	ctx, cancel := context.WithTimeoutCause(o.s.ctx, killTime, errSlow)
	defer cancel()
	err := o.m.Kill(ctx)
	if o.await(stopMargin, nil, nil) {
		return nil
	}
	if err == nil {
		err = errSlow
	}
	o.log.Error("the machine does not die", "err", err)
	return fmt.Errorf("kill the machine of instance %s: %w", o.rec.Instance.Spec.Name, err)
}

// killUnreached ends a machine that cannot be taken back.
func (o *owner) killUnreached() error {
	k, ok := o.s.c.Driver.(Killer)
	if !ok {
		return fmt.Errorf("instance %s: its machine cannot be reached: %w", o.rec.Instance.Spec.Name, api.Unavailable)
	}
	ctx, cancel := context.WithTimeoutCause(o.s.ctx, killTime, errSlow)
	defer cancel()
	e, err := k.Kill(ctx, o.s.machineConfig(o.rec))
	if ended, known := errors.AsType[*Ended](err); known {
		e, err = ended.Exit, nil
	}
	switch {
	case errors.Is(err, api.NotFound):
		e = machine.Exit{Reason: machine.DaemonStopped, Message: daemonStopped}
	case err != nil:
		o.log.Error("a machine that cannot be reached does not die", "err", err)
		return fmt.Errorf("kill the machine of instance %s: %w", o.rec.Instance.Spec.Name, err)
	}
	o.ended(e)
	return nil
}

// await takes in notices until the run is over, which it reports, or d has passed, or leave or forced is closed.
func (o *owner) await(d time.Duration, leave, forced <-chan struct{}) bool {
	timeout := time.NewTimer(d)
	defer timeout.Stop()
	for o.m != nil {
		select {
		case n, ok := <-o.notices:
			o.notice(n, ok)
		case <-timeout.C:
			return false
		case <-leave:
			return false
		case <-forced:
			return false
		}
	}
	return true
}

// again is when to look once more for a machine that nobody holds.
func (o *owner) again() <-chan time.Time {
	if o.m != nil || o.rec.Instance.State != Unknown {
		o.lookAgain = time.Time{}
		return nil
	}
	return after(&o.lookAgain, againEvery)
}

// known makes the instance what it was before its machine could not be reached: one that ran has run since then, and one that was being
// stopped is.
func (o *owner) known() {
	to, ran := Initializing, o.rec.Instance.RunningAt // of this run
	switch {
	case o.rec.Stopping:
		to = Shutdown
	case !ran.IsZero():
		to = Running
	}
	next, c := o.step(to) // its notices say more
	if to == Running {
		next.Instance.Since, next.Instance.Entered = ran, time.Time{}
	}
	o.happened(next, change{event.TypeState, c})
}

// takeBack finds the machine that should be there according to the record, or says how it ended.
func (o *owner) takeBack() {
	if o.rec.Instance.State == Created { // and its machine was started: the daemon died before it said so
		next, c := o.step(Initializing)
		o.happened(next, change{event.TypeState, c})
	}
	if !o.rec.Instance.State.Active() {
		return
	}
	gone := machine.Exit{Reason: machine.DaemonStopped, Message: daemonStopped}
	if o.faulty {
		gone = machine.Exit{Reason: machine.VMMFailed, Message: "the daemon panicked over it; its log says where"}
	}
	rec, ok := o.s.c.Driver.(Recoverer)
	if !ok {
		o.ended(gone)
		return
	}
	ctx, cancel := context.WithTimeoutCause(o.s.ctx, recoverTime, errSlow)
	defer cancel()
	m, err := rec.Recover(ctx, o.s.machineConfig(o.rec))
	switch e, known := errors.AsType[*Ended](err); {
	case err == nil:
		o.attach(m)
		if o.rec.Instance.State == Unknown {
			o.known()
		}
		o.log.Info("taken back")
	case errors.Is(err, api.NotFound) && o.betweenBoots(e):
		o.log.Info("the last daemon was about to boot it once more", "boot", o.rec.Instance.Boots)
		o.goOn()
	case known && !o.before(e.Exit):
		o.ended(e.Exit)
	case errors.Is(err, api.NotFound):
		o.ended(gone)
	case o.rec.Instance.State == Unknown:
		if why := head(oneLine(err.Error())); why != o.rec.Instance.Unreachable {
			o.rec.Instance.Unreachable = why
			o.publish(o.rec.Instance)
		}
	default:
		next, c := o.step(Unknown)
		c.Reason = head(oneLine(err.Error())) // a shim has a say in it
		next.Instance.Unreachable = c.Reason
		o.happened(next, change{event.TypeState, c})
		o.log.Error("its machine may run, but cannot be taken back; it is tried again", "err", err, "every", againEvery)
	}
}
