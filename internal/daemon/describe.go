package daemon

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/host"
	"github.com/halevm/hale/internal/version"
)

// controllers tells which controllers run, and when health was last active: the others only hand something on to it.
func (d *Daemon) controllers() []api.Controller {
	active := d.health.LastActivity()
	var list []api.Controller
	for _, name := range loopNames {
		c := api.Controller{Name: name, Running: d.loops.isUp(name), Restarts: d.loops.restarts(name)}
		if name == healthConsumer {
			c.LastActivity = &active
		}
		list = append(list, c)
	}
	return list
}

// resources says what the host has and what is allocated.
func (d *Daemon) resources() (api.Resources, error) {
	memory, _, err := host.Memory()
	if err != nil {
		return api.Resources{}, err
	}
	var st unix.Statfs_t
	if err := unix.Statfs(d.config.DataDir, &st); err != nil {
		return api.Resources{}, fmt.Errorf("look at the disk: %w", err)
	}
	a := d.instances.Allocated()
	disk := int64(st.Blocks) * st.Bsize
	r := api.Resources{
		CPU:         resource("cpu", int64(a.VCPUs), int64(runtime.NumCPU()), int64(runtime.NumCPU())),
		Memory:      resource("memory", a.Memory, memory, a.MemoryMax),
		Disk:        resource("disk", d.diskUse("."), disk, disk),
		Network:     resource("network", 0, 0, 0),
		Allocations: []api.ResourceAllocation{},
		DiskBreakdown: &api.DiskBreakdown{
			ImagesBytes: d.diskUse("images/disks"), OCICacheBytes: d.diskUse("images/blobs"), OverlaysBytes: d.diskUse("instances"),
		},
	}
	r.Disk.Available = int64(st.Bavail) * st.Bsize
	for _, in := range d.instances.List() {
		if !in.State.Active() {
			continue
		}
		r.Allocations = append(r.Allocations, api.ResourceAllocation{
			InstanceID: in.ID, InstanceName: in.Spec.Name, CPU: in.Spec.VCPUs,
			MemoryBytes: in.Spec.Memory.Bytes, DiskBytes: in.Spec.Overlay.Bytes,
		})
	}
	return r, nil
}

func resource(kind string, allocated, capacity, limit int64) api.ResourceStatus {
	s := api.ResourceStatus{
		Type: kind, Allocated: allocated, Capacity: capacity, EffectiveLimit: limit,
		Available: max(0, limit-allocated), OversubRatio: 1, Source: "detected",
	}
	if capacity > 0 {
		s.OversubRatio = float64(limit) / float64(capacity)
	}
	return s
}

// diskUse adds up the blocks that a directory's files take; holes take none.
func (d *Daemon) diskUse(name string) int64 {
	var total int64
	filepath.WalkDir(filepath.Join(d.config.DataDir, name), func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil // it goes while we look
		}
		if info, err := e.Info(); err == nil && !e.IsDir() {
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				total += st.Blocks * 512
			}
		}
		return nil
	})
	return total
}

// capabilities says what this server can do.
func (d *Daemon) capabilities(ctx context.Context) api.Capabilities {
	const name = "qemu"
	c := api.Capabilities{
		Features: []string{"exec", "stat", "logs", "health_check", "health_check.http", "health_check.tcp", "health_check.exec", "health_check.grpc", "health_check.image", "health_check_override", "events", "image_import", "image_pull", "image_tag", "network.ports", "network.outbound", "network.allow", "ttl"},
		Host:     api.CapabilitiesHost{Arch: runtime.GOARCH, OS: runtime.GOOS},
		Images:   api.CapabilitiesImages{DefaultPlatform: "linux/amd64", Platforms: []string{"linux/amd64"}},
		Network:  api.CapabilitiesNetwork{Model: "nat"},
		Server:   api.CapabilitiesServer{APIVersion: "0.1.0", Version: version.String()},
	}
	runtime := api.CapabilitiesRuntime{Name: name, Features: []string{}, Available: true}
	if d.platform != nil {
		_, err := d.platform.find(ctx)
		accel, _ := d.platform.accelerator(ctx)
		runtime.Available, runtime.Accelerator = err == nil, string(accel)
	}
	c.Runtimes = []api.CapabilitiesRuntime{runtime}
	c.DefaultRuntime = api.CapabilitiesDefaultRuntime{Name: name, Available: runtime.Available}
	return c
}
