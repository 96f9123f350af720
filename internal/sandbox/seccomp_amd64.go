package sandbox

import "golang.org/x/sys/unix"

const auditArch = 0xc000003e // AUDIT_ARCH_X86_64

// deniedHere are those of this architecture only: ports of the processor.
var deniedHere = []uint32{unix.SYS_IOPL, unix.SYS_IOPERM}
