package shim

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"syscall"

	"github.com/halevm/hale/internal/sandbox"
	"github.com/halevm/hale/internal/store"
)

// ownerName is the file beside the machine's directory that says whose that directory is. It is written before the uid
// is used, and lives as long as the instance.
const ownerName = "owner.json"

// An owner is the uid that an instance's machines have, 0 for the daemon's own.
type owner struct {
	UID uint32 `json:"uid"`
}

func (d *runDir) ownerPath() string { return filepath.Join(filepath.Dir(d.path), ownerName) }

// readOwner reads what was recorded; what is missing or cannot be read is nobody's.
func readOwner(path string) owner {
	var o owner
	if b, err := os.ReadFile(path); err != nil || json.Unmarshal(b, &o) != nil {
		return owner{}
	}
	return o
}

func (d *runDir) writeOwner(o owner) error {
	b, err := json.Marshal(o)
	if err != nil {
		return err
	}
	if err := store.WriteFile(d.ownerPath(), b, 0o600); err != nil {
		return fmt.Errorf("record the machine's uid: %w", err)
	}
	return nil
}

// neighbours are the uids of the other instances of this data directory.
func (d *runDir) neighbours() map[uint32]bool {
	uids := make(map[uint32]bool)
	mine := d.ownerPath()
	others, _ := filepath.Glob(filepath.Join(filepath.Dir(filepath.Dir(d.path)), "*", ownerName)) // the pattern is sound
	for _, path := range others {
		if path != mine {
			uids[readOwner(path).UID] = true
		}
	}
	return uids
}

// make creates what a shim expects to find, removes what an earlier one left, and takes all of it for the daemon until
// giveTo gives it away. The last owner may have put anything there: no link is followed.
func (d *runDir) make() (*os.Root, error) {
	if err := os.Mkdir(d.path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	if st, err := os.Lstat(d.path); err != nil || !st.IsDir() { // it lies in a directory where only the daemon writes
		return nil, fmt.Errorf("%s is not a directory: %w", d.path, errors.Join(err, fs.ErrInvalid))
	}
	vm, err := os.OpenRoot(d.path)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(own(vm, ".", 0), vm.Chmod(".", 0o700), renew(vm, runDirName), tidy(vm, logDirName)); err != nil {
		vm.Close()
		return nil, err
	}
	return vm, nil
}

// own gives name to uid and to nobody else.
func own(vm *os.Root, name string, uid uint32) error {
	id := sandbox.Identity{UID: uid}
	if err := vm.Lchown(name, int(id.HostUID()), id.HostGID()); err != nil {
		return fmt.Errorf("give %s to uid %d: %w", name, id.HostUID(), err)
	}
	return nil
}

// renew makes an empty directory.
func renew(vm *os.Root, name string) error {
	if err := vm.RemoveAll(name); err != nil {
		return fmt.Errorf("empty %s: %w", name, err)
	}
	return vm.Mkdir(name, 0o700)
}

// maxLogs is how many files may lie among the logs; there are never more than six.
const maxLogs = 1000

// tidy makes the directory of the logs, or removes what is no log from it.
func tidy(vm *os.Root, name string) error {
	st, err := vm.Lstat(name)
	if err != nil || !st.IsDir() {
		return renew(vm, name)
	}
	if err := errors.Join(own(vm, name, 0), vm.Chmod(name, 0o700)); err != nil {
		return err
	}
	names, err := logsIn(vm, name)
	if err != nil {
		return err
	}
	for _, n := range names {
		n = path.Join(name, n)
		st, err := vm.Lstat(n)
		if err != nil {
			return err
		}
		if st.Mode().IsRegular() && st.Sys().(*syscall.Stat_t).Nlink == 1 {
			continue
		}
		if err := vm.RemoveAll(n); err != nil {
			return fmt.Errorf("remove what is no log: %w", err)
		}
	}
	return nil
}

func logsIn(vm *os.Root, name string) ([]string, error) {
	dir, err := vm.Open(name)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(maxLogs)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return names, nil
}

// giveTo gives the directories and the logs to uid. The writable layer stays the daemon's, and so does the directory that it lies
// in: a uid of a machine's own can look into that, and neither remove nor replace what is there. It has the layer by its descriptor.
func giveTo(vm *os.Root, uid uint32) error {
	names, err := logsIn(vm, logDirName)
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := own(vm, path.Join(logDirName, n), uid); err != nil {
			return err
		}
	}
	err = errors.Join(own(vm, logDirName, uid), own(vm, runDirName, uid))
	if id := (sandbox.Identity{UID: uid}); !id.IsOwn() {
		err = errors.Join(err, vm.Lchown(".", -1, id.HostGID()), vm.Chmod(".", 0o750))
	}
	return err
}
