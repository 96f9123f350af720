// Code generated from api/openapi.yaml by github.com/oapi-codegen/oapi-codegen/v2 v2.8.2. DO NOT EDIT.

package api

import (
	"encoding/json"
	"time"
)

// Defines values for ExecControlType.
const (
	ExecControlTypeCredit ExecControlType = "credit"
	ExecControlTypeEOF    ExecControlType = "eof"
	ExecControlTypeError  ExecControlType = "error"
	ExecControlTypeExit   ExecControlType = "exit"
	ExecControlTypeResize ExecControlType = "resize"
	ExecControlTypeSignal ExecControlType = "signal"
)

// Valid indicates whether the value is a known member of the ExecControlType enum.
func (e ExecControlType) Valid() bool {
	switch e {
	case ExecControlTypeCredit:
		return true
	case ExecControlTypeEOF:
		return true
	case ExecControlTypeError:
		return true
	case ExecControlTypeExit:
		return true
	case ExecControlTypeResize:
		return true
	case ExecControlTypeSignal:
		return true
	default:
		return false
	}
}

// Defines values for HealthCheckType.
const (
	HealthCheckTypeExec HealthCheckType = "exec"
	HealthCheckTypeGRPC HealthCheckType = "grpc"
	HealthCheckTypeHTTP HealthCheckType = "http"
	HealthCheckTypeNone HealthCheckType = "none"
	HealthCheckTypeTCP  HealthCheckType = "tcp"
)

// Valid indicates whether the value is a known member of the HealthCheckType enum.
func (e HealthCheckType) Valid() bool {
	switch e {
	case HealthCheckTypeExec:
		return true
	case HealthCheckTypeGRPC:
		return true
	case HealthCheckTypeHTTP:
		return true
	case HealthCheckTypeNone:
		return true
	case HealthCheckTypeTCP:
		return true
	default:
		return false
	}
}

// Defines values for HealthCheckHTTPMethod.
const (
	HealthCheckHTTPMethodGET  HealthCheckHTTPMethod = "GET"
	HealthCheckHTTPMethodHEAD HealthCheckHTTPMethod = "HEAD"
	HealthCheckHTTPMethodPOST HealthCheckHTTPMethod = "POST"
)

// Valid indicates whether the value is a known member of the HealthCheckHTTPMethod enum.
func (e HealthCheckHTTPMethod) Valid() bool {
	switch e {
	case HealthCheckHTTPMethodGET:
		return true
	case HealthCheckHTTPMethodHEAD:
		return true
	case HealthCheckHTTPMethodPOST:
		return true
	default:
		return false
	}
}

// Defines values for HealthCheckHTTPScheme.
const (
	HealthCheckHTTPSchemeHTTP  HealthCheckHTTPScheme = "http"
	HealthCheckHTTPSchemeHTTPS HealthCheckHTTPScheme = "https"
)

// Valid indicates whether the value is a known member of the HealthCheckHTTPScheme enum.
func (e HealthCheckHTTPScheme) Valid() bool {
	switch e {
	case HealthCheckHTTPSchemeHTTP:
		return true
	case HealthCheckHTTPSchemeHTTPS:
		return true
	default:
		return false
	}
}

// Defines values for HealthCheckSource.
const (
	HealthCheckSourceImage   HealthCheckSource = "image"
	HealthCheckSourceRequest HealthCheckSource = "request"
)

// Valid indicates whether the value is a known member of the HealthCheckSource enum.
func (e HealthCheckSource) Valid() bool {
	switch e {
	case HealthCheckSourceImage:
		return true
	case HealthCheckSourceRequest:
		return true
	default:
		return false
	}
}

// Defines values for HealthState.
const (
	HealthStateDisabled  HealthState = "disabled"
	HealthStateHealthy   HealthState = "healthy"
	HealthStateStarting  HealthState = "starting"
	HealthStateUnhealthy HealthState = "unhealthy"
	HealthStateUnknown   HealthState = "unknown"
)

// Valid indicates whether the value is a known member of the HealthState enum.
func (e HealthState) Valid() bool {
	switch e {
	case HealthStateDisabled:
		return true
	case HealthStateHealthy:
		return true
	case HealthStateStarting:
		return true
	case HealthStateUnhealthy:
		return true
	case HealthStateUnknown:
		return true
	default:
		return false
	}
}

// Defines values for Hypervisor.
const (
	HypervisorCloudHypervisor Hypervisor = "cloud-hypervisor"
	HypervisorFirecracker     Hypervisor = "firecracker"
	HypervisorQemu            Hypervisor = "qemu"
	HypervisorQemuMicrovm     Hypervisor = "qemu-microvm"
	HypervisorVz              Hypervisor = "vz"
)

// Valid indicates whether the value is a known member of the Hypervisor enum.
func (e Hypervisor) Valid() bool {
	switch e {
	case HypervisorCloudHypervisor:
		return true
	case HypervisorFirecracker:
		return true
	case HypervisorQemu:
		return true
	case HypervisorQemuMicrovm:
		return true
	case HypervisorVz:
		return true
	default:
		return false
	}
}

// Defines values for ImageStatus.
const (
	ImageStatusConverting ImageStatus = "converting"
	ImageStatusFailed     ImageStatus = "failed"
	ImageStatusPending    ImageStatus = "pending"
	ImageStatusPulling    ImageStatus = "pulling"
	ImageStatusReady      ImageStatus = "ready"
)

// Valid indicates whether the value is a known member of the ImageStatus enum.
func (e ImageStatus) Valid() bool {
	switch e {
	case ImageStatusConverting:
		return true
	case ImageStatusFailed:
		return true
	case ImageStatusPending:
		return true
	case ImageStatusPulling:
		return true
	case ImageStatusReady:
		return true
	default:
		return false
	}
}

// Defines values for InstanceState.
const (
	InstanceStateCreated      InstanceState = "Created"
	InstanceStateInitializing InstanceState = "Initializing"
	InstanceStatePaused       InstanceState = "Paused"
	InstanceStateRunning      InstanceState = "Running"
	InstanceStateShutdown     InstanceState = "Shutdown"
	InstanceStateStandby      InstanceState = "Standby"
	InstanceStateStopped      InstanceState = "Stopped"
	InstanceStateUnknown      InstanceState = "Unknown"
)

// Valid indicates whether the value is a known member of the InstanceState enum.
func (e InstanceState) Valid() bool {
	switch e {
	case InstanceStateCreated:
		return true
	case InstanceStateInitializing:
		return true
	case InstanceStatePaused:
		return true
	case InstanceStateRunning:
		return true
	case InstanceStateShutdown:
		return true
	case InstanceStateStandby:
		return true
	case InstanceStateStopped:
		return true
	case InstanceStateUnknown:
		return true
	default:
		return false
	}
}

// Defines values for LogSource.
const (
	LogSourceApp     LogSource = "app"
	LogSourceHypeman LogSource = "hypeman"
	LogSourceVMM     LogSource = "vmm"
)

// Valid indicates whether the value is a known member of the LogSource enum.
func (e LogSource) Valid() bool {
	switch e {
	case LogSourceApp:
		return true
	case LogSourceHypeman:
		return true
	case LogSourceVMM:
		return true
	default:
		return false
	}
}

// AutoStandbyPolicy When an idle instance is put to sleep.
type AutoStandbyPolicy struct {
	// Enabled Whether it is.
	Enabled *bool `json:"enabled,omitempty"`

	// IdleTimeout How long no connection must be open.
	IdleTimeout *string `json:"idle_timeout,omitempty"`

	// IgnoreDestinationPorts Ports whose connections do not count.
	IgnoreDestinationPorts []int `json:"ignore_destination_ports,omitempty"`

	// IgnoreSourceCIDRs Clients whose connections do not count.
	IgnoreSourceCIDRs []string `json:"ignore_source_cidrs,omitempty"`
}

