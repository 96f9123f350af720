// Package health watches whether the work inside each instance is well, and says so: disabled, unknown, starting, healthy or
// unhealthy. It only observes. It never changes the lifecycle; a restart policy, an ingress or a person may act on what it says.
//
// # Shape
//
// Every decision is made by one pure function, State.Next, from a state, a policy, the time and one Input. Around it stands one loop
// for each instance: one goroutine, one timer, one owner of the state. The Set is the loops. The controller tells the Set what it
// knows of an instance (Sync, level and not edge), a Prober asks the workload when the loop says so, a Journal keeps what must
// outlive the daemon. What a check is made of is a Policy, which exists only as a valid one: Parse makes it.
//
// # Concurrency
//
// All methods of Set may be called from any goroutine. Snapshot, Changed and Watched never wait for a probe or for a disk. Sync waits
// for its own instance's commit and for nothing of another instance. Of one instance there are never two probes at once. A probe runs
// in a goroutine that its loop waits for before it starts another, before it is forgotten, and before Close returns. A panic in a
// loop, a probe or the journal is contained: its stack is logged, Hooks.Panicked is called, and the loop goes on, with a probe at
// once so that no lost result can end the checks of an instance for good.
//
// # What it does not know
//
// It imports nothing of ours: not what an instance is beyond Observed, not how a probe is made, not where a record lies. Next knows no
// clock and no randomness.
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
// The first status of an instance is no transition. Every later change of what is shown is one, those from and to unknown and
// disabled included. A new window that begins in starting, after starting, is none, and leaves Since alone.
//
// # Windows
//
// A window is one stretch of observation. It begins when Run is another one than before, when the policy really changes, and when an
// instance that was Running is Initializing again (a run whose end nobody told). It clears the counters, the last_* fields and
// staleness, and asks for a probe at once; the history stays, each result marked with its window. A policy that changes while the
// instance is Inactive begins one too: nothing is probed in it until the instance is active, and a paused one resumes in it. Without a
// policy there are no windows.
//
// A result belongs to the window in which its probe began. When a window ends its probe is cancelled and waited for, and leaves no
// result; then the next one's first probe begins. When the instance merely becomes Inactive, the window goes on, and whatever the
// probe in flight answers is recorded as inconclusive (cut_short): an instance that stops refuses connections, and that is no failure.
// One who waits for a check (CheckNow) across a new window gets the result of the new window's first probe.
//
// When the daemon ends, a probe in flight leaves no result.
//
// # Grace
//
// All of Initializing is grace. From the entry into Running (Observed.Entered) it lasts for start_period, or until the workload is
// healthy, if that is sooner. If the policy came after the entry it lasts from the moment the loop was told. A probe belongs to it by
// its start; one that starts exactly at its end counts. Failures in it are counted in GraceFailures and shown in LastError, clear the
// streak of successes, and do nothing else.
//
// The entry into Running asks for a probe, forgets the schedule of Initializing and begins the adaptive pace anew. A streak of
// successes that reached the threshold before makes it healthy in that moment. A probe that began before and fails after it still
// belongs to the grace.
//
// # Results
//
// A success counts whenever it comes. A failure counts outside the grace; if its probe was asked for, it counts as the first of a
// streak, and later only if the probe began no sooner than the gap that the last counted failure set. An inconclusive result counts as
// nothing. One opposite result, counted or not, ends a streak.
//
// A missing agent is inconclusive while Initializing, for a probe that began then, and for 10 s after the daemon's start. Later it is
// a failure with a reason that says what to do, told to the log once in a window.
//
// While the machine stands still for want of room on the host's disk, the Prober says disk_full.
//
// The Prober's context ends 10 s after the policy's timeout. A Prober that has nothing by then did not answer, which is inconclusive
// (no_answer): the process beside the machine is at fault, not the workload.
//
// Reasons are cut to 512 bytes and outputs to their last 4 KiB before anything is done with them; both are valid UTF-8 without control
// characters other than newline and tab. Outputs are kept up to 32 KiB for an instance, those of transitions longest.
//
// # Pace
//
// The gap to the next probe is fixed when one ends. In the grace it is start_interval, or 100 ms growing by a fifth each time up to
// the interval, and for an exec no less than four times its own duration (within the interval). Otherwise it is the interval ± 5 %, by
// a hash of id and probe number. A definite failure of a healthy workload is followed by exactly confirm_interval; a success of one
// that is not healthy by the sooner of that and the gap in force. After an inconclusive result the same kind of gap comes again.
//
// A probe that was asked for (a window's first, the entry into Running, a resume, CheckNow, Ask) sets the schedule only if its result
// counts, or if there is none. So no number of them can put off the scheduled probe; if that came due in the meantime, it follows at
// once. A probe that is asked for when the scheduled one is due is the scheduled one.
//
// While it initializes, a check that found no machine, no network or no agent is not tried again and again: it is recorded once, and waits until
// the agent has said HELLO (Observed.Agent) or the program runs.
//
// # Stale
//
// A Running instance without a conclusive result for the larger of 3 × (interval + timeout) and 30 s is stale
// (no_conclusive_result): both streaks are cleared, the status keeps its value. After a daemon's restart an active one is stale
// (daemon_restarted) and loses nothing. Both end with the first conclusive result or with the window, not with a pause. A change of
// staleness is told as a Transition whose From and To are the same, except the beginning of daemon_restarted, which is no news of the
// instance.
//
// # Time
//
// What is shown is of the wall clock. What decides is monotonic, and is kept in the record as the time since the host's boot with the
// boot's id: the grace goes on while the daemon is away, and no step of the clock moves it. Under another boot id those times are
// dropped, for no machine outlives a boot.
//
// # Durability
//
// Journal.Commit of a transition returns before it is published: to Snapshot, to Changed, to the log. If it fails, or takes a
// second, the transition is published as not persisted. The record (Journal.Save) follows: at once after a transition, every 5 s for
// counters, and on Close. If the Journal can Replay, a start applies the transitions that the record has not seen, by their number,
// so that a crash between the two costs counters and never a status.
//
// A restarted daemon goes on where the record ends when Run and policy are the same: no window, no transition. Its first probe comes
// when the schedule says, and not before a share of the gap (30 s at most) by the hash of the id, so that not all instances are asked
// at once.
//
// # Policies
//
// In a policy null and an empty list or object are absent; type none accepts anything beside it;
// expected_statuses takes numbers too; in type, path, scheme and method "" is unset.
//
// # Where later parts join
//
// A hint of the guest's agent is one more Kind of Input, which asks for a probe as Asking does, behind a limiter of its own in the
// state. A starved host is known to the Prober, which answers inconclusive with a cause. A queue for what costs CPU to begin stands
// between the loop and the Prober. A suspicion against the host is a reader of transitions. An image's own HEALTHCHECK is a second
// constructor of Policy beside Parse. A restore from standby is a new Run whose grace begins at the agent's HELLO.
package health
