package health

import "sync"

// Policies are those in force, each kept once: instances of one image, or of one person, have the same check as a rule. What a thousand of
// them have is at hand when the next probe begins, and its JSON is written once.
type policies struct {
	mu   sync.Mutex
	kept map[string]*shared // by its JSON
}

// A shared is a policy that loops have in common. It is never changed.
type shared struct {
	policy Policy
	json   string // as a record holds it
	users  int    // with the lock of policies held
}

// take returns p as it is kept. drop gives it back.
func (s *policies) take(p Policy) *shared {
	b, err := p.MarshalJSON()
	if err != nil {
		panic(err) // a policy can be written
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	one := s.kept[string(b)]
	if one == nil {
		one = &shared{policy: p, json: string(b)}
		if s.kept == nil {
			s.kept = make(map[string]*shared)
		}
		s.kept[one.json] = one
	}
	one.users++
	return one
}

func (s *policies) drop(one *shared) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if one.users--; one.users == 0 {
		delete(s.kept, one.json)
	}
}
