package reference

import (
	"time"

	"github.com/halevm/hale/internal/health"
)

// What the hints may ask for: one in hintGap, hintBurst at once, hintLimit for a status.
const (
	hintGap   = 100 * time.Millisecond
	hintBurst = 3
	hintLimit = 10
)

func (r *Reference) takeHint(in *health.Input) {
	switch port := r.policy.Port(); {
	case !r.Probed():
		r.hit(HintUnprobed)
		return
	case in.Port == 0 || in.Port != port:
		r.hit(HintOther)
		return
	}
	if r.hint() != health.NoHint {
		r.hit(HintReplaced)
	}
	h := health.PortCeased
	if in.Listening {
		h = health.PortBegan
	}
	r.hit(HintKept)
	if r.Flying() {
		r.hit(HintInFlight)
	}
	r.add(fact{kind: kept, hint: h})
}

// hint is the newest one that has not been judged.
func (r *Reference) hint() health.Hint {
	for i := len(r.facts) - 1; i >= 0; i-- {
		switch f := &r.facts[i]; f.kind {
		case kept:
			return f.hint
		case dropped, hinted, begun, restarted:
			return health.NoHint
		case seen:
			if f.phase == health.Inactive {
				return health.NoHint
			}
		}
	}
	return health.NoHint
}

// judge judges it, and reports whether it asks.
func (r *Reference) judge() bool {
	h := r.hint()
	if h == health.NoHint || r.Flying() {
		return false
	}
	switch {
	case r.hints() >= hintLimit:
		r.hit(HintTooMany)
	case h == health.PortBegan && r.status == health.StatusHealthy:
		r.hit(HintBeganHealthy)
	case h == health.PortCeased && r.status != health.StatusHealthy:
		r.hit(HintCeasedNotHealthy)
	case r.token() > r.now:
		r.hit(HintDelayed)
		return false
	default:
		r.hit(HintAsks)
		r.add(fact{kind: hinted})
		return true
	}
	r.add(fact{kind: dropped})
	return false
}

// hints is how many have asked since the status changed.
func (r *Reference) hints() (n int) {
	for i := len(r.facts) - 1; i >= 0; i-- {
		switch r.facts[i].kind {
		case hinted:
			n++
		case shown, restarted, logged:
			return n
		}
	}
	return n
}

// token is when the next hint may ask: when no stretch that ends then holds more of them than a burst and one for each hintGap of it.
func (r *Reference) token() instant {
	at, n := never, 1
	for i := len(r.facts) - 1; i >= 0; i-- {
		switch f := &r.facts[i]; f.kind {
		case hinted:
			n++
			at = max(at, f.at+time.Duration(n-hintBurst)*hintGap)
		case restarted:
			return at
		}
	}
	return at
}
