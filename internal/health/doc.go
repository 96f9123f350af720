// Package health watches whether the work inside each instance is well, and says so: disabled, unknown, starting, healthy or
// unhealthy. It only observes. It never changes the lifecycle; a restart policy, an ingress or a person may act on what it says.
//
// # Shape
//
// Every decision is made by one pure function, State.Next, from a state, a policy, the time and one Input. Around it stands one
// loop for each instance, which owns the state. It has no goroutine: what is brought to it (a message, an answer, the bell of its
// alarm) waits in its mailbox, and one goroutine of a crew at a time runs it. The Set is the loops. The controller tells the Set what
// it knows of an instance (Sync, level and not edge), a Prober asks the workload when the loop says so, a Journal keeps what must
// outlive the daemon. What a check is made of is a Policy, which exists only as a valid one: Parse makes it.
//
// # Concurrency
//
// All methods of Set may be called from any goroutine. Snapshot, Changed and Watched never wait for a probe or for a disk. Sync
// waits for its own instance's commit and for nothing of another instance. Of one instance there are never two probes at once. A
// probe's answer is waited for before another is begun, before the instance is forgotten, and before Close returns. A
// panic in a loop, a probe or the journal is contained: its stack is logged, Hooks.Panicked is called, and the loop goes on after
// a second, with a probe at once so that no lost result can end the checks of an instance for good.
//
// # What it does not know
//
// It imports nothing of ours: not what an instance is beyond Observed, not how a probe is made, not where a record lies. Next knows
// no clock and no randomness.
//
// # The lifecycle, as health sees it
//
// Phase is all there is of it. Initializing and Running are active and probed; everything else is Inactive.
//
//	policy?  phase         shown
//	no       any           disabled
//	yes      Inactive      unknown, with the last known one in LastStatus
//	yes      Initializing  starting, whatever the probes say
//	yes      Running       the window's verdict: starting, healthy or unhealthy
//
// The verdict turns healthy when success_threshold successes have come one after the other, and unhealthy when failure_threshold
// failures that count have. Nothing else moves it: not a pause, not a daemon's restart, not the absence of results.
//
// The first status of an instance is no transition. Where there is a check it is unknown, for it was Inactive once, whether or not anybody
// saw that; so the first transition is always that to starting. Every later change of what is shown is one, those from and to unknown and
// disabled included. A new window that begins in starting, after starting, is none, and leaves Since alone.
//
// # Windows
//
// A window is one stretch of observation. It begins when Run is another one than before, when the policy really changes, and when
// an instance that was Running in this window is Initializing again (a run whose end nobody told). It clears the counters, the
// last_* fields, staleness and what is known of hints, and asks for a probe at once; the history stays, each result marked with its
// window. A policy that changes while the instance is Inactive begins one too: nothing is probed in it until the instance is
// active, and a paused one resumes in it. Without a policy there are no windows: the number stays, and nothing is observed.
//
// A result belongs to the window in which its probe began. When a window ends its probe is cancelled and waited for, and leaves no
// result; then the next one's first probe begins. When the instance merely becomes Inactive, the window goes on, and whatever the
// probe in flight answers is recorded as inconclusive (cut_short): an instance that stops refuses connections, and that is no
// failure. A probe that only waits for its turn then was never asked, and leaves no result in either case. One who waits for a
// check (CheckNow) across a new window gets the result of the new window's first probe.
//
// When the daemon ends, a probe in flight leaves no result.
//
// A pause, and a standby that failed, are Inactive and then active again in the same Run: the verdict, the streaks, the grace and
// the schedule are those of before, time went on, and the resume asks for one probe.
//
// # Grace
//
// All of Initializing is grace. From the entry into Running (Observed.Entered, but no sooner than the host's boot, and than the
// record says that it was Initializing, for that clock may be set) it lasts for start_period, or until the workload is healthy, if that is sooner. If the policy came after the entry it lasts from the moment the loop was told. A probe belongs to it
// by its start; one that starts exactly at its end counts. Failures in it are counted in GraceFailures and shown in LastError,
// clear the streak of successes, and do nothing else.
//
// After a restore (Observed.Restored) it lasts from the agent's HELLO, or from ten seconds after the machine went on if none came
// sooner. A failure whose probe began before that moment never counts, also if the workload was healthy by then: it is treated as
// one in the grace. The pace of the grace ends with its becoming healthy all the same. A HELLO counts from the moment the loop is
// told.
//
// The entry into Running asks for a probe, forgets the schedule of Initializing and begins the adaptive pace anew. A streak of
// successes that reached the threshold before makes it healthy in that moment. A probe that began before and fails after it still
// belongs to the grace.
//
// # Results
//
// A success counts whenever it comes. A failure counts outside the grace; if its probe was asked for, it counts as the first of a
// streak, and later only if the probe began no sooner than the gap that the last counted failure set. An inconclusive result counts
// as nothing. One opposite result, counted or not, ends a streak.
//
// A missing agent is inconclusive while Initializing, for a probe that began then, and for 10 s after a restore and after the
// daemon's start. Later it is a failure with a reason that says what to do, told to the log once in a window.
//
// While the machine stands still for want of room on the host's disk, the Prober says disk_full.
//
// The Prober's context ends 4 × timeout + 10 s after its call: four times for what the host may keep from a probe, which the Prober
// judges and the Set does not, and ten seconds to clear up. A Prober that has nothing by then did not answer, which is inconclusive
// (no_answer): the process beside the machine is at fault, not the workload. So is a cause that is none of those that this package
// names: causes label a metric.
//
// Reasons are cut to 512 bytes and outputs to their last 4 KiB before anything is done with them; both are valid UTF-8 without
// control characters other than newline and tab. Outputs are kept up to 32 KiB for an instance, the newest: half of it for those of
// results, half for those of transitions, and to each what the other leaves.
//
// # Pace
//
// The gap to the next probe is fixed when one ends. In the grace it is start_interval, or 100 ms growing by a fifth each time up to
// the interval, and for an exec no less than four times its own duration (within the interval). Otherwise it is the interval ± 5 %,
// by a hash of id and probe number. A definite failure of a healthy workload is followed by exactly confirm_interval; a success of
// one that is not healthy by the sooner of that and the gap in force. After an inconclusive result the same kind of gap comes
// again.
//
// A probe that was asked for (a window's first, the entry into Running, a resume, CheckNow, Ask, a hint, a guest that was waited
// for) sets the schedule only if its result counts, or if there is none. So no number of them can put off the scheduled probe; if
// that came due in the meantime, it follows at once. A probe that is asked for when the scheduled one is due is the scheduled one.
//
// While it initializes, and for ten seconds after a restored machine went on, a check that found no machine, no network or no agent
// is not tried again and again: it is recorded once, and waits until the agent has said HELLO (Observed.Agent), a frame has come
// from the guest (Observed.Network; no matter to an exec), a booted machine's program runs, or the ten seconds are over. That the
// probe is not sent before is the Prober's part: it answers with the cause. After a daemon's restart a missing agent is waited for
// by nobody: the schedule goes on.
//
// # Hints
//
// Set.Hint is told that a port began, or ceased, to be listened on. A hint about another port than the checked one, or about an
// instance that is not probed, is nothing. The newest one is kept, in place of an older one that has not been judged, and judged as
// soon as no probe is in flight: at once, or in the step that takes the result, after that result has moved the status. "Began" is
// for a workload that is not healthy, "ceased" for one that is, by the status as it is shown; any other is dropped. So is one when
// ten have asked since the status last changed. What is left asks for a probe, if the limiter has a token (three at most, a new one
// every 100 ms); if not, it is kept until there is one, and judged again at each step until then. A probe that begins meanwhile for
// another reason serves it as well, and it costs no token. What has been counted is forgotten with the window and by the daemon's
// restart.
//
// # The queue
//
// A probe that costs CPU to begin (exec, http over TLS) waits for its turn: first come first served, one turn for each of the
// host's cores. A turn is over when the Prober calls started, when the probe ends, and 50 ms after it came in any case. An instance
// whose last turn ended by those 50 ms stands behind all whose did not. The wait is Result.Queued; Start, Duration and the Prober's
// context begin after it. Every other probe begins when it is due, whatever the queue does. Hooks.Began is told the lag with which
// the probe joined the queue, Hooks.Waited the wait.
//
// # Stale
//
// A Running instance without a conclusive result for the larger of 3 × (interval + timeout) and 30 s is stale
// (no_conclusive_result): both streaks are cleared, the status keeps its value. The time in which its probe waited for its turn is
// not counted, and it does not turn stale in it. After a daemon's restart an active one is stale (daemon_restarted) and loses
// nothing. Both end with the first conclusive result or with the window, not with a pause. A change of staleness is told as a
// Transition whose From and To are the same, except the beginning of daemon_restarted, which is no news of the instance. While it is
// Inactive none is shown.
//
// # When everything fails at once
//
// The Set suspects the host when at least five instances, and at least half of those that are watched, have turned from healthy to
// unhealthy within 30 s (each counted once, the first and the last at most 30 s apart), and fewer than half of these are healthy again. It
// ends when half of those who turned, before it or while it stands, are healthy again (one that falls once more is not), and two minutes
// after the last turn. The turns of before do not count for the next. Set.Suspect tells, and Hooks.Suspected is called when it begins and when it ends; the hook's
// owner writes the event. It is no Transition, for it belongs to no instance, and nothing is derived from it: a daemon starts
// without suspicion, and ends in the log the one that stood.
//
// # Next, exactly
//
// What follows, with docs/health.md, is all that State.Next does. now never goes back from one call to the next. In all of it "active"
// is a Phase other than Inactive, and "probed" is active with a policy that is not disabled.
//
// Each call first takes the Input, as below. Then, except for Restarted, in this order: the state turns stale if StaleAt is not
// zero and not after now; Status, Since and Last become what the phase lets be seen; a kept hint is judged. At last N grows by one
// if Status differs from that before the call, or Stale as it is shown ("" while Inactive) does and is not daemon_restarted now; but
// never while Status was "" before the call.
//
// It returns when the next probe is due: zero if the instance is not probed; otherwise the earliest of Due (if not zero), now (if
// Asked), and, if a hint is kept and no probe is in flight, the moment at which the limiter has a token; zero if there is none of
// these. A probe in flight, or in the queue, changes nothing of this; the caller begins none meanwhile.
//
// Seen. Phase, Agent and Network become the Input's. Run does if the Phase is active. A window begins if PolicyChanged, or if
// active and (Run changed, or Window was 0, or Initializing while Entered is not zero). A new window keeps Run, Phase, Agent,
// Network, Status, Since, Last, N and AgentBy (the ten seconds that an agent has after a restore and after the daemon's start are no
// matter of windows), sets Verdict to starting and everything else to zero; if the policy is not disabled, Window is one more than
// before, WindowAt and Fresh are now; if it is, Window stays and both are zero. If the instance is not probed after that, Asked,
// Queued and Kept are cleared and the Input is done. Otherwise: if it was Inactive and no window began, Fresh is now. Then the first
// of these that holds: Running and Entered is zero: the entry into Running, below. A window began, or it was Inactive: Asked.
// Waiting is set, or Due is zero, and what the check needs is there by this Input and was not before: Asked. At last, if Agent and
// now is before Hello: Hello is now, and unless the Verdict is healthy GraceEnd is now + start_period.
//
// What the check needs is there if Agent, or if Network and the check is http, tcp or grpc. It is still on its way if it is not
// there, and Entered is zero or now is before Patience; "was not before" above means: it was still on its way, by the state before
// the Input and by now.
//
// The entry into Running. Entered is the Input's Entered, or now if PolicyChanged or that is zero or not before now. If Restored is
// not zero, Patience and Hello are 10 s after it (a Restored after now counts as now). GraceEnd is the later of Entered and Hello,
// + start_period. AgentBy is the latest of itself, Entered and Patience; Fresh the later of itself and Entered. Asked is set; Due,
// Pace, Confirming and Waiting are cleared; Gap is left. If Successes ≥ success_threshold, or Verdict is healthy (read from the log
// by a restart), it becomes healthy. An entry that is told after the policy came after it, whatever its moment says, for one record
// of the controller's carries both. One that is told late is no later for a wait in the queue that was over when it was told.
//
// To become healthy: Verdict is healthy, and GraceEnd is now if it was later.
//
// Asking. Asked is set if the instance is probed, cleared if not.
//
// Hinted. If the instance is probed and Port is not 0 and that of the check: Kept is PortBegan if Listening, else PortCeased.
//
// A kept hint is judged if Flying is not set. It is dropped if the instance is not probed, if Hints ≥ 10, if it is PortBegan and
// Status is healthy, or PortCeased and Status is not. Otherwise, if now is not before HintFree − 200 ms: it is dropped, Asked is
// set, Hints grows by one, and HintFree becomes the later of itself and now, + 100 ms. Otherwise it stays. (HintFree is when the
// bucket of three is full again, zero being long ago.) Whenever Status changes, Hints is 0.
//
// Queued. Asked is cleared, and Queued is now.
//
// Begun. The wait for the turn ends, a kept hint is judged, and then Asked and Kept are cleared and Flying is set. The wait ends
// thus: if Queued is not zero, Fresh moves by the time since the later of Queued and Fresh (never back), and Queued is zero.
//
// Probed. The wait ends as in Begun, and Flying is cleared. If the policy is disabled that is all. If the instance is Inactive the
// Result counts as inconclusive (cut_short), with its Start and Duration; that of a probe in the flight of which it was Inactive for
// a while is for the caller to make the same of. If it is inconclusive with agent_not_connected, Entered is not zero and its Start
// is not before AgentBy, it counts as a failure with a reason of ours, not definite, with its Start and Duration. Then CheckedAt is
// its Start. A success: Failures is 0, SuccessAt its Start, Successes one more; if Running and Successes ≥ success_threshold it
// becomes healthy. It counts. A failure: Successes is 0, FailureAt its Start, Error its Reason. If Entered is zero, or its Start is
// before GraceEnd or before Hello, GraceFailures grows by one and it does not count. Otherwise it counts if it was not Asked, or
// Failures is 0, or its Start is not before CountFrom; then Failures grows by one, and Verdict is unhealthy if that reaches
// failure_threshold. If it is conclusive, Stale is "" and Fresh is now. If it counts, or was not Asked, or Due is zero, the gap is
// fixed, below. If it is a failure that counts, CountFrom is Due.
//
// To fix the gap, from now: if what the check needs is still on its way by now, and the result is inconclusive with no_machine,
// no_network or agent_not_connected, then Due is Patience (zero while Entered is), Gap is 0, Confirming is false and Waiting is
// true. Otherwise Waiting is false, and the gap in force is, if Entered is zero or now is before GraceEnd: start_interval if that
// is set; else Pace becomes the smaller of the interval and the larger of 100 ms and Pace + Pace/5, in whole nanoseconds, and the
// gap is Pace, for an exec the smaller of the interval and the larger of Pace and 4 × Duration. After the grace it is interval −
// interval/20 + ⌊Hash × (interval/10) / 2⁶⁴⌋, in whole nanoseconds. Confirming stays after an inconclusive result; otherwise it is,
// by the Verdict after this result: healthy, whether this is a failure that is Definite; not healthy, whether it is a success.
// Where Confirming, the gap is the confirming pace if the Verdict is healthy, and the smaller of that and the gap in force if not.
// The confirming pace is confirm_interval, or if unset the smaller of interval and the larger of interval/10 and 1 s. Gap is the
// gap, Due is now + Gap.
//
// Restarted. Asked, Queued, Flying, Kept, Hints and HintFree are cleared. Fresh is now, AgentBy is 10 s after now. If the instance
// is probed by the Phase in the state: Stale is daemon_restarted if it was "", and Due is the later of itself and now + Hash mod
// the smaller of Gap and 30 s, in nanoseconds, with the interval for a Gap of 0. What is shown stays; N does too.
//
// StaleAt is zero if the policy is disabled, the Phase is not Running, Stale is no_conclusive_result already, or Queued is not
// zero. Otherwise it is Fresh + the larger of 3 × (interval + timeout) and 30 s. To turn stale: Stale is no_conclusive_result,
// Successes and Failures are 0.
//
// What is shown: disabled without a policy, or else unknown if Inactive, starting if Initializing, and the Verdict if Running.
// Where that differs from Status: Last is Status if it is unknown now and was not disabled before, and "" otherwise; Status is the
// new one, Since is now.
//
// # Time
//
// What is shown is of the wall clock. What decides is monotonic, and is kept in the record as the time since the host's boot with
// the boot's id: the grace goes on while the daemon is away, and no step of the clock moves it. Under another boot id those times
// are dropped, for no machine outlives a boot.
//
// # Durability
//
// Journal.Commit of a transition returns before it is published: to Snapshot, to Changed, to the log. If it fails, or takes a
// second, the transition is published as not persisted. The record (Journal.Save) follows: at once after a transition, every 5
// s for counters, and on Close. A window that opens is written at once, too. If the Journal can Replay, a start applies the
// transitions that the record has not seen, by their number, so that a crash between the two, or the loss of the record, costs
// counters and never a status. For that the log's transitions also hold the Run and a sum of the policy: a start that finds
// both as they were goes on in the window that the log names, also where the record knows nothing of it. One that was healthy
// is out of its grace, and that of one that began with a new policy runs from that moment. A transition that this version does
// not know, of a log that a newer one wrote, is left out and told.
//
// A record that cannot be read, for whatever reason, is set aside and told. Where it cannot be set aside nothing is written over it, which
// is told once: that instance is watched without a record until the daemon's next start.
//
// A restarted daemon goes on where the record ends when Run and policy are the same: no window, no transition. Its first probe
// comes when the schedule says, and not before a share of the gap (30 s at most) by the hash of the id, so that not all instances
// are asked at once.
//
// # Policies
//
// In a policy null and an empty list or object are absent; type none accepts anything beside it; expected_statuses takes numbers too; in
// type, path, scheme and method "" is unset. A body_contains beside the method HEAD is refused, for it could never be found. A path has
// at most 8 KiB, tls_server_name 253 bytes, expected_statuses 64 entries, so that with the bounds of docs/health.md and of an exec check no
// policy has more than 512 KiB of JSON, and no record more than MaxRecord.
//
// A policy in the record of what it is a part of (Recorded) may have been written under other bounds: one that is refused now is none,
// and its reader says so.
package health
