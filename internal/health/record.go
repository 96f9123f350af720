package health

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
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

// encode appends the record to b. The head is encoding/json's; the lists, which are almost all of it and are written every few seconds
// for each instance, are appended by hand, from the history as it is.
func encode(b []byte, c clock, p Policy, s State, h *history) ([]byte, error) {
	head, err := json.Marshal(record{
		Version: recordVersion, Boot: c.bootID, Policy: p,
		Run: s.Run, Window: s.Window, Phase: s.Phase, Agent: s.Agent, Network: s.Network,
		Status: s.Status, Last: s.Last, Verdict: s.Verdict, N: s.N, Stale: s.Stale,
		Successes: s.Successes, Failures: s.Failures, GraceFailures: s.GraceFailures,
		Since: s.Since, CheckedAt: s.CheckedAt, SuccessAt: s.SuccessAt, FailureAt: s.FailureAt, WindowAt: s.WindowAt, Error: s.Error,
		Fresh: c.sinceBoot(s.Fresh), Entered: c.sinceBoot(s.Entered), GraceEnd: c.sinceBoot(s.GraceEnd), AgentBy: c.sinceBoot(s.AgentBy),
		Patience: c.sinceBoot(s.Patience), Hello: c.sinceBoot(s.Hello),
		Due: c.sinceBoot(s.Due), CountFrom: c.sinceBoot(s.CountFrom), Gap: s.Gap, Pace: s.Pace, Confirming: s.Confirming, Waiting: s.Waiting,
	})
	if err != nil {
		return nil, err
	}
	const empty = `"results":null,"transitions":null}` // what a head ends with
	b = append(b, head[:len(head)-len(empty)]...)
	b = append(b, `"results":[`...)
	for i := range h.results.len() {
		b = h.results.at(i).appendJSON(comma(b, i))
	}
	b = append(b, `],"transitions":[`...)
	for i := range h.transitions.len() {
		b = h.transitions.at(i).appendJSON(comma(b, i))
	}
	return append(b, "]}"...), nil
}

func comma(b []byte, i int) []byte {
	if i == 0 {
		return b
	}
	return append(b, ',')
}

// appendJSON writes a result as encoding/json does the WindowResult that listResults makes of it.
func (r *packedResult) appendJSON(b []byte) []byte {
	b = appendTime(append(b, `{"time":`...), r.start)
	b = strconv.AppendInt(append(b, `,"duration":`...), int64(r.duration), 10)
	b = appendString(append(b, `,"outcome":`...), string(outcomes[r.said.outcome]))
	b = appendGiven(b, `,"reason":`, r.said.reason)
	b = appendGiven(b, `,"output":`, r.said.output)
	b = appendGiven(b, `,"cause":`, r.said.cause)
	if r.said.definite {
		b = append(b, `,"definite":true`...)
	}
	b = strconv.AppendUint(append(b, `,"window":`...), r.window, 10)
	return append(b, '}')
}

// appendJSON writes a transition as encoding/json does the Transition that listTransitions makes of it.
func (t *packedTransition) appendJSON(b []byte) []byte {
	b = appendTime(append(b, `{"time":`...), t.time)
	b = appendString(append(b, `,"from":`...), string(statuses[t.from]))
	b = appendString(append(b, `,"to":`...), string(statuses[t.to]))
	b = appendGiven(b, `,"reason":`, t.said.reason)
	b = appendGiven(b, `,"output":`, t.said.output)
	if t.lost {
		b = append(b, `,"persisted":false`...)
	}
	if t.window != 0 {
		b = strconv.AppendUint(append(b, `,"window":`...), t.window, 10)
	}
	if t.n != 0 {
		b = strconv.AppendUint(append(b, `,"n":`...), t.n, 10)
	}
	b = appendGiven(b, `,"stale":`, stales[t.stale])
	return append(b, '}')
}

func appendTime(b []byte, nanoseconds int64) []byte {
	b = time.Unix(0, nanoseconds).UTC().AppendFormat(append(b, '"'), time.RFC3339Nano)
	return append(b, '"')
}

func appendGiven(b []byte, name, s string) []byte {
	if s == "" {
		return b
	}
	return appendString(append(b, name...), s)
}

// appendString writes what needs no escape as it is, and leaves the rest to encoding/json.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			quoted, err := json.Marshal(s)
			if err != nil {
				panic(err) // a string can be written
			}
			return append(b, quoted...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
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
		Status: r.Status, Last: r.Last, Verdict: r.Verdict, N: r.N, Stale: r.Stale,
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

// check refuses a record that this package did not write.
func (r *record) check() error {
	if r.Version != recordVersion {
		return fmt.Errorf("health record of version %d, not %d", r.Version, recordVersion)
	}
	known := func(s Status) bool { return s == "" || slices.Contains(statuses, s) }
	durations := []time.Duration{r.Fresh, r.Entered, r.GraceEnd, r.AgentBy, r.Patience, r.Hello, r.Due, r.CountFrom, r.Gap, r.Pace}
	switch {
	case !known(r.Status) || !known(r.Last) || !known(r.Verdict) || !slices.Contains(stales, r.Stale):
		return fmt.Errorf("health record with an unknown status")
	case min(r.Successes, r.Failures, r.GraceFailures) < 0 || slices.Min(durations) < 0:
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
