package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Access is what may be done to a file, or to what is below a directory.
type Access uint8

// The accesses.
const (
	Read    Access = 1 << iota // and list directories
	Execute                    // as a program
	Write                      // to files that are there
	Manage                     // make and remove files and sockets in a directory
	Ioctl                      // of a device
)

// A Rule allows access to one file or to everything below one directory. A path that is not there allows nothing.
type Rule struct {
	Path   string `json:"path"`
	Access Access `json:"access"`
}

// Rights of Landlock, with the version of its interface (ABI) that brought each after the first (linux/landlock.h).
const (
	llExecute    = 1 << 0
	llWriteFile  = 1 << 1
	llReadFile   = 1 << 2
	llReadDir    = 1 << 3
	llRemoveFile = 1 << 5
	llMakeReg    = 1 << 8
	llMakeSock   = 1 << 9
	llABI1       = 1<<13 - 1
	llRefer      = 1 << 13 // 2
	llTruncate   = 1 << 14 // 3
	llIoctlDev   = 1 << 15 // 5

	llFileRights = llExecute | llWriteFile | llReadFile | llTruncate | llIoctlDev

	llNetTCP = 1<<2 - 1 // 4: bind and connect
	llScopes = 1<<2 - 1 // 6: abstract sockets, signals
)

// landlockABI is the version of Landlock that the kernel here speaks.
func landlockABI() (int, error) {
	const version = 1 // LANDLOCK_CREATE_RULESET_VERSION
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, version)
	if errno != 0 {
		return 0, errno
	}
	return int(abi), nil
}

// handledFS are the rights on files that a ruleset of this ABI takes away unless a rule gives them.
func handledFS(abi int) uint64 {
	h := uint64(llABI1)
	if abi >= 2 {
		h |= llRefer
	}
	if abi >= 3 {
		h |= llTruncate
	}
	if abi >= 5 {
		h |= llIoctlDev
	}
	return h
}

// rights turns an Access into Landlock's rights, those that abi knows and that make sense for a directory or a file.
func (a Access) rights(abi int, dir bool) uint64 {
	var r uint64
	if a&Read != 0 {
		r |= llReadFile | llReadDir
	}
	if a&Execute != 0 {
		r |= llExecute
	}
	if a&Write != 0 {
		r |= llWriteFile | llTruncate
	}
	if a&Manage != 0 {
		r |= llRemoveFile | llMakeReg | llMakeSock
	}
	if a&Ioctl != 0 {
		r |= llIoctlDev
	}
	if !dir {
		r &= llFileRights
	}
	return r & handledFS(abi)
}

// A ruleset is made first and then enforced, on one thread or on all of them.
type ruleset struct{ fd int }

// newRuleset makes a ruleset that allows what rules say and nothing else. What is open already stays usable. With alone,
// no TCP port can be bound or dialed, and nothing outside can be signalled or reached by an abstract socket.
func newRuleset(abi int, rules []Rule, alone bool) (ruleset, error) {
	attr := unix.LandlockRulesetAttr{Handled_access_fs: handledFS(abi)}
	if alone && abi >= 4 {
		attr.Handled_access_net = llNetTCP
	}
	if alone && abi >= 6 {
		attr.Scoped = llScopes
	}
	// A kernel takes a structure that is longer than its own, as long as what it does not know is zero.
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr), 0)
	if errno != 0 {
		return ruleset{}, fmt.Errorf("landlock: make a ruleset: %w", errno)
	}
	rs := ruleset{fd: int(fd)}
	unix.CloseOnExec(rs.fd)
	for _, r := range rules {
		if err := rs.allow(abi, r); err != nil {
			rs.close()
			return ruleset{}, err
		}
	}
	return rs, nil
}

func (rs ruleset) allow(abi int, r Rule) error {
	f, err := unix.Open(r.Path, unix.O_PATH|unix.O_CLOEXEC, 0)
	// What this process cannot even name, it could not use with the rule either.
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, fs.ErrPermission) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("landlock: %s: %w", r.Path, err)
	}
	defer unix.Close(f)
	var st unix.Stat_t
	if err := unix.Fstat(f, &st); err != nil {
		return fmt.Errorf("landlock: %s: %w", r.Path, err)
	}
	rights := r.Access.rights(abi, st.Mode&unix.S_IFMT == unix.S_IFDIR)
	if rights == 0 {
		return nil
	}
	// The kernel's structure is packed; x/sys pads its copy at the end, where the kernel does not look.
	attr := unix.LandlockPathBeneathAttr{Allowed_access: rights, Parent_fd: int32(f)}
	const pathBeneath = 1 // LANDLOCK_RULE_PATH_BENEATH
	_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(rs.fd), pathBeneath, uintptr(unsafe.Pointer(&attr)), 0, 0, 0)
	if errno == unix.EBADFD { // not of a file system that has paths: a pipe, a socket
		return nil
	}
	if errno != 0 {
		return fmt.Errorf("landlock: %s: %w", r.Path, errno)
	}
	return nil
}

func (rs ruleset) close() { unix.Close(rs.fd) }

// enforce shuts the calling thread in, and what it starts. It needs no_new_privs.
func (rs ruleset) enforce() error {
	_, _, errno := unix.RawSyscall(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(rs.fd), 0, 0)
	if errno != 0 {
		return fmt.Errorf("landlock: enforce: %w", errno)
	}
	return nil
}

// enforceAll shuts every thread of this process in.
func (rs ruleset) enforceAll() error {
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(rs.fd), 0, 0)
	if errno != 0 {
		return fmt.Errorf("landlock: enforce: %w", errno)
	}
	return nil
}
