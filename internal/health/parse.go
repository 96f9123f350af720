package health

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// root is the name of a policy in requests and answers; every fault's field begins with it.
const root = "health_check"

// MaxBody is how much of an answer's body a check reads, in bytes.
const MaxBody = 64 << 10

// What an http check may say of other things. No policy has more than maxPolicy bytes of JSON, so that it fits whole wherever one is
// kept or sent (a request, a record, a frame to the process that probes: a MiB each) with whatever is beside it.
const (
	maxPath       = 8 << 10
	maxServerName = 253
	maxStatuses   = 64
	maxPolicy     = 512 << 10
)

// What is used where a field is unset.
const (
	defaultInterval    = 10 * time.Second
	defaultTimeout     = 2 * time.Second // or the interval, if that is shorter
	defaultStartPeriod = 30 * time.Second
)

// Parse reads and checks a health_check as it came over the wire and fills its defaults in. null is no policy. An error is a
// *PolicyError that names every fault.
func Parse(raw json.RawMessage) (Policy, error) {
	var faults []Fault
	p := parse(reader{path: root, faults: &faults}, raw)
	if len(faults) > 0 {
		return Policy{}, &PolicyError{Faults: faults}
	}
	return p, nil
}

// A Recorded is a policy as a record holds it that says much else, which an earlier version may have written under other bounds. One that
// this version refuses is of type none, and Refused says why: the reader tells a person, and keeps the rest.
type Recorded struct {
	Policy  Policy
	Refused error // a *PolicyError
}

// UnmarshalJSON never fails.
func (r *Recorded) UnmarshalJSON(b []byte) error {
	p, err := Parse(b)
	if err != nil {
		p = Policy{Type: TypeNone}
	}
	*r = Recorded{p, err}
	return nil
}

// UnmarshalJSON reads a policy from a record, as Parse does.
func (p *Policy) UnmarshalJSON(b []byte) error {
	q, err := Parse(b)
	if err != nil {
		return err
	}
	*p = q
	return nil
}

func parse(top reader, raw json.RawMessage) Policy {
	if string(bytes.TrimSpace(raw)) == "null" {
		return Policy{}
	}
	r, ok := top.open(raw)
	if !ok {
		return Policy{}
	}
	p := Policy{Type: Type(r.oneOf("type", "", "none", "http", "tcp", "exec", "grpc"))}
	if p.Type == TypeNone {
		return p
	}
	p = r.pace(p)
	p = r.blocks(p)
	r.end()
	return p
}

// pace reads the durations and thresholds.
func (r reader) pace(p Policy) Policy {
	const ms, day = time.Millisecond, 24 * time.Hour
	p.Interval = r.duration("interval", defaultInterval, 100*ms, day)
	p.Timeout = r.duration("timeout", min(defaultTimeout, p.Interval), ms, time.Hour)
	p.StartPeriod = r.duration("start_period", defaultStartPeriod, 0, day)
	p.StartInterval = r.within("start_interval", p.Interval)
	p.ConfirmInterval = r.within("confirm_interval", p.Interval)
	p.FailureThreshold = r.threshold("failure_threshold", 3)
	p.SuccessThreshold = r.threshold("success_threshold", 1)
	return p
}

// blocks reads the one block that says what is asked, and infers the type from it.
func (r reader) blocks(p Policy) Policy {
	var present []Type
	for _, t := range []Type{TypeHTTP, TypeTCP, TypeExec, TypeGRPC} {
		b, ok := r.block(string(t))
		if !ok {
			continue
		}
		present = append(present, t)
		switch t {
		case TypeHTTP:
			p.HTTP = b.http()
		case TypeTCP:
			p.TCP = &TCPCheck{Port: b.port()}
		case TypeExec:
			p.Exec = b.exec()
		case TypeGRPC:
			p.GRPC = b.grpc()
		}
		b.end()
	}
	switch {
	case len(present) > 1:
		r.fault("", "at most one of http, tcp, exec and grpc is accepted")
	case len(present) == 0 && p.Type == "" && !r.faulty("type"):
		r.fault("", "one of http, tcp, exec and grpc is required, or type none")
	case len(present) == 0 && p.Type != "":
		r.fault(string(p.Type), "is required for type "+string(p.Type))
	case len(present) == 1 && p.Type == "":
		p.Type = present[0]
	case len(present) == 1 && p.Type != present[0]:
		r.fault(string(present[0]), fmt.Sprintf("does not belong to type %s; a block named %s is required", p.Type, p.Type))
	}
	return p
}