// Capabilities What this server can do.
type Capabilities struct {
	DefaultRuntime CapabilitiesDefaultRuntime `json:"default_runtime"`

	// Features What answers.
	Features []string            `json:"features"`
	Host     CapabilitiesHost    `json:"host"`
	Images   CapabilitiesImages  `json:"images"`
	Network  CapabilitiesNetwork `json:"network"`

	// Runtimes What can run machines.
	Runtimes []CapabilitiesRuntime `json:"runtimes"`
	Server   CapabilitiesServer    `json:"server"`
}

// CapabilitiesDefaultRuntime defines model for Capabilities.default_runtime.
type CapabilitiesDefaultRuntime struct {
	// Available Whether it runs here.
	Available bool `json:"available"`

	// Name Its name.
	//
	// Example: qemu
	Name string `json:"name"`
}

// CapabilitiesHost defines model for Capabilities.host.
type CapabilitiesHost struct {
	// Arch The architecture.
	//
	// Example: amd64
	Arch string `json:"arch"`

	// OS The operating system.
	//
	// Example: linux
	OS string `json:"os"`
}

// CapabilitiesImages defines model for Capabilities.images.
type CapabilitiesImages struct {
	// DefaultPlatform What an image is pulled for unless told.
	DefaultPlatform string `json:"default_platform"`

	// Platforms What can run here.
	Platforms []string `json:"platforms"`
}

// CapabilitiesNetwork defines model for Capabilities.network.
type CapabilitiesNetwork struct {
	// Gateway The gateway that guests see.
	Gateway string `json:"gateway,omitempty"`

	// GuestToGuest Whether instances reach each other.
	GuestToGuest bool `json:"guest_to_guest"`

	// Model This server's is `nat`.
	Model string `json:"model"`

	// Subnet The guests' network.
	Subnet string `json:"subnet,omitempty"`
}

// CapabilitiesRuntime defines model for Capabilities.runtimes.
type CapabilitiesRuntime struct {
	// Accelerator `kvm`, or `tcg` for emulation.
	Accelerator string `json:"accelerator,omitempty"`

	// Available Whether it runs here.
	Available bool `json:"available"`

	// Features What it can do.
	Features []string `json:"features"`

	// Name Its name.
	//
	// Example: qemu
	Name string `json:"name"`
}

// CapabilitiesServer defines model for Capabilities.server.
type CapabilitiesServer struct {
	// APIVersion The version of this description.
	APIVersion string `json:"api_version"`

	// Version The server's version.
	Version string `json:"version"`
}

// Controller One loop of the daemon.
type Controller struct {
	// LastActivity When it last did something; null for one that only hands on what others tell.
	LastActivity *time.Time `json:"last_activity"`

	// Name Its name.
	//
	// Example: health
	Name string `json:"name"`

	// Restarts How often it was started again after a failure.
	Restarts int `json:"restarts"`

	// Running Whether it runs: not before it was started, and not while it waits to be started again.
	Running bool `json:"running"`
}

// CreateImageRequest An image to pull.
type CreateImageRequest struct {
	// Credentials What the registry wants to see. Kept for this one pull, in memory.
	Credentials *RegistryCredentials `json:"credentials,omitempty"`

	// Name An image reference, with a tag or a digest.
	//
	// Example: docker.io/library/nginx:latest
	Name     string   `json:"name"`
	Platform Platform `json:"platform,omitempty"`

	// Tags Keys and values of the caller's own.
	//
	// Example: {"team":"backend"}
	Tags Tags `json:"tags,omitempty"`
}

// CreateInstanceRequest What an instance is to be.
type CreateInstanceRequest struct {
	// AutoStandby When an idle instance is put to sleep.
	AutoStandby *AutoStandbyPolicy `json:"auto_standby,omitempty"`

	// Cmd In place of the image's command; unset, the image's, unless an entrypoint is given.
	Cmd []string `json:"cmd,omitzero"`

	// Credentials Secrets that stay on the host.
	Credentials map[string]CredentialPolicy `json:"credentials,omitempty"`

	// Devices Devices of the host.
	Devices []string `json:"devices,omitempty"`

	// DiskIOBps A limit on disk traffic.
	DiskIOBps string `json:"disk_io_bps,omitempty"`

	// Entrypoint In place of the image's entrypoint; unset, the image's.
	Entrypoint []string `json:"entrypoint,omitzero"`

	// Env Environment variables, added to the image's.
	Env map[string]string `json:"env,omitempty"`

	// ExpiresAt When it is deleted. Excludes `ttl`.
	ExpiresAt *time.Time `json:"expires_at,omitempty"`

	// GPU A GPU for the instance.
	GPU *GPUConfig `json:"gpu,omitempty"`

	// HealthCheck How the work inside is checked. Unset, as the image says; `{"type":"none"}` is not at all.
	HealthCheck json.RawMessage `json:"health_check,omitempty"`

	// HealthCheckOverride Single fields to change of the image's own check. Excludes `health_check`.
	HealthCheckOverride json.RawMessage `json:"health_check_override,omitempty"`

	// HotplugSize Memory that may be added while the machine runs. This server has none to add.
	HotplugSize Size       `json:"hotplug_size,omitempty"`
	Hypervisor  Hypervisor `json:"hypervisor,omitempty"`

	// Image An image reference.
	//
	// Example: docker.io/library/nginx:latest
	Image string `json:"image"`

	// Name Lower-case letters, digits and dashes, neither first nor last a dash, at most 63. Unset, one is made up.
	//
	// Example: web
	Name string `json:"name,omitempty"`

	// Network The network of an instance. It reaches public IPv4 addresses by TCP and UDP, and names through its gateway, unless
	// `outbound` is false. Never: the host's own addresses, loopback, link-local, multicast and broadcast addresses, the metadata
	// services of clouds, other instances. Private ranges (RFC 1918 and 100.64.0.0/10): only those that are allowed.
	Network *InstanceNetworkRequest `json:"network,omitempty"`

	// OverlaySize The writable layer, 10GB unless told. It takes the room that is written.
	OverlaySize Size     `json:"overlay_size,omitempty"`
	Platform    Platform `json:"platform,omitempty"`

	// RestartPolicy When an instance whose program ended is started again.
	RestartPolicy *RestartPolicy `json:"restart_policy,omitempty"`

	// Size Memory, 1GB unless told; 128MB at least, and 4MB for each vcpu.
	Size Size `json:"size,omitempty"`

	// SkipGuestAgent This server always has the agent in the guest.
	SkipGuestAgent bool `json:"skip_guest_agent,omitempty"`

	// SkipKernelHeaders Changes nothing on this server.
	SkipKernelHeaders bool `json:"skip_kernel_headers,omitempty"`

	// SnapshotPolicy How an instance's snapshots are made.
	SnapshotPolicy *SnapshotPolicy `json:"snapshot_policy,omitempty"`

	// Tags Keys and values of the caller's own.
	//
	// Example: {"team":"backend"}
	Tags Tags `json:"tags,omitempty"`

	// TTL How long it lives from now; "0s" is for ever. Excludes `expires_at`.
	//
	// Example: 24h
	TTL *string `json:"ttl,omitempty"`

	// VCPUs Virtual CPUs.
	VCPUs *int `json:"vcpus,omitempty"`

	// Volumes Volumes.
	Volumes []VolumeMount `json:"volumes,omitempty"`
}

