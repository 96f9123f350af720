package image

import (
	"encoding/json"
	"log/slog"
	"time"
)

// A Status is how far an image is. The values are the API's.
type Status string

// The statuses. An image that is to be ready some time is pending, pulling or converting; ready and failed stay as they are.
const (
	Pending    Status = "pending"    // waits for its turn to be converted
	Pulling    Status = "pulling"    // its layers are on their way
	Converting Status = "converting" // its disk is being made
	Ready      Status = "ready"      // its disk can be used
	Failed     Status = "failed"     // Error says why
)

// A Phase is a step of an image's way to its disk.
type Phase string

// The phases, in their order.
const (
	Reading   Phase = "reading"   // the archive is read and its parts are checked against their digests
	Unpacking Phase = "unpacking" // the layers are unpacked and checked against the image's configuration
	Writing   Phase = "writing"   // the disk is written
)

// A Progress is how far one phase is.
type Progress struct {
	Ref   string // the image's; "" while the archive has not said what it holds
	Phase Phase
	Done  int64 // bytes
	Total int64 // bytes; 0: not known
}

// An Image is one reference and what it names, as it was when it was asked for: a value, never changed after it was handed out.
type Image struct {
	Ref           string // normalised: "docker.io/library/nginx:latest"
	Digest        string // sha256:…, of the manifest
	Status        Status
	Error         string    // why it failed
	QueuePosition *int      // while pending: 1 is next
	Progress      Progress  // while pulling or converting
	Platform      string    // "linux/amd64"
	CreatedAt     time.Time // when it came to this host under this reference
	Size          int64     // bytes that its disk takes on the host, holes not counted; 0 until it is ready
	Disk          string    // absolute path of its read-only ext4; "" until it is ready
	Tags          map[string]string
	Config
}

// A Config is what an image says about how its program is to be run, verbatim.
type Config struct {
	Entrypoint   []string          `json:"entrypoint,omitempty"`
	Cmd          []string          `json:"cmd,omitempty"`
	Env          []string          `json:"env,omitempty"` // KEY=value
	WorkingDir   string            `json:"working_dir,omitempty"`
	User         string            `json:"user,omitempty"`
	StopSignal   string            `json:"stop_signal,omitempty"`
	Shell        []string          `json:"shell,omitempty"`
	ExposedPorts []string          `json:"exposed_ports,omitempty"` // "80/tcp", sorted
	Labels       map[string]string `json:"labels,omitempty"`
	// Healthcheck is the JSON of the configuration's Healthcheck as it stands there, StartInterval included; nil: none.
	Healthcheck json.RawMessage `json:"healthcheck,omitempty"`
}

// Options are a Store's; the zero value is complete.
type Options struct {
	Log    *slog.Logger
	Limits Limits
	// InUse reports whether something runs or may run from the image with this manifest digest. Such an image is kept when
	// no reference names it any more, until a later change finds it unused. Nil: none is.
	InUse func(digest string) bool
}

// Limits bound what an image may ask of the host; a zero field takes its default.
type Limits struct {
	Archive int64 // bytes of an unpacked archive; 64 GiB
	Files   int   // entries of all layers of an image; 2,000,000
	Data    int64 // bytes of the files of all layers, holes not counted; 16 GiB
	Extent  int64 // bytes of the files with their holes; 128 GiB
	// Ratio is how many times its compressed size the data of an image may take, once it takes more than 256 MiB; 200.
	Ratio int64
	// Conversions is how many disks are made at the same time; 2.
	Conversions int
}

// ImportOptions say what an import is to make of an archive.
type ImportOptions struct {
	Name     string            // the reference to give, instead of what the archive says; needs an archive of one image
	Tags     map[string]string // of the caller's own, for every image of the archive
	Progress func(Progress)    // called now and then, by one goroutine at a time; must not block
}
