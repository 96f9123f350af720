package pid1

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Where things are in the initramfs, until the root is the image's.
const (
	lowerDir = "/lower"
	upperDir = "/upper"
	newRoot  = "/newroot"
)

// cgroupMount is where cgroup v2 is, as everywhere.
const cgroupMount = "/sys/fs/cgroup"

// A mount is one of the file systems that a program expects to find.
type mount struct {
	what, where string
	flags       uintptr
	data        string
}

const (
	nosuid = unix.MS_NOSUID
	nodev  = unix.MS_NODEV
	noexec = unix.MS_NOEXEC
)

// early is what the agent needs itself, in the initramfs.
var early = []mount{
	{"devtmpfs", "/dev", nosuid, "mode=755"},
	{"proc", "/proc", nosuid | nodev | noexec, ""},
	{"sysfs", "/sys", nosuid | nodev | noexec, ""},
}

// late is what the image's root gets besides.
var late = []mount{
	{"devpts", "/dev/pts", nosuid | noexec, "mode=620,ptmxmode=666,gid=5"},
	{"tmpfs", "/dev/shm", nosuid | nodev, "mode=1777"},
	{"mqueue", "/dev/mqueue", nosuid | nodev | noexec, ""},
	{"cgroup2", cgroupMount, nosuid | nodev | noexec, ""},
}

// mountEarly mounts what everything else is found by, and gives this process the console for its output.
func mountEarly() error {
	var errs []error
	for _, m := range early {
		errs = append(errs, m.mount())
	}
	if console, err := os.OpenFile("/dev/console", os.O_RDWR, 0); err != nil {
		errs = append(errs, err)
	} else {
		for fd := range 3 {
			errs = append(errs, unix.Dup3(int(console.Fd()), fd, 0))
		}
		if console.Fd() > 2 {
			console.Close()
		}
	}
	return errors.Join(errs...)
}

// mount makes the directory where it is missing. What the image has there instead is replaced: with a link in that place
// nothing would find what belongs there.
func (m mount) mount() error {
	fi, err := os.Lstat(m.where)
	if err == nil && !fi.IsDir() {
		if err := os.Remove(m.where); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(m.where, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(m.what, m.where, m.what, m.flags, m.data); err != nil && !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("mount %s: %w", m.where, err)
	}
	return nil
}

// enterRoot mounts the disks, the image's read-only and the writable layer over it, and makes the two together the root
// of this process, and so of all that it starts.
func (m *Machine) enterRoot() error {
	if err := m.mountDisks(); err != nil {
		return err
	}
	run := imageRun(m.log, filepath.Join(lowerDir, "run"))
	if err := os.Chdir(newRoot); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("change the root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	// Only now are the mount points looked at: whatever links the image has there lead into itself.
	var errs []error
	for _, m := range append(early, late...) {
		errs = append(errs, m.mount())
	}
	errs = append(errs, linkDevices(), run.mount())
	// As programs that make namespaces expect it, systemd's or Docker's.
	errs = append(errs, unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""))
	return errors.Join(errs...)
}

func (m *Machine) mountDisks() error {
	disks, err := findDisks("lower", "upper")
	if err != nil {
		return err
	}
	lower, upper := disks["lower"], disks["upper"]
	for _, dir := range []string{lowerDir, upperDir, newRoot} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := unix.Mount(lower, lowerDir, "ext4", unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("mount the image: %w", err)
	}
	m.phases.reached("lower")
	// With discard the host's sparse file gives back what is deleted. It begins as zeros, which need not be written once more.
	if err := unix.Mount(upper, upperDir, "ext4", 0, "discard,noinit_itable"); err != nil {
		return fmt.Errorf("mount the writable layer: %w", err)
	}
	m.phases.reached("upper")
	if m.upper, err = os.Open(upperDir); err != nil {
		return err
	}
	for _, dir := range []string{"upper", "work"} {
		if err := os.Mkdir(filepath.Join(upperDir, dir), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	if err := copyMeta(lowerDir, filepath.Join(upperDir, "upper")); err != nil {
		return err
	}
	// redirect_dir: without it a directory of the image cannot be renamed (EXDEV).
	data := "lowerdir=" + lowerDir + ",upperdir=" + upperDir + "/upper,workdir=" + upperDir + "/work,redirect_dir=on"
	if err := unix.Mount("overlay", newRoot, "overlay", 0, data); err != nil {
		return fmt.Errorf("mount the overlay: %w", err)
	}
	m.phases.reached("overlay")
	return nil
}

// copyMeta gives the root directory the image's mode and owner, once: overlayfs shows those of the upper one. What a
// program changes of them later stays.
func copyMeta(from, to string) error {
	done := to + ".made"
	if _, err := os.Lstat(done); err == nil {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Lstat(from, &st); err != nil {
		return err
	}
	if err := unix.Lchown(to, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := unix.Chmod(to, st.Mode&0o7777); err != nil {
		return err
	}
	return os.WriteFile(done, nil, 0o600)
}

// findDisks returns the devices by their serials; one that is still being found is waited for.
func findDisks(serials ...string) (map[string]string, error) {
	const blocks = "/sys/block"
	found, looked := make(map[string]string), make(map[string]bool)
	err := waitFor(10*time.Second, func() bool {
		devices, _ := os.ReadDir(blocks)
		for _, d := range devices {
			if looked[d.Name()] { // each look asks the disk itself
				continue
			}
			b, err := os.ReadFile(filepath.Join(blocks, d.Name(), "serial"))
			if err != nil {
				continue // not yet, or a disk of another kind
			}
			if serial := strings.TrimRight(string(b), "\n\x00"); serial != "" {
				looked[d.Name()] = true
				found[serial] = "/dev/" + d.Name()
			}
		}
		return len(missing(found, serials)) == 0
	})
	if err != nil {
		return nil, fmt.Errorf("no disk with the serial %q: %w", missing(found, serials), err)
	}
	return found, nil
}

func missing(found map[string]string, serials []string) []string {
	var m []string
	for _, s := range serials {
		if found[s] == "" {
			m = append(m, s)
		}
	}
	return m
}

// linkDevices makes the names in /dev that are not devices.
func linkDevices() error {
	var errs []error
	for name, target := range map[string]string{
		"/dev/fd": "/proc/self/fd", "/dev/stdin": "/proc/self/fd/0",
		"/dev/stdout": "/proc/self/fd/1", "/dev/stderr": "/proc/self/fd/2",
	} {
		if err := os.Symlink(target, name); err != nil && !errors.Is(err, fs.ErrExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
