package image

import (
	"archive/tar"
	"cmp"
	"encoding/binary"
	"maps"
	"math/bits"
	"slices"
	"strings"
)

// xattrPrefix is what the PAX records of extended attributes begin with.
const xattrPrefix = "SCHILY.xattr."

// overlayXattrs are the kernel's own notes in the layers of an overlayfs, which nobody sees from above.
const overlayXattrs = "trusted.overlay."

// The namespaces that a Linux file system has. Attributes of others (com.apple.…) are left out, as everybody does.
const (
	aclAccess  = "system.posix_acl_access"
	aclDefault = "system.posix_acl_default"
)

// What the disk has room for: the rest of an inode and one block, each but for a header and for the zeros after the last.
const (
	xattrHeader    = 32 // of a block
	xattrInodeRoom = inodeSize - inodeUsed - 4 - 4
	xattrBlockRoom = blockSize - xattrHeader - 4
	xattrEntry     = 16
)

// xattrCost is what an attribute takes in memory beside its name and its value.
const xattrCost = 64

// readXattrs takes an entry's extended attributes from its PAX records, as the disk will have them.
func readXattrs(records map[string]string, kind byte) (map[string]string, error) {
	var xattrs map[string]string
	for key, value := range records {
		name, ok := strings.CutPrefix(key, xattrPrefix)
		if !ok || !possibleXattr(name, kind) {
			continue
		}
		if name == aclAccess || name == aclDefault {
			var err error
			if value, err = diskACL(value); err != nil {
				return nil, err
			}
		}
		if xattrs == nil {
			xattrs = make(map[string]string)
		}
		xattrs[strings.Clone(name)] = strings.Clone(value)
	}
	return xattrs, fitXattrs(xattrs)
}

// possibleXattr reports whether Linux would let a file of this kind have an attribute of this name.
func possibleXattr(name string, kind byte) bool {
	space, rest, _ := strings.Cut(name, ".")
	if rest == "" || len(name) > 255 || strings.ContainsRune(name, 0) {
		return false
	}
	switch space {
	case "user":
		return kind == tar.TypeReg || kind == tar.TypeDir
	case "trusted":
		return !strings.HasPrefix(name, overlayXattrs)
	case "security":
		return true
	}
	return name == aclAccess && kind != tar.TypeSymlink || name == aclDefault && kind == tar.TypeDir
}

// fitXattrs sees that the disk has room for a file's attributes.
func fitXattrs(xattrs map[string]string) error {
	if _, _, beyond := splitXattrs(xattrs); beyond != "" {
		return badLayer("its extended attributes do not fit (%d bytes are possible): %s", xattrBlockRoom, quote(beyond))
	}
	return nil
}

// An xattr is an attribute as the disk has it, a number standing for the beginning of its name.
type xattr struct {
	prefix byte
	name   string
	value  string
}

func (x xattr) size() int { return xattrEntry + (len(x.name)+3)&^3 + x.room() }

// room is what its value takes.
func (x xattr) room() int { return (len(x.value) + 3) &^ 3 }

func newXattr(name, value string) xattr {
	switch name {
	case aclAccess:
		return xattr{2, "", value}
	case aclDefault:
		return xattr{3, "", value}
	}
	space, rest, _ := strings.Cut(name, ".")
	return xattr{map[string]byte{"user": 1, "trusted": 4, "security": 6}[space], rest, value}
}

// splitXattrs says which attributes go into the inode, and which into a block of their own: in the order of their names, wherever there is room. The
// kernel searches a block, and only that, by another order. beyond is the first name that there is no room for.
func splitXattrs(xattrs map[string]string) (inode, block []xattr, beyond string) {
	inodeRoom, blockRoom := xattrInodeRoom, xattrBlockRoom
	for _, name := range slices.Sorted(maps.Keys(xattrs)) {
		x := newXattr(name, xattrs[name])
		switch size := x.size(); {
		case size <= inodeRoom:
			inode = append(inode, x)
			inodeRoom -= size
		case size <= blockRoom:
			block = append(block, x)
			blockRoom -= size
		default:
			return nil, nil, name
		}
	}
	slices.SortFunc(block, func(a, b xattr) int {
		return cmp.Or(cmp.Compare(a.prefix, b.prefix), cmp.Compare(len(a.name), len(b.name)), cmp.Compare(a.name, b.name))
	})
	return inode, block, ""
}

// putXattrs writes attributes from the beginning of b on, and their values before its end. Where a value is counts from before bytes before b.
func putXattrs(b []byte, xattrs []xattr, before int) {
	end := len(b)
	e := b
	for _, x := range xattrs {
		end -= x.room()
		copy(b[end:], x.value)
		e[0], e[1] = byte(len(x.name)), x.prefix
		le.PutUint16(e[2:], uint16(before+end))
		le.PutUint32(e[8:], uint32(len(x.value)))
		le.PutUint32(e[12:], x.hash())
		copy(e[xattrEntry:], x.name)
		e = e[x.size()-x.room():]
	}
}

// hash is what the kernel compares attributes by, before it shares a block of them between files.
func (x xattr) hash() uint32 {
	var h uint32
	for i := range len(x.name) {
		h = bits.RotateLeft32(h, 5) ^ uint32(x.name[i])
	}
	value := append([]byte(x.value), 0, 0, 0)
	for ; len(value) > 3; value = value[4:] {
		h = bits.RotateLeft32(h, 16) ^ le.Uint32(value)
	}
	return h
}

// An access control list is handed around in one form (linux/posix_acl_xattr.h) and lies on an ext4 disk in another
// (fs/ext4/acl.h), which leaves out the ids that mean nothing.
const (
	aclVersion     = 2
	aclDiskVersion = 1

	// The kinds of its entries; those of one user or group have an id.
	aclOwner       = 0x01
	aclUser        = 0x02
	aclOwningGroup = 0x04
	aclGroup       = 0x08
	aclMask        = 0x10
	aclOther       = 0x20
)

func diskACL(value string) (string, error) {
	v := []byte(value)
	if len(v) < 4 || (len(v)-4)%8 != 0 || binary.LittleEndian.Uint32(v) != aclVersion {
		return "", badLayer("an access control list that is not one")
	}
	disk := binary.LittleEndian.AppendUint32(nil, aclDiskVersion)
	for e := range slices.Chunk(v[4:], 8) {
		switch tag := binary.LittleEndian.Uint16(e); tag {
		case aclUser, aclGroup:
			disk = append(disk, e...)
		case aclOwner, aclOwningGroup, aclMask, aclOther:
			disk = append(disk, e[:4]...)
		default: // the kernel would answer EINVAL to whoever the list is asked about
			return "", badLayer("an access control list with an entry of the unknown kind %#x", tag)
		}
	}
	return string(disk), nil
}
