package kernel

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz"
)

// maxKernel bounds an uncompressed kernel; Debian's has 53 MB.
const maxKernel = 512 << 20

// Offsets into a bzImage (Documentation/arch/x86/boot.rst in the kernel's tree).
const (
	offSetupSects    = 0x1f1
	offMagic         = 0x202 // "HdrS"
	offVersion       = 0x206
	offPayloadOffset = 0x248
	offPayloadLength = 0x24c
)

// Uncompress takes the ELF image out of a bzImage.
func Uncompress(image []byte) ([]byte, error) {
	if len(image) < offPayloadLength+4 || string(image[offMagic:offMagic+4]) != "HdrS" {
		return nil, errors.New("not a bzImage")
	}
	if v := binary.LittleEndian.Uint16(image[offVersion:]); v < 0x208 {
		return nil, fmt.Errorf("boot protocol %#x has no payload", v)
	}
	sects := int64(image[offSetupSects])
	if sects == 0 {
		sects = 4
	}
	begin := (sects+1)*512 + int64(binary.LittleEndian.Uint32(image[offPayloadOffset:]))
	end := begin + int64(binary.LittleEndian.Uint32(image[offPayloadLength:]))
	if begin < 0 || end > int64(len(image)) || end-begin < 8 {
		return nil, errors.New("the payload lies outside the image")
	}
	// The last four bytes are the uncompressed size, which not every compressor's format carries.
	r, err := decompressor(image[begin : end-4])
	if err != nil {
		return nil, err
	}
	size := binary.LittleEndian.Uint32(image[end-4:])
	if size > maxKernel {
		return nil, fmt.Errorf("a kernel of %d bytes", size)
	}
	elf := make([]byte, size)
	if _, err := io.ReadFull(r, elf); err != nil {
		return nil, fmt.Errorf("the payload: %w", err)
	}
	if !bytes.HasPrefix(elf, []byte("\x7fELF")) {
		return nil, errors.New("the payload is no ELF image")
	}
	return elf, nil
}

// decompressor finds the format by its magic. lz4 is the legacy frame that the kernel's build makes.
func decompressor(b []byte) (io.Reader, error) {
	switch {
	case bytes.HasPrefix(b, []byte{0x1f, 0x8b}):
		return gzip.NewReader(bytes.NewReader(b))
	case bytes.HasPrefix(b, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return zstd.NewReader(bytes.NewReader(b))
	case bytes.HasPrefix(b, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		return xz.NewReader(bytes.NewReader(b))
	case bytes.HasPrefix(b, []byte{0x02, 0x21, 0x4c, 0x18}):
		return lz4.NewReader(bytes.NewReader(b)), nil
	}
	return nil, fmt.Errorf("a compression that begins with % x is not known", b[:min(6, len(b))])
}
