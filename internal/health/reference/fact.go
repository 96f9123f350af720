package reference

import (
	"math"
	"time"

	"github.com/halevm/hale/internal/health"
)

// An instant is a moment, as the time since the history began.
type instant = time.Duration

// never is no moment at all, and before every other one.
const never instant = math.MinInt64

type kind uint8

const (
	window    kind = iota // a window began: and what was seen then
	seen                  // phase, agent, network, resumed
	entry                 // into Running: when, restored, agent
	asked                 // for a probe
	queued                // the probe waits for its turn
	begun                 // the probe began
	result                // the probe ended
	restarted             // the daemon did: when is its share of the gap
	kept                  // a hint
	dropped               // that hint, or it was served
	hinted                // that hint asked for a probe
	stale                 // for want of a conclusive result
	shown                 // another status
	logged                // the event log knew of a verdict that the record did not
)

// A fact is one thing that happened. Which fields mean something depends on its kind.
type fact struct {
	kind kind
	at   instant // when it was told

	// seen, window, entry
	phase    health.Phase
	agent    bool
	network  bool
	resumed  bool // active again in the same window
	when     instant
	restored instant // when the machine went on; never: it was booted

	hint health.Hint

	// result; when is its start
	took     time.Duration
	outcome  health.Outcome
	cause    string
	reason   string
	definite bool
	asked    bool
	noAgent  bool // a failure made of an agent that is gone: its reason is not ours to know

	counts   bool
	inGrace  bool // a failure that does not count for that
	sets     bool // the schedule
	waits    bool // rather than a gap: for what the guest is on its way to
	adaptive bool // the gap in force was at the adaptive pace
	confirms bool
	gap      time.Duration

	stales bool          // restarted: it made the status stale
	turn   health.Status // what the verdict became by it; "": it did not
}

func (f *fact) conclusive() bool {
	return f.kind == result && f.outcome != health.Inconclusive
}
