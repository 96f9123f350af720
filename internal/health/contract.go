package health

import (
	"context"
	"encoding/json"
	"time"
)

// This file is the boundary that the rest of hale is written against (to be spread over the package's subjects).

// An Outcome is what a probe found.
type Outcome string

// Three outcomes, not two.
const (
	Success      Outcome = "success"
	Failure      Outcome = "failure"      // the workload did not answer as asked
	Inconclusive Outcome = "inconclusive" // the host could not ask
)

// A Result is the answer to one probe.
type Result struct {
	Start    time.Time     `json:"time"`
	Duration time.Duration `json:"duration"`
	Outcome  Outcome       `json:"outcome"`
	Reason   string        `json:"reason,omitempty"`   // for a person: "connection refused", "status 500, expected 200"
	Output   string        `json:"output,omitempty"`   // of a failed exec: the last 4 KiB
	Cause    string        `json:"cause,omitempty"`    // of an inconclusive one, for a metric: "agent_not_connected", "cut_short", "host_resources"
	Definite bool          `json:"definite,omitempty"` // a failure that is no matter of slowness: refused, reset or closed before the first byte, command missing
}

// A Type is a kind of check.
type Type string

// The types of check.
const (
	TypeNone Type = "none"
	TypeHTTP Type = "http"
	TypeTCP  Type = "tcp"
	TypeExec Type = "exec"
	TypeGRPC Type = "grpc"
)

// A Policy is a checked health_check with its defaults filled in. Only Parse (and UnmarshalJSON, for records and the shim's protocol) makes one; its zero value is "no policy".
// It is immutable.
type Policy struct {
	Type             Type
	Interval         time.Duration
	Timeout          time.Duration
	StartPeriod      time.Duration
	StartInterval    time.Duration // 0: adaptive
	ConfirmInterval  time.Duration // 0: follows from Interval
	FailureThreshold int
	SuccessThreshold int
	HTTP             *HTTPCheck
	TCP              *TCPCheck
	Exec             *ExecCheck
}

// HTTPCheck asks the guest over HTTP/1.1.
type HTTPCheck struct {
	Port             uint16
	Path             string
	Scheme           string
	Method           string
	Headers          map[string]string
	ExpectedStatus   int      // 0 where ExpectedStatuses is given
	ExpectedStatuses []string // codes and ranges, "200-299"
	BodyContains     string
	TLSSkipVerify    bool
	TLSServerName    string
}

// TCPCheck succeeds when the connection opens.
type TCPCheck struct{ Port uint16 }

// ExecCheck runs a command in the guest; exit 0 succeeds.
type ExecCheck struct {
	Command    []string
	WorkingDir string
	Env        map[string]string
	User       string
}

// Parse reads and checks a health_check as it came over the wire and fills its defaults in. An error is a *PolicyError that names every fault.
func Parse(raw json.RawMessage) (Policy, error)

// A Fault is one thing wrong with a policy.
type Fault struct {
	Field   string // the full path: "health_check.http.port"
	Message string // what is accepted
}

// A PolicyError is a policy that was refused.
type PolicyError struct{ Faults []Fault }

// MarshalJSON gives the policy as the API answers with it (health.md): Parse of it gives an equal policy.
func (p Policy) MarshalJSON() ([]byte, error)

// Disabled reports whether nothing is to be probed (the zero Policy, or type none).
func (p Policy) Disabled() bool

// Equal reports whether two policies are equal after defaults.
func (p Policy) Equal(q Policy) bool

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

// A Phase is what health sees of the lifecycle.
type Phase int

// The phases.
const (
	Inactive     Phase = iota // anything but the two below: nothing is probed
	Initializing              // probed; failures never count, never healthy
	Running
)

// An Observed is what the controller knows of one instance. Set.Sync takes it whole, so a caller that lost track lists again
// and Syncs everything. It is level, not edge.
type Observed struct {
	ID      string
	Run     uint64 // grows by one each time the instance starts: a new Run is a new window
	Phase   Phase
	Policy  Policy
	Entered time.Time // entry into Phase
}

// A Prober asks once. It must return when ctx is done.
type Prober func(ctx context.Context, id string, p Policy) Result

// A Snapshot is what a person can see of one instance's health: a value, never changed after it was handed out.
type Snapshot struct {
	Status               Status
	LastStatus           Status // while unknown: the last known one
	Since                time.Time
	ConsecutiveSuccesses int
	ConsecutiveFailures  int
	GraceFailures        int
	LastCheckedAt        time.Time
	LastSuccessAt        time.Time
	LastFailureAt        time.Time
	LastError            string
	WindowStartedAt      time.Time
	Stale                bool
	StaleReason          string
	Results              []WindowResult // newest last, at most 64
	Transitions          []Transition   // newest last, at most 64
}

// A WindowResult is a result with the window it belongs to.
type WindowResult struct {
	Result
	Window uint64 `json:"window"`
}

// A Transition is one change of status.
type Transition struct {
	Time      time.Time `json:"time"`
	From      Status    `json:"from"`
	To        Status    `json:"to"`
	Reason    string    `json:"reason,omitempty"`
	Output    string    `json:"output,omitempty"`
	Persisted *bool     `json:"persisted,omitempty"` // false: announced though the disk refused it
}
