// Package reference says once more what health.State.Next says, to hold the one against the other. It was written from the rules'
// text alone: those of health and the package documentation of internal/health, by somebody who had not seen Next. Its tests put
// random histories to both, and nothing else imports it.
//
// # Shape
//
// It has another one on purpose. Next keeps a few numbers and moves them with each input. A Reference keeps what happened: a list of
// facts of the window (what was told, each result and whether it counts, each hint that asked), and derives everything from that
// list by its definition, each time it is asked. A streak is counted backwards from its newest result, the grace is the earlier of
// two moments, the time queued is a sum of intervals, the limiter of hints is the bound on every stretch that ends now. Nothing is
// kept of what can be derived, but for four labels of a fact that never change once it has happened: whether a failure counts,
// whether it was one in the grace, which gap it set, and what the verdict turned to.
//
// It is slow, and meant to be. It is not safe for concurrent use.
//
// # Branches
//
// Every branch has a name and a counter, so that a test can tell which of them its histories have reached, and how often.
package reference
