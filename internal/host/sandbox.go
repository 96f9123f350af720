package host

import (
	"context"
	"fmt"
	"os"

	"github.com/halevm/hale/internal/hypervisor/qemu"
	"github.com/halevm/hale/internal/sandbox"
)

// checkSandbox says which layers of the sandbox (docs/security.md) hold here. Machines run without those that do not, unless
// the daemon is told to require them.
func checkSandbox(ctx context.Context, uids sandbox.Range) []Check {
	s := sandbox.Detect(ctx, uids)
	root := os.Geteuid() == 0
	who := "machines have this user's uid; run as root, the daemon gives each one of its own"
	if root {
		who = "each machine has a uid of its own, of " + uids.String()
	}
	checks := []Check{
		layer("sandbox: uids", s.UID, who, "QEMU runs as root: make this hold before running untrusted images"),
		layer("sandbox: namespaces", s.Namespaces, "the shim in a user namespace of its own, QEMU in an empty network", mendNamespaces(root)),
		layer("sandbox: landlock", s.Landlock, "QEMU opens nothing but its programs and firmware; "+landlockHas(s.ABI), "a kernel with Landlock (5.13 or later, and landlock in lsm=)"),
		layer("sandbox: seccomp", s.Seccomp, "QEMU makes no sockets, namespaces or programs", "a kernel with seccomp filters"),
	}
	if root && s.UID.Works {
		if _, err := qemu.KVMGroups(); err != nil && !os.IsNotExist(err) {
			checks = append(checks, Check{Name: "sandbox: kvm", Verdict: Warn, Detail: err.Error(), Mend: "until then machines run under software emulation"})
		}
	}
	return checks
}

func layer(name string, l sandbox.Layer, holds, mend string) Check {
	if l.Works {
		return Check{Name: name, Verdict: OK, Detail: holds}
	}
	return Check{Name: name, Verdict: Warn, Detail: "not here: " + l.Why, Mend: mend}
}

// landlockHas says what the kernel's version of Landlock lacks (the ABIs of landlock(7)).
func landlockHas(abi int) string {
	has := fmt.Sprintf("ABI %d", abi)
	switch {
	case abi < 3:
		return has + ", which knows no truncation of files, no TCP, no devices' ioctl, no signals"
	case abi < 4:
		return has + ", which knows no TCP, no devices' ioctl, no signals"
	case abi < 5:
		return has + ", which knows no devices' ioctl, no signals"
	case abi < 6:
		return has + ", which knows no signals"
	}
	return has
}

// mendNamespaces finds the setting that is in the way.
func mendNamespaces(root bool) string {
	for _, s := range []struct{ file, bad, mend string }{
		{"/proc/sys/user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=10000"},
		{"/proc/sys/user/max_net_namespaces", "0", "sysctl user.max_net_namespaces=10000"},
		{"/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"},
		{"/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "an AppArmor profile that gives hale `userns,`, or sysctl kernel.apparmor_restrict_unprivileged_userns=0"},
	} {
		if b, err := os.ReadFile(s.file); err == nil && len(b) > 0 && string(b[:len(b)-1]) == s.bad {
			if root {
				return s.mend
			}
			return s.mend + ", or a daemon run as root"
		}
	}
	return "docs/security.md says what is not protected without them"
}
