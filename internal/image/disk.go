package image

import (
	"bytes"
	"errors"
	"io"
	"os"
)

// The disk's block, of which one that is all zeros needs no room on the host.
const blockSize = 4096

// A sparseFile is a new file that gets written mostly once from its beginning to its end: zeros beyond everything
// written so far become holes. It is for one goroutine.
type sparseFile struct {
	f    *os.File
	pos  int64
	high int64 // nothing was written beyond
	size int64
}

var zeros [blockSize]byte

func (s *sparseFile) Read(p []byte) (int, error) {
	if s.pos >= s.size {
		return 0, io.EOF
	}
	n, err := s.f.ReadAt(p[:min(int64(len(p)), s.size-s.pos)], s.pos)
	if err == io.EOF { // a hole at the end is not in the file yet
		clear(p[n:])
		n, err = int(min(int64(len(p)), s.size-s.pos)), nil
	}
	s.pos += int64(n)
	return n, err
}

func (s *sparseFile) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		skip, n := s.split(p[done:])
		if !skip {
			if _, err := s.f.WriteAt(p[done:done+n], s.pos); err != nil {
				return done, err
			}
			s.high = max(s.high, s.pos+int64(n))
		}
		done += n
		s.pos += int64(n)
		s.size = max(s.size, s.pos)
	}
	return done, nil
}

// split says how many of the next bytes are alike: zeros to be skipped, or data to be written in one go.
func (s *sparseFile) split(p []byte) (skip bool, n int) {
	for n < len(p) {
		chunk := min(len(p)-n, int(blockSize-(s.pos+int64(n))%blockSize))
		hole := s.pos+int64(n) >= s.high && bytes.Equal(p[n:n+chunk], zeros[:chunk])
		if n > 0 && hole != skip {
			break
		}
		skip = hole
		n += chunk
	}
	return skip, n
}

func (s *sparseFile) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += s.pos
	case io.SeekEnd:
		offset += s.size
	}
	if offset < 0 {
		return 0, errors.New("seek before the beginning of the disk")
	}
	s.pos = offset
	return offset, nil
}

// finish gives the file its size and puts it on disk.
func (s *sparseFile) finish() error {
	if err := s.f.Truncate(s.size); err != nil {
		return err
	}
	return s.f.Sync()
}
