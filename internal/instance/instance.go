// Package instance is the record and the lifecycle of every instance of one host: what it was asked to be, the state
// that it is in, and the one goroutine that moves it from state to state.
//
// Concurrency. One goroutine owns each instance and does one thing at a time; calls queue behind it, and an operation
// that has begun is finished also when its caller goes away. Find, List, Machine and Changed return what was published
// last, as a value, and wait for nobody. Whoever learns of a change from the event log finds it published.
//
// Durability. A change is written in three steps: the next record is prepared beside the present one, the event is appended
// to the log, and the record is put in place. The append is the commit. After a crash before it the prepared record is
// dropped and nothing happened; after a crash behind it Open finds the event in the log and puts the record in place. An exit that cannot be
// written (a full disk) is published all the same, and written when there is room. The directory of an instance is the
// instance: one that is made but was never committed is removed at Open, and one that is gone never comes back.
//
// What it does not know: how a machine is run (Driver), where images come from (Images), whether the work inside is well
// (internal/health), and how its answers travel.
package instance

import (
	"net/netip"
	"strings"
	"time"
	"unicode"

	"github.com/halevm/hale/internal/health"
	"github.com/halevm/hale/internal/machine"
)

// A State is where an instance is in its life. The values are the API's.
type State string

// The states. Initializing is from the machine's start until the guest agent is ready and the program has been started;
// then Running, also while the machine stands still because the host's disk is full: its log and its health tell of that.
const (
	Created      State = "Created"
	Initializing State = "Initializing"
	Running      State = "Running"
	Paused       State = "Paused"
	Shutdown     State = "Shutdown"
	Stopped      State = "Stopped"
	Standby      State = "Standby"
	Unknown      State = "Unknown"
)

// A Spec is what a person asked for, checked.
type Spec struct {
	Name        string            `json:"name"`
	Image       string            `json:"image"`        // normalised reference: "docker.io/library/nginx:latest"
	ImageDigest string            `json:"image_digest"` // sha256:…, of the manifest; fixed at create
	Platform    string            `json:"platform,omitempty"`
	Entrypoint  []string          `json:"entrypoint,omitzero"` // nil: the image's; empty: none
	Cmd         []string          `json:"cmd,omitzero"`        // nil: the image's, unless an entrypoint is given; empty: none
	Env         map[string]string `json:"env,omitempty"`
	VCPUs       int               `json:"vcpus"`
	Memory      Size              `json:"memory"`
	Overlay     Size              `json:"overlay"`
	NoNetwork   bool              `json:"no_network,omitempty"`
	NoOutbound  bool              `json:"no_outbound,omitempty"` // reaches nothing outside, names included
	AllowNets   []netip.Prefix    `json:"allow_nets,omitempty"`  // private ranges that it may reach, beside Config.AllowNets
	Ports       []machine.Port    `json:"ports,omitempty"`
	Tags        map[string]string `json:"tags,omitempty"`
	// HealthCheck is the request's; nil: it had none, and the image's applies.
	HealthCheck *health.Policy `json:"health_check,omitempty"`
	// Override, of a create, makes HealthCheck out of the image's check; no record has it.
	Override *health.Override `json:"-"`
	// ImageCheck is what the image's HEALTHCHECK said at create; nil: nothing.
	ImageCheck *health.Policy `json:"image_check,omitempty"`
	ExpiresAt  time.Time      `json:"expires_at,omitzero"` // deleted then
	refused    []error        // what a record says and this version does not accept, until it was told
}

// A Source says where a policy comes from.
type Source string

// The sources, as the API has them.
const (
	FromRequest Source = "request"
	FromImage   Source = "image"
)

// Policy is the health check in force, and where it comes from; the zero Policy and "" where there is none.
func (s Spec) Policy() (health.Policy, Source) {
	switch {
	case s.HealthCheck != nil:
		return *s.HealthCheck, FromRequest
	case s.ImageCheck != nil:
		return *s.ImageCheck, FromImage
	}
	return health.Policy{}, ""
}

// An Instance is one instance as it was published last: a value, never changed after it was handed out.
type Instance struct {
	ID    string    `json:"id"`
	Spec  Spec      `json:"spec"`
	State State     `json:"state"`
	Since time.Time `json:"since"` // entry into State
	// Entered is the same by the monotonic clock, where it was this process that saw it: the other clock may have been set since. Zero: it was not.
	Entered   time.Time `json:"-"`
	CreatedAt time.Time `json:"created_at"`
	StartedAt time.Time `json:"started_at,omitzero"` // the last run's
	RunningAt time.Time `json:"running_at,omitzero"`
	StoppedAt time.Time `json:"stopped_at,omitzero"`
	Run       uint64    `json:"run"` // grows by one at each start
	// Boots is how many boots the last start took, up to now, and BootedAt when the last of them began: see Config.BootRetries.
	Boots    int       `json:"boots,omitempty"`
	BootedAt time.Time `json:"booted_at,omitzero"`
	// Agent says that the guest agent has said HELLO in this run. It is the machine's word, and is in no record: after a restart of
	// the daemon it comes with the machine.
	Agent bool `json:"-"`
	// Network says the same of the first frame from the guest.
	Network bool `json:"-"`
	// Unreachable is why the machine of an instance that is Unknown cannot be reached, as it was tried last; in no record.
	Unreachable string `json:"-"`
	// Exit is how the last run ended; nil while one is on, or before the first.
	Exit  *machine.Exit  `json:"exit,omitempty"`
	IP    string         `json:"ip,omitempty"`
	MAC   string         `json:"mac,omitempty"`
	Ports []machine.Port `json:"ports,omitempty"` // as they are published now
}

// Active reports whether a machine belongs to the state: memory is taken, and a driver has work.
func (s State) Active() bool {
	switch s {
	case Initializing, Running, Paused, Shutdown, Unknown:
		return true
	}
	return false
}

// StateError is why the instance is stopped, for a person, where that was nobody's wish: "" for a program that ended with 0, or an
// instance that was stopped on request. Of one that is Unknown it is why its machine cannot be reached. The console's last lines follow a boot that failed. What came from the guest in it is as it came.
func (i Instance) StateError() string {
	if i.State == Unknown {
		return i.Unreachable
	}
	e := i.Exit
	switch {
	case e == nil || i.State != Stopped || e.Reason == machine.Stopped || e.Reason == machine.Killed && e.Message == neverAsked,
		e.Reason == machine.ProgramExited && e.Code != nil && *e.Code == 0:
		return ""
	}
	words := e.Message
	if e.Console != "" {
		words += "\n" + e.Console
	}
	return words
}

// why is an exit in one line, without control characters: its reason, and what there is to say of it.
func why(e machine.Exit) string {
	if e.Message == "" || e.Message == string(e.Reason) {
		return string(e.Reason)
	}
	return string(e.Reason) + ": " + oneLine(e.Message)
}

func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case unicode.IsControl(r):
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "\ufffd"))
}
