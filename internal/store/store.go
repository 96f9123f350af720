// Package store keeps small files whole: each is written to a temporary name, synced, renamed into place, and the
// rename is synced too, so that after a crash at any moment a file holds what it held before or what was written, and
// never a part. What cannot be read is set aside under another name and reported, never silently replaced. A
// directory is removed by renaming it away first, so that a half-removed one is never mistaken for a whole one.
//
// What changes every few seconds (an instance's health record) is a Drafted: the file is written so once in a while, and its content
// goes into two drafts beside it (NAME.draft-0, NAME.draft-1) meanwhile, which wait for no disk. A crash of the process costs at most the
// draft that it was writing, one of the host what came after the file, and neither leaves a part of anything.
//
// All paths are relative to one os.Root and cannot leave it. Methods may be called from any goroutine; one file has
// one writer at a time. The package knows nothing of what the files mean.
package store

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// The endings and beginnings of names that are the store's own.
const (
	nextSuffix  = ".next"
	asideInfix  = ".unreadable-"
	trashPrefix = ".trash-"
)

// A Root is a directory with what is below it.
type Root struct {
	dir    string
	root   *os.Root
	handle *os.File // of the directory itself, for what root has no method for
}

// Open opens the directory dir, and makes it (0700) when it is missing.
func Open(dir string) (*Root, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	handle, err := root.Open(".")
	if err != nil {
		root.Close()
		return nil, err
	}
	return &Root{dir: dir, root: root, handle: handle}, nil
}

// Close frees the directory's descriptors. Again it does nothing.
func (r *Root) Close() error {
	err := r.handle.Close()
	if errors.Is(err, fs.ErrClosed) {
		err = nil
	}
	return errors.Join(r.root.Close(), err)
}

// Path is where name lies in the host's file system, for messages and for processes that are told a path.
func (r *Root) Path(name string) string { return filepath.Join(r.dir, name) }

// WriteFile makes name hold data (mode 0600) and returns once that is on disk. On an error name holds what it held.
func (r *Root) WriteFile(name string, data []byte) error {
	p, err := r.Prepare(name, data)
	if err != nil {
		return err
	}
	if err := p.Commit(); err != nil {
		p.Abort()
		return err
	}
	return nil
}

// A Pending is the next content of a file, on disk beside it, until Commit or Abort; a crash leaves it for Prepared to find.
type Pending struct {
	r    *Root
	name string
}

// Prepare puts data on disk as the next content of name, so that Commit needs no more room. Until then name is as it was.
func (r *Root) Prepare(name string, data []byte) (*Pending, error) {
	p := &Pending{r: r, name: name}
	if err := r.writeNew(name+nextSuffix, data); err != nil {
		p.Abort()
		return nil, r.fail("write", name, err)
	}
	return p, nil
}

