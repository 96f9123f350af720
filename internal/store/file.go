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
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
