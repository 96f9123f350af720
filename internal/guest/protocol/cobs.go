package protocol

import "bytes"

// Byte stuffing as in Cheshire and Baker, "Consistent Overhead Byte Stuffing" (1999). Each block begins with its code:
// code-1 bytes follow, none of them zero, and then a zero that is left out, except after a block of code 255 and after
// the last.

const fullBlock = 255

// appendStuffed appends the stuffed concatenation of parts.
func appendStuffed(dst []byte, parts ...[]byte) []byte {
	code := len(dst) // where the code of the block under way is
	dst = append(dst, 0)
	room := fullBlock - 1
	for _, p := range parts {
		for len(p) > 0 {
			run := p[:min(room, len(p))]
			zero := bytes.IndexByte(run, 0)
			if zero >= 0 {
				run = run[:zero]
			}
			dst = append(dst, run...)
			room -= len(run)
			p = p[len(run):]
			if zero >= 0 {
				p = p[1:]
			} else if room > 0 {
				break // the block goes on in the next part
			}
			dst[code] = byte(fullBlock - room)
			code = len(dst)
			dst = append(dst, 0)
			room = fullBlock - 1
		}
	}
	dst[code] = byte(fullBlock - room)
	return dst
}

// unstuff takes the stuffing out of b, in place.
func unstuff(b []byte) ([]byte, bool) {
	out := 0
	for in := 0; in < len(b); {
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