// CredentialPolicy A secret that stays on the host and is put into outbound requests.
type CredentialPolicy struct {
	// Inject Where it is put.
	Inject []CredentialInject `json:"inject"`

	// Source Where the secret is.
	Source CredentialSource `json:"source"`
}

// CredentialHeader The header that carries it.
type CredentialHeader struct {
	// Format The header's value, with `${value}` in it.
	Format string `json:"format"`

	// Header The header's name.
	Header string `json:"header"`
}

// CredentialInject defines model for CredentialPolicy.inject.
type CredentialInject struct {
	// As The header that carries it.
	As CredentialHeader `json:"as"`

	// Hosts The destinations; unset, all.
	Hosts []string `json:"hosts,omitempty"`
}

// CredentialSource Where the secret is.
type CredentialSource struct {
	// Env Its name in the request's `env`.
	Env string `json:"env"`
}

// DiskBreakdown What takes the disk.
type DiskBreakdown struct {
	// ImagesBytes Disks of images.
	ImagesBytes int64 `json:"images_bytes,omitempty"`

	// OCICacheBytes Layers that are kept.
	OCICacheBytes int64 `json:"oci_cache_bytes,omitempty"`

	// OverlaysBytes Writable layers.
	OverlaysBytes int64 `json:"overlays_bytes,omitempty"`

	// VolumesBytes Volumes.
	VolumesBytes int64 `json:"volumes_bytes,omitempty"`
}

// Duration A Go duration.
//
// Example: 1m30s
type Duration = string

// EgressPolicy A proxy of the host's that outbound traffic goes through. This server has none; without it traffic goes out directly.
type EgressPolicy struct {
	// Enabled Whether there is one. False changes nothing: `network.outbound` is what turns traffic off.
	Enabled bool `json:"enabled,omitempty"`

	// Enforcement What is refused otherwise.
	Enforcement *EgressEnforcement `json:"enforcement,omitempty"`
}

// EgressEnforcement What is refused otherwise.
type EgressEnforcement struct {
	// Mode Which traffic.
	Mode *string `json:"mode,omitempty"`
}

// ErrorBody Why a request was refused or went wrong.
type ErrorBody struct {
	// Code A stable code in snake_case, for programs.
	//
	// Example: invalid_health_check
	Code string `json:"code"`

	// Details Each fault of a request that may have several, the first hundred.
	Details []ErrorDetail `json:"details"`

	// Message What was wrong and what would be right, for a person.
	Message string `json:"message"`

	// RequestID Names this request in the server's log.
	RequestID string `json:"request_id,omitempty"`
}

// ErrorDetail One fault of a request.
type ErrorDetail = Detail

// Event Something that happened.
type Event struct {
	// Data What there is to say, by type. That of `health` is a `HealthTransition`. That of `host` says whether the host is suspected, because many instances turned unhealthy at once:
	// `host_suspect`, `turned_unhealthy`, `healthy_again`, `watched`, and a `reason` where it ends because the daemon did.
	Data json.RawMessage `json:"data,omitempty"`

	// ID Its place in the log, for `Last-Event-ID`.
	//
	// Example: k3v9x2mp-42
	ID string `json:"id"`

	// Instance The id of the instance that it is about.
	Instance string `json:"instance,omitempty"`

	// Name That instance's name.
	Name string `json:"name,omitempty"`

	// Time When it happened.
	Time time.Time `json:"time"`

	// Type `created`, `state`, `boot_retry`, `updated`, `health`, `deleted`, and `host`, which is about no instance; `resync` tells the reader to list again. More may come.
	//
	//
	// Example: state
	Type string `json:"type"`
}

// ExecControl A control message of `hale.exec.v1` and `hale.exec.v2`.
type ExecControl struct {
	// Bytes How many more bytes of input may be sent.
	Bytes int `json:"bytes,omitempty"`

	// Code The code of an error.
	Code string `json:"code,omitempty"`

	// Cols Columns of the terminal.
	Cols uint16 `json:"cols,omitempty"`

	// ExitCode The exit code; 128+n for signal n, 124 where it took too long, 126 or 127 where it could not be run.
	ExitCode *int `json:"exitCode,omitempty"`

	// Message What went wrong.
	Message string `json:"message,omitempty"`

	// Rows Rows of the terminal.
	Rows uint16 `json:"rows,omitempty"`

	// Signal The signal to send, or the one that ended the program.
	//
	// Example: SIGINT
	Signal string `json:"signal,omitempty"`

	// TimedOut Whether it took longer than its timeout.
	TimedOut bool `json:"timedOut,omitempty"`

	// Type From the client `resize` (with rows, cols), `eof` (the input is at its end) and `signal` (with signal); from the server `credit` (with bytes), `exit` (with exitCode, signal, timedOut, and a message
	// where the program could not be started) and `error` (with code and message); the latter two are the last message.
	Type ExecControlType `json:"type"`
}

// ExecControlType From the client `resize` (with rows, cols), `eof` (the input is at its end) and `signal` (with signal); from the server `credit` (with bytes), `exit` (with exitCode, signal, timedOut, and a message
// where the program could not be started) and `error` (with code and message); the latter two are the last message.
type ExecControlType string

// ExecRequest The first message of an exec.
type ExecRequest struct {
	// Cols Columns of the terminal.
	Cols uint16 `json:"cols,omitempty"`

	// Command The program and its arguments.
	Command []string `json:"command"`

	// Cwd Its directory; unset, the image's.
	Cwd string `json:"cwd,omitempty"`

	// Env Added to the image's environment.
	Env map[string]string `json:"env,omitempty"`

	// Rows Rows of the terminal.
	Rows uint16 `json:"rows,omitempty"`

	// Timeout Seconds after which it is killed; 0 is never.
	Timeout int `json:"timeout,omitempty"`

	// TTY Whether it gets a terminal.
	TTY bool `json:"tty,omitempty"`

	// User Who it runs as; unset, the image's user.
	User string `json:"user,omitempty"`

	// WaitForAgent Seconds to wait for the guest agent while the instance is Initializing.
	WaitForAgent int `json:"wait_for_agent,omitempty"`
}

// GPUConfig A GPU for the instance.
type GPUConfig struct {
	// MdevUUID The device, in answers.
	MdevUUID *string `json:"mdev_uuid,omitempty"`

	// Profile The profile of a virtual GPU.
	Profile *string `json:"profile,omitempty"`
}

// GPUResourceStatus The host's GPUs; null where there are none.
type GPUResourceStatus struct {
	// Mode How they are given to instances.
	Mode string `json:"mode"`

	// TotalSlots How many may be given.
	TotalSlots int `json:"total_slots"`

	// UsedSlots How many are.
	UsedSlots int `json:"used_slots"`
}

// Health That the daemon is up, and when its controllers were last active.
type Health struct {
	// Controllers What runs inside the daemon.
	Controllers []Controller `json:"controllers,omitempty"`

	// HostSuspect Whether many workloads turned unhealthy at once.
	HostSuspect bool `json:"host_suspect"`

	// StartedAt When the daemon started.
	StartedAt *time.Time `json:"started_at,omitempty"`

	// Status Always `ok`.
	Status string `json:"status"`

	// Version The server's version.
	Version string `json:"version,omitempty"`
}

