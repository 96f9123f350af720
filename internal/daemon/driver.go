package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/host"
	"github.com/halevm/hale/internal/hypervisor"
	"github.com/halevm/hale/internal/hypervisor/qemu"
	"github.com/halevm/hale/internal/instance"
	"github.com/halevm/hale/internal/kernel"
	"github.com/halevm/hale/internal/machine"
	"github.com/halevm/hale/internal/sandbox"
	"github.com/halevm/hale/internal/shim"
	"github.com/halevm/hale/internal/slack"
)

// shimDriver is the real driver, as the domain asks for one: the domain and internal/shim do not know each other.
type shimDriver struct{ *shim.Launcher }

// Start starts a machine.
func (d shimDriver) Start(ctx context.Context, c machine.Config) (instance.Machine, error) {
	defer slack.Work()() // it waits in calls for disks and processes; several do at a time
	m, err := d.Launcher.Start(ctx, c)
	if err != nil {
		return nil, err
	}
	return shimMachine{m}, nil
}

// Recover takes back a machine that an earlier daemon started.
func (d shimDriver) Recover(ctx context.Context, c machine.Config) (instance.Machine, error) {
	m, err := d.Launcher.Recover(ctx, c)
	if err != nil {
		return nil, recognised(err)
	}
	return shimMachine{m}, nil
}

// Kill ends one that cannot be taken back.
func (d shimDriver) Kill(ctx context.Context, c machine.Config) (machine.Exit, error) {
	e, err := d.Launcher.Kill(ctx, c)
	return e, recognised(err)
}

// recognised has package instance recognise how a machine ended.
func recognised(err error) error {
	if e, ok := errors.AsType[*shim.Ended](err); ok {
		return &instance.Ended{Exit: e.Exit}
	}
	return err
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
	uids    sandbox.Range
	require bool // the whole sandbox, or no machine

	once     sync.Once
	detected hypervisor.Accel
	why      string // not KVM

	sandboxOnce sync.Once
	support     sandbox.Support
}

// sandbox is found out once, like the accelerator.
func (p *platform) sandbox(ctx context.Context) sandbox.Support {
	p.sandboxOnce.Do(func() { p.support = sandbox.Detect(context.WithoutCancel(ctx), p.uids) })
	return p.support
}

func (p *platform) accelerator(ctx context.Context) (hypervisor.Accel, string) {
	p.once.Do(func() {
		if p.accel == "" || p.accel == "auto" {
			p.detected, p.why = qemu.Detect(context.WithoutCancel(ctx))
			if _, err := p.groups(ctx); err != nil && p.detected == hypervisor.KVM {
				p.detected, p.why = hypervisor.TCG, err.Error()
			}
			return
		}
		p.detected = hypervisor.Accel(p.accel)
	})
	return p.detected, p.why
}

// groups are what a machine that has a uid of its own needs for KVM.
func (p *platform) groups(ctx context.Context) ([]uint32, error) {
	if os.Geteuid() != 0 || !p.sandbox(ctx).UID.Works {
		return nil, nil
	}
	return qemu.KVMGroups()
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
	support := p.sandbox(ctx)
	if lacks := support.Lacks(); p.require && len(lacks) > 0 {
		return shim.Platform{}, fmt.Errorf("the whole sandbox is required, and this host lacks %s: %w", strings.Join(lacks, "; "), api.Unavailable)
	}
	platform := shim.Platform{
		QEMU: path, Kernel: boot.Kernel, Initrd: boot.Initrd, Sandbox: support, Whole: p.require, UIDs: p.uids,
	}
	accel, _ := p.accelerator(ctx)
	platform.Accel = string(accel)
	if accel == hypervisor.KVM {
		if platform.Groups, err = p.groups(ctx); err != nil {
			return shim.Platform{}, err
		}
	}
	return platform, nil
}
