package health

import (
	"context"
	"log/slog"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// A Set is the loops of all instances of this host. Its methods may be called from any goroutine; those that read never wait for
// a probe or a disk.
type Set struct {
	config Config
	hooks  Hooks // none is nil
	clock  clock
	log    *slog.Logger
	ctx    context.Context
	cancel context.CancelFunc
	loopWG sync.WaitGroup

	crew     crew
	timers   timers
	policies policies
	queue    *queue
	suspect  *suspect
	flying   atomic.Int64 // probes in flight
	watched  atomic.Int64
	active   atomic.Int64 // Unix nanoseconds of the last step of any loop

	mu     sync.Mutex
	loops  map[string]*loop
	news   chan struct{} // closed at the next loop that is made; nil: nobody waits
	closed bool
}

// NewSet returns an empty set. Close ends it.
func NewSet(c Config) *Set {
	s := &Set{config: c, hooks: c.Hooks.orNothing(), log: c.Log, loops: make(map[string]*loop), queue: newQueue(runtime.NumCPU())}
	s.suspect = newSuspect(s.suspected)
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if c.Boot.Uptime == nil {
		c.Boot = hostBoot(s.log)
	}
	s.clock = newClock(c.Boot)
	s.timers.timer = c.Timer
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.touch(time.Now())
	return s
}

// Sync takes what the controller knows of one instance now; it is level-triggered and may be called again at will. It returns once
// the loop has taken it: a Snapshot read after it shows the new phase and the new window. It waits for the commit of a transition
// that follows from it (a second at most), never for a probe. The first Sync of an instance reads its record. Two calls for one
// instance must not overlap, nor one and Forget. After Close it does nothing.
func (s *Set) Sync(o Observed) {
	if l := s.loop(o.ID, true); l != nil {
		l.send(message{seen: &o})
	}
}

// Forget ends the loop of an instance that was deleted, and returns when nothing of it is left. Its record is not written again, so
// the caller removes the instance's directory after it.
func (s *Set) Forget(id string) {
	s.mu.Lock()
	l := s.loops[id]
	delete(s.loops, id)
	s.mu.Unlock()
	if l != nil {
		l.forget()
	}
}

// Snapshot returns what was published last of an instance; false if it was never Synced.
func (s *Set) Snapshot(id string) (Snapshot, bool) {
	l := s.loop(id, false)
	if l == nil {
		return Snapshot{}, false
	}
	return l.snapshot()
}

// Status is Snapshot without Results and Transitions, which are most of what that costs: for who asks often, or of many.
func (s *Set) Status(id string) (Snapshot, bool) {
	l := s.loop(id, false)
	if l == nil {
		return Snapshot{}, false
	}
	return l.status()
}

// CheckNow joins the probe in flight, or runs one, and returns its result. It returns ErrUnknown, ErrNoPolicy, ErrInactive or
// ErrClosed where nothing can be probed, and wakes nothing; or ctx's cause.
func (s *Set) CheckNow(ctx context.Context, id string) (WindowResult, error) {
	l := s.loop(id, false)
	if l == nil {
		return WindowResult{}, ErrUnknown
	}
	reply := make(chan answer, 1)
	l.send(message{reply: reply})
	select {
	case a := <-reply:
		return a.result, a.err
	case <-ctx.Done():
		l.leave(reply)
		return WindowResult{}, context.Cause(ctx)
	case <-l.done:
	}
	select {
	case a := <-reply: // both came true
		return a.result, a.err
	default:
	}
	if s.ctx.Err() != nil {
		return WindowResult{}, ErrClosed
	}
	return WindowResult{}, ErrUnknown
}

// Ask asks for a probe now and does not wait for its result: for one who waits on a stale instance. A probe in flight will do.
func (s *Set) Ask(id string) {
	if l := s.loop(id, false); l != nil {
		l.send(message{})
	}
}

// Hint takes the guest agent's word that a port began or ceased to be listened on. It asks for a probe, by the rules of the package, and
// decides nothing. It waits as Sync does.
func (s *Set) Hint(id string, port uint16, listening bool) {
	if l := s.loop(id, false); l != nil {
		l.send(message{hint: &heard{port, listening}})
	}
}

// Suspect reports whether so many instances turned unhealthy at once that the host is the likelier culprit.
func (s *Set) Suspect() bool { return s.suspect.on() }

// InFlight returns how many probes have begun and not ended.
func (s *Set) InFlight() int { return int(s.flying.Load()) }

// Queued returns how many probes wait for their turn to begin.
func (s *Set) Queued() int { return s.queue.len() }

// Changed returns a channel that is closed at the next published change of an instance (a result, a phase, a transition), or when
// it is forgotten. Take it before the Snapshot. For one that is unknown it is closed when one becomes known, whichever: who waits asks
// again then.
func (s *Set) Changed(id string) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch l := s.loops[id]; {
	case l != nil:
		return l.changes()
	case s.closed:
		return closedChannel
	}
	if s.news == nil {
		s.news = make(chan struct{})
	}
	return s.news
}