// HealthCheck How the work inside is checked. Exactly one of `http`, `tcp`, `exec` and `grpc` says what is asked, unless `type` is `none`. Unknown fields are refused. An answer shows the policy with its
// defaults; sent back, it is equal.
type HealthCheck struct {
	// ConfirmInterval The pace of confirming probes, 50ms to the interval.
	//
	// Example: 1s
	ConfirmInterval *string `json:"confirm_interval,omitempty"`

	// Exec Runs a program in the guest; exit code 0 succeeds.
	Exec *HealthCheckExec `json:"exec,omitempty"`

	// FailureThreshold Consecutive failures that make it unhealthy, 1 to 1000; 3 unless told.
	//
	// Example: 3
	FailureThreshold *int `json:"failure_threshold,omitempty"`

	// GRPC Asks grpc.health.v1; SERVING succeeds.
	GRPC *HealthCheckGRPC `json:"grpc,omitempty"`

	// HTTP Asks over HTTP, at the instance's own address.
	HTTP *HealthCheckHTTP `json:"http,omitempty"`

	// Interval From the end of one probe to the start of the next, 100ms to 24h; 10s unless told.
	//
	// Example: 10s
	Interval *string `json:"interval,omitempty"`

	// StartInterval The pace inside the grace, 50ms to the interval; unset, it adapts.
	//
	// Example: 500ms
	StartInterval *string `json:"start_interval,omitempty"`

	// StartPeriod The grace at the start, 0s to 24h, in which failures do not count; 30s unless told.
	//
	// Example: 30s
	StartPeriod *string `json:"start_period,omitempty"`

	// SuccessThreshold Consecutive successes that make it healthy, 1 to 1000; 1 unless told.
	//
	// Example: 1
	SuccessThreshold *int `json:"success_threshold,omitempty"`

	// TCP Succeeds when the connection opens.
	TCP *HealthCheckTCP `json:"tcp,omitempty"`

	// Timeout The longest time that one probe may take, 1ms to 1h; unset, the smaller of 2s and the interval.
	//
	// Example: 2s
	Timeout *string `json:"timeout,omitempty"`

	// Type The kind of check; unset, it follows from the block that is present.
	Type *HealthCheckType `json:"type,omitempty"`
}

// HealthCheckType The kind of check; unset, it follows from the block that is present.
type HealthCheckType string

// HealthCheckExec Runs a program in the guest; exit code 0 succeeds.
type HealthCheckExec struct {
	// Command The program and its arguments.
	Command []string `json:"command"`

	// Env Added to the image's environment.
	Env map[string]string `json:"env,omitempty"`

	// User Who it runs as; unset, the image's user.
	User *string `json:"user,omitempty"`

	// WorkingDir Its directory; unset, the image's.
	WorkingDir *string `json:"working_dir,omitempty"`
}

// HealthCheckGRPC Asks grpc.health.v1; SERVING succeeds.
type HealthCheckGRPC struct {
	// Port The port in the guest.
	Port int `json:"port"`

	// Service The service to ask for, at most 1024 bytes; unset, the server as a whole.
	Service *string `json:"service,omitempty"`
}

// HealthCheckHTTP Asks over HTTP, at the instance's own address.
type HealthCheckHTTP struct {
	// BodyContains What the first 64 KiB of the body must contain; no longer than that itself. Not with HEAD.
	BodyContains *string `json:"body_contains,omitempty"`

	// ExpectedStatus The status that succeeds.
	ExpectedStatus *int `json:"expected_status,omitempty"`

	// ExpectedStatuses The statuses that succeed, codes and ranges, at most 64; excludes `expected_status`.
	ExpectedStatuses []string `json:"expected_statuses,omitempty"`

	// Headers At most 64 headers of 8 KiB in all.
	Headers map[string]string `json:"headers,omitempty"`

	// Method The method.
	Method *HealthCheckHTTPMethod `json:"method,omitempty"`

	// Path The path, with a query if need be; at most 8 KiB.
	Path *string `json:"path,omitempty"`

	// Port The port in the guest.
	Port int `json:"port"`

	// Scheme The scheme.
	Scheme *HealthCheckHTTPScheme `json:"scheme,omitempty"`

	// TLSServerName The name that the certificate must be for; unset, the Host. At most 253 bytes.
	TLSServerName *string `json:"tls_server_name,omitempty"`

	// TLSSkipVerify Whether any certificate is accepted.
	TLSSkipVerify *bool `json:"tls_skip_verify,omitempty"`
}

// HealthCheckHTTPMethod The method.
type HealthCheckHTTPMethod string

// HealthCheckHTTPScheme The scheme.
type HealthCheckHTTPScheme string

// HealthCheckOverride Single fields to change of the image's own check (its HEALTHCHECK), as docker run's flags do. A field that is absent here is the image's, and hale's own default where the image gives none. It is
// worked out once, when the request comes; the policy that it makes is the request's. Without `cmd` it needs an image that has a check. Unknown fields are refused.
type HealthCheckOverride struct {
	// Cmd A command for the image's shell (`/bin/sh -c` unless it names another), in place of the image's test.
	//
	// Example: pg_isready -q
	Cmd *string `json:"cmd,omitempty"`

	// ConfirmInterval As in `HealthCheck`; at most the interval in force.
	//
	// Example: 1s
	ConfirmInterval *string `json:"confirm_interval,omitempty"`

	// FailureThreshold As in `HealthCheck`.
	//
	// Example: 3
	FailureThreshold *int `json:"failure_threshold,omitempty"`

	// Interval As in `HealthCheck`.
	//
	// Example: 10s
	Interval *string `json:"interval,omitempty"`

	// StartInterval As in `HealthCheck`; at most the interval in force.
	//
	// Example: 500ms
	StartInterval *string `json:"start_interval,omitempty"`

	// StartPeriod As in `HealthCheck`.
	//
	// Example: 30s
	StartPeriod *string `json:"start_period,omitempty"`

	// SuccessThreshold As in `HealthCheck`.
	//
	// Example: 1
	SuccessThreshold *int `json:"success_threshold,omitempty"`

	// Timeout As in `HealthCheck`.
	//
	// Example: 2s
	Timeout *string `json:"timeout,omitempty"`
}

// HealthCheckSource Where the policy in force comes from.
type HealthCheckSource string

// HealthCheckTCP Succeeds when the connection opens.
type HealthCheckTCP struct {
	// Port The port in the guest.
	Port int `json:"port"`
}

// HealthResult What one probe found.
type HealthResult struct {
	// Cause Of an inconclusive result, why the host could not ask.
	Cause string `json:"cause,omitempty"`

	// DurationMs How long it took.
	DurationMs float64 `json:"duration_ms"`

	// Outcome `failure` is the workload's; `inconclusive` means that the host could not ask.
	Outcome string `json:"outcome"`

	// Output Of an exec that failed, the end of its output.
	Output string `json:"output,omitempty"`

	// Reason What was found.
	Reason string `json:"reason,omitempty"`

	// Time When the probe began.
	Time time.Time `json:"time"`

	// Window The stretch of observation that it belongs to.
	Window uint64 `json:"window,omitempty"`
}

// HealthState `disabled` without a policy; `unknown` while the instance is not active; `starting` until it is decided; then `healthy` or `unhealthy`.
type HealthState string

