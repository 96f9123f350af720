package kernel

import (
	"bufio"
	"bytes"
	"debug/elf"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"github.com/halevm/hale/api"
)

// needed is what a machine needs that a kernel may have as a module: its disks, card and ports over PCI, and overlayfs. ext4, unix, packet and inet are built into every kernel that is meant for virtual machines.
var needed = []string{"virtio_pci", "virtio_blk", "virtio_net", "virtio_console", "overlay"}

// late are those that a program can do without as it starts: the kernel has random numbers from the processor by then, or waits for these.
var late = []string{"virtio_rng"}

// maxModule bounds one module, decompressed.
const maxModule = 64 << 20

// A module is a kernel module, decompressed.
type module struct {
	name string // with underscores
	data []byte
	late bool // loaded when the program has been started
}

// modules reads the modules that a machine needs, each after those that it depends on.
//
// Those of a distribution's package come without their signatures, whose verification is a part of each boot that nobody asked for
// (docs/design/0006-where-a-boot-goes.md). A kernel that a person named may insist on them.
//
// What a module depends on is read from the module itself (its .modinfo, which is what depmod reads): the packages
// ship no modules.dep, for that is made when a kernel is installed.
func (k Kernel) modules() ([]module, error) {
	tree := filepath.Join(k.Dir, modulesName, k.Version)
	files, err := moduleFiles(tree)
	if err != nil {
		return nil, err
	}
	builtin, err := builtins(tree)
	if err != nil {
		return nil, err
	}
	var ordered []module
	done, isLate := make(map[string]bool), false
	var add func(name string) error
	add = func(name string) error {
		if done[name] || builtin[name] {
			return nil
		}
		done[name] = true
		path, ok := files[name]
		if !ok {
			return fmt.Errorf("kernel %s has no module %s, built in or beside it: %w", k.Version, name, api.Unsupported)
		}
		data, err := readModule(path)
		if err != nil {
			return fmt.Errorf("module %s: %w", path, err)
		}
		deps, err := dependencies(data)
		if err != nil {
			return fmt.Errorf("module %s: %w", path, err)
		}
		for _, d := range deps {
			if err := add(d); err != nil {
				return err
			}
		}
		if k.Package != "" {
			data = withoutSignature(data)
		}
		ordered = append(ordered, module{name: name, data: data, late: isLate})
		return nil
	}
	for _, name := range needed {
		if err := add(name); err != nil {
			return nil, err
		}
	}
	isLate = true
	for _, name := range late {
		if err := add(name); err != nil {
			return nil, err
		}
	}
	return ordered, nil
}

// canonical is a module's name as the kernel has it: without directory and endings, and with underscores.
func canonical(path string) string {
	name, _, _ := strings.Cut(filepath.Base(path), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

func moduleFiles(tree string) (map[string]string, error) {
	files := make(map[string]string)
	err := filepath.WalkDir(filepath.Join(tree, "kernel"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && strings.Contains(d.Name(), ".ko") {
			files[canonical(path)] = path
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("the kernel's modules: %w", err)
	}
	return files, nil
}

// stampModules writes what tells these modules from others of the same version, without reading them.
func (k Kernel) stampModules(w io.Writer) error {
	tree := filepath.Join(k.Dir, modulesName, k.Version)
	files, err := moduleFiles(tree)
	if err != nil {
		return err
	}
	paths := append(slices.Sorted(maps.Values(files)), filepath.Join(tree, "modules.builtin"))
	for _, path := range paths {
		st, err := os.Stat(path)
		if err != nil {
			return fmt.Errorf("the kernel's modules: %w", err)
		}
		fmt.Fprintln(w, path, st.Size(), st.ModTime().UnixNano())
	}
	return nil
}

func builtins(tree string) (map[string]bool, error) {
	b, err := os.ReadFile(filepath.Join(tree, "modules.builtin"))
	if err != nil {
		return nil, fmt.Errorf("the kernel's modules: %w", err)
	}
	names := make(map[string]bool)
	for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
		names[canonical(lines.Text())] = true
	}
	return names, nil
}

// readModule reads a module and decompresses it: the guest has no program for that.
func readModule(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var r io.Reader = f
	switch {
	case strings.HasSuffix(path, ".xz"):
		r, err = xz.NewReader(bufio.NewReader(f))
	case strings.HasSuffix(path, ".zst"):
		var d *zstd.Decoder
		if d, err = zstd.NewReader(f); err == nil {
			defer d.Close()
			r = d
		}
	case !strings.HasSuffix(path, ".ko"):
		err = fmt.Errorf("unknown compression")
	}
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(r, maxModule+1))
	if err == nil && len(b) > maxModule {
		err = fmt.Errorf("over %d MiB", maxModule>>20)
	}
	return b, err
}

// dependencies reads `depends=` of a module's .modinfo section.
func dependencies(ko []byte) ([]string, error) {
	f, err := elf.NewFile(bytes.NewReader(ko))
	if err != nil {
		return nil, err
	}
	section := f.Section(".modinfo")
	if section == nil {
		return nil, fmt.Errorf("no .modinfo section")
	}
	info, err := section.Data()
	if err != nil {
		return nil, err
	}
	var deps []string
	for entry := range bytes.SplitSeq(info, []byte{0}) {
		if list, ok := strings.CutPrefix(string(entry), "depends="); ok && list != "" {
			for name := range strings.SplitSeq(list, ",") {
				deps = append(deps, canonical(name))
			}
		}
	}
	return deps, nil
}
