package image

import (
	"archive/tar"
	"encoding/binary"
	"maps"
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

// What the ext4 writer has room for: the rest of an inode and one block (compactext4's own sums).
const (
	xattrInodeRoom = 256 - 152 - 8
	xattrBlockRoom = 4096 - 36
	xattrEntry     = 16
	// Its order of the attributes in a block is right for a short list only, and the kernel searches by that order.
	maxBlockXattrs = 12
)

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
		xattrs[name] = value
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

// fitXattrs sees that the disk has room for a file's attributes, which the writer places in the order of their names.
func fitXattrs(xattrs map[string]string) error {
	inode, block, inBlock := xattrInodeRoom, xattrBlockRoom, 0
	for _, name := range slices.Sorted(maps.Keys(xattrs)) {
		short := name[strings.IndexByte(name, '.')+1:]
		if name == aclAccess || name == aclDefault {
			short = ""
		}
		size := xattrEntry + (len(short)+3)&^3 + (len(xattrs[name])+3)&^3
		switch {
		case inode >= size:
			inode -= size
		case block >= size && inBlock < maxBlockXattrs:
			block -= size
			inBlock++
		default:
			return badLayer("its extended attributes do not fit (%d bytes are possible): %s", xattrBlockRoom, quote(name))
		}
	}
	return nil
}

// An access control list is handed around in one form (linux/posix_acl_xattr.h) and lies on an ext4 disk in another
// (fs/ext4/acl.h), which leaves out the ids that mean nothing.
const (
	aclVersion     = 2
	aclDiskVersion = 1
	aclUser        = 0x02
	aclGroup       = 0x08
)

func diskACL(value string) (string, error) {
	v := []byte(value)
	if len(v) < 4 || (len(v)-4)%8 != 0 || binary.LittleEndian.Uint32(v) != aclVersion {
		return "", badLayer("an access control list that is not one")
	}
	disk := binary.LittleEndian.AppendUint32(nil, aclDiskVersion)
	for e := range slices.Chunk(v[4:], 8) {
		disk = append(disk, e[:4]...)
		if tag := binary.LittleEndian.Uint16(e); tag == aclUser || tag == aclGroup {
			disk = append(disk, e[4:]...)
		}
	}
	return string(disk), nil
}

// paxXattrs are the PAX records that say xattrs.
func paxXattrs(xattrs map[string]string) map[string]string {
	if len(xattrs) == 0 {
		return nil
	}
	records := make(map[string]string, len(xattrs))
	for name, value := range xattrs {
		records[xattrPrefix+name] = value
	}
	return records
}