// HealthTransition One change of status, or, where `from` and `to` are the same, of staleness.
type HealthTransition struct {
	// From `disabled` without a policy; `unknown` while the instance is not active; `starting` until it is decided; then `healthy` or `unhealthy`.
	From HealthState `json:"from"`

	// N The how-manieth change of this instance it is.
	N uint64 `json:"n,omitempty"`

	// Output Of an exec that failed, the end of its output.
	Output string `json:"output,omitempty"`

	// Persisted False where it was announced though the disk refused it.
	Persisted *bool `json:"persisted,omitempty"`

	// Policy Of an event: tells the health checks apart that were in force; equal ones have the same.
	Policy string `json:"policy,omitempty"`

	// Reason Why.
	Reason string `json:"reason,omitempty"`

	// Run Of an event: which start of the instance it belongs to.
	Run uint64 `json:"run,omitempty"`

	// Stale Why the status is stale from here on; absent where it is not.
	Stale string `json:"stale,omitempty"`

	// Time When it came about.
	Time time.Time `json:"time"`

	// To `disabled` without a policy; `unknown` while the instance is not active; `starting` until it is decided; then `healthy` or `unhealthy`.
	To HealthState `json:"to"`

	// Uptime Of an event: when it came about, in nanoseconds since the host booted.
	Uptime int64 `json:"uptime,omitempty"`

	// Window The stretch of observation that it belongs to.
	Window uint64 `json:"window,omitempty"`
}

// Hypervisor What runs the machine. This server runs `qemu`.
type Hypervisor string

// Image One image.
type Image struct {
	// Cmd Its command.
	Cmd []string `json:"cmd,omitempty"`

	// CreatedAt When it was asked for.
	CreatedAt time.Time `json:"created_at"`

	// Digest The manifest's digest; empty until it is resolved.
	Digest string `json:"digest"`

	// Entrypoint Its entrypoint.
	Entrypoint []string `json:"entrypoint,omitempty"`

	// Env Its environment.
	Env map[string]string `json:"env,omitempty"`

	// Error Why it failed.
	Error *string `json:"error,omitempty"`

	// HealthCheck Its own check, as instances without one of theirs get it; absent where it has none.
	HealthCheck json.RawMessage `json:"health_check,omitempty"`

	// HealthCheckWarnings What of its HEALTHCHECK could not be taken as it stands.
	HealthCheckWarnings []string `json:"health_check_warnings,omitempty"`

	// Imported In the answer to an import, the names of all images that came in the file; this one is the first of them.
	Imported []string `json:"imported,omitempty"`

	// Name The full reference, with a tag or a digest.
	//
	// Example: docker.io/library/nginx:latest
	Name     string   `json:"name"`
	Platform Platform `json:"platform,omitempty"`

	// Progress How far the present step is.
	Progress *ImageProgress `json:"progress,omitempty"`

	// QueuePosition While pending, how many are before it and itself.
	QueuePosition *int `json:"queue_position,omitempty"`

	// SizeBytes The size of its disk; null until it is ready.
	SizeBytes *int64 `json:"size_bytes,omitempty"`

	// Status How far an image is.
	Status ImageStatus `json:"status"`

	// StopSignal What asks its program to end.
	StopSignal string `json:"stop_signal,omitempty"`

	// Tags Keys and values of the caller's own.
	//
	// Example: {"team":"backend"}
	Tags Tags `json:"tags,omitempty"`

	// User Who its program runs as.
	User string `json:"user,omitempty"`

	// WorkingDir Its working directory.
	WorkingDir *string `json:"working_dir,omitempty"`
}

// ImageProgress How far the present step is.
type ImageProgress struct {
	// DoneBytes Bytes done.
	DoneBytes int64 `json:"done_bytes"`

	// TotalBytes Bytes in all; null while that is not known.
	TotalBytes *int64 `json:"total_bytes,omitempty"`
}

// ImageStatus How far an image is.
type ImageStatus string

// Instance One instance.
type Instance struct {
	// AutoStandby When an idle instance is put to sleep.
	AutoStandby *AutoStandbyPolicy `json:"auto_standby,omitempty"`

	// Boots How many boots its last start took: more than one where the guest did not come up at first.
	Boots int `json:"boots,omitempty"`

	// Cmd In place of the image's command; unset, the image's, unless an entrypoint is given.
	Cmd []string `json:"cmd,omitzero"`

	// CreatedAt When it was made.
	CreatedAt time.Time `json:"created_at"`

	// CurrentPhase The state in lower case.
	CurrentPhase string `json:"current_phase,omitempty"`

	// CurrentPhaseSince When that began.
	CurrentPhaseSince *time.Time `json:"current_phase_since,omitempty"`

	// DiskIOBps The limit on disk traffic.
	DiskIOBps string `json:"disk_io_bps,omitempty"`

	// Entrypoint In place of the image's entrypoint; unset, the image's.
	Entrypoint []string `json:"entrypoint,omitzero"`

	// Env Environment variables, beside the image's.
	Env map[string]string `json:"env,omitempty"`

	// ExitCode The program's exit code; null until it ended.
	ExitCode *int `json:"exit_code,omitempty"`

	// ExitMessage How it ended.
	ExitMessage string `json:"exit_message,omitempty"`

	// ExitReason Why the machine is gone, for programs.
	//
	// Example: program_exited
	ExitReason string `json:"exit_reason,omitempty"`

	// ExpiresAt When it is deleted; null: never.
	ExpiresAt *time.Time `json:"expires_at"`

	// GPU A GPU for the instance.
	GPU *GPUConfig `json:"gpu,omitempty"`

	// HasSnapshot Whether it can be restored.
	HasSnapshot bool `json:"has_snapshot,omitempty"`

	// HealthCheck The policy in force; absent where there is none.
	HealthCheck       json.RawMessage   `json:"health_check,omitempty"`
	HealthCheckSource HealthCheckSource `json:"health_check_source,omitempty"`

	// HealthStatus The health of an instance now.
	HealthStatus *InstanceHealthStatus `json:"health_status,omitempty"`
	HotplugSize  Size                  `json:"hotplug_size,omitempty"`
	Hypervisor   Hypervisor            `json:"hypervisor,omitempty"`

	// ID Its id.
	//
	// Example: tz4a98xxat96iws9zmbrgj3a
	ID string `json:"id"`

	// Image The image, as a full reference.
	//
	// Example: docker.io/library/nginx:latest
	Image string `json:"image"`

	// ImageDigest The digest that the reference had when the instance was made.
	ImageDigest string `json:"image_digest,omitempty"`

	// Name Its name.
	//
	// Example: web
	Name string `json:"name"`

	// Network The network of an instance.
	Network *InstanceNetwork `json:"network,omitempty"`

	// OverlaySize The writable layer.
	OverlaySize Size `json:"overlay_size,omitempty"`

	// PhaseDurationsMs Milliseconds spent in each phase.
	PhaseDurationsMs map[string]int64 `json:"phase_durations_ms,omitempty"`
	Platform         Platform         `json:"platform,omitempty"`

	// RestartPolicy When an instance whose program ended is started again.
	RestartPolicy *RestartPolicy `json:"restart_policy,omitempty"`

	// RestartStatus What the restart policy is doing.
	RestartStatus *RestartStatus `json:"restart_status,omitempty"`

	// RunningAt When its program was started after that; null until then.
	RunningAt *time.Time `json:"running_at,omitempty"`

	// Size Memory.
	Size Size `json:"size,omitempty"`

	// SnapshotPolicy How an instance's snapshots are made.
	SnapshotPolicy *SnapshotPolicy `json:"snapshot_policy,omitempty"`

	// StartedAt When its machine was started last.
	StartedAt *time.Time `json:"started_at,omitempty"`

	// State Where an instance is in its life. Initializing is from the machine's start until the guest agent is ready and the program has been started; then Running. Stopped has no machine;
	// Standby has none either, but can be restored. Unknown has one that cannot be reached; `state_error` says why, and a forced deletion ends it.
	State InstanceState `json:"state"`

	// StateError Why it is in its state.
	StateError *string `json:"state_error,omitempty"`

	// StoppedAt When its machine ended.
	StoppedAt *time.Time `json:"stopped_at,omitempty"`

	// Tags Keys and values of the caller's own.
	//
	// Example: {"team":"backend"}
	Tags Tags `json:"tags,omitempty"`

	// VCPUs Virtual CPUs.
	VCPUs int `json:"vcpus,omitempty"`

	// Volumes Volumes.
	Volumes []VolumeMount `json:"volumes,omitempty"`
}

