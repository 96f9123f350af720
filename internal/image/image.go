package image

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// A Status says how far an image is. The values are the API's.
type Status string

// The statuses, in the order in which an image passes through them.
const (
	Pending    Status = "pending"    // waits for its turn; QueuePosition says how many are before it and itself
	Pulling    Status = "pulling"    // is being fetched
	Converting Status = "converting" // its layers are here and become a disk
	Ready      Status = "ready"      // machines can start from it
	Failed     Status = "failed"     // Error says why
)

// A Phase is the part of an import that Progress counts.
type Phase string

// The phases of an import. Each counts bytes.
const (
	Receiving Phase = "receiving" // of the archive; the total is 0 where it is not known beforehand
	Inflating Phase = "inflating" // of the layers as they are stored in the archive
	Writing   Phase = "writing"   // of the files on the disk
)

// Progress is how far a phase is. Total is 0 where nobody knows it.
type Progress struct {
	Phase Phase
	Done  int64
	Total int64
}

func (p Progress) String() string { return fmt.Sprintf("%s %d/%d", p.Phase, p.Done, p.Total) }

// An Image is one named image, as it was when the store was asked. It is a value: nothing changes it afterwards, and
// nobody may change what its slices and maps hold.
type Image struct {
	Ref           string // normalised, "docker.io/library/nginx:latest"
	Digest        string // of the manifest, "sha256:…"; empty until it is known
	Status        Status
	Error         string // why it failed
	Cause         error  // why it failed, as Pull would have returned it
	FailedAt      time.Time
	QueuePosition *int // while pending, from 1
	Progress      Progress
	Platform      string // "linux/amd64"
	CreatedAt     time.Time
	Size          int64  // of the disk, in bytes that it takes on the host
	Disk          string // absolute path of the read-only ext4; empty until it is ready
	Tags          map[string]string

	Config // what the image says of its program; zero until it is ready
}

// A Config is what an image says of its program, from its configuration (OCI image-spec, config.md).
type Config struct {
	Entrypoint   []string
	Cmd          []string
	Env          []string // KEY=value
	WorkingDir   string
	User         string // user[:group], names or numbers, resolved in the image
	StopSignal   string
	ExposedPorts []string // "80/tcp", sorted
	Labels       map[string]string
	Shell        []string
	// Healthcheck is the image's HEALTHCHECK exactly as its configuration has it, StartInterval included; nil without.
	Healthcheck json.RawMessage
}

// amd64 is the one platform that images are taken for.
const amd64 = "linux/amd64"

// A configFile is the part of an image's configuration that matters here. (v1.ConfigFile drops StartInterval.)
type configFile struct {
	OS           string    `json:"os"`
	Architecture string    `json:"architecture"`
	RootFS       v1.RootFS `json:"rootfs"`
	Config       struct {
		Entrypoint, Cmd, Env, Shell  []string
		WorkingDir, User, StopSignal string
		ExposedPorts                 map[string]struct{}
		Labels                       map[string]string
		Healthcheck                  json.RawMessage
	} `json:"config"`
}

// parseConfig reads an image's configuration. What it refuses is an *api.Error.
func parseConfig(data []byte) (configFile, error) {
	var c configFile
	if err := json.Unmarshal(data, &c); err != nil {
		return c, invalid("the image's configuration is not readable: %v", err)
	}
	if p := c.OS + "/" + c.Architecture; p != amd64 {
		if p == "/" {
			p = "no platform"
		}
		return c, invalidPlatform("the image is for %s; only %s runs here", p, amd64)
	}
	if bytes.Equal(c.Config.Healthcheck, []byte("null")) {
		c.Config.Healthcheck = nil
	}
	return c, nil
}

// bounded refuses lists that nobody needs: they are kept in memory for as long as the image is here.
func (c configFile) bounded(most int) error {
	p := c.Config
	for name, n := range map[string]int{
		"Entrypoint": len(p.Entrypoint), "Cmd": len(p.Cmd), "Env": len(p.Env), "Shell": len(p.Shell), "ExposedPorts": len(p.ExposedPorts), "Labels": len(p.Labels),
	} {
		if n > most {
			return tooLarge("too large: the image's configuration has %d entries in %s; %d are possible", n, name, most)
		}
	}
	return nil
}

func (c configFile) program() Config {
	p := c.Config
	return Config{
		Entrypoint: p.Entrypoint, Cmd: p.Cmd, Env: p.Env, Shell: p.Shell,
		WorkingDir: p.WorkingDir, User: p.User, StopSignal: p.StopSignal,
		ExposedPorts: slices.Sorted(maps.Keys(p.ExposedPorts)), Labels: p.Labels, Healthcheck: p.Healthcheck,
	}
}