func (r reader) grpc() *GRPCCheck {
	c := &GRPCCheck{Port: r.port(), Service: r.str("service")}
	if len(c.Service) > MaxService {
		r.fault("service", fmt.Sprintf("must be at most %d bytes", MaxService))
	}
	return c
}

func (r reader) http() *HTTPCheck {
	c := &HTTPCheck{
		Port:          r.port(),
		Path:          r.urlPath(),
		Scheme:        r.oneOf("scheme", "http", "http", "https"),
		Method:        r.oneOf("method", "GET", "GET", "HEAD", "POST"),
		Headers:       r.headers(),
		BodyContains:  r.str("body_contains"),
		TLSSkipVerify: r.boolean("tls_skip_verify", true),
		TLSServerName: r.str("tls_server_name"),
	}
	if len(c.TLSServerName) > maxServerName {
		r.fault("tls_server_name", fmt.Sprintf("must be at most %d bytes, as a name in DNS is", maxServerName))
	}
	if len(c.BodyContains) > MaxBody {
		r.fault("body_contains", fmt.Sprintf("must be at most %d bytes: no more of a body is read", MaxBody))
	}
	if c.Method == "HEAD" && c.BodyContains != "" && !r.faulty("body_contains") {
		r.fault("body_contains", "wants the method GET or POST: the answer to HEAD has no body")
	}
	status, given := r.integer("expected_status", 200, 599)
	c.ExpectedStatuses = r.statuses("expected_statuses")
	switch {
	case given && len(c.ExpectedStatuses) > 0:
		r.fault("expected_statuses", "excludes expected_status: give one of the two")
	case given:
		c.ExpectedStatus = status
	case len(c.ExpectedStatuses) == 0:
		c.ExpectedStatus = 200
	}
	return c
}

func (r reader) exec() *ExecCheck {
	c := &ExecCheck{
		Command:    r.strs("command"),
		WorkingDir: r.str("working_dir"),
		Env:        r.strMap("env"),
		User:       r.str("user"),
	}
	if (len(c.Command) == 0 || c.Command[0] == "") && !r.faulty("command") {
		r.fault("command", "is required: a program and its arguments, as an array of strings that is not empty")
	}
	// What no program can be given would only fail at every probe.
	for _, arg := range c.Command {
		if strings.ContainsRune(arg, 0) && !r.faulty("command") {
			r.fault("command", "must hold no NUL")
		}
	}
	if strings.ContainsRune(c.WorkingDir, 0) || c.WorkingDir != "" && !strings.HasPrefix(c.WorkingDir, "/") {
		r.fault("working_dir", "must be an absolute path without NUL")
	}
	if strings.ContainsRune(c.User, 0) {
		r.fault("user", "must hold no NUL")
	}
	for name, value := range c.Env {
		if (name == "" || strings.ContainsAny(name, "=\x00") || strings.ContainsRune(value, 0)) && !r.faulty("env") {
			r.fault("env", "must have names without = and NUL that are not empty, and values without NUL")
		}
	}
	r.execSize(c)
	return c
}

// maxExec bounds all that an exec check says, in bytes. Written down it is six times as long at the worst, which still fits into what a
// guest can be told at once (256 KiB).
const maxExec = 32 << 10

// execSize refuses, by its largest part, what no guest can be told.
func (r reader) execSize(c *ExecCheck) {
	parts := []struct {
		name string
		size int
	}{{"command", 0}, {"env", 0}, {"working_dir", len(c.WorkingDir)}, {"user", len(c.User)}}
	for _, arg := range c.Command {
		parts[0].size += len(arg) + 1
	}
	for name, value := range c.Env {
		parts[1].size += len(name) + len(value) + 2
	}
	total, largest := 0, parts[0]
	for _, p := range parts {
		total += p.size
		if p.size > largest.size {
			largest = p
		}
	}
	if total > maxExec && !r.faulty(largest.name) {
		r.fault(largest.name, fmt.Sprintf("must be shorter: command, env, working_dir and user have at most %d bytes together", maxExec))
	}
}

