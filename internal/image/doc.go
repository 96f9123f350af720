// Package image keeps the images of one host: where they come from, what they are called, and the read-only disks that
// machines boot from.
package image
