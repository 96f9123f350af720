package logfile

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// MaxLine is the longest line, in bytes, that is given as one; a longer one comes in pieces.
const MaxLine = 64 << 10

// What is read at most: more than a Writer writes. Whoever else may write in the directory has no say in how many descriptors are taken, or
// in how long a line is looked for.
const (
	mostFiles = 10
	mostBack  = 4 * DefaultMaxSize // bytes of one file, before its end
)

// pollInterval is how long a follower waits, at the end of the file, before it looks again.
const pollInterval = 100 * time.Millisecond

// Lines gives the last tail lines of name and its rotated predecessors (all of them where tail is negative), without
// their newlines, and ends, or with follow goes on until ctx is done. A file that is not there yet has no lines.
// An error is yielded last.
func Lines(ctx context.Context, root *os.Root, name string, tail int, follow bool) iter.Seq2[string, error] {
	return read(ctx, root, name, new(Place), func(r *reader) error { return r.seek(tail) }, follow)
}

// A Place is one in a log, between two lines. The zero Place is the beginning.
type Place struct {
	file   identity
	offset int64
}

// An identity is that of a file, whose name a rotation changes: its inode, and when it was born, for a file that is gone leaves its inode
// to the next. Nanoseconds since 1970; 0 where the file system does not know.
type identity struct {
	inode uint64
	born  int64
}

func (p Place) String() string { return fmt.Sprintf("%d-%d-%d", p.file.inode, p.file.born, p.offset) }

// ParsePlace reads what String gives.
func ParsePlace(s string) (Place, error) {
	inode, rest, _ := strings.Cut(s, "-")
	born, offset, _ := strings.Cut(rest, "-")
	ino, err := strconv.ParseUint(inode, 10, 64)
	since, sinceErr := strconv.ParseInt(born, 10, 64)
	at, atErr := strconv.ParseInt(offset, 10, 64)
	if err != nil || sinceErr != nil || atErr != nil || at < 0 {
		return Place{}, fmt.Errorf("%q is no place in a log", s)
	}
	return Place{identity{ino, since}, at}, nil
}

// At is the place that has the last tail lines behind it.
func At(root *os.Root, name string, tail int) (Place, error) {
	r := reader{root: root, name: name}
	defer r.close()
	if err := r.seek(tail); err != nil {
		return Place{}, err
	}
	return r.place(), nil
}

// LinesFrom is Lines from a place on, and keeps in it where it is: behind the line that it gave last. Where the file of the place has been rotated out of
// existence, it begins with the oldest line that there is. The place is written while the iteration asks for a line, and not while it looks at one.
func LinesFrom(ctx context.Context, root *os.Root, name string, place *Place, follow bool) iter.Seq2[string, error] {
	return read(ctx, root, name, place, func(r *reader) error { return r.resume(*place) }, follow)
}

func read(ctx context.Context, root *os.Root, name string, place *Place, seek func(*reader) error, follow bool) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		r := reader{root: root, name: name}
		defer r.close()
		if err := seek(&r); err != nil {
			yield("", err)
			return
		}
		for {
			line, err := r.next(!follow)
			switch {
			case err == nil:
				*place = r.place()
				if !yield(line, nil) {
					return
				}
				continue
			case !errors.Is(err, io.EOF):
				yield("", err)
				return
			case !follow:
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(pollInterval):
			}
		}
	}
}

// A reader stands in one of the files. A rotation renames it under the reader, so what comes next is found by the
// file's identity, not by its name.
type reader struct {
	root    *os.Root
	name    string
	file    *os.File
	is      identity
	buf     *bufio.Reader
	offset  int64  // of what was read from buf
	pending []byte // a line whose end has not been written yet
}

func (r *reader) close() {
	if r.file != nil {
		r.file.Close()
	}
}

func (r *reader) open(f *os.File, offset int64) {
	r.close()
	r.file, r.buf, r.offset = f, bufio.NewReaderSize(f, 32<<10), offset
	r.is = identityOf(f)
}

// place is where it stands, between two lines.
func (r *reader) place() Place {
	if r.file == nil {
		return Place{}
	}
	return Place{r.is, r.offset}
}

// identityOf returns that of an open file; the zero one, which no file has, where it cannot be had.
func identityOf(f *os.File) identity {
	var st unix.Statx_t
	if unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_INO|unix.STATX_BTIME, &st) != nil {
		return identity{}
	}
	return identity{st.Ino, int64(st.Btime.Sec)*int64(time.Second) + int64(st.Btime.Nsec)}
}

// resume places the reader where another stood, or at the beginning of the oldest file where that is gone.
func (r *reader) resume(p Place) error {
	files, err := r.files()
	if err != nil || len(files) == 0 {
		return err
	}
	at, offset := len(files)-1, int64(0)
	for i, f := range files {
		st, err := f.Stat()
		if err == nil && identityOf(f) == p.file && st.Size() >= p.offset {
			at, offset = i, p.offset
		}
	}
	for i, f := range files {
		if i != at {
			f.Close()
		}
	}
	if _, err := files[at].Seek(offset, io.SeekStart); err != nil {
		files[at].Close()
		return err
	}
	r.open(files[at], offset)
	return nil
}

