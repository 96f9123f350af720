package qemu

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/halevm/hale/internal/hypervisor"
)

// ProbeCommand is the hidden subcommand of the hale binary that runs ProbeKVM.
const ProbeCommand = "probe-kvm"

// probeName is the name (argument 0) under which Detect starts its own binary for the trial.
const probeName = "hale-probe-kvm"

// The trial runs before main does, in whatever program has this package in it: one that calls Detect and whose main knows
// nothing of trials, a test for one, would else start itself over and over.
func init() {
	if len(os.Args) > 0 && os.Args[0] == probeName {
		os.Exit(ProbeKVM())
	}
}

// kvmDevice is the kernel's door to hardware virtualisation.
const kvmDevice = "/dev/kvm"

// A million turns of a loop take less than a millisecond where KVM works. There are hosts on which every check of the
// API passes and the loop takes a second (measured); a kernel would need minutes to boot there.
const (
	probeTurns    = 1_000_000
	probeDeadline = 100 * time.Millisecond
	probeTimeout  = 5 * time.Second // for the child as a whole
)

// Detect chooses the accelerator by running something with KVM, in a child process that can be killed. For TCG the
// reason says why not KVM.
func Detect(ctx context.Context) (hypervisor.Accel, string) {
	if _, err := os.Stat(kvmDevice); err != nil {
		return hypervisor.TCG, kvmDevice + " is not there"
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args = []string{probeName}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = drainTimeout
	runtime.LockOSThread() // the child is tied to the thread that makes it
	defer runtime.UnlockOSThread()
	out, err := cmd.Output()
	if err == nil {
		return hypervisor.KVM, ""
	}
	if reason := strings.TrimSpace(string(out)); reason != "" {
		return hypervisor.TCG, reason
	}
	return hypervisor.TCG, fmt.Sprintf("the trial of KVM ended with %v", err)
}

// KVMGroups are the gids that a process without privileges needs to use KVM: none where everybody may.
func KVMGroups() ([]uint32, error) {
	st, err := os.Stat(kvmDevice)
	if err != nil {
		return nil, err
	}
	gid := st.Sys().(*syscall.Stat_t).Gid
	switch mode := st.Mode().Perm(); {
	case mode&0o006 == 0o006:
		return nil, nil
	case mode&0o060 == 0o060 && gid != 0:
		return []uint32{gid}, nil
	}
	return nil, fmt.Errorf("%s may be opened by root only, and machines do not run as root (chgrp kvm %s && chmod 660 %s)", kvmDevice, kvmDevice, kvmDevice)
}

// ProbeKVM is the child's part: it exits 0 if guest code runs at a useful speed, and else says why not and exits 1.
func ProbeKVM() int {
	runtime.LockOSThread() // a vcpu belongs to the thread that made it
	result := make(chan error, 1)
	running := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		result <- runLoop(running)
	}()
	var err error
	select {
	case err = <-result:
	case <-running:
		select {
		case err = <-result:
		case <-time.After(probeDeadline):
			err = fmt.Errorf("KVM answers, but guest code runs too slowly to be of use (%d turns of a loop took over %v)", probeTurns, probeDeadline)
		}
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// The part of KVM's interface that the trial needs (Documentation/virt/kvm/api.rst in the kernel's tree).
const (
	kvmGetAPIVersion       = 0xae00
	kvmCreateVM            = 0xae01
	kvmGetVCPUMmapSize     = 0xae04
	kvmCreateVCPU          = 0xae41
	kvmSetUserMemoryRegion = 0x4020ae46
	kvmRun                 = 0xae80
	kvmSetRegs             = 0x4090ae82
	kvmGetSregs            = 0x8138ae83
	kvmSetSregs            = 0x4138ae84

	kvmAPIVersion = 12
	kvmExitIO     = 2
	offExitReason = 8 // in struct kvm_run
)

const (
	probeMemory = 1 << 20
	probeEntry  = 0x1000
)

type kvmMemoryRegion struct {
	slot, flags                          uint32
	guestAddress, size, userspaceAddress uint64
}

type kvmRegs struct {
	rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp uint64
	r8, r9, r10, r11, r12, r13, r14, r15   uint64
	rip, rflags                            uint64
}

// kvmSregs begins with the code segment; nothing else of it is touched.
type kvmSregs struct {
	csBase     uint64
	csLimit    uint32
	csSelector uint16
	rest       [298]byte
}

// loopCode counts ECX down in real mode and writes to a port. There is no in-kernel interrupt controller, so that the
// write comes back to us.
func loopCode() []byte {
	code := []byte{0x66, 0xb9} // mov ecx, imm32
	code = binary.LittleEndian.AppendUint32(code, probeTurns)
	return append(code,
		0x66, 0x49, // dec ecx
		0x75, 0xfc, // jnz back to it
		0xe6, 0x10, // out 0x10, al
		0xf4) // hlt
}

// runLoop makes the smallest machine there is and runs the loop in it. running is closed right before.
func runLoop(running chan<- struct{}) error {
	kvm, err := unix.Open(kvmDevice, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		if errors.Is(err, unix.EACCES) {
			return fmt.Errorf("%s may not be opened by this user (is it in the group kvm?)", kvmDevice)
		}
		return fmt.Errorf("open %s: %w", kvmDevice, err)
	}
	if v, err := ioctl(kvm, kvmGetAPIVersion, nil); err != nil {
		return fmt.Errorf("%s is not KVM: %w", kvmDevice, err)
	} else if v != kvmAPIVersion {
		return fmt.Errorf("KVM's API version is %d, not %d", v, kvmAPIVersion)
	}
	vm, err := ioctl(kvm, kvmCreateVM, nil)
	if err != nil {
		return fmt.Errorf("KVM makes no machine: %w", err)
	}
	memory, err := unix.Mmap(-1, 0, probeMemory, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	copy(memory[probeEntry:], loopCode())
	region := kvmMemoryRegion{size: probeMemory, userspaceAddress: uint64(uintptr(unsafe.Pointer(&memory[0])))}
	if _, err := ioctl(vm, kvmSetUserMemoryRegion, unsafe.Pointer(&region)); err != nil {
		return fmt.Errorf("KVM takes no memory: %w", err)
	}
	vcpu, err := ioctl(vm, kvmCreateVCPU, nil)
	if err != nil {
		return fmt.Errorf("KVM makes no vcpu: %w", err)
	}
	size, err := ioctl(kvm, kvmGetVCPUMmapSize, nil)
	if err != nil {
		return err
	}
	run, err := unix.Mmap(vcpu, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	var sregs kvmSregs
	if _, err := ioctl(vcpu, kvmGetSregs, unsafe.Pointer(&sregs)); err != nil {
		return err
	}
	sregs.csBase, sregs.csSelector = 0, 0 // and not the limit: some hosts refuse it
	if _, err := ioctl(vcpu, kvmSetSregs, unsafe.Pointer(&sregs)); err != nil {
		return err
	}
	regs := kvmRegs{rip: probeEntry, rflags: 2}
	if _, err := ioctl(vcpu, kvmSetRegs, unsafe.Pointer(&regs)); err != nil {
		return err
	}
	close(running)
	for {
		if _, err := ioctl(vcpu, kvmRun, nil); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("KVM runs nothing: %w", err)
		} else if err == nil {
			break
		}
	}
	if reason := binary.LittleEndian.Uint32(run[offExitReason:]); reason != kvmExitIO {
		return fmt.Errorf("KVM ran, and ended for reason %d instead of the port's %d", reason, kvmExitIO)
	}
	return nil
}

// ioctl takes a pointer, and makes a number of it only within the call: a stack that grows moves what lies on it.
func ioctl(fd int, request uint, arg unsafe.Pointer) (int, error) {
	r, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(request), uintptr(arg))
	if errno != 0 {
		return 0, errno
	}
	return int(r), nil
}

// Version asks the binary at path for its version: "7.2.22".
func Version(ctx context.Context, path string) (string, error) {
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("%s --version: %w", path, err)
	}
	line, _, _ := bytes.Cut(out, []byte("\n"))
	if _, v, ok := strings.Cut(string(line), "version "); ok {
		v, _, _ = strings.Cut(v, " ")
		return v, nil
	}
	return "", fmt.Errorf("%s is not QEMU: it says %q", path, line)
}
