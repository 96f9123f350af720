package health

import (
	"hash/fnv"
	"math/bits"
	"time"
)

// firstPace is where the adaptive pace begins; it grows by a fifth each time.
const firstPace = 100 * time.Millisecond

// schedule fixes the gap that follows a result, measured from now, the end of its probe, and with it the next probe.
func (s *State) schedule(p *Policy, now time.Time, hash uint64, r Result) {
	if s.awaits(p, now) && r.missing() {
		// Until Patience is over, or, while the machine boots, until it runs. What was missing asks sooner.
		s.Due, s.Gap, s.Confirming, s.Waiting = s.Patience, 0, false, true
		return
	}
	s.Waiting = false
	var gap time.Duration // the one in force, were this no edge
	switch {
	case !s.inGrace(now):
		gap = jitter(p.Interval, hash)
	case p.StartInterval != 0:
		gap = p.StartInterval
	default:
		s.Pace = min(max(firstPace, s.Pace+s.Pace/5), p.Interval)
		gap = s.Pace
		if p.Type == TypeExec {
			gap = min(max(gap, 4*r.Duration), p.Interval)
		}
	}
	healthy := s.Verdict == StatusHealthy
	switch {
	case r.Outcome == Inconclusive: // the same kind of gap again
	case healthy:
		s.Confirming = r.Outcome == Failure && r.Definite
	default:
		s.Confirming = r.Outcome == Success
	}
	switch {
	case s.Confirming && healthy:
		gap = p.confirm()
	case s.Confirming:
		gap = min(gap, p.confirm())
	}
	s.Gap, s.Due = gap, now.Add(gap)
}

// missing reports whether the probe found no machine, no network or no agent to ask.
func (r Result) missing() bool {
	return r.Outcome == Inconclusive && (r.Cause == CauseNoMachine || r.Cause == CauseNoAgent || r.Cause == CauseNoNetwork)
}

// jitter returns d × (0.95 … 1.05), evenly spread over hash.
func jitter(d time.Duration, hash uint64) time.Duration {
	share, _ := bits.Mul64(hash, uint64(d/10))
	return d - d/20 + time.Duration(share)
}

// hashID returns the hash of an instance's id: the same in every process.
func hashID(id string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(id))
	return mix(h.Sum64())
}

// mix spreads the bits of x over the whole word (the finaliser of splitmix64).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
