package health

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// recordVersion is that of the health record's format. One of another version is not read.
const recordVersion = 1

// MaxRecord bounds a health record, in bytes: the largest policy, and the longest history of the words that JSON makes longest, are less.
const MaxRecord = 2 << 20

// A record is what health.json holds: a person can read it. Times of the wall clock are dates; those that decide something are
// nanoseconds since the boot that Boot names.
type record struct {
	Version int    `json:"version"`
	Boot    string `json:"boot"`
	Policy  Policy `json:"policy"`

	Run     uint64 `json:"run"`
	Window  uint64 `json:"window"`
	Phase   Phase  `json:"phase"`
	Agent   bool   `json:"agent,omitempty"`
	Network bool   `json:"network,omitempty"`
	Status  Status `json:"status"`
	Last    Status `json:"last_status,omitempty"`
	Verdict Status `json:"verdict,omitempty"`
	N       uint64 `json:"transitions_so_far"`
	Stale   string `json:"stale,omitempty"`

	Successes     int       `json:"consecutive_successes"`
	Failures      int       `json:"consecutive_failures"`
	GraceFailures int       `json:"grace_failures"`
	Since         time.Time `json:"since,omitzero"`
	CheckedAt     time.Time `json:"last_checked_at,omitzero"`
	SuccessAt     time.Time `json:"last_success_at,omitzero"`
	FailureAt     time.Time `json:"last_failure_at,omitzero"`
	WindowAt      time.Time `json:"window_started_at,omitzero"`
	Error         string    `json:"last_error,omitempty"`

	Fresh      time.Duration `json:"fresh_uptime,omitempty"`
	Entered    time.Duration `json:"entered_uptime,omitempty"`
	GraceEnd   time.Duration `json:"grace_end_uptime,omitempty"`
	AgentBy    time.Duration `json:"agent_by_uptime,omitempty"`
	Patience   time.Duration `json:"patience_uptime,omitempty"`
	Hello      time.Duration `json:"hello_uptime,omitempty"`
	Due        time.Duration `json:"due_uptime,omitempty"`
	CountFrom  time.Duration `json:"count_from_uptime,omitempty"`
	Gap        time.Duration `json:"gap,omitempty"`
	Pace       time.Duration `json:"pace,omitempty"`
	Confirming bool          `json:"confirming,omitempty"`
	Waiting    bool          `json:"waiting,omitempty"`

	Results     []WindowResult `json:"results"`
	Transitions []Transition   `json:"transitions"`
}

// encode appends the record to b, as encoding/json would write it; policy is the policy's JSON. It is done by hand, for it is done every
// few seconds for each instance.
func encode(b []byte, c clock, policy string, s *State, h *history) []byte {
	w := writer{b: append(b, '{')}
	w.int("version", recordVersion)
	w.string("boot", c.bootID)
	w.b = append(w.name("policy"), policy...)

	w.uint("run", s.Run)
	w.uint("window", s.Window)
	w.string("phase", s.Phase.String())
	w.given("agent", s.Agent)
	w.given("network", s.Network)
	w.string("status", string(s.Status))
	w.words("last_status", string(s.Last))
	w.words("verdict", string(s.Verdict))
	w.uint("transitions_so_far", s.N)
	w.words("stale", s.Stale)

	w.int("consecutive_successes", int64(s.Successes))
	w.int("consecutive_failures", int64(s.Failures))
	w.int("grace_failures", int64(s.GraceFailures))
	w.time("since", s.Since)
	w.time("last_checked_at", s.CheckedAt)
	w.time("last_success_at", s.SuccessAt)
	w.time("last_failure_at", s.FailureAt)
	w.time("window_started_at", s.WindowAt)
	w.words("last_error", s.Error)

	w.span("fresh_uptime", c.sinceBoot(s.Fresh))
	w.span("entered_uptime", c.sinceBoot(s.Entered))
	w.span("grace_end_uptime", c.sinceBoot(s.GraceEnd))
	w.span("agent_by_uptime", c.sinceBoot(s.AgentBy))
	w.span("patience_uptime", c.sinceBoot(s.Patience))
	w.span("hello_uptime", c.sinceBoot(s.Hello))
	w.span("due_uptime", c.sinceBoot(s.Due))
	w.span("count_from_uptime", c.sinceBoot(s.CountFrom))
	w.span("gap", s.Gap)
	w.span("pace", s.Pace)
	w.given("confirming", s.Confirming)
	w.given("waiting", s.Waiting)

	w.name("results")
	w.list(h.results.len(), func(i int) { w.result(h.results.at(i)) })
	w.name("transitions")
	w.list(h.transitions.len(), func(i int) { w.transition(h.transitions.at(i)) })
	return append(w.b, '}')
}

