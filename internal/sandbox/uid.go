package sandbox

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A Range is the uids, and the gids of the same numbers, that root's machines have one of each.
type Range struct{ First, Last uint32 }

// DefaultRange lies above what systemd gives to containers (to 0x6fffffff) and what SSSD gives to a domain's users (to
// 2,000,200,000), and below 2^31, where some file systems and tools go wrong.
var DefaultRange = Range{0x7a000000, 0x7a0fffff}

// Bounds of a range: below are the host's own users, and one machine is one uid.
const (
	minUID   = 1 << 16
	maxUID   = 1<<31 - 2
	minRange = 16
)

func (r Range) String() string { return fmt.Sprintf("%d-%d", r.First, r.Last) }

// ParseRange reads FIRST-LAST; "" is the default.
func ParseRange(s string) (Range, error) {
	if s == "" {
		return DefaultRange, nil
	}
	first, last, ok := strings.Cut(s, "-")
	a, errA := strconv.ParseUint(first, 10, 32)
	b, errB := strconv.ParseUint(last, 10, 32)
	if !ok || errA != nil || errB != nil {
		return Range{}, fmt.Errorf("a range of uids is FIRST-LAST, such as %v, and not %q", DefaultRange, s)
	}
	if a < minUID || b > maxUID || b < a || b-a+1 < minRange {
		return Range{}, fmt.Errorf("the range of uids %s: at least %d between %d and %d", s, minRange, minUID, maxUID)
	}
	return Range{uint32(a), uint32(b)}, nil
}

// Contains reports whether uid is one of the range.
func (r Range) Contains(uid uint32) bool { return r.First <= uid && uid <= r.Last }

// lockDir holds the file by whose bytes uids are locked, one for all data directories of this host.
var lockDir = "/run/hale"

// Claim takes a uid that nobody on this host uses: the one that is preferred (0: none) if that is possible, else another
// that taken does not object to. The file is the claim: it is held as long as anyone has the descriptor open, which is to be the
// machine's shim.
func (r Range) Claim(preferred uint32, taken func(uint32) bool) (uint32, *os.File, error) {
	known, err := hostIDs()
	if err != nil {
		return 0, nil, fmt.Errorf("the uids of this host: %w", err)
	}
	if err := os.MkdirAll(lockDir, 0o700); err != nil {
		return 0, nil, fmt.Errorf("claim a uid: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(lockDir, "uids.lock"), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return 0, nil, fmt.Errorf("claim a uid: %w", err)
	}
	try := func(uid uint32) (bool, error) {
		if known.contain(uid) {
			return false, nil
		}
		return lockByte(f, int64(uid))
	}
	uid, err := r.search(preferred, taken, try)
	if err != nil {
		f.Close()
		return 0, nil, err
	}
	return uid, f, nil
}

// claimable says why no uid can be claimed here.
func (r Range) claimable() error {
	_, f, err := r.Claim(0, func(uint32) bool { return false })
	if err == nil {
		f.Close()
	}
	return err
}

// search asks for the preferred uid, and then for all of the range from a random one on: two data directories that know
// nothing of each other then rarely want the same.
func (r Range) search(preferred uint32, taken func(uint32) bool, try func(uint32) (bool, error)) (uint32, error) {
	if r.Contains(preferred) {
		if ok, err := try(preferred); ok || err != nil {
			return preferred, err
		}
	}
	size := r.Last - r.First + 1
	begin := rand.Uint32N(size)
	for i := range size {
		uid := r.First + (begin+i)%size
		if uid == preferred || taken(uid) {
			continue
		}
		if ok, err := try(uid); ok || err != nil {
			return uid, err
		}
	}
	return 0, fmt.Errorf("every uid of %v is in use on this host", r)
}

// lockByte locks the byte at uid for the open file (not for the process: its descendants hold it too).
func lockByte(f *os.File, uid int64) (bool, error) {
	l := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: uid, Len: 1}
	err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &l)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("lock uid %d: %w", uid, err)
	}
	return true, nil
}

// ids are ranges of uids or gids that the host has given to somebody.
type ids []Range

func (s ids) contain(id uint32) bool {
	for _, r := range s {
		if r.Contains(id) {
			return true
		}
	}
	return false
}

// hostIDs are the ids of /etc/passwd and /etc/group, and those that users may map (subuid(5), subgid(5)).
func hostIDs() (ids, error) {
	var all ids
	for _, file := range []struct {
		path  string
		first int // field of the id
		count int // field of the number of ids; 0: one
	}{{"/etc/passwd", 2, 0}, {"/etc/group", 2, 0}, {"/etc/subuid", 1, 2}, {"/etc/subgid", 1, 2}} {
		f, err := os.Open(file.path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		found, err := readIDs(f, file.first, file.count)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file.path, err)
		}
		all = append(all, found...)
	}
	return all, nil
}

// readIDs reads lines of fields that colons separate. Lines that say nothing are passed over, as the C library does.
func readIDs(r io.Reader, first, count int) (ids, error) {
	var found ids
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		fields := strings.Split(lines.Text(), ":")
		if len(fields) <= max(first, count) {
			continue
		}
		a, err := strconv.ParseUint(fields[first], 10, 32)
		if err != nil {
			continue
		}
		n := uint64(1)
		if count != 0 {
			if n, err = strconv.ParseUint(fields[count], 10, 32); err != nil || n == 0 {
				continue
			}
		}
		found = append(found, Range{uint32(a), uint32(min(a+n-1, 1<<32-1))})
	}
	return found, lines.Err()
}
