package health

import "time"

// A Hint is a word of the guest's agent about the checked port. It asks for a probe and decides nothing.
type Hint int

// The hints.
const (
	NoHint     Hint = iota
	PortBegan       // to be listened on: of interest while the workload is not healthy
	PortCeased      // of interest while it is healthy
)

// The limiter of hints: a bucket of hintBurst tokens, a new one every hintEvery; and how many may change nothing.
const (
	hintEvery   = 100 * time.Millisecond
	hintBurst   = 3
	hintsInVain = 10
)

// hinted keeps the newest word about the checked port.
func (s *State) hinted(p *Policy, in *Input) {
	switch {
	case in.Port == 0 || in.Port != p.Port() || !s.probing(p):
	case in.Listening:
		s.Kept = PortBegan
	default:
		s.Kept = PortCeased
	}
}

// heed judges the hint that was kept, as soon as no probe is in flight: it comes to nothing, or asks for a probe, now or when the
// limiter lets it.
func (s *State) heed(p *Policy, now time.Time) {
	if s.Kept == NoHint || s.Flying {
		return
	}
	healthy := s.Status == StatusHealthy
	switch {
	case !s.probing(p) || s.Hints >= hintsInVain || healthy != (s.Kept == PortCeased):
		s.Kept = NoHint
	case !now.Before(s.hintAt()):
		s.Kept, s.Asked = NoHint, true
		s.HintFree = later(s.HintFree, now).Add(hintEvery)
		s.Hints++
	}
}

// hintAt returns when the limiter has a token; one that has passed for now.
func (s *State) hintAt() time.Time { return s.HintFree.Add(-(hintBurst - 1) * hintEvery) }
