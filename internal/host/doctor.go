package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/halevm/hale/internal/hypervisor"
	"github.com/halevm/hale/internal/hypervisor/qemu"
	"github.com/halevm/hale/internal/kernel"
	"github.com/halevm/hale/internal/sandbox"
)

// A Verdict is what a Check found.
type Verdict string

// The verdicts. A host with Fail runs no machines; with Warn it runs them less well.
const (
	OK   Verdict = "ok"
	Warn Verdict = "warn"
	Fail Verdict = "fail"
)

// A Check is one thing that was looked at.
type Check struct {
	Name    string  `json:"name"`
	Verdict Verdict `json:"verdict"`
	Detail  string  `json:"detail"`
	Mend    string  `json:"mend,omitempty"` // what to do about it
}

const setupMends = "run: hale setup"

// Doctor looks at this host and at dataDir, and changes nothing. uids is where root's machines have their uids from.
func Doctor(ctx context.Context, dataDir string, uids sandbox.Range) []Check {
	checks := []Check{
		checkArch(),
		checkQEMU(ctx),
		checkAccel(ctx),
		checkProgram(programs[1]),
		checkKernel(dataDir),
		checkDataDir(dataDir),
		checkMemory(),
	}
	return append(checks, checkSandbox(ctx, uids)...)
}

func checkArch() Check {
	c := Check{Name: "architecture", Verdict: OK, Detail: runtime.GOARCH}
	if runtime.GOARCH != "amd64" {
		c.Verdict, c.Mend = Fail, "hale runs on amd64 hosts"
	}
	return c
}

func checkQEMU(ctx context.Context) Check {
	c := checkProgram(programs[0])
	if c.Verdict != OK {
		return c
	}
	v, err := qemu.Version(ctx, c.Detail)
	if err != nil {
		c.Verdict, c.Detail, c.Mend = Fail, err.Error(), "reinstall qemu-system-x86"
		return c
	}
	c.Detail += ", version " + v
	var major, minor int
	if fmt.Sscanf(v, "%d.%d", &major, &minor); major < 7 || major == 7 && minor < 2 {
		c.Verdict, c.Mend = Fail, "QEMU 7.2 or later is needed"
	}
	return c
}

func checkProgram(p program) Check {
	path, err := Look(p.name)
	if err != nil {
		return Check{Name: p.pack, Verdict: Fail, Detail: p.name + " is not installed", Mend: setupMends}
	}
	return Check{Name: p.pack, Verdict: OK, Detail: path}
}

func checkAccel(ctx context.Context) Check {
	accel, why := qemu.Detect(ctx)
	if accel == hypervisor.KVM {
		return Check{Name: "accelerator", Verdict: OK, Detail: "KVM works"}
	}
	return Check{Name: "accelerator", Verdict: Warn, Detail: "software emulation: " + why,
		Mend: "machines run, but several times slower; " + kvmMend(why)}
}

// kvmMend is what makes KVM work where it does not for that reason.
func kvmMend(why string) string {
	if strings.Contains(why, "may not be opened") {
		return "let this user open the device (sudo usermod -aG kvm USER, and log in again)"
	}
	return "enable virtualisation, or nested virtualisation of the host's host"
}

func checkKernel(dataDir string) Check {
	k, err := kernel.Newest(filepath.Join(dataDir, "kernels"))
	if errors.Is(err, kernel.ErrMissing) {
		return Check{Name: "guest kernel", Verdict: Fail, Detail: "none is here yet", Mend: setupMends}
	}
	if err != nil {
		return Check{Name: "guest kernel", Verdict: Fail, Detail: err.Error(), Mend: setupMends}
	}
	if err := k.Check(); err != nil { // what it boots with is made when it is needed
		return Check{Name: "guest kernel", Verdict: Fail, Detail: err.Error(), Mend: "remove " + k.Dir + " and run: hale setup"}
	}
	return Check{Name: "guest kernel", Verdict: OK, Detail: k.Version}
}

func checkDataDir(dir string) Check {
	c := Check{Name: "data directory", Verdict: OK}
	var st unix.Statfs_t
	existing := dir
	for {
		err := unix.Statfs(existing, &st)
		if err == nil {
			break
		}
		if parent := filepath.Dir(existing); errors.Is(err, unix.ENOENT) && parent != existing {
			existing = parent
			continue
		}
		return Check{Name: c.Name, Verdict: Fail, Detail: fmt.Sprintf("%s: %v", dir, err), Mend: "choose another with --data-dir"}
	}
	free := int64(st.Bavail) * st.Bsize
	c.Detail = fmt.Sprintf("%s, %.1f GB free", dir, float64(free)/(1<<30))
	if free < 1<<30 {
		c.Detail = fmt.Sprintf("%s, %d MB free", dir, free>>20)
	}
	switch {
	case unix.Access(existing, unix.W_OK) != nil:
		c.Verdict, c.Mend = Fail, "this user may not write there: choose another with --data-dir"
	case free < 2<<30:
		c.Verdict, c.Mend = Warn, "an image and the writable layers of its machines need more room"
	}
	return c
}

func checkMemory() Check {
	total, available, err := Memory()
	if err != nil {
		return Check{Name: "memory", Verdict: Warn, Detail: err.Error()}
	}
	c := Check{Name: "memory", Verdict: OK, Detail: fmt.Sprintf("%.1f GB, %.1f GB of it available", float64(total)/(1<<30), float64(available)/(1<<30))}
	if available < 1<<30 {
		c.Verdict, c.Mend = Warn, "a machine has 1 GB unless it is told otherwise: use --memory"
	}
	return c
}

// Memory is the host's memory and what of it is available, in bytes.
func Memory() (total, available int64, err error) {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(b)) {
		var kb int64
		if n, _ := fmt.Sscanf(line, "MemTotal: %d kB", &kb); n == 1 {
			total = kb << 10
		}
		if n, _ := fmt.Sscanf(line, "MemAvailable: %d kB", &kb); n == 1 {
			available = kb << 10
		}
	}
	return total, available, nil
}
