package protocol

import (
	"bufio"
	"io"
)

// A Reader takes frames from a port. It belongs to one goroutine.
type Reader struct {
	r       *bufio.Reader
	frame   []byte // what came since the last zero
	tooLong bool
	skipped int
}

// NewReader returns a Reader of r.
func NewReader(r io.Reader) *Reader { return &Reader{r: bufio.NewReaderSize(r, 16<<10)} }

// keep is how much memory a Reader holds on to between frames.
const keep = 64 << 10

// Next returns the next whole frame, skipping what is none. Its payload is valid until the following call. An error is
// the port's own.
func (r *Reader) Next() (Frame, error) {
	if cap(r.frame) > keep {
		r.frame = nil
	}
	r.frame = r.frame[:0]
	for {
		piece, err := r.r.ReadSlice(0)
		if err != nil && err != bufio.ErrBufferFull {
			return Frame{}, err
		}
		whole := err == nil
		if whole {
			piece = piece[:len(piece)-1]
		}
		if len(r.frame)+len(piece) > maxEncoded {
			r.tooLong, r.frame = true, nil
		}
		if !r.tooLong {
			r.frame = append(r.frame, piece...)
		}
		if !whole {
			continue
		}
		if len(r.frame) > 0 && !r.tooLong {
			if f, ok := parseFrame(r.frame); ok {
				return f, nil
			}
		}
		if len(r.frame) > 0 || r.tooLong {
			r.skipped++
		}
		r.frame, r.tooLong = r.frame[:0], false
	}
}

// Skipped is the number of stretches of garbage so far.
func (r *Reader) Skipped() int { return r.skipped }
