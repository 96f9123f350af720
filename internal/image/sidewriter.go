package image

import (
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"io"
	"os"
)

// A sideWriter writes to a file, and hashes, in a goroutine of its own, so that what comes can be read or inflated beside that.
// It is for one goroutine, and is to be stopped.
type sideWriter struct {
	f    *os.File
	h    hash.Hash
	look func([]byte) // looks at what is written, in the caller's goroutine; may be nil
	n    int64        // bytes in the file
	err  error        // why there are no more

	buf  []byte      // what was not handed over yet
	todo chan []byte // nil while there is no goroutine
	free chan []byte
	done chan struct{}
}

// What a sideWriter takes in memory at most: 1 MiB.
const (
	sidePiece  = 256 << 10
	sidePieces = 4
)

func newSideWriter(f *os.File, look func([]byte)) *sideWriter {
	if look == nil {
		look = func([]byte) {}
	}
	return &sideWriter{f: f, h: sha256.New(), look: look, buf: make([]byte, 0, 4<<10)}
}

func (s *sideWriter) Write(p []byte) (int, error) {
	for done := 0; done < len(p); {
		if err := s.room(); err != nil {
			return done, err
		}
		n := copy(s.buf[len(s.buf):cap(s.buf)], p[done:])
		s.buf = s.buf[:len(s.buf)+n]
		done += n
	}
	return len(p), nil
}

// ReadFrom saves io.Copy a buffer.
func (s *sideWriter) ReadFrom(r io.Reader) (int64, error) {
	for total := int64(0); ; {
		if err := s.room(); err != nil {
			return total, err
		}
		n, err := r.Read(s.buf[len(s.buf):cap(s.buf)])
		s.buf = s.buf[:len(s.buf)+n]
		total += int64(n)
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

// room makes room in s.buf.
func (s *sideWriter) room() error {
	switch {
	case len(s.buf) < cap(s.buf):
		return nil
	case cap(s.buf) < sidePiece: // a small file is not worth a goroutine
		s.buf = append(make([]byte, 0, min(4*cap(s.buf), sidePiece)), s.buf...)
		return nil
	case s.todo == nil:
		s.todo, s.free, s.done = make(chan []byte, sidePieces), make(chan []byte, sidePieces), make(chan struct{})
		for range sidePieces - 1 {
			s.free <- make([]byte, sidePiece)
		}
		go s.run()
	}
	select {
	case <-s.done:
		return s.err
	default:
	}
	s.look(s.buf)
	s.todo <- s.buf // which has room for all pieces
	select {
	case b := <-s.free:
		s.buf = b[:0]
		return nil
	case <-s.done:
		s.buf = s.buf[:cap(s.buf)]
		return s.err
	}
}

func (s *sideWriter) run() {
	defer close(s.done)
	s.err = caught(func() error {
		for b := range s.todo {
			if err := s.put(b); err != nil {
				return err
			}
			s.free <- b
		}
		return nil
	})
}

func (s *sideWriter) put(b []byte) error {
	n, err := s.f.Write(b)
	s.n += int64(n)
	if err != nil {
		return err
	}
	s.h.Write(b)
	return nil
}

// finish writes the rest, and returns the hash of everything, in hexadecimal.
func (s *sideWriter) finish() (string, error) {
	s.stop()
	if s.err == nil {
		s.look(s.buf)
		s.err = s.put(s.buf)
	}
	return hex.EncodeToString(s.h.Sum(nil)), s.err
}

// stop ends the goroutine, and waits for it.
func (s *sideWriter) stop() {
	if s.todo != nil {
		close(s.todo)
		<-s.done
		s.todo = nil
	}
}
