package health

import (
	"slices"
	"sync"
	"time"
)

// When so many turn unhealthy at once, the host is the likelier culprit.
const (
	suspectLeast  = 5                // instances, at least
	suspectWithin = 30 * time.Second // from the first turn to the last
	suspectFor    = 2 * time.Minute  // after the last turn
	maxUntold     = 64               // while telling hangs; what is older is not told
)

// A Suspicion is that of the host, as it arises and as it ends.
type Suspicion struct {
	Time    time.Time `json:"time"`
	Suspect bool      `json:"host_suspect"`
	Turned  int       `json:"turned_unhealthy"`  // instances so far
	Healthy int       `json:"healthy_again"`     // of these
	Watched int       `json:"watched,omitempty"` // instances, when it arose
	Reason  string    `json:"reason,omitempty"`  // why it ends, where these numbers do not say so
}

// A suspect reads transitions, and keeps the suspicion. A daemon's start begins without one.
type suspect struct {
	tell func(Suspicion)

	mu      sync.Mutex
	recent  []fall          // in the last suspectWithin, one for each instance; the oldest first
	turned  map[string]bool // while it stands: who turned, and whether it is healthy again
	well    int             // how many of them are
	last    time.Time       // the last turn
	timer   *time.Timer     // ends it; nil: it does not stand
	untold  []Suspicion
	telling bool // a goroutine does
	wg      sync.WaitGroup
	closed  bool
}

// A fall is the turn of one instance.
type fall struct {
	id   string
	at   time.Time
	well bool // it is healthy again
}

func newSuspect(tell func(Suspicion)) *suspect { return &suspect{tell: tell} }

func (s *suspect) on() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.timer != nil
}

// moved takes a transition of the status of one instance, while so many are watched.
func (s *suspect) moved(id string, from, to Status, now time.Time, watched int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
	case from == StatusHealthy && to == StatusUnhealthy:
		s.fell(id, now, watched)
	case to == StatusHealthy:
		s.rose(id, now)
	}
}

// fell takes that a healthy instance turned unhealthy.
func (s *suspect) fell(id string, now time.Time, watched int) {
	s.last = now
	if s.timer != nil {
		if s.turned[id] {
			s.well--
		}
		s.turned[id] = false
		return
	}
	s.recent = slices.DeleteFunc(s.recent, func(f fall) bool { return f.id == id || now.Sub(f.at) > suspectWithin })
	s.recent = append(s.recent, fall{id: id, at: now})
	n, well := len(s.recent), 0
	for _, f := range s.recent {
		if f.well {
			well++
		}
	}
	if n < suspectLeast || 2*n < watched || 2*well >= n { // the last would end it at once
		return
	}
	s.turned, s.well = make(map[string]bool), well
	for _, f := range s.recent {
		s.turned[f.id] = f.well
	}
	s.recent = nil
	s.timer = time.AfterFunc(suspectFor, s.expire)
	s.announce(Suspicion{Time: wall(now), Suspect: true, Turned: n, Healthy: well, Watched: watched})
}

// rose takes that an instance is healthy.
func (s *suspect) rose(id string, now time.Time) {
	if i := slices.IndexFunc(s.recent, func(f fall) bool { return f.id == id }); i >= 0 {
		s.recent[i].well = true
	}
	if well, ok := s.turned[id]; !ok || well {
		return
	}
	s.turned[id] = true
	s.well++
	if 2*s.well >= len(s.turned) {
		s.end(now)
	}
}

func (s *suspect) expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch left := time.Until(s.last.Add(suspectFor)); {
	case s.timer == nil: // it has just ended
	case left > 0: // others have turned since
		s.timer.Reset(left)
	default:
		s.end(time.Now())
	}
}

// end ends the suspicion.
func (s *suspect) end(now time.Time) {
	s.timer.Stop()
	s.timer = nil
	s.announce(Suspicion{Time: wall(now), Turned: len(s.turned), Healthy: s.well})
	s.turned = nil
}

// announce has it told, in order, by a goroutine that nobody here waits for.
func (s *suspect) announce(what Suspicion) {
	if len(s.untold) == maxUntold {
		s.untold = s.untold[2:] // a beginning and an end
	}
	s.untold = append(s.untold, what)
	if s.telling {
		return
	}
	s.telling = true
	s.wg.Go(func() {
		for {
			s.mu.Lock()
			if len(s.untold) == 0 {
				s.telling = false
				s.mu.Unlock()
				return
			}
			what := s.untold[0]
			s.untold = s.untold[1:]
			s.mu.Unlock()
			s.tell(what)
		}
	})
}

// close ends it untold, and returns when what was to be told is.
func (s *suspect) close() {
	s.mu.Lock()
	s.closed = true
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	s.mu.Unlock()
	s.wg.Wait()
}
