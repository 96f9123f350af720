package reference

// A Branch is one way through the rules.
type Branch int

// The branches, in the order in which the rules tell of them.
const (
	WindowFirst Branch = iota
	WindowRun
	WindowPolicy
	WindowPolicyInactive
	WindowInitializingAgain
	WindowNoPolicy
	WindowEndedStale
	SeenUnprobed
	SeenResumed
	SeenSame
	EntryNow
	EntryEarlier
	EntryPolicy
	EntryRestored
	EntryHealthy
	EntryFromLog
	EntryUndecided
	HelloShortens
	HelloHealthyAlready
	GuestAwaited
	GuestUnscheduled
	AskedFor
	AskedUnprobed
	HintOther
	HintUnprobed
	HintKept
	HintReplaced
	HintTooMany
	HintBeganHealthy
	HintCeasedNotHealthy
	HintAsks
	HintDelayed
	HintInFlight
	HintServed
	QueueJoined
	QueueLeft
	QueueInactive
	Began
	BeganAtHint
	ResultCutShort
	ResultCutShortResumed
	ResultNoAgentEarly
	ResultNoAgentDaemon
	ResultNoAgentFailure
	ResultInconclusive
	SuccessInitializing
	SuccessShort
	SuccessTurns
	SuccessRecovers
	SuccessStays
	SuccessEndsGrace
	SuccessEndsStale
	FailureInitializing
	FailureBeforeEntry
	FailureGrace
	FailureAtGraceEnd
	FailureBeforeHello
	FailureCounts
	FailureAskedFirst
	FailureAskedLater
	FailureAskedTooSoon
	FailureTurns
	FailureTurnsUndecided
	FailureStays
	FailureEndsStale
	ScheduleKept
	ScheduleMissing
	GapWaitsInitializing
	GapWaitsRestored
	GapStartInterval
	GapAdaptive
	GapAdaptiveAtInterval
	GapAdaptiveExec
	GapSteady
	ConfirmDefinite
	ConfirmSuccess
	ConfirmSuccessGapSooner
	ConfirmAgain
	RestartedProbed
	RestartedUnprobed
	RestartedStaleAlready
	RestartedScheduleLater
	RestartedShareLater
	RestartedUnscheduled
	RestartedNoGap
	StaleTurns
	StaleTurnsRestarted
	StaleClearsStreak
	StaleNotQueued
	StaleQueueNotCounted
	ShownDisabled
	ShownUnknown
	ShownUnknownFromDisabled
	ShownStarting
	ShownHealthy
	ShownUnhealthy
	DueNever
	DueScheduled
	DueAsked
	DueHint
	Branches // how many there are
)

