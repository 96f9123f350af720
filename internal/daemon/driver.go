package daemon

import (
	"context"
	"errors"
	"path/filepath"
	"sync"

	"github.com/halevm/hale/internal/host"
	"github.com/halevm/hale/internal/hypervisor"
	"github.com/halevm/hale/internal/hypervisor/qemu"
	"github.com/halevm/hale/internal/instance"
	"github.com/halevm/hale/internal/kernel"
	"github.com/halevm/hale/internal/machine"
	"github.com/halevm/hale/internal/shim"
)

// shimDriver is the real driver, as the domain asks for one: the domain and internal/shim do not know each other.
type shimDriver struct{ *shim.Launcher }

// Start starts a machine.
func (d shimDriver) Start(ctx context.Context, c machine.Config) (instance.Machine, error) {
	m, err := d.Launcher.Start(ctx, c)
	if err != nil {
		return nil, err
	}
	return shimMachine{m}, nil
}

// Recover takes back a machine that an earlier daemon started.
func (d shimDriver) Recover(ctx context.Context, c machine.Config) (instance.Machine, error) {
	m, err := d.Launcher.Recover(ctx, c)
	if ended, ok := errors.AsType[*shim.Ended](err); ok {
		return nil, &instance.Ended{Exit: ended.Exit}
	}
	if err != nil {
		return nil, err
	}
	return shimMachine{m}, nil
}

type shimMachine struct{ *shim.Machine }

// Exec runs a program in the guest.
func (m shimMachine) Exec(ctx context.Context, r machine.ExecRequest) (instance.Exec, error) {
	e, err := m.Machine.Exec(ctx, r)
	if err != nil {
		return nil, err
	}
	return e, nil
}

// platform finds what machines are started with on this host. The accelerator is found out once; the rest is looked at
// each time, so that `hale setup` beside a running daemon is enough.
type platform struct {
	dataDir string
	kernel  string // a directory named by a person; "": the one that was fetched
	accel   string // "auto", "kvm" or "tcg"

	once     sync.Once
	detected hypervisor.Accel
	why      string // not KVM
}

func (p *platform) accelerator(ctx context.Context) (hypervisor.Accel, string) {
	p.once.Do(func() {
		if p.accel == "" || p.accel == "auto" {
			p.detected, p.why = qemu.Detect(context.WithoutCancel(ctx))
			return
		}
		p.detected = hypervisor.Accel(p.accel)
	})
	return p.detected, p.why
}

func (p *platform) find(ctx context.Context) (shim.Platform, error) {
	path, err := host.QEMU()
	if err != nil {
		return shim.Platform{}, err
	}
	var k kernel.Kernel
	if p.kernel != "" {
		k, err = kernel.Open(p.kernel)
	} else {
		k, err = kernel.Newest(filepath.Join(p.dataDir, "kernels"))
	}
	if err != nil {
		return shim.Platform{}, err
	}
	boot, err := host.Boot(k)
	if err != nil {
		return shim.Platform{}, err
	}
	accel, _ := p.accelerator(ctx)
	return shim.Platform{QEMU: path, Accel: string(accel), Kernel: boot.Kernel, Initrd: boot.Initrd}, nil
}
