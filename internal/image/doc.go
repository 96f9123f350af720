// Package image keeps the images of one host as disks that machines boot from: it pulls one from a registry or reads an
// archive of one, verifies every byte of it by digest, lays its layers over each other as overlayfs would show them, and writes what results as
// a read-only ext4 file system, in pure Go. No privilege is needed, nothing is unpacked into the host's file system, and
// no name in an archive ever becomes a path on the host.
//
// A Store owns one directory:
//
//	blobs/sha256/HEX  an image's manifest and configuration, and the layers that were pulled for it
//	partial/HEX       a layer on its way; kept for the next pull that wants it
//	disks/HEX.ext4    its disk, named by the digest of the manifest
//	refs.json         which name stands for which digest
//	pulls.json        what is being pulled, and what pulls failed
//	staging/          work in progress; emptied by Open
//
// Everything there is written beside its place, synced and renamed, and refs.json comes last: an image is there whole
// or not at all. One Store serves a directory at a time (the lock is the daemon's).
//
// All methods may be called from any goroutine. An Import runs in its caller's goroutine up to the conversion, which
// is the store's: any number of imports of one digest wait for one conversion, and it goes on for as long as one of them
// waits. Close ends and awaits what is running.
//
// A Pull runs in a goroutine of its own (pull.go): it asks what the name stands for (resolve.go), waits for its turn, fetches
// what layers are not here, several pulls sharing one fetch of a blob (fetch.go), and then does as an import does. It outlives
// who asked for it and, through pulls.json, the Store. A registry that shows no life is given up (life.go).
//
// How a disk is made: the headers of the inflated layers are read into trees (tree.go), if possible while the layers arrive (early.go).
// The trees are laid over each other (overlay.go); the result is put in the order in which it can be written while each layer is read
// once more (plan.go), and each file gets its place (chart.go). Then the file system is written from its first block to its last (ext4.go), while
// the files' content goes from the layers to the disk beside it (disk.go). Memory grows with the number of files, never with their size. See
// docs/design/0010-from-tar-to-disk.md.
//
// The package knows nothing of instances but what Options.InUse tells it, and leaves it to internal/registry how a registry is
// spoken to.
package image
