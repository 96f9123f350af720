// Package numbered is a stream of bytes of which every part is known: what is lost, doubled or changed on its way is found. It has no state
// but its writers' and readers' own.
package numbered

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
)

// Block is the size of a block: its number, and the same noise for all.
const Block = 1 << 20

var noise = func() []byte {
	b := make([]byte, Block)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}()

// A Reader gives a stream from its beginning.
type Reader struct {
	at, end int64
	number  [8]byte
}

// NewReader returns one of the first size bytes.
func NewReader(size int64) *Reader { return &Reader{end: size} }

// Read fills p as far as one block goes.
func (r *Reader) Read(p []byte) (int, error) {
	if r.at == r.end {
		return 0, io.EOF
	}
	n := copy(p[:min(int64(len(p)), r.end-r.at)], piece(r.at, &r.number))
	r.at += int64(n)
	return n, nil
}

// piece is what comes at a place of the stream: a block's number, or its noise from there on.
func piece(at int64, number *[8]byte) []byte {
	in := at % Block
	if in >= 8 {
		return noise[in:]
	}
	binary.BigEndian.PutUint64(number[:], uint64(at/Block))
	return number[in:]
}

// A Checker is written a stream, and refuses the first byte that is another than it should be.
type Checker struct {
	at     int64
	number [8]byte
}

// Write compares.
func (c *Checker) Write(p []byte) (int, error) {
	for done := 0; done < len(p); {
		want := piece(c.at, &c.number)
		n := min(len(want), len(p)-done)
		if !bytes.Equal(p[done:done+n], want[:n]) {
			return done, fmt.Errorf("the stream is another from somewhere in the %d bytes at %d on", n, c.at)
		}
		c.at += int64(n)
		done += n
	}
	return len(p), nil
}

// Checked is how many bytes were right.
func (c *Checker) Checked() int64 { return c.at }
