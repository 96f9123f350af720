package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/halevm/hale/internal/host"
	"github.com/halevm/hale/internal/hypervisor"
	"github.com/halevm/hale/internal/hypervisor/qemu"
	"github.com/halevm/hale/internal/kernel"
	"github.com/halevm/hale/internal/kernel/agentbin"
	"github.com/halevm/hale/internal/network"
	"github.com/halevm/hale/internal/sandbox"
)

// bareWord is what the bare init says.
const bareWord = "bare-init"

// bareInit is the least /init there is, and as long as size: it says its word and waits for ever. A program of Go, or one that
// needs a loader, would take some of the time that it is to measure.
func bareInit(size int) ([]byte, error) {
	const load, header = 0x400000, 64 + 56
	code := []byte{
		0xb8, 1, 0, 0, 0, // mov eax, 1 (write)
		0xbf, 1, 0, 0, 0, // mov edi, 1
		0x48, 0x8d, 0x35, 16, 0, 0, 0, // lea rsi, [rip+16]: behind the code
		0xba, byte(len(bareWord) + 1), 0, 0, 0, // mov edx, length
		0x0f, 0x05, // syscall
		0xb8, 34, 0, 0, 0, // mov eax, 34 (pause)
		0x0f, 0x05, // syscall
		0xeb, 0xf7, // jmp to the mov before it
	}
	code = append(code, bareWord+"\n"...)
	le := binary.LittleEndian
	b := []byte{0x7f, 'E', 'L', 'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	for _, v := range []uint16{2, 62} { // an executable for x86-64
		b = le.AppendUint16(b, v)
	}
	b = le.AppendUint32(b, 1)
	for _, v := range []uint64{load + header, 64, 0} { // entry, program headers, sections
		b = le.AppendUint64(b, v)
	}
	b = le.AppendUint32(b, 0)
	for _, v := range []uint16{64, 56, 1, 0, 0, 0} {
		b = le.AppendUint16(b, v)
	}
	b = le.AppendUint32(b, 1) // load
	b = le.AppendUint32(b, 5) // to read and to execute
	total := uint64(header + len(code))
	for _, v := range []uint64{0, load, load, total, total, 0x1000} {
		b = le.AppendUint64(b, v)
	}
	b = append(b, code...)
	if len(b) > size {
		return nil, errors.New("the guest agent is smaller than the least program")
	}
	return append(b, make([]byte, size-len(b))...), nil
}

// kernelFor is a directory of our own beside the cache's kernel, for the initrds that are made here: those of hale are
// counted where they lie.
func kernelFor(kernels, dir string) (kernel.Kernel, error) {
	k, err := kernel.Newest(kernels)
	if err != nil {
		return k, err
	}
	if _, err := k.Image(); err != nil {
		return k, err
	}
	ours := filepath.Join(dir, "kernel")
	if err := os.Mkdir(ours, 0o755); err != nil {
		return k, err
	}
	for _, name := range []string{"vmlinux", "vmlinuz", "lib", "kernel.json"} {
		if _, err := os.Stat(filepath.Join(k.Dir, name)); err == nil {
			if err := os.Symlink(filepath.Join(k.Dir, name), filepath.Join(ours, name)); err != nil {
				return k, err
			}
		}
	}
	return kernel.Open(ours)
}

// A bare machine is hale's own, by hale's own driver; only its /init differs.
type bare struct {
	qemu   string
	accel  hypervisor.Accel
	kernel string
	initrd string
	dir    string
	memory int64
	vcpus  int
}

func newBare(ctx context.Context, kernels, dir string) (*bare, error) {
	k, err := kernelFor(kernels, dir)
	if err != nil {
		return nil, err
	}
	b := &bare{dir: dir, memory: machineMemory, vcpus: machineVCPUs}
	b.accel, _ = qemu.Detect(ctx)
	if b.qemu, err = host.QEMU(); err != nil {
		return nil, err
	}
	agent, err := agentbin.Agent()
	if err != nil {
		return nil, err
	}
	init, err := bareInit(len(agent))
	if err != nil {
		return nil, err
	}
	if b.kernel, err = k.Image(); err != nil {
		return nil, err
	}
	for _, disk := range []string{"lower", "upper"} { // empty, and never mounted
		if err := os.WriteFile(filepath.Join(dir, disk), make([]byte, 1<<20), 0o600); err != nil {
			return nil, err
		}
	}
	b.initrd, err = k.Initrd(init)
	return b, err
}

// boot boots one, and returns the time from QEMU's start to the first byte of its init, and how much QEMU worked in it.
func (b *bare) boot(ctx context.Context) (took, worked time.Duration, err error) {
	var f hypervisor.Files
	var ours []net.Conn
	defer func() {
		for _, c := range ours {
			c.Close()
		}
	}()
	defer func() { f.Close() }()
	for _, theirs := range []**os.File{&f.Net, &f.Control, &f.Bulk, &f.Output, &f.Console} {
		c, file, err := socketPair()
		if err != nil {
			return 0, 0, err
		}
		ours, *theirs = append(ours, c), file
	}
	console := ours[len(ours)-1]
	for _, o := range []struct {
		to   **os.File
		path string
		flag int
	}{
		{&f.Kernel, b.kernel, os.O_RDONLY}, {&f.Initrd, b.initrd, os.O_RDONLY},
		{&f.Lower, filepath.Join(b.dir, "lower"), os.O_RDONLY}, {&f.Upper, filepath.Join(b.dir, "upper"), os.O_RDWR},
	} {
		var err error
		if *o.to, err = os.OpenFile(o.path, o.flag, 0); err != nil {
			return 0, 0, err
		}
	}
	c := hypervisor.Config{
		Name: "bare", Accel: b.accel, VCPUs: b.vcpus, Memory: b.memory,
		MAC: "02:00:0a:4d:00:02", MTU: network.DefaultMTU,
	}
	driver := qemu.New(b.qemu, sandbox.Confinement{Landlock: true, Seccomp: true}, slog.New(slog.DiscardHandler))
	vm, err := driver.Start(ctx, c, f)
	f.Close() // the lock on the upper disk goes with its last descriptor
	f = hypervisor.Files{}
	if err != nil {
		return 0, 0, err
	}
	defer vm.Kill()
	began, err := startOf(vm.PID())
	if err != nil {
		return 0, 0, err
	}
	console.SetReadDeadline(time.Now().Add(bootPatience))
	var said []byte
	for buf := make([]byte, 4096); ; {
		n, err := console.Read(buf)
		at := time.Now()
		said = append(said, buf[:n]...)
		if bytes.Contains(said, []byte(bareWord)) {
			worked, err := cpuTime(vm.PID())
			return at.Sub(began), worked, err
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = fmt.Errorf("the machine ended: %+v", vm.Wait())
			}
			return 0, 0, fmt.Errorf("bare boot: %w; its console: %q", err, said)
		}
	}
}

func socketPair() (net.Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	defer ours.Close()
	c, err := net.FileConn(ours)
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return c, theirs, nil
}