// InstanceHealth All that is known of the health of an instance.
type InstanceHealth struct {
	// ConsecutiveFailures The streak of failures that count; 0 during the grace.
	ConsecutiveFailures int `json:"consecutive_failures"`

	// ConsecutiveSuccesses The streak of successes.
	ConsecutiveSuccesses int `json:"consecutive_successes"`

	// GraceFailures Failures inside the grace, which do not count.
	GraceFailures int `json:"grace_failures,omitempty"`

	// HealthCheck The policy in force; absent where there is none.
	HealthCheck       json.RawMessage   `json:"health_check,omitempty"`
	HealthCheckSource HealthCheckSource `json:"health_check_source,omitempty"`

	// LastCheckedAt When the last probe began.
	LastCheckedAt *time.Time `json:"last_checked_at,omitempty"`

	// LastError Why the last probe that failed did.
	LastError *string `json:"last_error,omitempty"`

	// LastFailureAt When the last probe that failed began.
	LastFailureAt *time.Time `json:"last_failure_at,omitempty"`

	// LastStatus While `unknown`, the last status before.
	LastStatus HealthState `json:"last_status,omitempty"`

	// LastSuccessAt When the last probe that succeeded began.
	LastSuccessAt *time.Time `json:"last_success_at,omitempty"`

	// Results The last 64 results, the newest last.
	Results []HealthResult `json:"results"`

	// Since When the status began.
	Since *time.Time `json:"since,omitempty"`

	// Stale Whether the status rests on results that are too old.
	Stale bool `json:"stale,omitempty"`

	// StaleReason Why it is stale.
	StaleReason string `json:"stale_reason,omitempty"`

	// Status `disabled` without a policy; `unknown` while the instance is not active; `starting` until it is decided; then `healthy` or `unhealthy`.
	Status HealthState `json:"status"`

	// Transitions The last 64 transitions, the newest last.
	Transitions []HealthTransition `json:"transitions"`

	// WindowStartedAt When the present stretch of observation began.
	WindowStartedAt *time.Time `json:"window_started_at,omitempty"`
}

// InstanceHealthStatus The health of an instance now.
type InstanceHealthStatus struct {
	// ConsecutiveFailures The streak of failures that count; 0 during the grace.
	ConsecutiveFailures int `json:"consecutive_failures"`

	// ConsecutiveSuccesses The streak of successes.
	ConsecutiveSuccesses int `json:"consecutive_successes"`

	// GraceFailures Failures inside the grace, which do not count.
	GraceFailures int `json:"grace_failures,omitempty"`

	// LastCheckedAt When the last probe began.
	LastCheckedAt *time.Time `json:"last_checked_at,omitempty"`

	// LastError Why the last probe that failed did.
	LastError *string `json:"last_error,omitempty"`

	// LastFailureAt When the last probe that failed began.
	LastFailureAt *time.Time `json:"last_failure_at,omitempty"`

	// LastStatus While `unknown`, the last status before.
	LastStatus HealthState `json:"last_status,omitempty"`

	// LastSuccessAt When the last probe that succeeded began.
	LastSuccessAt *time.Time `json:"last_success_at,omitempty"`

	// Since When the status began.
	Since *time.Time `json:"since,omitempty"`

	// Stale Whether the status rests on results that are too old.
	Stale bool `json:"stale,omitempty"`

	// StaleReason Why it is stale.
	StaleReason string `json:"stale_reason,omitempty"`

	// Status `disabled` without a policy; `unknown` while the instance is not active; `starting` until it is decided; then `healthy` or `unhealthy`.
	Status HealthState `json:"status"`

	// WindowStartedAt When the present stretch of observation began.
	WindowStartedAt *time.Time `json:"window_started_at,omitempty"`
}

// InstanceNetwork The network of an instance.
type InstanceNetwork struct {
	// Allow Private ranges that it may reach, in IPv4; a single address is a range of one, and one that stands for a range (10.0.0.5/8) is refused. Fixed when the machine starts. Those of the daemon's configuration come on top.
	//
	// Example: ["192.168.1.0/24"]
	Allow []string `json:"allow,omitempty"`

	// BandwidthDownload The limit on traffic into the guest.
	BandwidthDownload string `json:"bandwidth_download,omitempty"`

	// BandwidthUpload The limit on traffic out of the guest.
	BandwidthUpload string `json:"bandwidth_upload,omitempty"`

	// Enabled Whether it has one.
	Enabled bool `json:"enabled"`

	// IP Its address.
	//
	// Example: 10.99.0.2
	IP *string `json:"ip,omitempty"`

	// MAC Its hardware address.
	MAC *string `json:"mac,omitempty"`

	// Name `default` where it has one.
	Name string `json:"name,omitempty"`

	// Outbound Whether it reaches anything outside.
	Outbound *bool `json:"outbound,omitempty"`

	// Ports Ports as they are published.
	Ports []PortMapping `json:"ports,omitempty"`
}

// InstanceNetworkRequest The network of an instance. It reaches public IPv4 addresses by TCP and UDP, and names through its gateway, unless
// `outbound` is false. Never: the host's own addresses, loopback, link-local, multicast and broadcast addresses, the metadata
// services of clouds, other instances. Private ranges (RFC 1918 and 100.64.0.0/10): only those that are allowed.
type InstanceNetworkRequest struct {
	// Allow Private ranges that it may reach, in IPv4; a single address is a range of one, and one that stands for a range (10.0.0.5/8) is refused. Fixed when the machine starts. Those of the daemon's configuration come on top.
	//
	// Example: ["192.168.1.0/24"]
	Allow []string `json:"allow,omitempty"`

	// BandwidthDownload A limit on traffic into the guest.
	BandwidthDownload string `json:"bandwidth_download,omitempty"`

	// BandwidthUpload A limit on traffic out of the guest.
	BandwidthUpload string `json:"bandwidth_upload,omitempty"`

	// Egress A proxy of the host's that outbound traffic goes through. This server has none; without it traffic goes out directly.
	Egress *EgressPolicy `json:"egress,omitempty"`

	// Enabled Whether it has one.
	Enabled *bool `json:"enabled,omitempty"`

	// Outbound Whether it reaches public addresses and resolves names. With false it reaches nothing outside; published ports go on.
	Outbound *bool `json:"outbound,omitempty"`

	// Ports Ports of the guest to publish on the host.
	Ports []PortMapping `json:"ports,omitempty"`
}

// InstanceState Where an instance is in its life. Initializing is from the machine's start until the guest agent is ready and the program has been started; then Running. Stopped has no machine;
// Standby has none either, but can be restored. Unknown has one that cannot be reached; `state_error` says why, and a forced deletion ends it.
type InstanceState string

