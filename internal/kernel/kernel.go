// Package kernel gets the guest's kernel and makes the initrd that it boots with.
//
// The kernel is the distribution's own for virtual machines, fetched with the host's apt sources and keys into hale's
// data directory and never installed (Fetch), or any kernel with its modules that a person names (Open). The initrd
// holds the guest agent as /init and the few modules that a machine needs, decompressed and in the order in which they
// are to be loaded (Initrd).
//
// What is under a kernel's directory is written to a temporary name and renamed, so several processes may do it at once.
package kernel

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/store"
)

// Names below a kernel's directory.
const (
	imageName   = "vmlinuz"     // as the distribution ships it
	elfName     = "vmlinux"     // uncompressed
	modulesName = "lib/modules" // VERSION/…
	infoName    = "kernel.json"
)

// ErrMissing says that no kernel is here yet.
var ErrMissing = fmt.Errorf("no guest kernel is here yet (run hale setup): %w", api.Unavailable)

// A Kernel is a kernel with its modules, ready to boot.
type Kernel struct {
	Dir     string `json:"-"`
	Name    string `json:"name"`    // of the package, or of the directory
	Version string `json:"version"` // as in lib/modules/VERSION
	Package string `json:"package,omitempty"`
	Digest  string `json:"digest,omitempty"` // sha256:… of the package
}

// Open opens the kernel in dir: as Fetch left it, or as somebody made it: vmlinux or vmlinuz (or vmlinuz-VERSION), and
// lib/modules/VERSION beside it.
func Open(dir string) (Kernel, error) {
	k := Kernel{Dir: dir, Name: filepath.Base(dir)}
	b, err := os.ReadFile(filepath.Join(dir, infoName))
	switch {
	case err == nil:
		if err := json.Unmarshal(b, &k); err != nil {
			return k, fmt.Errorf("kernel %s: %s: %w", dir, infoName, err)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return k, err
	}
	if k.Version == "" {
		versions, err := os.ReadDir(filepath.Join(dir, modulesName))
		if err != nil || len(versions) != 1 {
			return k, fmt.Errorf("kernel %s: exactly one directory is wanted in %s: %w", dir, modulesName, api.Invalid)
		}
		k.Version = versions[0].Name()
	}
	if _, err := k.image(); err != nil {
		return k, err
	}
	return k, nil
}

// Newest opens the newest of the kernels that Fetch left below dir (DIR/kernels). ErrMissing: there is none.
func Newest(dir string) (Kernel, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Kernel{}, err
	}
	var found []Kernel
	for _, e := range entries {
		if !e.IsDir() || e.Name()[0] == '.' {
			continue
		}
		if k, err := Open(filepath.Join(dir, e.Name())); err == nil {
			found = append(found, k)
		}
	}
	if len(found) == 0 {
		return Kernel{}, ErrMissing
	}
	return slices.MaxFunc(found, func(a, b Kernel) int { return compareVersions(a.Version, b.Version) }), nil
}

// image is the kernel as it was shipped.
func (k Kernel) image() (string, error) {
	for _, name := range []string{elfName, imageName, imageName + "-" + k.Version, "boot/" + imageName + "-" + k.Version} {
		path := filepath.Join(k.Dir, name)
		if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() && st.Size() > 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("kernel %s: neither %s nor %s is there: %w", k.Dir, elfName, imageName, api.Invalid)
}

// Image returns the path of what QEMU boots: the uncompressed kernel, which starts 265 ms sooner under emulation
// (measured), or where it cannot be had the image as it was shipped.
func (k Kernel) Image() (string, error) {
	path, err := k.image()
	if err != nil || filepath.Base(path) == elfName {
		return path, err
	}
	to := filepath.Join(k.Dir, elfName)
	if k.Package == "" {
		// A person may put another kernel in its place.
		st, err := os.Stat(path)
		if err != nil {
			return "", err
		}
		to = made(k.Dir, madeElf, fmt.Sprint(filepath.Base(path), st.Size(), st.ModTime().UnixNano()))
		if _, err := os.Stat(to); err == nil {
			return to, nil
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	elf, err := Uncompress(b)
	if err != nil {
		return path, nil // a format that is not known here: QEMU's own loader takes the image
	}
	if err := store.WriteFile(to, elf, 0o644); err != nil {
		return "", fmt.Errorf("uncompress the kernel: %w", err)
	}
	removeOld(k.Dir, madeElf, to)
	return to, nil
}

// What is made of a kernel is beside it, by a name that follows from what it is made of.
var (
	madeElf    = [2]string{"vmlinux-", ""}
	madeInitrd = [2]string{"initrd-", ".cpio"}
)

func made(dir string, name [2]string, of string) string {
	sum := sha256.Sum256([]byte(of))
	return filepath.Join(dir, fmt.Sprintf("%s%x%s", name[0], sum[:8], name[1]))
}

// removeOld removes what was made before, but for the newest: an older daemon may be at work still. What others put there stays.
func removeOld(dir string, name [2]string, current string) {
	paths, err := filepath.Glob(filepath.Join(dir, name[0]+strings.Repeat("[0-9a-f]", 16)+name[1]))
	if err != nil {
		return
	}
	var newest string
	var newestTime int64
	for _, p := range paths {
		if st, err := os.Stat(p); err == nil && p != current && st.ModTime().UnixNano() > newestTime {
			newest, newestTime = p, st.ModTime().UnixNano()
		}
	}
	for _, p := range paths {
		if p != current && p != newest {
			os.Remove(p)
		}
	}
}

// compareVersions compares as a person would: runs of digits by their value.
func compareVersions(a, b string) int {
	for a != "" && b != "" {
		na, ra := number(a)
		nb, rb := number(b)
		switch {
		case na != nb:
			return na - nb
		case ra != a:
			a, b = ra, rb
		case a[0] != b[0]:
			return int(a[0]) - int(b[0])
		default:
			a, b = a[1:], b[1:]
		}
	}
	return len(a) - len(b)
}

// number takes the number that s begins with; without one it is -1 and s.
func number(s string) (int, string) {
	i, n := 0, 0
	for i < len(s) && i < 9 && s[i] >= '0' && s[i] <= '9' {
		n = 10*n + int(s[i]-'0')
		i++
	}
	if i == 0 {
		return -1, s
	}
	return n, s[i:]
}
