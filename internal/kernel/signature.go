package kernel

import (
	"bytes"
	"encoding/binary"
)

// signatureMark is what a signed module ends with (include/linux/module_signature.h in the kernel's tree). Before it lie twelve
// bytes, the last four of which say how long the signature is that lies before them.
var signatureMark = []byte("~Module signature appended~\n")

const signatureInfo = 12

// withoutSignature is a module without the signature at its end. What is no signature after all is left as it is.
func withoutSignature(ko []byte) []byte {
	rest, ok := bytes.CutSuffix(ko, signatureMark)
	if !ok || len(rest) < signatureInfo {
		return ko
	}
	size := binary.BigEndian.Uint32(rest[len(rest)-4:])
	rest = rest[:len(rest)-signatureInfo]
	if uint64(size) > uint64(len(rest)) {
		return ko
	}
	return rest[:len(rest)-int(size)]
}
