//go:build !amd64

package sandbox

const auditArch = 0 // the filter is not written yet

var deniedHere []uint32
