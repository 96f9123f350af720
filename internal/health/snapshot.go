package health

import (
	"fmt"
	"slices"
	"strconv"
	"time"
)

// A Status is health_status.status.
type Status string

// The statuses.
const (
	StatusDisabled  Status = "disabled"
	StatusUnknown   Status = "unknown"
	StatusStarting  Status = "starting"
	StatusHealthy   Status = "healthy"
	StatusUnhealthy Status = "unhealthy"
)

// Why a status is stale.
const (
	StaleRestarted    = "daemon_restarted"
	StaleInconclusive = "no_conclusive_result"
)

// A Phase is what health sees of the lifecycle.
type Phase int

// The phases.
const (
	Inactive     Phase = iota // anything but the two below: nothing is probed
	Initializing              // probed; failures never count, never healthy
	Running
)

var phases = [...]string{"inactive", "initializing", "running"}

func (p Phase) String() string {
	if p < 0 || int(p) >= len(phases) {
		return "phase " + strconv.Itoa(int(p))
	}
	return phases[p]
}

// MarshalText writes a phase as a record holds it.
func (p Phase) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (p *Phase) UnmarshalText(b []byte) error {
	i := slices.Index(phases[:], string(b))
	if i < 0 {
		return fmt.Errorf("unknown phase %q", b)
	}
	*p = Phase(i)
	return nil
}

// An Observed is what the controller knows of one instance. Set.Sync takes it whole, so a caller that lost track lists again
// and Syncs everything. It is level, not edge.
type Observed struct {
	ID      string
	Run     uint64 // grows by one each time the instance starts: a new Run is a new window
	Phase   Phase
	Policy  Policy
	Entered time.Time // entry into Phase, by the monotonic clock if that is known; zero, or in the future: now
	// Agent says that the guest agent has said HELLO in this run, Network that a frame has come from the guest since its start or its
	// restore. What a check waited for, and now is there, asks for a probe.
	Agent   bool
	Network bool
	// Restored says that this run was restored from standby, and went on at this moment: it is Running from then on, and a new Run.
	// Zero: it was booted.
	Restored time.Time
}

// A Snapshot is what a person can see of one instance's health: a value, never changed after it was handed out. Times are of the
// wall clock.
type Snapshot struct {
	Status               Status
	LastStatus           Status // while unknown: the last known one
	Since                time.Time
	ConsecutiveSuccesses int
	ConsecutiveFailures  int // the streak that counts: 0 during the grace
	GraceFailures        int
	LastCheckedAt        time.Time
	LastSuccessAt        time.Time
	LastFailureAt        time.Time
	LastError            string
	WindowStartedAt      time.Time
	Stale                bool
	StaleReason          string
	Changes              uint64         // transitions so far, those that are not kept any more included
	Results              []WindowResult // newest last, at most 64
	Transitions          []Transition   // newest last, at most 64
}

// A WindowResult is a result with the window it belongs to.
type WindowResult struct {
	Result
	Window uint64 `json:"window"`
}

// A Transition is one change of status, or, where From and To are the same, of staleness.
type Transition struct {
	Time      time.Time `json:"time"`
	From      Status    `json:"from"`
	To        Status    `json:"to"`
	Reason    string    `json:"reason,omitempty"`
	Output    string    `json:"output,omitempty"`
	Persisted *bool     `json:"persisted,omitempty"` // false: announced though the disk refused it
	// Window, N, the instance's n-th transition, Run, and a sum of the policy in force ("" where nothing is checked) are what a start
	// needs to replay the log's tail over an older record. The history keeps the first two.
	Window uint64 `json:"window,omitempty"`
	N      uint64 `json:"n,omitempty"`
	Run    uint64 `json:"run,omitempty"`
	Policy string `json:"policy,omitempty"`
	// Uptime is Time on the host's monotonic clock, which a grace is measured on. The history does not keep it.
	Uptime time.Duration `json:"uptime,omitempty"`
	// Stale is the reason for which the status is stale from here on; "" where it is not.
	Stale string `json:"stale,omitempty"`
}

// snapshot returns what was published last; false before anything was.
func (l *loop) snapshot() (Snapshot, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.shown
	s.Results, s.Transitions = l.history.listResults(), l.history.listTransitions()
	return s, s.Status != ""
}

// status is snapshot without the lists.
func (l *loop) status() (Snapshot, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.shown, l.shown.Status != ""
}

// shown is what a person can see of a state, but for the lists.
func (s *State) shown() Snapshot {
	return Snapshot{
		Status: s.Status, LastStatus: s.Last, Since: s.Since,
		ConsecutiveSuccesses: s.Successes, ConsecutiveFailures: s.Failures, GraceFailures: s.GraceFailures,
		LastCheckedAt: s.CheckedAt, LastSuccessAt: s.SuccessAt, LastFailureAt: s.FailureAt, LastError: s.Error,
		WindowStartedAt: s.WindowAt, Stale: s.stale() != "", StaleReason: s.stale(),
		Changes: s.N,
	}
}

// stale is why what is shown rests on results that are too old. Of one that is not probed nothing new is expected.
func (s *State) stale() string {
	if s.Phase == Inactive {
		return ""
	}
	return s.Stale
}

// closedChannel is what nobody has to wait for.
var closedChannel = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

func (l *loop) changes() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return closedChannel
	}
	if l.changed == nil {
		l.changed = make(chan struct{})
	}
	return l.changed
}