// seek places the reader tail lines before the end.
func (r *reader) seek(tail int) error {
	files, err := r.files()
	if err != nil || len(files) == 0 {
		return err
	}
	at := len(files) - 1 // the oldest
	var offset int64
	if tail >= 0 {
		left := tail
		for i, f := range files {
			var found bool
			offset, left, found, err = backwards(f, left)
			if err != nil {
				break
			}
			if found {
				at = i
				break
			}
		}
	}
	for i, f := range files {
		if i != at {
			f.Close()
		}
	}
	if err != nil {
		files[at].Close()
		return err
	}
	if _, err := files[at].Seek(offset, io.SeekStart); err != nil {
		files[at].Close()
		return err
	}
	r.open(files[at], offset)
	return nil
}

// files opens what there is, the newest first. That one may be missing: between the two steps of a rotation, and where a full disk kept
// the writer from the second.
func (r *reader) files() ([]*os.File, error) {
	var files []*os.File
	for i := range mostFiles {
		f, err := OpenRegular(r.root, rotated(r.name, i), os.O_RDONLY)
		switch {
		case err == nil:
		case errors.Is(err, fs.ErrNotExist) && i == 0:
			continue
		case errors.Is(err, fs.ErrNotExist):
			return files, nil
		default:
			for _, f := range files {
				f.Close()
			}
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

// backwards looks for the place in f that has n line ends behind it. Where f has fewer lines, found is false and left
// is how many are still wanted. It looks no further back than mostBack.
func backwards(f *os.File, n int) (offset int64, left int, found bool, err error) {
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, n, false, err
	}
	if n == 0 {
		return end, 0, true, nil
	}
	buf := make([]byte, 32<<10)
	last := true // the newline that ends the file ends its last line, and begins none
	first := max(end-mostBack, 0)
	for pos := end; pos > first; {
		size := min(int64(len(buf)), pos-first)
		pos -= size
		if _, err := f.ReadAt(buf[:size], pos); err != nil && err != io.EOF {
			return 0, n, false, err
		}
		chunk := buf[:size]
		if last {
			last = false
			chunk = bytes.TrimSuffix(chunk, []byte("\n"))
		}
		for {
			i := bytes.LastIndexByte(chunk, '\n')
			if i < 0 {
				break
			}
			if n--; n == 0 {
				return pos + int64(i) + 1, 0, true, nil
			}
			chunk = chunk[:i]
		}
	}
	if end > 0 {
		n--
	}
	return first, n, n <= 0 || first > 0, nil
}

// next gives the next line. At the end of everything written so far it is io.EOF; with final, what stands there
// without a newline is a line as well.
func (r *reader) next(final bool) (string, error) {
	if r.file == nil {
		f, err := OpenRegular(r.root, r.name, os.O_RDONLY)
		if errors.Is(err, fs.ErrNotExist) {
			return "", io.EOF
		}
		if err != nil {
			return "", err
		}
		r.open(f, 0)
	}
	for {
		part, err := r.buf.ReadSlice('\n')
		r.pending = append(r.pending, part...)
		r.offset += int64(len(part))
		switch {
		case err == nil:
			return r.take(len(r.pending) - 1), nil
		case len(r.pending) >= MaxLine:
			return r.take(len(r.pending)), nil
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case !errors.Is(err, io.EOF):
			return "", err
		}
		moved, err := r.advance()
		if err != nil {
			return "", err
		}
		if moved {
			continue
		}
		if final && len(r.pending) > 0 {
			return r.take(len(r.pending)), nil
		}
		return "", io.EOF
	}
}

func (r *reader) take(n int) string {
	line := string(r.pending[:n])
	r.pending = r.pending[:0]
	return line
}

// advance goes on to the file that was begun after this one, if this one has been rotated away and is read to its end.
func (r *reader) advance() (bool, error) {
	here, err := r.file.Stat()
	if err != nil {
		return false, err
	}
	files, err := r.files()
	if err != nil {
		return false, err
	}
	next := len(files) - 1 // rotated out of existence: the oldest there is
	for i, f := range files {
		if st, err := f.Stat(); err == nil && os.SameFile(here, st) {
			next = i - 1
			break
		}
	}
	// The writer may have added to the file between our reading its end and the rotation.
	pos, _ := r.file.Seek(0, io.SeekCurrent)
	if st, err := r.file.Stat(); err == nil && st.Size() > pos {
		next = -1
	}
	for i, f := range files {
		if i != next {
			f.Close()
		}
	}
	if next < 0 {
		return false, nil
	}
	r.open(files[next], 0)
	return true, nil
}
