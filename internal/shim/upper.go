package shim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"syscall"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/logfile"
)

// openUpper opens the writable layer, and makes it at the first start: a sparse file with an empty ext4 of size bytes.
// A half-made one never has the name, and another file is not taken for it.
func openUpper(ctx context.Context, vm *os.Root, size int64) (*os.File, error) {
	f, err := logfile.OpenRegular(vm, upperName, os.O_RDWR)
	if err == nil {
		if err := checkUpper(f, size); err != nil {
			f.Close()
			return nil, err
		}
		return f, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	const next = upperName + ".next"
	if err := vm.RemoveAll(next); err != nil { // what a crash left
		return nil, err
	}
	f, err = vm.OpenFile(next, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	if err := fillUpper(ctx, f, size); err != nil {
		f.Close()
		vm.Remove(next)
		return nil, err
	}
	if err := vm.Rename(next, upperName); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// checkUpper refuses what is not as the daemon made it: it would be a file of a broken shim's, of any size.
func checkUpper(f *os.File, size int64) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if uid, own := int(st.Sys().(*syscall.Stat_t).Uid), os.Geteuid(); uid != own {
		return fmt.Errorf("%s belongs to uid %d, not %d: it may have been put there by the machine's own processes. "+
			"Give it to %d if you know that it is the instance's: %w", upperName, uid, own, own, api.Conflict)
	}
	if st.Size() != size {
		return fmt.Errorf("%s has %d bytes, not %d, with which it was made: it has been changed from outside: %w", upperName, st.Size(), size, api.Conflict)
	}
	return nil
}

func fillUpper(ctx context.Context, f *os.File, size int64) error {
	if err := f.Truncate(size); errors.Is(err, syscall.EFBIG) { // ext4 has files of a page less than 16 TiB
		message := fmt.Sprintf("the file system of the data directory has no file of %d bytes: ask for less", size)
		return &api.Error{Kind: api.Invalid, Code: "invalid_request", Message: "overlay_size: " + message, NoRetry: true,
			Details: []api.Detail{{Code: "invalid_request", Message: message, Field: "overlay_size"}}}
	} else if err != nil {
		return err
	}
	if err := makeExt4(ctx, f); err != nil {
		return err
	}
	return f.Sync()
}

// makeExt4 writes an empty file system; lazily initialised, it takes 6 ms and 664 KB whatever its size (measured).
func makeExt4(ctx context.Context, f *os.File) error {
	mke2fs, err := lookMke2fs()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, mke2fs, "-q", "-F", "-t", "ext4", "-E", "lazy_itable_init=1,lazy_journal_init=1,root_owner=0:0", "/proc/self/fd/3")
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	cmd.ExtraFiles = []*os.File{f}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("mke2fs: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// lookMke2fs finds mke2fs, which Debian keeps in a directory that an ordinary user's PATH does not have.
func lookMke2fs() (string, error) {
	if p, err := exec.LookPath("mke2fs"); err == nil {
		return p, nil
	}
	for _, p := range []string{"/usr/sbin/mke2fs", "/sbin/mke2fs"} {
		if _, err := os.Stat(p); err == nil {
			return p, nil
		}
	}
	return "", fmt.Errorf("mke2fs is not installed (run hale setup): %w", api.Unavailable)
}
