package sandbox

import (
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// An Identity is who a process is on this host. The zero value is this process's own user.
type Identity struct {
	UID    uint32   // and the gid of the same number; 0: this process's own user
	Groups []uint32 // gids that it has besides; only with a UID
}

// IsOwn reports whether it is this process's own user.
func (id Identity) IsOwn() bool { return id.UID == 0 }

// HostUID is its uid as this process sees it.
func (id Identity) HostUID() uint32 {
	if id.IsOwn() {
		return uint32(os.Geteuid())
	}
	return id.UID
}

// HostGID is its gid for chown: -1, which changes nothing, for this process's own user.
func (id Identity) HostGID() int {
	if id.IsOwn() {
		return -1
	}
	return int(id.UID)
}

// SysProcAttr says how to start a process as id. With namespace it gets a user namespace that maps this one uid, to itself,
// and the one capability there that makes other namespaces. It keeps none after its DropCapabilities, nor does what it starts.
//
// The namespace of an identity of root's own would make its processes root in it, with every capability: there is none.
func (id Identity) SysProcAttr(namespace bool) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setsid: true}
	if !id.IsOwn() {
		attr.Credential = &syscall.Credential{Uid: id.UID, Gid: id.UID, Groups: id.Groups}
	}
	if !namespace || id.HostUID() == 0 {
		return attr
	}
	attr.Cloneflags = syscall.CLONE_NEWUSER
	attr.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN}
	if id.IsOwn() {
		attr.UidMappings = sameIDs(uint32(os.Geteuid()))
		attr.GidMappings = sameIDs(uint32(os.Getegid()))
		return attr
	}
	attr.UidMappings = sameIDs(id.UID)
	gids := append([]uint32{id.UID}, id.Groups...)
	slices.Sort(gids)
	attr.GidMappings = sameIDs(slices.Compact(gids)...)
	attr.GidMappingsEnableSetgroups = true
	return attr
}

func sameIDs(ids ...uint32) []syscall.SysProcIDMap {
	var m []syscall.SysProcIDMap
	for _, id := range ids {
		m = append(m, syscall.SysProcIDMap{ContainerID: int(id), HostID: int(id), Size: 1})
	}
	return m
}