var names = [Branches]string{
	WindowFirst:              "window: the first",
	WindowRun:                "window: another run",
	WindowPolicy:             "window: another policy",
	WindowPolicyInactive:     "window: another policy, inactive",
	WindowInitializingAgain:  "window: Initializing once more",
	WindowNoPolicy:           "window: none without a policy",
	WindowEndedStale:         "window: ends staleness",
	SeenUnprobed:             "seen: not probed",
	SeenResumed:              "seen: active again",
	SeenSame:                 "seen: nothing new",
	EntryNow:                 "entry: now",
	EntryEarlier:             "entry: told late",
	EntryPolicy:              "entry: the policy is newer",
	EntryRestored:            "entry: restored",
	EntryHealthy:             "entry: the streak stands",
	EntryFromLog:             "entry: healthy by the log",
	EntryUndecided:           "entry: undecided",
	HelloShortens:            "hello: before its ten seconds",
	HelloHealthyAlready:      "hello: healthy already",
	GuestAwaited:             "guest: what was waited for is there",
	GuestUnscheduled:         "guest: is there, nothing is scheduled",
	AskedFor:                 "asked: by somebody",
	AskedUnprobed:            "asked: not probed",
	HintOther:                "hint: another port",
	HintUnprobed:             "hint: not probed",
	HintKept:                 "hint: taken",
	HintReplaced:             "hint: in place of an older one",
	HintTooMany:              "hint: the eleventh",
	HintBeganHealthy:         "hint: began, but healthy",
	HintCeasedNotHealthy:     "hint: ceased, but not healthy",
	HintAsks:                 "hint: asks",
	HintDelayed:              "hint: delayed by the limiter",
	HintInFlight:             "hint: kept during a probe",
	HintServed:               "hint: served by another probe",
	QueueJoined:              "queue: joined",
	QueueLeft:                "queue: its turn came",
	QueueInactive:            "queue: no longer wanted",
	Began:                    "probe: began",
	BeganAtHint:              "probe: began as a hint had its token",
	ResultCutShort:           "result: inactive, cut short",
	ResultCutShortResumed:    "result: inactive meanwhile, active again",
	ResultNoAgentEarly:       "result: the agent may be missing yet",
	ResultNoAgentDaemon:      "result: the agent may be missing, for the daemon's start only",
	ResultNoAgentFailure:     "result: the agent is gone",
	ResultInconclusive:       "result: inconclusive",
	SuccessInitializing:      "success: Initializing",
	SuccessShort:             "success: short of its threshold",
	SuccessTurns:             "success: starting to healthy",
	SuccessRecovers:          "success: unhealthy to healthy",
	SuccessStays:             "success: healthy already",
	SuccessEndsGrace:         "success: ends the grace",
	SuccessEndsStale:         "success: ends staleness",
	FailureInitializing:      "failure: Initializing",
	FailureBeforeEntry:       "failure: began before the entry",
	FailureGrace:             "failure: in the grace",
	FailureAtGraceEnd:        "failure: began exactly at the grace's end",
	FailureBeforeHello:       "failure: before HELLO, the grace being over",
	FailureCounts:            "failure: scheduled, counts",
	FailureAskedFirst:        "failure: asked for, the first of a streak",
	FailureAskedLater:        "failure: asked for, after the gap",
	FailureAskedTooSoon:      "failure: asked for, too soon",
	FailureTurns:             "failure: healthy to unhealthy",
	FailureTurnsUndecided:    "failure: starting to unhealthy",
	FailureStays:             "failure: counts, no turn",
	FailureEndsStale:         "failure: ends staleness",
	ScheduleKept:             "schedule: left as it was",
	ScheduleMissing:          "schedule: there was none",
	GapWaitsInitializing:     "gap: waits, Initializing",
	GapWaitsRestored:         "gap: waits, restored",
	GapStartInterval:         "gap: start_interval",
	GapAdaptive:              "gap: adaptive",
	GapAdaptiveAtInterval:    "gap: adaptive, grown to the interval",
	GapAdaptiveExec:          "gap: adaptive, four times an exec",
	GapSteady:                "gap: steady",
	ConfirmDefinite:          "confirm: a definite failure of a healthy one",
	ConfirmSuccess:           "confirm: a success of one not healthy",
	ConfirmSuccessGapSooner:  "confirm: the gap in force is no later",
	ConfirmAgain:             "confirm: again after an inconclusive one",
	RestartedProbed:          "restarted: probed",
	RestartedUnprobed:        "restarted: not probed",
	RestartedStaleAlready:    "restarted: stale already",
	RestartedScheduleLater:   "restarted: the schedule is later",
	RestartedShareLater:      "restarted: the share is later",
	RestartedUnscheduled:     "restarted: nothing was scheduled",
	RestartedNoGap:           "restarted: no gap was set",
	StaleTurns:               "stale: turns",
	StaleTurnsRestarted:      "stale: turns, the daemon's restart before it",
	StaleClearsStreak:        "stale: clears a streak",
	StaleNotQueued:           "stale: not while queued",
	StaleQueueNotCounted:     "stale: the time queued is not counted",
	ShownDisabled:            "shown: disabled",
	ShownUnknown:             "shown: unknown",
	ShownUnknownFromDisabled: "shown: unknown after disabled",
	ShownStarting:            "shown: starting",
	ShownHealthy:             "shown: healthy",
	ShownUnhealthy:           "shown: unhealthy",
	DueNever:                 "due: never",
	DueScheduled:             "due: as scheduled",
	DueAsked:                 "due: asked for",
	DueHint:                  "due: a hint's token",
}

func (b Branch) String() string { return names[b] }