// Watched returns how many instances are active and have a policy.
func (s *Set) Watched() int { return int(s.watched.Load()) }

// LastActivity returns when a loop last did anything.
func (s *Set) LastActivity() time.Time { return time.Unix(0, s.active.Load()) }

// Close ends all loops: probes in flight leave no result, records are written, and statuses stay as they are for the next daemon.
// When ctx is done first it returns ctx's cause, and the rest goes on without it.
func (s *Set) Close(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	s.told()
	s.cancel()
	for _, l := range s.loops {
		l.mail.bring(ending)
	}
	s.mu.Unlock()
	done := make(chan struct{})
	go func() { s.loopWG.Wait(); s.timers.close(); s.crew.close(); s.suspect.close(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// loop returns the loop of an instance, or nil. With start, one that is not there is made.
func (s *Set) loop(id string, start bool) *loop {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.loops[id]
	if l == nil && start && !s.closed {
		l = newLoop(s, id)
		s.loops[id] = l
		s.told()
	}
	return l
}

// told wakes those who wait for an instance that was unknown. The caller holds s.mu.
func (s *Set) told() {
	if s.news != nil {
		close(s.news)
		s.news = nil
	}
}

func (s *Set) logger(id string) *slog.Logger {
	if s.config.Logger != nil {
		return s.config.Logger(id)
	}
	return s.log.With("instance", id)
}

func newLoop(s *Set, id string) *loop {
	l := &loop{set: s, id: id, hash: hashID(id), log: s.logger(id), done: make(chan struct{}), check: s.policies.take(Policy{})}
	l.p = &l.check.policy
	l.mail.loop = l
	s.loopWG.Add(1)
	return l
}

// send gives the loop a message, and returns when it was taken or the loop has ended.
func (l *loop) send(m message) {
	m.taken = make(chan struct{})
	if !l.mail.send(m) {
		return
	}
	select {
	case <-m.taken:
	case <-l.done:
	}
}

func (l *loop) forget() {
	l.forgot.Store(true)
	l.mail.bring(ending)
	<-l.done
}

func (s *Set) touch(now time.Time) { s.active.Store(now.UnixNano()) }

func (s *Set) count(watched bool) {
	if watched {
		s.watched.Add(1)
	} else {
		s.watched.Add(-1)
	}
}

// suspected tells of the suspicion against the host.
func (s *Set) suspected(what Suspicion) {
	defer func() {
		if v := recover(); v != nil {
			s.log.Error("telling of the suspicion against the host panicked", "panic", v, "stack", string(debug.Stack()))
			s.hooks.Panicked()
		}
	}()
	if what.Suspect {
		s.log.Warn("so many instances turned unhealthy at once that the host is the likelier culprit", "turned_unhealthy", what.Turned, "watched", what.Watched)
	} else {
		s.log.Info("the host is no longer suspected", "turned_unhealthy", what.Turned, "healthy_again", what.Healthy)
	}
	s.hooks.Suspected(what)
}

// orNothing fills in hooks that do nothing.
func (h Hooks) orNothing() Hooks {
	if h.Began == nil {
		h.Began = func(string, time.Duration) {}
	}
	if h.Waited == nil {
		h.Waited = func(Type, time.Duration) {}
	}
	if h.Suspected == nil {
		h.Suspected = func(Suspicion) {}
	}
	if h.Probed == nil {
		h.Probed = func(Type, Outcome, string, time.Duration) {}
	}
	if h.Transition == nil {
		h.Transition = func(Status, Status, bool) {}
	}
	if h.SaveFailed == nil {
		h.SaveFailed = func() {}
	}
	if h.Panicked == nil {
		h.Panicked = func() {}
	}
	return h
}
