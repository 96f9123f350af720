package store

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// A Drafted is a file that changes every few seconds. Once in a while it is written as any other, whole and to the disk. What it should
// hold meanwhile goes into two drafts beside it, in turn, each over the one before the last: that is three system calls rather than
// thirty, and nothing waits for the disk. A crash of the process loses at most the draft that it was writing, and the one before is whole. After a
// crash of the host a draft may be anything, but the file is what it was when it was written last.
//
// A draft is taken for what it is by its sum, and counts only as long as the file is the one that it was written after: a file
// that somebody else writes, an earlier version of this program or a person, stands above them. So what is written is to be something new each time.
//
// One goroutine at a time may use it.
type Drafted struct {
	r       *Root
	name    string
	every   time.Duration
	written time.Time // the file, by this process; zero: not yet
	base    sum       // of the file then, or as it was read
	n       uint64    // the number of the last draft, which never goes back while the file stays
	head    []byte    // of the last draft: room for the next
}

// A sum tells one content from another.
type sum struct {
	length int
	crc    uint32
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func sumOf(b []byte) sum { return sum{len(b), crc32.Checksum(b, castagnoli)} }

// Drafted returns the file called name, which is written whole at the first write and where the last such is as long ago as every.
func (r *Root) Drafted(name string, every time.Duration) *Drafted {
	return &Drafted{r: r, name: name, every: every}
}

// drafts are how many there are.
const drafts = 2

func (d *Drafted) draft(n uint64) string {
	return d.name + ".draft-" + strconv.FormatUint(n%drafts, 10)
}

// Write makes data what Read returns from now on. With whole it is written to the file in any case; where that fails, it is an error, and
// Read returns data all the same if a draft could be written.
func (d *Drafted) Write(data []byte, whole bool) error {
	now := time.Now()
	if !whole && !d.written.IsZero() && now.Sub(d.written) < d.every && d.overwrite(data) == nil {
		return nil
	}
	err := d.r.WriteFile(d.name, data)
	if err == nil {
		d.written, d.base, d.n = now, sumOf(data), 0
		return nil
	}
	// Where it was renamed, and only that is not on the disk yet, no draft of the file before counts: the next write is whole.
	if is, rerr := d.r.ReadFile(d.name, int64(max(len(data), d.base.length))); rerr != nil || sumOf(is) != d.base {
		d.written = time.Time{}
		return err
	}
	if d.overwrite(data) == nil && !whole { // a full disk has room for what takes the place of another
		return nil
	}
	return err
}

// overwrite writes the next draft.
func (d *Drafted) overwrite(data []byte) error {
	how := unix.OpenHow{
		Flags: unix.O_WRONLY | unix.O_CREAT | unix.O_NONBLOCK | unix.O_CLOEXEC, Mode: 0o600,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	}
	fd, err := unix.Openat2(int(d.r.handle.Fd()), d.draft(d.n+1), &how)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	d.head = appendDraftHead(d.head[:0], draftHead{d.n + 1, d.base, len(data)}, data)
	n, err := unix.Pwritev(fd, [][]byte{d.head, data}, 0)
	if err == nil && n < len(d.head)+len(data) {
		err = errors.New("a draft was written in part")
	}
	if err == nil {
		d.n++ // else the next goes there, too: the other one is whole
	}
	return err
}

// A draftHead is what a draft begins with, in one line that a person can read, and before its own sum. What is behind the draft's length is left of a longer one.
type draftHead struct {
	n      uint64
	base   sum
	length int
}

const draftFormat = "hale draft %d of %d %08x: %d "

func appendDraftHead(b []byte, h draftHead, data []byte) []byte {
	b = fmt.Appendf(b, draftFormat, h.n, h.base.length, h.base.crc, h.length)
	crc := crc32.Update(crc32.Checksum(b, castagnoli), castagnoli, data)
	return fmt.Appendf(b, "%08x\n", crc)
}

// Read returns what was written last, or, after a crash of the host, a while before. A file that is missing, larger than limit or no
// file is what it is to Root.ReadFile.
func (d *Drafted) Read(limit int64) ([]byte, error) {
	data, err := d.r.ReadFile(d.name, limit)
	if err != nil {
		return nil, err
	}
	base := sumOf(data)
	latest := uint64(0)
	for i := range uint64(drafts) {
		const heads = 128 // more than one takes
		b, err := d.r.ReadFile(d.draft(i), limit+heads)
		if err != nil {
			continue
		}
		if h, content := readDraft(b); content != nil && h.base == base && h.n > latest && int64(h.length) <= limit {
			latest, data = h.n, content
		}
	}
	if d.written.IsZero() { // drafts go on from here, should the disk refuse the first write
		d.base, d.n = base, latest
	}
	return data, nil
}

// readDraft returns what a draft holds; nil where it is none that was written whole.
func readDraft(b []byte) (h draftHead, content []byte) {
	line, rest, _ := bytes.Cut(b, []byte("\n"))
	var crc uint32
	if _, err := fmt.Sscanf(string(line), draftFormat+"%08x", &h.n, &h.base.length, &h.base.crc, &h.length, &crc); err != nil || h.length < 0 || h.length > len(rest) {
		return h, nil
	}
	content = rest[:h.length]
	if string(appendDraftHead(nil, h, content)) != string(line)+"\n" {
		return h, nil
	}
	return h, content
}

// SetAside puts the file, and its drafts, out of the way.
func (d *Drafted) SetAside() error {
	d.written = time.Time{}
	_, err := d.r.SetAside(d.name)
	for i := range uint64(drafts) {
		if _, derr := d.r.SetAside(d.draft(i)); !errors.Is(derr, fs.ErrNotExist) {
			err = errors.Join(err, derr)
		}
	}
	return err
}