func (r reader) threshold(name string, unset int) int {
	if string(r.fields[name]) == "0" {
		r.known[name] = true
		return unset
	}
	n, ok := r.integer(name, 1, 1000)
	if !ok {
		return unset
	}
	return n
}

func (r reader) port() uint16 {
	n, ok := r.integer("port", 1, 65535)
	if !ok && !r.faulty("port") {
		r.fault("port", "is required: a whole number from 1 to 65535")
	}
	return uint16(n)
}

// within reads a duration that may not be longer than the interval, 0 where it is unset.
func (r reader) within(name string, interval time.Duration) time.Duration {
	const lo = 50 * time.Millisecond
	if r.faulty("interval") {
		interval = 24 * time.Hour
	}
	before := len(*r.faults)
	d := r.duration(name, 0, lo, interval)
	if len(*r.faults) > before && !r.faulty("interval") {
		(*r.faults)[before].Message += " (the interval)"
	}
	return d
}

func (r reader) urlPath() string {
	s := r.str("path")
	if s == "" {
		return "/"
	}
	if s[0] != '/' || strings.ContainsFunc(s, func(c rune) bool { return unicode.IsSpace(c) || unicode.IsControl(c) }) {
		r.fault("path", "must start with / and hold no space and no control character; it may hold a query")
		return "/"
	}
	if len(s) > maxPath {
		r.fault("path", fmt.Sprintf("must be at most %d bytes, with its query", maxPath))
		return "/"
	}
	return s
}

// notAllowed are headers that say how the request is framed, which is not for a policy to decide.
var notAllowed = []string{"content-length", "transfer-encoding", "connection"}

func (r reader) headers() map[string]string {
	const most, mostBytes = 64, 8 << 10
	h := r.strMap("headers")
	size := 0
	for _, name := range slices.Sorted(maps.Keys(h)) {
		size += len(name) + len(h[name])
		field := "headers." + printable(cutHead(name, 64))
		switch {
		case !token(name):
			r.fault(field, "a header's name must be a token of RFC 9110: letters, digits and !#$%&'*+-.^_`|~")
		case slices.Contains(notAllowed, strings.ToLower(name)):
			r.fault(field, "Content-Length, Transfer-Encoding and Connection cannot be set")
		case strings.ContainsAny(h[name], "\r\n\x00"):
			r.fault(field, "a header's value must hold no CR, LF or NUL")
		}
	}
	if len(h) > most || size > mostBytes {
		r.fault("headers", fmt.Sprintf("must be at most %d, and 8 KiB in all", most))
	}
	return h
}

// token reports whether s is a token of RFC 9110.
func token(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c >= 0x80 || c <= ' ' || c == 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return false
		}
	}
	return s != ""
}

// statuses reads codes and ranges; a code may be a number too.
func (r reader) statuses(name string) []string {
	const kind = `an array of codes and ranges from 200 to 599, such as 204 and "200-299"`
	var elems []json.RawMessage
	r.get(name, kind, &elems)
	if len(elems) > maxStatuses {
		r.fault(name, fmt.Sprintf("must be at most %d codes and ranges", maxStatuses))
		return nil
	}
	var list []string
	for _, e := range elems {
		s := string(e)
		if strings.HasPrefix(s, `"`) && json.Unmarshal(e, &s) != nil {
			s = ""
		}
		if _, _, err := statusRange(s); err != nil {
			r.fault(name, "must be "+kind)
			return nil
		}
		list = append(list, s)
	}
	return list
}

var errStatus = errors.New("not a status or a range of them")

// statusRange reads "204" or "200-299".
func statusRange(s string) (lo, hi int, err error) {
	a, b, ranged := strings.Cut(s, "-")
	if !ranged {
		b = a
	}
	if len(a) != 3 || len(b) != 3 {
		return 0, 0, errStatus
	}
	lo, err1 := strconv.Atoi(a)
	hi, err2 := strconv.Atoi(b)
	if err1 != nil || err2 != nil || lo < 200 || hi > 599 || lo > hi {
		return 0, 0, errStatus
	}
	return lo, hi, nil
}

// Expects reports whether an answer with this status is the expected one.
func (c HTTPCheck) Expects(status int) bool {
	for _, s := range c.ExpectedStatuses {
		if lo, hi, err := statusRange(s); err == nil && lo <= status && status <= hi {
			return true
		}
	}
	return status == c.ExpectedStatus
}
