package sandbox

import "golang.org/x/sys/unix"

const auditArch = 0xc000003e // AUDIT_ARCH_X86_64

// deniedHere are those of this architecture only: ports of the processor, and older ways to change what files are and to watch them.
var deniedHere = []uint32{
	unix.SYS_IOPL, unix.SYS_IOPERM,
	unix.SYS_CHMOD, unix.SYS_CHOWN, unix.SYS_LCHOWN, unix.SYS_UTIME, unix.SYS_UTIMES, unix.SYS_FUTIMESAT, unix.SYS_INOTIFY_INIT,
}