// decode reads what encode wrote. A record of another boot has no times left that decide anything: its machine is gone.
func decode(c clock, blob []byte) (Policy, State, history, error) {
	var r record
	if err := json.Unmarshal(blob, &r); err != nil {
		return Policy{}, State{}, history{}, err
	}
	if err := r.check(); err != nil {
		return Policy{}, State{}, history{}, err
	}
	s := State{
		Run: r.Run, Window: r.Window, Phase: r.Phase, Agent: r.Agent, Network: r.Network,
		Status: ours(statuses, r.Status), Last: ours(statuses, r.Last), Verdict: ours(statuses, r.Verdict), N: r.N, Stale: ours(stales, r.Stale),
		Successes: r.Successes, Failures: r.Failures, GraceFailures: r.GraceFailures,
		Since: r.Since, CheckedAt: r.CheckedAt, SuccessAt: r.SuccessAt, FailureAt: r.FailureAt, WindowAt: r.WindowAt, Error: r.Error,
		Gap: r.Gap, Pace: r.Pace, Confirming: r.Confirming, Waiting: r.Waiting,
	}
	if r.Boot == c.bootID {
		s.Fresh, s.Entered, s.GraceEnd, s.AgentBy = c.fromBoot(r.Fresh), c.fromBoot(r.Entered), c.fromBoot(r.GraceEnd), c.fromBoot(r.AgentBy)
		s.Patience, s.Hello = c.fromBoot(r.Patience), c.fromBoot(r.Hello)
		s.Due, s.CountFrom = c.fromBoot(r.Due), c.fromBoot(r.CountFrom)
	}
	var h history
	for _, w := range r.Results {
		h.addResult(w)
	}
	for _, t := range r.Transitions {
		h.addTransition(t)
	}
	return r.Policy, s, h, nil
}

// ours returns the word of list that v is, if it is one: thousands of instances have the same few, at hand when they are compared.
func ours[T ~string](list []T, v T) T {
	if i := slices.Index(list, v); i >= 0 {
		return list[i]
	}
	return v
}

// check refuses a record that this package did not write.
func (r *record) check() error {
	if r.Version != recordVersion {
		return fmt.Errorf("health record of version %d, not %d", r.Version, recordVersion)
	}
	known := func(s Status) bool { return s == "" || slices.Contains(statuses, s) }
	switch {
	case !known(r.Status) || !known(r.Last) || !known(r.Verdict) || !slices.Contains(stales, r.Stale):
		return fmt.Errorf("health record with an unknown status")
	case min(r.Successes, r.Failures, r.GraceFailures) < 0 || min(r.Gap, r.Pace) < 0:
		return fmt.Errorf("health record with a negative number")
	}
	for _, w := range r.Results {
		if !slices.Contains(outcomes, w.Outcome) {
			return fmt.Errorf("health record with an unknown outcome")
		}
	}
	for _, t := range r.Transitions {
		if !t.known() {
			return fmt.Errorf("health record with an unknown transition")
		}
	}
	return nil
}
