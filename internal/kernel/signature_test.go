package kernel

import (
	"bytes"
	"encoding/binary"
	"testing"
)

func TestWithoutSignature(t *testing.T) {
	signed := func(size uint32, signature string) []byte {
		b := append([]byte("module"), signature...)
		b = append(b, 0, 0, 2, 0, 0, 0, 0, 0)
		return append(binary.BigEndian.AppendUint32(b, size), signatureMark...)
	}
	mark := bytes.Clone(signatureMark)
	for name, c := range map[string]struct{ in, want []byte }{
		"signed":             {signed(4, "sign"), []byte("module")},
		"unsigned":           {[]byte("module"), []byte("module")},
		"empty":              {nil, nil},
		"the mark alone":     {mark, mark},
		"longer than it is":  {signed(1<<32-1, "sign"), signed(1<<32-1, "sign")},
		"all of it":          {signed(10, "sign"), []byte{}},
		"longer by one byte": {signed(11, "sign"), signed(11, "sign")},
	} {
		t.Run(name, func(t *testing.T) {
			if got := withoutSignature(c.in); !bytes.Equal(got, c.want) {
				t.Errorf("%q, not %q", got, c.want)
			}
		})
	}
}
