package sandbox

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// denied are system calls that a hypervisor which was handed all its descriptors has no use for: they make sockets and
// namespaces, look into other processes or signal them, share memory and messages with those of the same uid, change what files are or watch
// them (from which no Landlock keeps anybody), or reach parts of the kernel that break-outs begin with. They answer EPERM. QEMU's
// own filter (argv's -sandbox) comes on top of this and denies what starts programs; it leaves sockets, namespaces and io_uring.
var denied = []uint32{
	unix.SYS_SOCKET, unix.SYS_SOCKETPAIR, unix.SYS_CONNECT, unix.SYS_BIND, unix.SYS_LISTEN,
	unix.SYS_SHMGET, unix.SYS_SHMAT, unix.SYS_SHMCTL, unix.SYS_SHMDT,
	unix.SYS_SEMGET, unix.SYS_SEMOP, unix.SYS_SEMTIMEDOP, unix.SYS_SEMCTL,
	unix.SYS_MSGGET, unix.SYS_MSGSND, unix.SYS_MSGRCV, unix.SYS_MSGCTL, unix.SYS_MQ_OPEN, unix.SYS_MQ_UNLINK,
	unix.SYS_UNSHARE, unix.SYS_SETNS, unix.SYS_CHROOT, unix.SYS_PIVOT_ROOT,
	unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_MOVE_MOUNT, unix.SYS_OPEN_TREE, unix.SYS_MOUNT_SETATTR,
	unix.SYS_FSOPEN, unix.SYS_FSCONFIG, unix.SYS_FSMOUNT, unix.SYS_FSPICK,
	unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_PIDFD_GETFD, unix.SYS_KCMP,
	unix.SYS_KILL, unix.SYS_TKILL, unix.SYS_RT_SIGQUEUEINFO, unix.SYS_RT_TGSIGQUEUEINFO, unix.SYS_PIDFD_SEND_SIGNAL,
	unix.SYS_PROCESS_MADVISE, unix.SYS_MOVE_PAGES, unix.SYS_MIGRATE_PAGES, unix.SYS_SCHED_SETATTR, unix.SYS_IOPRIO_SET,
	unix.SYS_FCHMOD, unix.SYS_FCHMODAT, unix.SYS_FCHMODAT2, unix.SYS_FCHOWN, unix.SYS_FCHOWNAT, unix.SYS_UTIMENSAT,
	unix.SYS_SETXATTR, unix.SYS_LSETXATTR, unix.SYS_FSETXATTR, unix.SYS_SETXATTRAT,
	unix.SYS_REMOVEXATTR, unix.SYS_LREMOVEXATTR, unix.SYS_FREMOVEXATTR, unix.SYS_REMOVEXATTRAT,
	unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER,
	unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD, unix.SYS_FANOTIFY_INIT, unix.SYS_INOTIFY_INIT1, unix.SYS_INOTIFY_ADD_WATCH,
	unix.SYS_KEYCTL, unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY,
	unix.SYS_NAME_TO_HANDLE_AT, unix.SYS_OPEN_BY_HANDLE_AT,
	unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE, unix.SYS_KEXEC_LOAD, unix.SYS_KEXEC_FILE_LOAD,
	unix.SYS_REBOOT, unix.SYS_SWAPON, unix.SYS_SWAPOFF, unix.SYS_ACCT, unix.SYS_QUOTACTL, unix.SYS_SYSLOG,
	unix.SYS_SETTIMEOFDAY, unix.SYS_CLOCK_SETTIME, unix.SYS_CLOCK_ADJTIME, unix.SYS_ADJTIMEX,
	unix.SYS_PERSONALITY,
}

// newNamespaces are the flags of clone that make one (linux/sched.h).
const newNamespaces = unix.CLONE_NEWUSER | unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP

// Offsets in struct seccomp_data, and the instructions that are used.
const (
	seccompNr   = 0
	seccompArch = 4
	seccompArg0 = 16 // its low half
	seccompArg1 = 24 // likewise

	bpfLoad    = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	bpfEqual   = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	bpfAtLeast = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
	bpfAnySet  = unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K
	bpfReturn  = unix.BPF_RET | unix.BPF_K

	x32Bit = 0x40000000 // of the numbers of the x32 calls, which nobody uses
)

