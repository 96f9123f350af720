package health

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"strings"
	"time"
)

// A Type is a kind of check.
type Type string

// The types of check.
const (
	TypeNone Type = "none"
	TypeHTTP Type = "http"
	TypeTCP  Type = "tcp"
	TypeExec Type = "exec"
	TypeGRPC Type = "grpc"
)

// A Policy is a checked health_check with its defaults filled in. Only Parse (and UnmarshalJSON, for records and for the protocol
// of the process that probes) makes one; its zero value is "no policy". It is immutable, what it points to included.
type Policy struct {
	Type             Type
	Interval         time.Duration // from the end of one probe to the start of the next
	Timeout          time.Duration // longest time one probe may take
	StartPeriod      time.Duration // grace, from the entry into Running
	StartInterval    time.Duration // pace inside the grace; 0: adaptive
	ConfirmInterval  time.Duration // pace at an edge; 0: follows from Interval
	FailureThreshold int
	SuccessThreshold int
	HTTP             *HTTPCheck // exactly one of these four is set, that of Type; none for TypeNone
	TCP              *TCPCheck
	Exec             *ExecCheck
	GRPC             *GRPCCheck
}

// HTTPCheck asks the guest over HTTP/1.1.
type HTTPCheck struct {
	Port             uint16
	Path             string // with its query
	Scheme           string // http, https
	Method           string // GET, HEAD, POST
	Headers          map[string]string
	ExpectedStatus   int      // 0 where ExpectedStatuses is given
	ExpectedStatuses []string // codes and ranges, "200-299"
	BodyContains     string
	TLSSkipVerify    bool
	TLSServerName    string
}

// TCPCheck succeeds when the connection opens.
type TCPCheck struct{ Port uint16 }

// ExecCheck runs a command in the guest; exit 0 succeeds.
type ExecCheck struct {
	Command    []string
	WorkingDir string            // "": the image's
	Env        map[string]string // added to the image's
	User       string            // "": the image's
}

// MaxService is the longest name of a service that a grpc check asks for, in bytes.
const MaxService = 1024

// GRPCCheck asks grpc.health.v1; SERVING succeeds.
type GRPCCheck struct {
	Port    uint16
	Service string
}

// Disabled reports whether nothing is to be probed (the zero Policy, or type none).
func (p Policy) Disabled() bool { return p.Type == "" || p.Type == TypeNone }

// NeedsNetwork reports whether the check goes through the instance's network.
func (p Policy) NeedsNetwork() bool {
	return p.Type == TypeHTTP || p.Type == TypeTCP || p.Type == TypeGRPC
}

// Port returns the port in the guest that the check asks; 0 for one that asks none.
func (p Policy) Port() uint16 {
	switch {
	case p.HTTP != nil:
		return p.HTTP.Port
	case p.TCP != nil:
		return p.TCP.Port
	case p.GRPC != nil:
		return p.GRPC.Port
	}
	return 0
}

// queues reports whether a probe costs CPU to begin: a TLS handshake, or a program that is started.
func (p Policy) queues() bool {
	return p.Type == TypeExec || p.HTTP != nil && p.HTTP.Scheme == "https"
}

// Equal reports whether two policies are equal after defaults, those that answers leave out included.
func (p Policy) Equal(q Policy) bool {
	return p.Type == q.Type && p.Interval == q.Interval && p.Timeout == q.Timeout && p.StartPeriod == q.StartPeriod &&
		p.StartInterval == q.StartInterval && p.confirm() == q.confirm() &&
		p.FailureThreshold == q.FailureThreshold && p.SuccessThreshold == q.SuccessThreshold &&
		same(p.HTTP, q.HTTP, HTTPCheck.equal) && same(p.Exec, q.Exec, ExecCheck.equal) &&
		same(p.TCP, q.TCP, func(a, b TCPCheck) bool { return a == b }) &&
		same(p.GRPC, q.GRPC, func(a, b GRPCCheck) bool { return a == b })
}

// sum returns a number that tells policies apart which are not equal, in hexadecimal; "" where nothing is checked. It is in the event
// log, so it stays what it is from one version to the next as long as the policy's JSON does.
func (p Policy) sum() string {
	if p.Disabled() {
		return ""
	}
	if p.ConfirmInterval == p.defaultConfirm() { // equal policies have one sum
		p.ConfirmInterval = 0
	}
	b, err := p.MarshalJSON()
	if err != nil {
		panic(err) // a policy can be written
	}
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:8])
}

func same[T any](a, b *T, equal func(T, T) bool) bool {
	if a == nil || b == nil {
		return a == b
	}
	return equal(*a, *b)
}

func (c HTTPCheck) equal(d HTTPCheck) bool {
	return c.Port == d.Port && c.Path == d.Path && c.Scheme == d.Scheme && c.Method == d.Method &&
		maps.Equal(c.Headers, d.Headers) && c.ExpectedStatus == d.ExpectedStatus &&
		slices.Equal(c.ExpectedStatuses, d.ExpectedStatuses) && c.BodyContains == d.BodyContains &&
		c.TLSSkipVerify == d.TLSSkipVerify && c.TLSServerName == d.TLSServerName
}

func (c ExecCheck) equal(d ExecCheck) bool {
	return slices.Equal(c.Command, d.Command) && c.WorkingDir == d.WorkingDir && maps.Equal(c.Env, d.Env) && c.User == d.User
}

// confirm returns the pace of confirming probes at an edge.
func (p Policy) confirm() time.Duration {
	if p.ConfirmInterval != 0 {
		return p.ConfirmInterval
	}
	return p.defaultConfirm()
}

func (p Policy) defaultConfirm() time.Duration {
	return min(p.Interval, max(p.Interval/10, time.Second))
}

// A Fault is one thing wrong with a policy.
type Fault struct {
	Field   string // the full path: "health_check.http.port"
	Message string // what is accepted
}

// A PolicyError is a policy that was refused, with everything that was wrong with it.
type PolicyError struct{ Faults []Fault }

func (e *PolicyError) Error() string {
	var b strings.Builder
	for i, f := range e.Faults {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(f.Field + ": " + f.Message)
	}
	return b.String()
}
