package pid1

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Lists of modules in the initramfs, beside the modules.
const (
	modulesDir  = "/modules"
	modulesNow  = "order"
	modulesLate = "late" // for when the program has been started
)

// modules are the kernel's in the initramfs. They are reached by descriptor, for the root changes meanwhile.
type modules struct{ dir *os.Root }

func openModules(dir string) (modules, error) {
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return modules{}, nil // a kernel with everything built in
	}
	return modules{root}, err
}

// load loads what the file list names, in that order: one file beside it a line. It goes on after a module that cannot be loaded.
func (m modules) load(list string) error {
	if m.dir == nil {
		return nil
	}
	order, err := m.dir.ReadFile(list)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var errs []error
	for name := range strings.Lines(string(order)) {
		name = strings.TrimSpace(name)
		if name == "" {
			continue
		}
		if err := m.loadOne(name); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

func (m modules) loadOne(name string) error {
	f, err := m.dir.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	err = unix.FinitModule(int(f.Fd()), "", 0)
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

// drop removes them: what has been loaded need not be kept in memory.
func (m modules) drop() error {
	if m.dir == nil {
		return nil
	}
	defer m.dir.Close()
	entries, err := fs.ReadDir(m.dir.FS(), ".")
	errs := []error{err}
	for _, e := range entries {
		errs = append(errs, m.dir.RemoveAll(e.Name()))
	}
	return errors.Join(errs...)
}
