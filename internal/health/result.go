package health

import (
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// An Outcome is what a probe found.
type Outcome string

// Three outcomes, not two.
const (
	Success      Outcome = "success"
	Failure      Outcome = "failure"      // the workload did not answer as asked
	Inconclusive Outcome = "inconclusive" // the host could not ask
)

// The causes of an inconclusive result, as they label a metric.
const (
	CauseNoAgent     = "agent_not_connected" // Next makes a failure of it once the agent has had its time
	CauseNoNetwork   = "no_network"          // the guest has not sent a frame yet, so nothing was sent to it
	CauseNoMachine   = "no_machine"          // the instance is on its way to a machine
	CauseResources   = "host_resources"      // no descriptors or memory on the host
	CauseDiskFull    = "disk_full"           // the machine stands still, for the host's disk has no room for what it writes
	CauseCutShort    = "cut_short"           // the instance stopped, or entered standby, in the middle
	CauseNoAnswer    = "no_answer"           // what probes for us did not come back in time, or its answer made no sense
	CauseStarved     = "starved"             // the host kept the probe or the machine from running
	CauseUnsupported = "unsupported_driver"  // what runs the machine cannot probe, or not so
	CauseShim        = "shim_unavailable"    // the process beside the machine did not answer
	CausePanic       = "panic"               // a bug of ours: the stack is in the log
)

// causes are all of them: what probes for us is not trusted with the labels of a metric.
var causes = []string{
	CauseNoAgent, CauseNoNetwork, CauseNoMachine, CauseResources, CauseDiskFull, CauseCutShort, CauseNoAnswer, CauseStarved,
	CauseUnsupported, CauseShim, CausePanic,
}

// A Result is the answer to one probe. Its JSON goes from the process that probes to the daemon; durations are nanoseconds.
type Result struct {
	Start    time.Time     `json:"time"`
	Duration time.Duration `json:"duration"`
	Outcome  Outcome       `json:"outcome"`
	Reason   string        `json:"reason,omitempty"`   // for a person: "connection refused (port 80)", "status 500, expected 200"
	Output   string        `json:"output,omitempty"`   // of a failed exec: the last 4 KiB
	Cause    string        `json:"cause,omitempty"`    // of an inconclusive one
	Definite bool          `json:"definite,omitempty"` // a failure that is no matter of slowness: refused, reset or closed before the first byte, command missing
	// Queued is how long it waited for its turn before Start, and no part of Duration. Wait is how long the host kept the probe or the
	// guest from running, as whoever probed has measured it. Neither is kept in the history.
	Queued time.Duration `json:"queued,omitempty"`
	Wait   time.Duration `json:"wait,omitempty"`
}

// Bounds on what comes from a guest.
const (
	maxReason = 512
	maxOutput = 4 << 10
)

// clean makes a result fit to be kept and shown, whatever the guest or the process that probed put into it.
func (r Result) clean() Result {
	switch r.Outcome {
	case Success, Failure:
		r.Cause = ""
	case Inconclusive:
		if !slices.Contains(causes, r.Cause) {
			r.Cause = CauseNoAnswer
		}
	default:
		r = Result{Start: r.Start, Duration: r.Duration, Outcome: Inconclusive, Cause: CauseNoAnswer, Reason: "the answer to the probe made no sense"}
	}
	if r.Outcome != Failure {
		r.Output, r.Definite = "", false
	}
	r.Duration, r.Wait = max(r.Duration, 0), max(r.Wait, 0)
	r.Reason = cutHead(printable(cutHead(r.Reason, 4*maxReason)), maxReason)
	r.Output = cutTail(printable(cutTail(r.Output, maxOutput)), maxOutput)
	return r
}

// printable returns s as valid UTF-8 without control characters other than newline and tab.
func printable(s string) string {
	ok := func(r rune) bool { return r == '\n' || r == '\t' || !unicode.IsControl(r) }
	if utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return !ok(r) }) < 0 {
		return s
	}
	return strings.Map(func(r rune) rune {
		if !ok(r) {
			return -1
		}
		return r // an invalid byte arrives as U+FFFD
	}, s)
}

// cutHead returns the first n bytes of s at most, cut where a rune begins.
func cutHead(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return strings.Clone(s[:n])
}

// cutTail returns the last n bytes of s at most, cut where a rune begins.
func cutTail(s string, n int) string {
	if len(s) <= n {
		return s
	}
	s = s[len(s)-n:]
	for len(s) > 0 && !utf8.RuneStart(s[0]) {
		s = s[1:]
	}
	return strings.Clone(s)
}
