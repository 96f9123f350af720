package protocol

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"
)

// What a stream's chunk costs on its way through a port, by what is in it: zeros are what byte stuffing likes least.
func BenchmarkFrame(b *testing.B) {
	random := make([]byte, 30<<10)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range random {
		random[i] = byte(r.Uint32())
	}
	for name, payload := range map[string][]byte{
		"text":   bytes.Repeat([]byte("a line of some output\n"), 30<<10/22),
		"random": random,
		"zeros":  make([]byte, 30<<10),
	} {
		f := Frame{Type: TypeData, Stream: 5, Session: 7, Payload: payload}
		b.Run("append/"+name, func(b *testing.B) {
			b.SetBytes(int64(len(payload)))
			var buf []byte
			for b.Loop() {
				buf = AppendFrame(buf[:0], f)
			}
		})
		b.Run("read/"+name, func(b *testing.B) {
			b.SetBytes(int64(len(payload)))
			frame := AppendFrame(nil, f)
			r := NewReader(&endless{b: frame})
			for b.Loop() {
				if _, err := r.Next(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// endless repeats its bytes.
type endless struct {
	b  []byte
	at int
}

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, e.b[e.at:])
	e.at = (e.at + n) % len(e.b)
	return n, nil
}

var _ io.Reader = (*endless)(nil)
