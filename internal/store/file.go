package store

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
)

// WriteFile makes the file at path hold data and returns once that is on disk, for a file that has no Root. On an error it holds
// what it held. The temporary file lies beside it and nowhere else: what is secret is never seen in another directory. The mode is
// what is asked for, whatever it was before and whatever the umask.
func WriteFile(path string, data []byte, mode os.FileMode) error {
	dir := filepath.Dir(path)
	next, err := renameio.NewPendingFile(path, renameio.WithTempDir(dir), renameio.WithStaticPermissions(mode))
	if err != nil {
		return err
	}
	defer next.Cleanup()
	if _, err := next.Write(data); err != nil {
		return err
	}
	if err := next.CloseAtomicallyReplace(); err != nil { // it syncs the file before it renames it
		return err
	}
	return syncDir(dir)
}

// CreateFile is WriteFile for a file that must not be there yet: where it is, the error is fs.ErrExist and nothing was changed, also
// when several create it at the same time. It appears whole.
func CreateFile(path string, data []byte, mode os.FileMode) error {
	dir := filepath.Dir(path)
	next, err := os.CreateTemp(dir, "."+filepath.Base(path))
	if err != nil {
		return err
	}
	defer os.Remove(next.Name())
	_, err = next.Write(data)
	if err := errors.Join(err, next.Chmod(mode), next.Sync(), next.Close()); err != nil {
		return err
	}
	if err := os.Link(next.Name(), path); err != nil { // unlike a rename it replaces nothing
		return err
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
