package kernel

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/store"
)

// metaPackages are what the distributions call their newest kernel for virtual machines.
var metaPackages = map[string]string{
	"debian": "linux-image-cloud-amd64",
	"ubuntu": "linux-image-virtual",
}

// kernelPackage is a package that holds a kernel's image or its modules, as opposed to one that only depends on such.
var kernelPackage = regexp.MustCompile(`^linux-(image|modules)(-unsigned)?-[0-9]`)

// Fetch gets the distribution's newest kernel for virtual machines into a directory below dir (DIR/kernels) and
// returns it. say is told each step. One that is there already is returned as it is, without asking the network.
//
// It uses the host's apt sources, keys and proxy with an apt state of its own below dir, so that it needs no
// privilege, installs nothing, and touches nothing of the host's.
func Fetch(ctx context.Context, dir string, say func(string)) (Kernel, error) {
	if runtime.GOARCH != "amd64" {
		return Kernel{}, fmt.Errorf("this host is %s; hale runs on amd64: %w", runtime.GOARCH, api.Unsupported)
	}
	if k, err := Newest(dir); err == nil || !errors.Is(err, ErrMissing) {
		return k, err
	}
	removeLeftovers(dir)
	a, err := newApt(dir)
	if err != nil {
		return Kernel{}, err
	}
	defer a.work.remove()
	say("reading the package lists (in hale's own state; the host's stays as it is)")
	if _, err := a.run(ctx, "apt-get", "update"); err != nil {
		return Kernel{}, err
	}
	packages, err := a.kernelPackages(ctx, metaPackages[a.distribution])
	if err != nil {
		return Kernel{}, err
	}
	say("downloading " + strings.Join(packages, " "))
	if _, err := a.run(ctx, "apt-get", append([]string{"download"}, packages...)...); err != nil {
		return Kernel{}, err
	}
	return a.unpack(ctx, dir, packages)
}

// apt runs the host's apt with a state of its own.
type apt struct {
	work         workDir
	state        string // its path
	distribution string
}

func newApt(dir string) (*apt, error) {
	distribution, err := distribution()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	work, err := newWorkDir(dir, aptWork)
	if err != nil {
		return nil, err
	}
	state := work.path
	for _, d := range []string{"lists/partial", "cache/archives/partial", "download"} {
		if err := os.MkdirAll(filepath.Join(state, d), 0o755); err != nil {
			work.remove()
			return nil, err
		}
	}
	for name, content := range map[string]string{"status": "", aptConf: noHooks} {
		if err := os.WriteFile(filepath.Join(state, name), []byte(content), 0o644); err != nil {
			work.remove()
			return nil, err
		}
	}
	return &apt{work: work, state: state, distribution: distribution}, nil
}

// noHooks keeps apt from running what the host has it do beside an update, which is about the host's own state. An option cannot: it
// adds to a list.
const (
	aptConf = "apt.conf"
	noHooks = "#clear APT::Update::Pre-Invoke;\n#clear APT::Update::Post-Invoke;\n#clear APT::Update::Post-Invoke-Success;\n"
)

// distribution is the ID of os-release(5), or the first of its ID_LIKE that has a kernel for us.
func distribution() (string, error) {
	b, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "", fmt.Errorf("which distribution is this: %w", err)
	}
	var ids []string
	for _, key := range []string{"ID=", "ID_LIKE="} {
		for line := range strings.Lines(string(b)) {
			if v, ok := strings.CutPrefix(strings.TrimSpace(line), key); ok {
				ids = append(ids, strings.Fields(strings.Trim(v, `"'`))...)
			}
		}
	}
	for _, id := range ids {
		if metaPackages[id] != "" {
			return id, nil
		}
	}
	return "", fmt.Errorf("no kernel is known for %s: hale fetches those of Debian and Ubuntu, and takes any other by name: %w",
		strings.Join(ids, ", "), api.Unsupported)
}

// run runs one of apt's programs and returns what it prints.
func (a *apt) run(ctx context.Context, program string, args ...string) ([]byte, error) {
	options := []string{
		"-q", "-c", filepath.Join(a.state, aptConf), "-o", "Dir::State=" + a.state,
		"-o", "Dir::State::Lists=" + filepath.Join(a.state, "lists"),
		"-o", "Dir::State::status=" + filepath.Join(a.state, "status"),
		"-o", "Dir::Cache=" + filepath.Join(a.state, "cache"),
		"-o", "Debug::NoLocking=1",
		"-o", "APT::Sandbox::User=", // it writes into our directory
		"-o", "Acquire::Retries=3",
	}
	cmd := exec.CommandContext(ctx, program, append(options, args...)...)
	cmd.Dir = filepath.Join(a.state, "download")
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w: %s", program, args[0], err, bytes.TrimSpace(stderr.Bytes()))
	}
	return out, nil
}

