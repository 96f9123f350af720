package health

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// A reader reads the fields of one object, and collects what is wrong with them.
type reader struct {
	path   string
	fields map[string]json.RawMessage // those that are present and not null
	known  map[string]bool
	faults *[]Fault
}

// open reads raw as an object.
func (r reader) open(raw json.RawMessage) (reader, bool) {
	if err := json.Unmarshal(raw, &r.fields); err != nil || r.fields == nil {
		r.fault("", "must be an object")
		return r, false
	}
	maps.DeleteFunc(r.fields, func(_ string, v json.RawMessage) bool { return string(v) == "null" })
	r.known = make(map[string]bool)
	return r, true
}

// end names the fields that nobody asked for.
func (r reader) end() {
	for _, name := range slices.Sorted(maps.Keys(r.fields)) {
		if !r.known[name] {
			r.fault(printable(cutHead(name, 64)), "unknown field; accepted are "+strings.Join(slices.Sorted(maps.Keys(r.known)), ", "))
		}
	}
}

func (r reader) field(name string) string {
	if name == "" {
		return r.path
	}
	return r.path + "." + name
}

// maxFaults is how many are told at once: an object of a megabyte may have a hundred thousand.
const maxFaults = 100

func (r reader) fault(name, message string) {
	if len(*r.faults) < maxFaults {
		*r.faults = append(*r.faults, Fault{Field: r.field(name), Message: message})
	}
}

// faulty reports whether a fault of this field was found already.
func (r reader) faulty(name string) bool {
	return slices.ContainsFunc(*r.faults, func(f Fault) bool { return f.Field == r.field(name) })
}

// get decodes a field into v, and reports whether it was present and of the right kind.
func (r reader) get(name, kind string, v any) bool {
	r.known[name] = true
	raw, ok := r.fields[name]
	if !ok {
		return false
	}
	if err := json.Unmarshal(raw, v); err != nil {
		r.fault(name, "must be "+kind)
		return false
	}
	return true
}

func (r reader) str(name string) string {
	var s string
	r.get(name, "a string", &s)
	return s
}

func (r reader) boolean(name string, unset bool) bool {
	b := unset
	if !r.get(name, "true or false", &b) {
		return unset
	}
	return b
}

func (r reader) strs(name string) []string {
	var elems []*string
	r.get(name, "an array of strings", &elems)
	var list []string
	for _, e := range elems {
		if e == nil {
			r.fault(name, "must be an array of strings")
			return nil
		}
		list = append(list, *e)
	}
	return list
}

// strMap reads an object of strings; in it, too, null means absent. An empty one is nil.
func (r reader) strMap(name string) map[string]string {
	var elems map[string]*string
	r.get(name, "an object of strings", &elems)
	var m map[string]string
	for k, v := range elems {
		if v == nil {
			continue
		}
		if m == nil {
			m = make(map[string]string, len(elems))
		}
		m[k] = *v
	}
	return m
}

func (r reader) oneOf(name, unset string, accepted ...string) string {
	s := r.str(name)
	if s == "" {
		return unset
	}
	if !slices.Contains(accepted, s) {
		r.fault(name, "must be one of "+strings.Join(accepted, ", "))
		return unset
	}
	return s
}

func (r reader) integer(name string, lo, hi int) (int, bool) {
	var n int
	kind := fmt.Sprintf("a whole number from %d to %d", lo, hi)
	if !r.get(name, kind, &n) {
		return 0, false
	}
	if n < lo || n > hi {
		r.fault(name, "must be "+kind)
		return 0, false
	}
	return n, true
}

// duration reads a Go duration string from lo to hi. "" means unset, and so does zero where zero is not accepted.
func (r reader) duration(name string, unset, lo, hi time.Duration) time.Duration {
	kind := fmt.Sprintf(`a duration string such as "10s", from %s to %s`, short(lo), short(hi))
	var s string
	if !r.get(name, kind, &s) || s == "" {
		return unset
	}
	d, err := time.ParseDuration(s)
	switch {
	case err == nil && d == 0 && lo > 0:
		return unset
	case err != nil || d < lo || d > hi:
		r.fault(name, "must be "+kind)
		return unset
	}
	return d
}

// short prints a duration as a person would: 24h, not 24h0m0s.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// block reads a nested object, if it is present.
func (r reader) block(name string) (reader, bool) {
	r.known[name] = true
	raw, ok := r.fields[name]
	if !ok {
		return r, false
	}
	b, ok := reader{path: r.field(name), faults: r.faults}.open(raw)
	if !ok {
		b.fields, b.known = nil, map[string]bool{}
	}
	return b, true
}
