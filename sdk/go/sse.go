package hale

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
)

// A frame is one server-sent event.
type frame struct {
	id, event string
	data      []byte
}

// maxFrame bounds the lines of one frame, in bytes.
const maxFrame = 8 << 20

// errFrameTooLong ends a stream.
var errFrameTooLong = fmt.Errorf("a server-sent event of more than %d MiB", maxFrame>>20)

// frames reads server-sent events until r ends; comments and frames with neither data nor an id are skipped. A frame that was cut short is
// io.ErrUnexpectedEOF.
func frames(r io.Reader) iter.Seq2[frame, error] {
	return func(yield func(frame, error) bool) {
		var f frame
		var begun bool // a field of f was read
		var size int   // of the lines of f
		in := bufio.NewReader(r)
		for {
			line, err := readLine(in, maxFrame-size)
			if err != nil {
				if err == io.EOF && (begun || len(line) > 0) {
					err = io.ErrUnexpectedEOF
				}
				if err != io.EOF {
					yield(frame{}, err)
				}
				return
			}
			if len(line) == 0 {
				if (f.data != nil || f.id != "") && !yield(f, nil) {
					return
				}
				f, begun, size = frame{}, false, 0
				continue
			}
			if line[0] == ':' {
				continue
			}
			begun = true
			size += len(line)
			f.field(line)
		}
	}
}

// field takes one line of a frame, as the HTML standard says.
func (f *frame) field(line []byte) {
	name, value, _ := bytes.Cut(line, []byte(":"))
	value = bytes.TrimPrefix(value, []byte(" "))
	switch string(name) {
	case "data":
		if f.data == nil {
			f.data = append(make([]byte, 0, len(value)), value...)
			return
		}
		f.data = append(append(f.data, '\n'), value...)
	case "event":
		f.event = string(value)
	case "id":
		f.id = string(value)
	}
}

// readLine returns a line without its end, of at most limit bytes.
func readLine(in *bufio.Reader, limit int) ([]byte, error) {
	var line []byte
	for {
		part, err := in.ReadSlice('\n')
		if len(line)+len(part) > limit {
			return nil, errFrameTooLong
		}
		line = append(line, part...)
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err != nil {
			return line, err
		}
		return bytes.TrimSuffix(line[:len(line)-1], []byte("\r")), nil
	}
}
