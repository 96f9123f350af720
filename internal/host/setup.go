// Package host knows the machine that hale runs on: what it has, what is missing, and how to get that (Setup), and what
// a person should mend (Doctor). It changes nothing but what it says, and does nothing twice.
package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/kernel"
	"github.com/halevm/hale/internal/kernel/agentbin"
)

// A program is something that hale runs and a package of the distribution ships.
type program struct {
	name string
	pack string // of Debian and Ubuntu
	what string
}

var programs = []program{
	{name: "qemu-system-x86_64", pack: "qemu-system-x86", what: "QEMU, which runs the machines"},
	{name: "mke2fs", pack: "e2fsprogs", what: "e2fsprogs, which makes their writable layers"},
}

// Look finds a program by its name, also where an ordinary user's PATH does not lead.
func Look(name string) (string, error) {
	if p, err := exec.LookPath(name); err == nil {
		return p, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/local/sbin"} {
		if p, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return p, nil
		}
	}
	return "", fmt.Errorf("%s is not installed (run hale setup): %w", name, api.Unavailable)
}

// QEMU returns the path of the hypervisor's binary.
func QEMU() (string, error) { return Look(programs[0].name) }

// Setup gets what this host is missing to run machines: programs through its package manager, and a kernel for the
// guests into dataDir. say is told each step in words.
func Setup(ctx context.Context, dataDir string, say func(string)) error {
	if err := installPrograms(ctx, say); err != nil {
		return err
	}
	kernels := filepath.Join(dataDir, "kernels")
	k, err := kernel.Newest(kernels)
	switch {
	case err == nil:
		say(fmt.Sprintf("the guest's kernel is here: %s", k.Version))
	case errors.Is(err, kernel.ErrMissing):
		say("fetching a kernel for the guests into " + kernels)
		if k, err = kernel.Fetch(ctx, kernels, func(s string) { say("  " + s) }); err != nil {
			return fmt.Errorf("fetch a kernel: %w", err)
		}
		say(fmt.Sprintf("the guest's kernel is here now: %s (%s)", k.Version, k.Digest))
	default:
		return err
	}
	_, err = Boot(k)
	return err
}

// BootFiles are what a guest is booted with.
type BootFiles struct{ Kernel, Initrd string }

// Boot prepares a kernel and its initrd, which is done once, and says where they are.
func Boot(k kernel.Kernel) (BootFiles, error) {
	agent, err := agentbin.Agent()
	if err != nil {
		return BootFiles{}, err
	}
	image, err := k.Image()
	if err != nil {
		return BootFiles{}, err
	}
	initrd, err := k.Initrd(agent)
	if err != nil {
		return BootFiles{}, err
	}
	return BootFiles{Kernel: image, Initrd: initrd}, nil
}

func installPrograms(ctx context.Context, say func(string)) error {
	var missing []string
	for _, p := range programs {
		if path, err := Look(p.name); err == nil {
			say(fmt.Sprintf("%s is here: %s", p.name, path))
		} else {
			say(p.what + ", is missing")
			missing = append(missing, p.pack)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("this host has no apt-get: install %s by its own package manager: %w", strings.Join(missing, " and "), api.Unsupported)
	}
	install := append([]string{"apt-get", "install", "-y", "--no-install-recommends"}, missing...)
	if os.Geteuid() != 0 {
		if _, err := exec.LookPath("sudo"); err != nil {
			return fmt.Errorf("run this as root, then try again: %s: %w", strings.Join(install, " "), api.Unavailable)
		}
	}
	say("installing " + strings.Join(missing, " ") + " (" + strings.Join(install, " ") + ")")
	if err := runAsRoot(ctx, install); err == nil {
		return nil
	} else if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	say("that failed; reading the package lists and trying once more (apt-get update)")
	if err := runAsRoot(ctx, []string{"apt-get", "update"}); err != nil {
		return err
	}
	return runAsRoot(ctx, install)
}

// runAsRoot runs apt-get as root, through sudo where we are not, and lets sudo ask for a password.
func runAsRoot(ctx context.Context, argv []string) error {
	argv = append([]string{"env", "DEBIAN_FRONTEND=noninteractive"}, argv...)
	if os.Geteuid() != 0 {
		argv = append([]string{"sudo"}, argv...)
	}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdin = os.Stdin
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, lastLines(out.String(), 5))
	}
	return nil
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
