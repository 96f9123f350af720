package sandbox

import (
	"encoding/binary"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// run is the kernel's part, for the instructions that the filter has.
func run(t *testing.T, p []unix.SockFilter, arch, nr uint32, arg0, arg1 uint64) uint32 {
	t.Helper()
	data := binary.LittleEndian.AppendUint32(nil, nr)
	data = binary.LittleEndian.AppendUint32(data, arch)
	data = binary.LittleEndian.AppendUint64(data, 0)
	data = binary.LittleEndian.AppendUint64(data, arg0)
	data = binary.LittleEndian.AppendUint64(data, arg1)
	var a uint32
	for pc := 0; pc < len(p); pc++ {
		in := p[pc]
		jump := func(yes bool) {
			if yes {
				pc += int(in.Jt)
			} else {
				pc += int(in.Jf)
			}
		}
		switch in.Code {
		case bpfLoad:
			a = binary.LittleEndian.Uint32(data[in.K:])
		case bpfEqual:
			jump(a == in.K)
		case bpfAtLeast:
			jump(a >= in.K)
		case bpfAnySet:
			jump(a&in.K != 0)
		case bpfReturn:
			return in.K
		default:
			t.Fatalf("instruction %d has code %#x", pc, in.Code)
		}
	}
	t.Fatal("the filter does not end")
	return 0
}

func TestFilter(t *testing.T) {
	const me = 4711
	p := filter(me)
	if len(p) > 4096 {
		t.Fatalf("%d instructions", len(p)) // BPF_MAXINSNS
	}
	const allow, eperm, enosys = unix.SECCOMP_RET_ALLOW, unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM), unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
	for _, c := range []struct {
		name     string
		arch, nr uint32
		arg0     uint64
		want     uint32
	}{
		{"read", auditArch, unix.SYS_READ, 0, allow},
		{"exec", auditArch, unix.SYS_EXECVE, 0, allow},
		{"socketpair", auditArch, unix.SYS_SOCKETPAIR, unix.AF_UNIX, eperm},
		{"shared memory", auditArch, unix.SYS_SHMGET, 0x1234, eperm},
		{"shared memory by its id", auditArch, unix.SYS_SHMAT, 1, eperm},
		{"semaphores", auditArch, unix.SYS_SEMOP, 1, eperm},
		{"messages", auditArch, unix.SYS_MSGRCV, 1, eperm},
		{"a queue by its name", auditArch, unix.SYS_MQ_OPEN, 0, eperm},
		{"32 bits", 0x40000003, unix.SYS_READ, 0, unix.SECCOMP_RET_KILL_PROCESS},
		{"x32", auditArch, x32Bit | unix.SYS_SOCKET, 0, enosys},
		{"a thread", auditArch, unix.SYS_CLONE, unix.CLONE_VM | unix.CLONE_THREAD | unix.CLONE_SIGHAND, allow},
		{"a process", auditArch, unix.SYS_CLONE, uint64(unix.SIGCHLD), allow},
		{"a user namespace", auditArch, unix.SYS_CLONE, unix.CLONE_NEWUSER, eperm},
		{"a network namespace", auditArch, unix.SYS_CLONE, unix.CLONE_VM | unix.CLONE_NEWNET, eperm},
		{"a signal to a thread of its own", auditArch, unix.SYS_TGKILL, me, allow},
		{"a signal to another's", auditArch, unix.SYS_TGKILL, me + 1, eperm},
		{"a signal to anybody", auditArch, unix.SYS_KILL, me, eperm},
		{"a limit of its own", auditArch, unix.SYS_PRLIMIT64, 0, allow},
		{"a limit of another", auditArch, unix.SYS_PRLIMIT64, me + 1, eperm},
		{"clone3", auditArch, unix.SYS_CLONE3, 0, enosys},
	} {
		if got := run(t, p, c.arch, c.nr, c.arg0, 0); got != c.want {
			t.Errorf("%s: %#x, not %#x", c.name, got, c.want)
		}
	}
	for command := range uint64(0x9000) {
		for _, nr := range []uint32{unix.SYS_FCNTL, unix.SYS_IOCTL} {
			want := uint32(allow)
			if slices.Contains(owners[nr], uint32(command)) {
				want = eperm
			}
			if got := run(t, p, auditArch, nr, 3, command|1<<32); got != want { // the kernel takes the low half
				t.Errorf("system call %d with %#x: %#x, not %#x", nr, command, got, want)
			}
		}
	}
	for nr := range uint32(600) {
		want := uint32(allow)
		if slices.Contains(denied, nr) || slices.Contains(deniedHere, nr) || nr == unix.SYS_TGKILL {
			want = eperm
		}
		if nr == unix.SYS_CLONE3 {
			want = enosys
		}
		if got := run(t, p, auditArch, nr, 0, 0); got != want {
			t.Errorf("system call %d: %#x, not %#x", nr, got, want)
		}
	}
}
