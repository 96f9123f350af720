package health

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

// A Prober asks once. It must return when ctx is done, which is so 4 × Timeout + 10 s after its call. It calls started, once at most,
// when what costs CPU to begin is over: the TLS handshake is done, or the agent said that the command runs. Until then the Set holds
// a turn of its queue for it, 50 ms at most. Result.Start and Result.Queued are the Set's; what the Prober puts there is ignored.
type Prober func(ctx context.Context, id string, p Policy, started func()) Result

// A Journal keeps what must outlive the daemon. Its methods are called from any goroutine, never two at once
// for one instance except Save beside Commit; for different instances they are called at the same time.
type Journal interface {
	// Commit appends t to the event log; nil means that it is on disk. It should return when ctx is done; when it does not, the
	// transition is announced all the same, as not persisted.
	Commit(ctx context.Context, id string, t Transition) error
	// Save writes the instance's health record whole. It need not be durable on return, but it must never be seen torn. The blob is
	// used again after it.
	Save(id string, blob []byte) error
	// Load returns what Save wrote last; nil and no error where there is nothing.
	Load(id string) ([]byte, error)
}

// A Replayer is a Journal that can tell which transitions of an instance its log holds, oldest first. At a start those that the
// record has not seen are applied to it.
type Replayer interface {
	Replay(id string) ([]Transition, error)
}

// A Quarantine is a Journal that can put a record that cannot be read out of the way, so that the next Save does not replace it.
type Quarantine interface {
	SetAside(id string) error
}

// Hooks are told what happens, for metrics. Each may be nil; they are called from many goroutines and must return at once.
type Hooks struct {
	Began      func(id string, lag time.Duration) // a probe began, or joined the queue, so long after it was due
	Waited     func(t Type, queued time.Duration) // one that costs CPU to begin had its turn after so long
	Probed     func(t Type, o Outcome, cause string, took time.Duration)
	Transition func(from, to Status, persisted bool)
	SaveFailed func() // a record could not be written
	Panicked   func() // a loop or a probe panicked and was contained
	// Suspected is called when the suspicion against the host arises and when it ends, from a goroutine of the Set's own, never twice
	// at once: it may take its time, and Close waits for it.
	Suspected func(Suspicion)
}

// A Config is what a Set is made from. Probe and Journal are required.
type Config struct {
	Probe   Prober
	Journal Journal
	Log     *slog.Logger // nil: none
	// Logger returns where to log what happens to an instance. nil: Log, with the instance's id.
	Logger func(id string) *slog.Logger
	Hooks  Hooks
	Boot   Boot  // zero: this host's
	Timer  Timer // which the Set stops when it closes. nil: one of Go's
}

// Why CheckNow did not check.
var (
	ErrUnknown  = errors.New("health knows no such instance")
	ErrNoPolicy = errors.New("no health check is set")
	ErrInactive = errors.New("the instance is not running")
	ErrClosed   = errors.New("health is shutting down")
)