// fiosetown is FIOSETOWN (asm-generic/sockios.h).
const fiosetown = 0x8901

// owners are what names the process that the kernel signals when something happens to a descriptor. It may be any of the same uid.
var owners = map[uint32][]uint32{
	unix.SYS_FCNTL: {unix.F_SETOWN, unix.F_SETOWN_EX},
	unix.SYS_IOCTL: {fiosetown, unix.SIOCSPGRP},
}

// filter is the program for the process pid: it looks at the architecture, then at the number, and for some at the first argument or the second.
// clone3 hides its flags behind a pointer and answers ENOSYS, upon which a C library takes clone.
func filter(pid uint32) []unix.SockFilter {
	load := func(offset uint32) unix.SockFilter { return unix.SockFilter{Code: bpfLoad, K: offset} }
	ret := func(k uint32) unix.SockFilter { return unix.SockFilter{Code: bpfReturn, K: k} }
	refuse := func(errno uint32) unix.SockFilter { return ret(unix.SECCOMP_RET_ERRNO | errno) }
	p := []unix.SockFilter{
		load(seccompArch),
		{Code: bpfEqual, K: auditArch, Jt: 1},
		ret(unix.SECCOMP_RET_KILL_PROCESS),
		load(seccompNr),
		{Code: bpfAtLeast, K: x32Bit, Jf: 1},
		refuse(uint32(unix.ENOSYS)),
		{Code: bpfEqual, K: unix.SYS_CLONE3, Jf: 1},
		refuse(uint32(unix.ENOSYS)),
	}
	// A first argument of nr that passes test is refused, or with allowed the only one that is not.
	argument := func(nr uint32, test unix.SockFilter, allowed bool) {
		yes, no := refuse(uint32(unix.EPERM)), ret(unix.SECCOMP_RET_ALLOW)
		if allowed {
			yes, no = no, yes
		}
		test.Jf = 1
		p = append(p, unix.SockFilter{Code: bpfEqual, K: nr, Jf: 4}, load(seccompArg0), test, yes, no)
	}
	argument(unix.SYS_CLONE, unix.SockFilter{Code: bpfAnySet, K: newNamespaces}, false)
	argument(unix.SYS_TGKILL, unix.SockFilter{Code: bpfEqual, K: pid}, true)
	argument(unix.SYS_PRLIMIT64, unix.SockFilter{Code: bpfEqual, K: 0}, true)
	for _, nr := range slices.Sorted(maps.Keys(owners)) {
		commands := owners[nr]
		n := uint8(len(commands))
		p = append(p, unix.SockFilter{Code: bpfEqual, K: nr, Jf: n + 3}, load(seccompArg1))
		for i, c := range commands {
			p = append(p, unix.SockFilter{Code: bpfEqual, K: c, Jt: n - uint8(i)})
		}
		p = append(p, ret(unix.SECCOMP_RET_ALLOW), refuse(uint32(unix.EPERM)))
	}
	for _, nr := range slices.Concat(denied, deniedHere) {
		p = append(p, unix.SockFilter{Code: bpfEqual, K: nr, Jf: 1}, refuse(uint32(unix.EPERM)))
	}
	return append(p, ret(unix.SECCOMP_RET_ALLOW))
}

// enforceFilter puts the calling thread, and what it starts, behind the filter. It needs no_new_privs.
func enforceFilter() error {
	p := filter(uint32(os.Getpid()))
	prog := unix.SockFprog{Len: uint16(len(p)), Filter: &p[0]}
	if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&prog)), 0, 0); err != nil {
		return fmt.Errorf("seccomp: %w", err)
	}
	return nil
}

// seccompWorks asks the kernel without changing anything.
func seccompWorks() error {
	if auditArch == 0 {
		return errors.New("there is no filter for this architecture yet")
	}
	const getActionAvail = 2 // SECCOMP_GET_ACTION_AVAIL
	action := uint32(unix.SECCOMP_RET_ERRNO)
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, getActionAvail, 0, uintptr(unsafe.Pointer(&action))); errno != 0 {
		return errno
	}
	return nil
}
