// Package qemu runs virtual machines with QEMU: the command line as a pure function, the process, its QMP channel,
// and which accelerator works on this host. It is given open descriptors for everything and opens no file of a machine
// itself. Versions 7.2 (Debian 12) and later; options are spelled so that 7.2 to 10 take them.
package qemu

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/halevm/hale/internal/hypervisor"
	"github.com/halevm/hale/internal/sandbox"
)

// Names by which the guest finds its ports and disks.
const (
	PortControl = "hale.control"
	PortBulk    = "hale.bulk"
	PortOutput  = "hale.output"
	DiskLower   = "lower"
	DiskUpper   = "upper"
)

// cmdline is what every guest's kernel is told. A panic ends the machine at once (panic=-1 with -no-reboot); the
// self-tests of the crypto layer would cost 300 ms of a boot (measured under emulation). Without no_timer_check the kernel counts
// timer interrupts for a few milliseconds, and panics ("IO-APIC + timer doesn't work") where a busy host kept them back; under KVM
// it leaves that out by itself.
const cmdline = "console=ttyS0 quiet loglevel=4 panic=-1 reboot=t cryptomgr.notests no_timer_check cgroup_no_v1=all rdinit=/init"

// The emulated processor. Programs of today want x86-64-v2 or v3, and this one has both at the price of qemu64 (the feature
// erms would cost 250 ms of a boot; the other four are not emulated, and would be warned of). With it, a guest's kernel defends
// itself against Meltdown, which nothing that is emulated suffers from, and which makes a system call 20 times dearer
// (12 µs instead of 0.6, measured): tcgCmdline says so.
const (
	tcgCPU     = "Haswell-noTSX,erms=off,pcid=off,invpcid=off,tsc-deadline=off,x2apic=off"
	tcgCmdline = " mitigations=off"
)

// One thread translates and runs all of a guest's processors in turn. With a thread for each (MTTCG), one may translate code that
// another is rewriting, and keep what it made of it for ever: a guest's kernel rewrites itself all the time, and about one boot
// in a hundred hung on a busy host (docs/design/0004-one-thread-of-emulation.md).
const tcgThreads = "single"

// tbSize bounds TCG's cache of translated code, in MiB. Left to itself it takes a gigabyte; at 64 one guest with nginx
// needs what it would take anyway, at 16 it boots a little slower (measured).
const tbSize = 64

// fds are the numbers that QEMU's descriptors have in its process.
type fds struct {
	net                                               int // 0: no network
	control, bulk, output, console, qmp, lower, upper int
	kernel, initrd                                    int
}

// argv is QEMU's command line, without the program's name.
func argv(c hypervisor.Config, f fds) []string {
	a := []string{
		"-name", "guest=" + escape(c.Name) + ",debug-threads=on",
		"-no-user-config", "-nodefaults", "-display", "none", "-no-reboot",
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
		// What a guest of ours has no use for costs 300 ms of a boot (measured: hpet, smm, sata, smbus, i8042, vmport). Never
		// graphics=off, which has the firmware speak on the serial console.
		"-machine", "q35,hpet=off,smm=off,sata=off,smbus=off,i8042=off,vmport=off,usb=off",
	}
	kernelLine := cmdline
	switch c.Accel {
	case hypervisor.KVM:
		a = append(a, "-accel", "kvm", "-cpu", "host")
	default:
		a = append(a, "-accel", "tcg,thread="+tcgThreads+",tb-size="+strconv.Itoa(tbSize), "-cpu", tcgCPU)
		kernelLine += tcgCmdline
	}
	if c.Cmdline != "" {
		kernelLine += " " + c.Cmdline
	}
	a = append(a,
		"-smp", strconv.Itoa(c.VCPUs),
		"-m", fmt.Sprintf("size=%dM", c.Memory>>20),
		"-kernel", sandbox.Reopened(f.kernel), "-initrd", sandbox.Reopened(f.initrd), "-append", kernelLine,

		"-chardev", socket("qmp", f.qmp), "-mon", "chardev=qmp,mode=control",
		"-chardev", socket("console", f.console), "-serial", "chardev:console",

		"-device", "virtio-serial-pci,id=ports,max_ports=8",
	)
	for _, p := range []struct {
		id, name string
		fd       int
	}{{"control", PortControl, f.control}, {"bulk", PortBulk, f.bulk}, {"output", PortOutput, f.output}} {
		a = append(a,
			"-chardev", socket(p.id, p.fd),
			// Without an id there is no VSERPORT_CHANGE event.
			"-device", fmt.Sprintf("virtserialport,bus=ports.0,chardev=%s,id=%s,name=%s", p.id, portID(p.id), p.name))
	}
	a = append(a, disk(DiskLower, f.lower, true)...)
	a = append(a, disk(DiskUpper, f.upper, false)...)
	a = append(a, "-object", "rng-random,id=rng,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng")
	if f.net != 0 {
		mtu := c.MTU
		if mtu == 0 {
			mtu = 1500
		}
		a = append(a,
			"-netdev", fmt.Sprintf("stream,id=net,server=off,addr.type=fd,addr.str=%d", f.net),
			"-device", fmt.Sprintf("virtio-net-pci,netdev=net,mac=%s,host_mtu=%d,romfile=", escape(c.MAC), mtu))
	}
	return a
}

// portID is the name by which QEMU's events speak of a port.
func portID(name string) string { return "port-" + name }

// socket is a character device on an inherited, connected socket.
func socket(id string, fd int) string { return fmt.Sprintf("socket,id=%s,fd=%d", id, fd) }

// disk is a disk on an inherited descriptor, found by the guest by its serial. The descriptor's set has the
// descriptor's number.
func disk(serial string, fd int, readOnly bool) []string {
	// A guest whose write finds no space on the host's disk is stopped, and the write tried again when it goes on (VM.Resume).
	ro, mode, onError, locking := "off", "rw", ",werror=enospc", ""
	if readOnly {
		// The image's disk is shared by its machines and written by none: with locks, one that is broken could keep the others from it.
		ro, mode, onError, locking = "on", "ro", "", ",file.locking=off"
	}
	return []string{
		"-add-fd", fmt.Sprintf("fd=%d,set=%d,opaque=%s-%s", fd, fd, serial, mode),
		"-blockdev", fmt.Sprintf("driver=raw,node-name=%s,read-only=%s,discard=unmap,file.driver=file,file.filename=/dev/fdset/%d%s", serial, ro, fd, locking),
		"-device", fmt.Sprintf("virtio-blk-pci,drive=%s,serial=%s,write-cache=on%s", serial, serial, onError),
	}
}

// escape doubles commas, which separate options.
func escape(s string) string { return strings.ReplaceAll(s, ",", ",,") }
