package instance

import (
	"crypto/rand"
	"fmt"
	"path"
	"regexp"
	"strings"

	"github.com/halevm/hale/api"
)

const (
	idLength      = 24
	maxName       = 63
	minDelete     = 6 // characters of an id that Delete wants
	letters       = "abcdefghijklmnopqrstuvwxyz"
	alphanumerics = letters + "0123456789"
)

var (
	idPattern   = regexp.MustCompile(`^[a-z][a-z0-9]{23}$`)
	namePattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`)
)

// newID returns an id that looks like a CUID2: 24 of a-z and 0-9, of which the first is a letter.
func newID() string { return random(letters, 1) + random(alphanumerics, idLength-1) }

// random draws n characters, each with the same chance.
func random(alphabet string, n int) string {
	out := make([]byte, 0, n)
	buf := make([]byte, 2*n)
	fair := byte(256/len(alphabet)*len(alphabet) - 1)
	for len(out) < n {
		rand.Read(buf) // never fails
		for _, b := range buf {
			if b <= fair && len(out) < n {
				out = append(out, alphabet[int(b)%len(alphabet)])
			}
		}
	}
	return string(out)
}

// newName makes a name for an instance of that image: "nginx-x4k2".
func newName(image string) string {
	base := path.Base(image)
	if i := strings.IndexAny(base, ":@"); i >= 0 {
		base = base[:i]
	}
	base = strings.Trim(strings.Map(func(r rune) rune {
		if strings.ContainsRune(alphanumerics+"-", r) {
			return r
		}
		return '-'
	}, strings.ToLower(base)), "-")
	if base == "" {
		base = "instance"
	}
	if len(base) > 40 {
		base = strings.TrimRight(base[:40], "-")
	}
	return base + "-" + random(alphanumerics, 4)
}

// ValidName reports whether a person may give an instance that name.
func ValidName(name string) bool { return len(name) <= maxName && namePattern.MatchString(name) }

// resolve finds the owner that ref names: by id, then by name, then by a prefix of an id that only one has. The
// caller holds s.mu.
func (s *Set) resolve(ref string) (*owner, error) {
	if o := s.owners[ref]; o != nil && o.visible {
		return o, nil
	}
	if id, ok := s.names[ref]; ok {
		if o := s.owners[id]; o.visible {
			return o, nil
		}
	}
	var found []*owner
	if ref != "" {
		for id, o := range s.owners {
			if o.visible && strings.HasPrefix(id, ref) {
				found = append(found, o)
			}
		}
	}
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("there is no instance %q: %w", clip(ref), api.NotFound)
	case 1:
		return found[0], nil
	}
	e := &api.Error{Kind: api.Invalid, Code: "ambiguous_reference", NoRetry: true,
		Message: fmt.Sprintf("%q is the beginning of %d ids: give more of it, or a name", clip(ref), len(found))}
	sortOwners(found)
	for _, o := range found[:min(len(found), 10)] {
		e.Details = append(e.Details, api.Detail{Code: "candidate", Field: "id", Message: o.id + " (" + o.now.Spec.Name + ")"})
	}
	return nil, e
}

// clip bounds what a client gave, for a message.
func clip(s string) string {
	if len(s) > 80 {
		return strings.ToValidUTF8(s[:80], "") + "…"
	}
	return s
}
