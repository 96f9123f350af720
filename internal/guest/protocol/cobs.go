package protocol

import "bytes"

// Byte stuffing as in Cheshire and Baker, "Consistent Overhead Byte Stuffing" (1999). Each block begins with its code:
// code-1 bytes follow, none of them zero, and then a zero that is left out, except after a block of code 255 and after
// the last. A run of zeros becomes a run of ones, which both directions treat as such: block by block it is fifty times
// as slow as text (measured), and disks and binaries are full of them.

const fullBlock = 255

// appendStuffed appends the stuffed concatenation of parts.
func appendStuffed(dst []byte, parts ...[]byte) []byte {
	code := len(dst) // where the code of the block under way is
	dst = append(dst, 0)
	room := fullBlock - 1
	for _, p := range parts {
		for len(p) > 0 {
			if n := leading(p, 0); n > 0 {
				dst[code] = byte(fullBlock - room)
				for range n - 1 {
					dst = append(dst, 1)
				}
				code = len(dst)
				dst = append(dst, 0)
				room = fullBlock - 1
				p = p[n:]
				continue
			}
			run := p[:min(room, len(p))]
			if zero := bytes.IndexByte(run, 0); zero >= 0 {
				run = run[:zero]
			}
			dst = append(dst, run...)
			room -= len(run)
			p = p[len(run):]
			if room == 0 {
				dst[code] = fullBlock
				code = len(dst)
				dst = append(dst, 0)
				room = fullBlock - 1
			}
		}
	}
	dst[code] = byte(fullBlock - room)
	return dst
}

// unstuff takes the stuffing out of b, in place.
func unstuff(b []byte) ([]byte, bool) {
	out := 0
	for in := 0; in < len(b); {
		if n := leading(b[in:], 1); n > 0 {
			in += n
			if in == len(b) {
				n-- // after the last block there is no zero
			}
			clear(b[out : out+n])
			out += n
			continue
		}
		code := int(b[in])
		if code == 0 || in+code > len(b) {
			return nil, false
		}
		out += copy(b[out:], b[in+1:in+code])
		in += code
		if code < fullBlock && in < len(b) {
			b[out] = 0
			out++
		}
	}
	return b[:out], true
}

// leading is how many times c stands at the beginning of b.
func leading(b []byte, c byte) int {
	for i := range b {
		if b[i] != c {
			return i
		}
	}
	return len(b)
}
