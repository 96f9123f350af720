package agent

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// An identity is who a program runs as.
type identity struct {
	uid, gid uint32
	groups   []uint32
	home     string // "" where passwd names none
}

// maxAccounts bounds what is read of /etc/passwd and /etc/group, which are the image's.
const maxAccounts = 4 << 20

// identify resolves a user as an image's config writes it ("", name, uid, name:group, uid:gid) by the image's own passwd
// and group files, by Docker's rules: a number need not be listed; the supplementary groups are those that list the
// user's name, unless a group was given; without any user it is root.
func identify(user, passwdPath, groupPath string) (identity, error) {
	name, groupName, withGroup := strings.Cut(user, ":")
	if name == "" {
		name = "0"
	}
	var id identity
	known := ""
	number, isNumber := parseID(name)
	err := eachAccount(passwdPath, func(f []string) bool {
		if len(f) < 4 || f[0] != name && !(isNumber && f[2] == name) {
			return true
		}
		uid, ok1 := parseID(f[2])
		gid, ok2 := parseID(f[3])
		if !ok1 || !ok2 {
			return true
		}
		known, id.uid, id.gid = f[0], uid, gid
		if len(f) > 5 {
			id.home = f[5]
		}
		return false
	})
	switch {
	case known != "":
	case isNumber:
		id.uid = number
	case name == "root": // an image from scratch has no files, and still this user
	case err != nil && !os.IsNotExist(err):
		return id, fmt.Errorf("user %q: %w", name, err)
	default:
		return id, fmt.Errorf("no user %q in the image's %s", name, passwdPath)
	}
	if !withGroup || groupName == "" {
		id.groups = supplementary(groupPath, known)
		return id, nil
	}
	if id.gid, err = groupID(groupName, groupPath); err != nil {
		return id, err
	}
	return id, nil
}

func supplementary(path, user string) []uint32 {
	var ids []uint32
	if user == "" {
		return nil
	}
	eachAccount(path, func(f []string) bool {
		if len(f) >= 4 && slices.Contains(strings.Split(f[3], ","), user) {
			if id, ok := parseID(f[2]); ok {
				ids = append(ids, id)
			}
		}
		return true
	})
	return ids
}

func groupID(name, path string) (uint32, error) {
	number, isNumber := parseID(name)
	var gid uint32
	found := false
	err := eachAccount(path, func(f []string) bool {
		if len(f) >= 3 && f[0] == name {
			gid, found = parseID(f[2])
		}
		return !found
	})
	switch {
	case found:
		return gid, nil
	case isNumber:
		return number, nil
	case name == "root":
		return 0, nil
	case err != nil && !os.IsNotExist(err):
		return 0, fmt.Errorf("group %q: %w", name, err)
	}
	return 0, fmt.Errorf("no group %q in the image's %s", name, path)
}

func parseID(s string) (uint32, bool) {
	n, err := strconv.ParseUint(s, 10, 31)
	return uint32(n), err == nil
}

// eachAccount calls f with the fields of each line until it returns false. What is no regular file is not read: opening
// a pipe would wait for its writer.
func eachAccount(path string, f func(fields []string) bool) error {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	if fi, err := file.Stat(); err != nil || !fi.Mode().IsRegular() {
		return fmt.Errorf("%s is no regular file", path)
	}
	lines := bufio.NewScanner(io.LimitReader(file, maxAccounts))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		if !f(strings.Split(line, ":")) {
			return nil
		}
	}
	return lines.Err()
}

// credential is the identity for a child. Where the agent is not root (a test), a child can only be what the agent is.
func (id identity) credential() *syscall.Credential {
	if os.Geteuid() != 0 && int(id.uid) == os.Geteuid() {
		return nil
	}
	return &syscall.Credential{Uid: id.uid, Gid: id.gid, Groups: id.groups}
}
