package instance

import (
	"time"

	"github.com/halevm/hale/internal/health"
	"github.com/halevm/hale/internal/machine"
)

// A State is where an instance is in its life. The values are the API's.
type State string

// The states. Initializing is from the machine's start until the guest agent is ready and the program has been started;
// then Running.
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
	Entrypoint  []string          `json:"entrypoint,omitempty"` // nil: the image's
	Cmd         []string          `json:"cmd,omitempty"`        // nil: the image's
	Env         map[string]string `json:"env,omitempty"`
	VCPUs       int               `json:"vcpus"`
	Memory      Size              `json:"memory"`
	Overlay     Size              `json:"overlay"`
	NoNetwork   bool              `json:"no_network,omitempty"`
	Ports       []machine.Port    `json:"ports,omitempty"`
	Tags        map[string]string `json:"tags,omitempty"`
	// HealthCheck is the request's; nil: it had none (the image's HEALTHCHECK applies, once that is built).
	HealthCheck *health.Policy `json:"health_check,omitempty"`
	ExpiresAt   time.Time      `json:"expires_at,omitzero"` // deleted then
}

// An Instance is one instance as it was published last: a value, never changed after it was handed out.
type Instance struct {
	ID        string    `json:"id"`
	Spec      Spec      `json:"spec"`
	State     State     `json:"state"`
	Since     time.Time `json:"since"` // entry into State
	CreatedAt time.Time `json:"created_at"`
	StartedAt time.Time `json:"started_at,omitzero"` // the last run's
	RunningAt time.Time `json:"running_at,omitzero"`
	StoppedAt time.Time `json:"stopped_at,omitzero"`
	Run       uint64    `json:"run"` // grows by one at each start
	// Exit is how the last run ended; nil while one is on, or before the first.
	Exit  *machine.Exit  `json:"exit,omitempty"`
	IP    string         `json:"ip,omitempty"`
	MAC   string         `json:"mac,omitempty"`
	Ports []machine.Port `json:"ports,omitempty"` // as they are published now
}