// kernelPackages follows the dependencies of a meta package to the packages that hold a kernel and its modules.
func (a *apt) kernelPackages(ctx context.Context, meta string) ([]string, error) {
	var found []string
	seen := map[string]bool{}
	for todo := []string{meta}; len(todo) > 0; todo = todo[1:] {
		name := todo[0]
		if seen[name] {
			continue
		}
		seen[name] = true
		if kernelPackage.MatchString(name) {
			found = append(found, name)
		}
		out, err := a.run(ctx, "apt-cache", "depends", "--no-recommends", "--no-suggests", "--no-conflicts", "--no-breaks", "--no-replaces", "--no-enhances", name)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(out)) {
			dep, ok := strings.CutPrefix(strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(line), "|")), "Depends: ")
			if ok && (kernelPackage.MatchString(dep) || strings.HasPrefix(dep, "linux-image-")) && len(seen) < 16 {
				todo = append(todo, dep)
			}
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("package %s names no kernel: %w", meta, api.Unavailable)
	}
	slices.Sort(found)
	return found, nil
}

// unpack takes the kernel and its modules out of the packages and gives the result its name when it is whole.
func (a *apt) unpack(ctx context.Context, dir string, packages []string) (Kernel, error) {
	work, err := newWorkDir(dir, unpackWork)
	if err != nil {
		return Kernel{}, err
	}
	defer work.remove()
	tmp := work.path
	k := Kernel{Name: packages[0], Package: strings.Join(packages, " ")}
	debs, err := filepath.Glob(filepath.Join(a.state, "download", "*.deb"))
	if err != nil {
		return k, err
	}
	sum := sha256.New()
	for _, deb := range debs {
		if err := addFile(sum, deb); err != nil {
			return k, err
		}
		if out, err := exec.CommandContext(ctx, "dpkg-deb", "-x", deb, tmp).CombinedOutput(); err != nil {
			return k, fmt.Errorf("dpkg-deb -x %s: %w: %s", filepath.Base(deb), err, bytes.TrimSpace(out))
		}
	}
	k.Digest = fmt.Sprintf("sha256:%x", sum.Sum(nil))
	if err := k.arrange(tmp); err != nil {
		return k, err
	}
	info, err := json.MarshalIndent(k, "", "  ")
	if err != nil {
		return k, err
	}
	if err := store.WriteFile(filepath.Join(tmp, infoName), append(info, '\n'), 0o644); err != nil {
		return k, err
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return k, err
	}
	if err := unix.Syncfs(int(work.lock.Fd())); err != nil { // dpkg-deb does not: after a crash the name would stand for empty files
		return k, fmt.Errorf("write the kernel to the disk: %w", err)
	}
	return place(tmp, filepath.Join(dir, k.Name))
}

// place gives an unpacked kernel its name. One that has it already, from a fetch at the same time, stays; what is no kernel does not.
func place(tmp, to string) (Kernel, error) {
	err := os.Rename(tmp, to)
	if errors.Is(err, fs.ErrExist) {
		if k, err := Open(to); err == nil {
			return k, nil
		}
		err = errors.Join(os.RemoveAll(to), os.Rename(tmp, to))
	}
	if err != nil {
		return Kernel{}, err
	}
	return Open(to)
}

func addFile(w io.Writer, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(w, f)
	return err
}

// arrange brings what the packages unpacked to below tmp into the form that Open knows, and drops the rest.
func (k *Kernel) arrange(tmp string) error {
	images, err := filepath.Glob(filepath.Join(tmp, "boot", imageName+"-*"))
	if err != nil || len(images) != 1 {
		return fmt.Errorf("%s holds %d kernels: %w", k.Package, len(images), api.Unsupported)
	}
	k.Version = strings.TrimPrefix(filepath.Base(images[0]), imageName+"-")
	if err := os.Rename(images[0], filepath.Join(tmp, imageName)); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(tmp, modulesName)); errors.Is(err, fs.ErrNotExist) {
		// A distribution with a merged /usr ships them below usr.
		if err := os.Rename(filepath.Join(tmp, "usr", "lib"), filepath.Join(tmp, "lib")); err != nil {
			return fmt.Errorf("%s holds no modules: %w", k.Package, err)
		}
	}
	for _, name := range []string{"boot", "usr", "etc"} {
		if err := os.RemoveAll(filepath.Join(tmp, name)); err != nil {
			return err
		}
	}
	return nil
}
