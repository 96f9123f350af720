// Package image keeps the images of one host as disks that machines boot from: it reads an archive of one, verifies
// every byte of it by digest, lays its layers over each other as overlayfs would show them, and writes what results as
// a read-only ext4 file system, in pure Go. No privilege is needed, nothing is unpacked into the host's file system, and
// no name in an archive ever becomes a path on the host.
//
// A Store owns one directory:
//
//	blobs/sha256/HEX  an image's manifest and configuration
//	disks/HEX.ext4    its disk, named by the digest of the manifest
//	refs.json         which name stands for which digest
//	staging/          work in progress; emptied by Open
//
// Everything there is written beside its place, synced and renamed, and refs.json comes last: an image is there whole
// or not at all. One Store serves a directory at a time (the lock is the daemon's).
//
// All methods may be called from any goroutine. An Import runs in its caller's goroutine up to the conversion, which
// is the store's: any number of imports of one digest wait for one conversion, and it goes on for as long as one of them
// waits. Close ends and awaits what is running.
//
// How a disk is made: the headers of the inflated layers are read into trees (tree.go), which are laid over each other
// (overlay.go); the result is put in the order in which it can be written while each layer is read once more (plan.go,
// convert.go). Memory grows with the number of files, never with their size.
//
// The package knows nothing of instances but what Options.InUse tells it, and nothing of registries yet.
package image
