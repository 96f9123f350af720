package shim

import (
	"errors"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/halevm/hale/internal/sandbox"
	"github.com/halevm/hale/internal/shim/protocol"
)

// identify finds out who the shim will be. Where the daemon is root, that is a uid of the instance's own, the same at every
// start if nobody else uses it meanwhile; it is recorded before anything is given to it.
func (s *starting) identify() error {
	if os.Geteuid() != 0 || !s.platform.Sandbox.UID.Works {
		return nil
	}
	recorded := readOwner(s.dir.ownerPath())
	others := s.dir.neighbours()
	uid, claim, err := s.platform.UIDs.Claim(recorded.UID, func(uid uint32) bool { return others[uid] })
	if err != nil {
		return err
	}
	s.inherit(claim) // it is the shim's from its start on, and goes with it
	if uid != recorded.UID {
		if err := s.dir.writeOwner(owner{UID: uid}); err != nil {
			return err
		}
	}
	s.id = sandbox.Identity{UID: uid, Groups: s.platform.Groups}
	return nil
}

// box is what the shim shuts itself and its hypervisor in with.
func (s *starting) box() protocol.Sandbox {
	support := s.platform.Sandbox
	return protocol.Sandbox{
		UID: s.id.UID, Namespaces: support.Namespaces.Works, Landlock: support.Landlock.Works, Seccomp: support.Seccomp.Works,
	}
}

// ownRules are what a shim opens beside what its hypervisor does: its own directories and binary, what the kernel tells of
// processes, and what names are resolved with. The latter is replaced by renames, so a rule for the files alone would not last.
var ownRules = []sandbox.Rule{
	{Path: ".", Access: sandbox.Read},
	{Path: runDirName, Access: sandbox.Read | sandbox.Write | sandbox.Manage},
	{Path: logDirName, Access: sandbox.Read | sandbox.Write | sandbox.Manage},
	{Path: "/proc", Access: sandbox.Read},
	{Path: "/proc/self/exe", Access: sandbox.Read | sandbox.Execute},
	{Path: "/etc", Access: sandbox.Read},
	{Path: "/run/systemd/resolve", Access: sandbox.Read},
	{Path: "/run/resolvconf", Access: sandbox.Read},
	{Path: "/run/NetworkManager", Access: sandbox.Read},
}

// shutIn takes from this process what a shim has no use for, from here on and for good. A capability is left, in a
// namespace of its own, until the hypervisor has been started with it.
func shutIn(c protocol.Config, hypervisor Hypervisor, log *slog.Logger) error {
	err := sandbox.NoNewPrivs()
	if !c.Sandbox.Namespaces { // what it may have of the daemon's
		err = errors.Join(err, sandbox.DropCapabilities())
	}
	if err != nil {
		log.Warn("the shim keeps privileges, or can gain some", "err", err)
	}
	if !c.Sandbox.Landlock {
		return nil
	}
	rules := slices.Clone(ownRules)
	for _, fd := range []int{c.KernelFD, c.InitrdFD} { // which the hypervisor opens again
		rules = append(rules, sandbox.Rule{Path: sandbox.Reopened(fd), Access: sandbox.Read})
	}
	if h, ok := hypervisor.(interface{ Rules() []sandbox.Rule }); ok {
		rules = append(rules, h.Rules()...)
	}
	return sandbox.Restrict(rules)
}

// daemonUID is the uid by which the daemon appears to a shim. It is never the uid that a machine has of its own, which the
// hypervisor has as well; in a namespace without root, root is nobody.
func daemonUID(c protocol.Sandbox) int {
	switch {
	case c.UID == 0:
		return os.Getuid()
	case !c.Namespaces:
		return 0
	}
	b, err := os.ReadFile("/proc/sys/kernel/overflowuid")
	if uid, convErr := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && convErr == nil {
		return uid
	}
	return 65534
}