func (r *Root) writeNew(name string, data []byte) error {
	// What a crash left goes first: with O_EXCL no link is followed. (os.Root follows links within the root, O_NOFOLLOW or not.)
	if err := r.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := r.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// Commit makes what was prepared the file's content, and returns once that is on disk.
func (p *Pending) Commit() error {
	if err := p.r.root.Rename(p.name+nextSuffix, p.name); err != nil {
		return p.r.fail("write", p.name, err)
	}
	return p.r.fail("write", p.name, p.r.syncDir(path.Dir(p.name)))
}

// Abort forgets what was prepared.
func (p *Pending) Abort() { _ = p.r.root.Remove(p.name + nextSuffix) }

// Read returns what was prepared, as ReadFile would.
func (p *Pending) Read(limit int64) ([]byte, error) { return p.r.ReadFile(p.name+nextSuffix, limit) }

// Prepared returns what a crash left between Prepare and Commit of name, with fs.ErrNotExist where there is nothing.
func (r *Root) Prepared(name string) (*Pending, error) {
	if _, err := r.root.Lstat(name + nextSuffix); err != nil {
		return nil, err
	}
	return &Pending{r: r, name: name}, nil
}

// ReadFile returns what name holds. A file of more than limit bytes, or something else than a regular file, is an
// *Unreadable error; nothing is followed and nothing blocks.
func (r *Root) ReadFile(name string, limit int64) ([]byte, error) {
	named, err := r.root.Lstat(name)
	if err != nil {
		return nil, r.fail("read", name, err)
	}
	f, err := r.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, r.fail("read", name, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, r.fail("read", name, err)
	}
	if !info.Mode().IsRegular() || !os.SameFile(named, info) {
		return nil, &Unreadable{Path: r.Path(name), Err: fmt.Errorf("not a regular file (%s)", named.Mode())}
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, r.fail("read", name, err)
	}
	if int64(len(data)) > limit {
		return nil, &Unreadable{Path: r.Path(name), Err: fmt.Errorf("larger than %d bytes", limit)}
	}
	return data, nil
}

// An Unreadable is a file whose content is not what it should be: torn, foreign, or of another version.
type Unreadable struct {
	Path  string
	Aside string // where it lies now, when it was set aside
	Err   error
}

func (e *Unreadable) Error() string {
	if e.Aside != "" {
		return fmt.Sprintf("%s is unreadable and was set aside as %s: %v", e.Path, filepath.Base(e.Aside), e.Err)
	}
	return fmt.Sprintf("%s is unreadable: %v", e.Path, e.Err)
}

// Unwrap is what was wrong with it.
func (e *Unreadable) Unwrap() error { return e.Err }

// SetAside renames name, a file or a directory, to a name that nobody else uses and that tells when; it returns that name.
func (r *Root) SetAside(name string) (string, error) {
	base := name + asideInfix + time.Now().UTC().Format("20060102T150405Z")
	aside := base
	for n := 2; ; n++ {
		if _, err := r.root.Lstat(aside); errors.Is(err, fs.ErrNotExist) {
			break
		} else if err != nil {
			return "", r.fail("set aside", name, err)
		}
		aside = fmt.Sprintf("%s.%d", base, n)
	}
	if err := r.root.Rename(name, aside); err != nil {
		return "", r.fail("set aside", name, err)
	}
	return aside, r.fail("set aside", name, r.syncDir(path.Dir(name)))
}

// IsAside reports whether a name is one that SetAside gave.
func IsAside(name string) bool { return strings.Contains(path.Base(name), asideInfix) }

// Mkdir makes the directory name (0700), which must not be there, and returns once it is on disk. On an error there is none.
func (r *Root) Mkdir(name string) error {
	if err := r.root.Mkdir(name, 0o700); err != nil {
		return r.fail("make directory", name, err)
	}
	err := r.syncDir(path.Dir(name))
	if err != nil {
		_ = r.root.Remove(name)
	}
	return r.fail("make directory", name, err)
}

// RemoveDir removes the directory name with everything below it. Once it returns, with or without an error, name is
// either untouched or gone for good: what could not be deleted lies under a trash name, and Sweep deletes it.
func (r *Root) RemoveDir(name string) error {
	trash := path.Join(path.Dir(name), trashPrefix+strings.ToLower(rand.Text()))
	if err := r.root.Rename(name, trash); err != nil {
		return r.fail("remove", name, err)
	}
	if err := r.syncDir(path.Dir(name)); err != nil {
		return r.fail("remove", name, err)
	}
	// Who had the directory open before the rename may make one more file in it.
	var err error
	for range 3 {
		if err = r.root.RemoveAll(trash); err == nil {
			break
		}
	}
	return r.fail("remove", trash, err)
}

// Sweep finishes in the directory dir what RemoveDir began before a crash.
func (r *Root) Sweep(dir string) error {
	entries, err := r.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), trashPrefix) {
			name := path.Join(dir, e.Name())
			errs = append(errs, r.fail("remove", name, r.root.RemoveAll(name)))
		}
	}
	return errors.Join(errs...)
}

// ReadDir lists the directory dir ("." is the root) in the order of names.
func (r *Root) ReadDir(dir string) ([]fs.DirEntry, error) {
	entries, err := fs.ReadDir(r.root.FS(), dir)
	return entries, r.fail("list", dir, err)
}

// Exists reports whether there is something at name, a link included.
func (r *Root) Exists(name string) (bool, error) {
	_, err := r.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, r.fail("look at", name, err)
}

// NoSpace reports whether err says that the disk, or somebody's share of it, is full.
func NoSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

func (r *Root) syncDir(dir string) error {
	d, err := r.root.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// fail says what was done to which file; the operation and the relative path of err itself would only repeat it.
func (r *Root) fail(doing, name string, err error) error {
	if err == nil {
		return nil
	}
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		err = pe.Err
	} else if le, ok := errors.AsType[*os.LinkError](err); ok {
		err = le.Err
	}
	return fmt.Errorf("%s %s: %w", doing, r.Path(name), err)
}
