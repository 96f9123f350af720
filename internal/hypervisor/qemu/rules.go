package qemu

import (
	"path/filepath"
	"strings"

	"github.com/halevm/hale/internal/sandbox"
)

// Rules are what the QEMU at path opens by itself: programs and libraries, its firmware, and a few devices. Everything of a
// machine it inherits.
func Rules(path string) []sandbox.Rule {
	rules := []sandbox.Rule{
		{Path: "/usr", Access: sandbox.Read | sandbox.Execute},
		{Path: "/lib", Access: sandbox.Read | sandbox.Execute}, // where they are no links into /usr
		{Path: "/lib64", Access: sandbox.Read | sandbox.Execute},
		{Path: "/etc/ld.so.cache", Access: sandbox.Read},
		{Path: "/etc/localtime", Access: sandbox.Read},
		{Path: "/dev/null", Access: sandbox.Read | sandbox.Write},
		{Path: "/dev/urandom", Access: sandbox.Read},
		{Path: kvmDevice, Access: sandbox.Read | sandbox.Write | sandbox.Ioctl},
		{Path: path, Access: sandbox.Read | sandbox.Execute},
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	prefix := filepath.Dir(filepath.Dir(path))
	if strings.HasPrefix(path, "/usr/") || filepath.Base(filepath.Dir(path)) != "bin" {
		return rules
	}
	// One that was built by hand has its own beside it: /opt/qemu/bin, /opt/qemu/share.
	for _, name := range []string{"lib", "lib64", "libexec", "share"} {
		rules = append(rules, sandbox.Rule{Path: filepath.Join(prefix, name), Access: sandbox.Read | sandbox.Execute})
	}
	return rules
}

// Rules are what this driver's machines open by themselves.
func (d *Driver) Rules() []sandbox.Rule { return Rules(d.path) }