// InstanceStats What a machine uses now.
type InstanceStats struct {
	// AllocatedMemoryBytes Memory of the guest.
	AllocatedMemoryBytes int64 `json:"allocated_memory_bytes"`

	// AllocatedVCPUs Virtual CPUs.
	AllocatedVCPUs int `json:"allocated_vcpus"`

	// CPUSeconds CPU time of the hypervisor's process.
	CPUSeconds float64 `json:"cpu_seconds"`

	// InstanceID The instance.
	InstanceID string `json:"instance_id"`

	// InstanceName Its name.
	InstanceName string `json:"instance_name"`

	// MemoryRSSBytes Memory of the host that it takes.
	MemoryRSSBytes int64 `json:"memory_rss_bytes"`

	// MemoryUtilizationRatio Memory that it takes to memory of the guest.
	MemoryUtilizationRatio *float64 `json:"memory_utilization_ratio,omitempty"`

	// MemoryVMSBytes Its address space.
	MemoryVMSBytes int64 `json:"memory_vms_bytes"`

	// NetworkRxBytes Bytes into the guest.
	NetworkRxBytes int64 `json:"network_rx_bytes"`

	// NetworkTxBytes Bytes out of the guest.
	NetworkTxBytes int64 `json:"network_tx_bytes"`
}

// LogSource `app` is what the program wrote, `vmm` the machine's console and the hypervisor, `hypeman` what this daemon did with the instance.
type LogSource string

// PathInfo What is at a path of the guest.
type PathInfo struct {
	// Error Why it could not be looked at.
	Error *string `json:"error,omitempty"`

	// Exists Whether anything is.
	Exists bool `json:"exists"`

	// IsDir Whether it is a directory.
	IsDir bool `json:"is_dir"`

	// IsFile Whether it is a regular file.
	IsFile bool `json:"is_file"`

	// IsSymlink Whether it is a symbolic link that was not followed.
	IsSymlink bool `json:"is_symlink"`

	// LinkTarget Where the link leads.
	LinkTarget *string `json:"link_target,omitempty"`

	// Mode Its permissions, with setuid, setgid and sticky.
	Mode uint32 `json:"mode,omitempty"`

	// Size Its size in bytes.
	Size int64 `json:"size,omitempty"`
}

// Platform os/arch[/variant], as for `docker --platform`.
//
// Example: linux/amd64
type Platform = string

// PortMapping A port of the guest that is published on the host.
type PortMapping struct {
	// GuestPort The port in the guest.
	GuestPort int `json:"guest_port"`

	// HostAddr The address that the host listens on, 127.0.0.1 unless told.
	//
	// Example: 127.0.0.1
	HostAddr string `json:"host_addr,omitempty"`

	// HostPort The port on the host; 0 asks for a free one.
	HostPort int `json:"host_port"`

	// Protocol This server publishes `tcp`.
	Protocol string `json:"protocol,omitempty"`
}

// RegistryCredentials What the registry wants to see. Kept for this one pull, in memory.
type RegistryCredentials struct {
	// Password The password or access token; for the user `<token>`, an identity token.
	Password string `json:"password,omitempty"`

	// RegistryToken A bearer token.
	RegistryToken string `json:"registry_token,omitempty"`

	// Username The user.
	Username string `json:"username,omitempty"`
}

// ResourceAllocation What one instance takes.
type ResourceAllocation struct {
	// CPU Virtual CPUs.
	CPU int `json:"cpu,omitempty"`

	// DiskBytes Disk.
	DiskBytes int64 `json:"disk_bytes,omitempty"`

	// DiskIOBps Disk traffic a second.
	DiskIOBps int64 `json:"disk_io_bps,omitempty"`

	// InstanceID The instance.
	InstanceID string `json:"instance_id,omitempty"`

	// InstanceName Its name.
	InstanceName string `json:"instance_name,omitempty"`

	// MemoryBytes Memory.
	MemoryBytes int64 `json:"memory_bytes,omitempty"`

	// NetworkDownloadBps Traffic into the guest a second.
	NetworkDownloadBps int64 `json:"network_download_bps,omitempty"`

	// NetworkUploadBps Traffic out of the guest a second.
	NetworkUploadBps int64 `json:"network_upload_bps,omitempty"`
}

// ResourceStatus One resource.
type ResourceStatus struct {
	// Allocated What is allocated.
	Allocated int64 `json:"allocated"`

	// Available What is left.
	Available int64 `json:"available"`

	// Capacity What the host has.
	Capacity int64 `json:"capacity"`

	// EffectiveLimit What may be allocated.
	EffectiveLimit int64 `json:"effective_limit"`

	// OversubRatio The limit to the capacity.
	OversubRatio float64 `json:"oversub_ratio"`

	// Source `detected` or `configured`.
	Source string `json:"source,omitempty"`

	// Type Which one.
	//
	// Example: memory
	Type string `json:"type"`
}

// Resources What the host has and what is allocated.
type Resources struct {
	// Allocations What each instance takes.
	Allocations []ResourceAllocation `json:"allocations"`

	// CPU One resource.
	CPU ResourceStatus `json:"cpu"`

	// Disk One resource.
	Disk ResourceStatus `json:"disk"`

	// DiskBreakdown What takes the disk.
	DiskBreakdown *DiskBreakdown  `json:"disk_breakdown,omitempty"`
	DiskIO        *ResourceStatus `json:"disk_io,omitempty"`

	// GPU The host's GPUs; null where there are none.
	GPU *GPUResourceStatus `json:"gpu,omitempty"`

	// Memory One resource.
	Memory ResourceStatus `json:"memory"`

	// Network One resource.
	Network ResourceStatus `json:"network"`
}

// RestartPolicy When an instance whose program ended is started again.
type RestartPolicy struct {
	// Backoff The delay before each attempt.
	Backoff *string `json:"backoff,omitempty"`

	// MaxAttempts Consecutive attempts; 0 is without end.
	MaxAttempts *int `json:"max_attempts,omitempty"`

	// Policy After which ends.
	Policy *string `json:"policy,omitempty"`

	// StableAfter Running this long begins the count anew.
	StableAfter *string `json:"stable_after,omitempty"`
}

// RestartStatus What the restart policy is doing.
type RestartStatus struct {
	// Attempts Consecutive attempts so far.
	Attempts *int `json:"attempts,omitempty"`

	// BlockedReason Why there are no further ones.
	BlockedReason *string `json:"blocked_reason,omitempty"`

	// Detail What there is to say beyond the reasons.
	Detail *string `json:"detail,omitempty"`

	// LastAttemptAt The last attempt.
	LastAttemptAt *time.Time `json:"last_attempt_at,omitempty"`

	// LastReason What set the policy off.
	LastReason *string `json:"last_reason,omitempty"`

	// NextAttemptAt The next attempt.
	NextAttemptAt *time.Time `json:"next_attempt_at,omitempty"`
}

// Size A number of bytes with a unit; a GB is 1024³ bytes.
//
// Example: 1GB
type Size = string

// SnapshotCompressionConfig How a snapshot's memory is compressed.
type SnapshotCompressionConfig struct {
	// Algorithm The algorithm.
	Algorithm *string `json:"algorithm,omitempty"`

	// Enabled Whether it is.
	Enabled bool `json:"enabled"`

	// Level Its level: 1 to 19 for zstd, 0 to 9 for lz4.
	Level *int `json:"level,omitempty"`
}

// SnapshotPolicy How an instance's snapshots are made.
type SnapshotPolicy struct {
	// Compression How a snapshot's memory is compressed.
	Compression *SnapshotCompressionConfig `json:"compression,omitempty"`

	// StandbyCompressionDelay How long after standby compression begins.
	StandbyCompressionDelay *string `json:"standby_compression_delay,omitempty"`
}

// StartInstanceRequest What is to be different from the last run on.
type StartInstanceRequest struct {
	// Cmd In place of the image's command; unset, the image's, unless an entrypoint is given.
	Cmd []string `json:"cmd,omitzero"`

	// Entrypoint In place of the image's entrypoint; unset, the image's.
	Entrypoint []string `json:"entrypoint,omitzero"`
}

// TagImageRequest A further name for an image.
type TagImageRequest struct {
	// Target An image reference, with a tag and no digest.
	//
	// Example: docker.io/library/nginx:stable
	Target string `json:"target"`
}

// Tags Keys and values of the caller's own.
//
// Example: {"team":"backend"}
type Tags = map[string]string

// UpdateInstanceRequest What is to change. Absent fields are left alone.
type UpdateInstanceRequest struct {
	// AutoStandby When an idle instance is put to sleep.
	AutoStandby *AutoStandbyPolicy `json:"auto_standby,omitempty"`

	// Env Merged key by key, for the next start; null removes a key.
	Env map[string]*string `json:"env,omitempty"`

	// ExpiresAt When it is deleted. Excludes `ttl`.
	ExpiresAt *time.Time `json:"expires_at,omitempty"`

	// HealthCheck Replaces the policy whole, at once; null returns to the image's.
	HealthCheck json.RawMessage `json:"health_check,omitempty"`

	// HealthCheckOverride Single fields to change of the image's own check. Excludes `health_check`.
	HealthCheckOverride json.RawMessage `json:"health_check_override,omitempty"`

	// RestartPolicy When an instance whose program ended is started again.
	RestartPolicy *RestartPolicy `json:"restart_policy,omitempty"`

	// Tags Replaces the tags whole.
	Tags map[string]string `json:"tags,omitzero"`

	// TTL How long it lives from now; "0s" is for ever. Excludes `expires_at`.
	//
	// Example: 24h
	TTL *string `json:"ttl,omitempty"`
}

// VolumeMount A volume in an instance.
type VolumeMount struct {
	// MountPath Where it is in the guest.
	MountPath string `json:"mount_path"`

	// Overlay Whether writes go to a layer of the instance's own.
	Overlay *bool `json:"overlay,omitempty"`

	// OverlaySize The size of that layer.
	OverlaySize *string `json:"overlay_size,omitempty"`

	// Readonly Whether it is read-only.
	Readonly *bool `json:"readonly,omitempty"`

	// VolumeID The volume.
	VolumeID string `json:"volume_id"`
}

// WaitForStateResponse How a wait ended.
type WaitForStateResponse struct {
	// HealthStatus The health of an instance now.
	HealthStatus *InstanceHealthStatus `json:"health_status,omitempty"`

	// State Where an instance is in its life. Initializing is from the machine's start until the guest agent is ready and the program has been started; then Running. Stopped has no machine;
	// Standby has none either, but can be restored. Unknown has one that cannot be reached; `state_error` says why, and a forced deletion ends it.
	State InstanceState `json:"state"`

	// StateError Why the instance is in that state, or cannot come to what was waited for.
	StateError *string `json:"state_error,omitempty"`

	// TimedOut Whether the time was over first.
	TimedOut bool `json:"timed_out"`
}

// InstanceRef defines model for InstanceRef.
type InstanceRef = string

// TagFilter Keys and values of the caller's own.
//
// Example: {"team":"backend"}
type TagFilter = Tags

// StreamEventsParams defines parameters for StreamEvents.
type StreamEventsParams struct {
	// LastEventID The id of the last event that was seen.
	LastEventID string `json:"Last-Event-ID,omitempty"`
}

// ListImagesParams defines parameters for ListImages.
type ListImagesParams struct {
	// Tags Only what has all of these tags, `?tags[team]=backend&tags[env]=staging`.
	Tags TagFilter `json:"tags,omitempty"`
}

// ImportImageParams defines parameters for ImportImage.
type ImportImageParams struct {
	// Name The reference to give to the image. Unset, the one that the file names.
	Name *string `form:"name,omitempty" json:"name,omitempty"`
}

// GetImageParams defines parameters for GetImage.
type GetImageParams struct {
	// Wait How long to wait for the image to be ready or failed; at most 5m.
	Wait *Duration `form:"wait,omitempty" json:"wait,omitempty"`
}

// ListInstancesParams defines parameters for ListInstances.
type ListInstancesParams struct {
	// State Only instances in this state.
	State *InstanceState `form:"state,omitempty" json:"state,omitempty"`

	// Health Only instances of this health.
	Health *HealthState `form:"health,omitempty" json:"health,omitempty"`

	// Tags Only what has all of these tags, `?tags[team]=backend&tags[env]=staging`.
	Tags TagFilter `json:"tags,omitempty"`
}

// DeleteInstanceParams defines parameters for DeleteInstance.
type DeleteInstanceParams struct {
	// GracefulShutdown Whether the program is asked to end before the machine is killed.
	GracefulShutdown *bool `form:"graceful_shutdown,omitempty" json:"graceful_shutdown,omitempty"`
}

// GetInstanceLogsParams defines parameters for GetInstanceLogs.
type GetInstanceLogsParams struct {
	// Source Which log to read.
	Source *LogSource `form:"source,omitempty" json:"source,omitempty"`

	// Tail How many of the last lines to begin with.
	Tail *int `form:"tail,omitempty" json:"tail,omitempty"`

	// Follow Whether to go on with lines as they are written.
	Follow *bool `form:"follow,omitempty" json:"follow,omitempty"`

	// Ids Whether each line comes with an `id`, for `Last-Event-ID`. The first frame is then an `id` alone, the place where the log was begun.
	Ids *bool `form:"ids,omitempty" json:"ids,omitempty"`

	// LastEventID The `id` that came last. The log goes on behind that line, whatever `tail` says; where it is gone, with the oldest line that is here.
	LastEventID string `json:"Last-Event-ID,omitempty"`
}

// StatInstancePathParams defines parameters for StatInstancePath.
type StatInstancePathParams struct {
	// Path Absolute path in the guest.
	Path string `form:"path" json:"path"`

	// FollowLinks Whether a symbolic link is followed.
	FollowLinks *bool `form:"follow_links,omitempty" json:"follow_links,omitempty"`
}

// WaitForInstanceParams defines parameters for WaitForInstance.
type WaitForInstanceParams struct {
	// State The state to wait for.
	State *InstanceState `form:"state,omitempty" json:"state,omitempty"`

	// Health The health to wait for.
	Health *HealthState `form:"health,omitempty" json:"health,omitempty"`

	// Timeout How long to wait, 60s unless told; more than 5m is taken for 5m.
	Timeout *Duration `form:"timeout,omitempty" json:"timeout,omitempty"`
}

// CreateImageJSONRequestBody defines body for CreateImage for application/json ContentType.
type CreateImageJSONRequestBody = CreateImageRequest

// TagImageJSONRequestBody defines body for TagImage for application/json ContentType.
type TagImageJSONRequestBody = TagImageRequest

// CreateInstanceJSONRequestBody defines body for CreateInstance for application/json ContentType.
type CreateInstanceJSONRequestBody = CreateInstanceRequest

// UpdateInstanceJSONRequestBody defines body for UpdateInstance for application/json ContentType.
type UpdateInstanceJSONRequestBody = UpdateInstanceRequest

// PutInstanceJSONRequestBody defines body for PutInstance for application/json ContentType.
type PutInstanceJSONRequestBody = UpdateInstanceRequest

// StartInstanceJSONRequestBody defines body for StartInstance for application/json ContentType.
type StartInstanceJSONRequestBody = StartInstanceRequest
