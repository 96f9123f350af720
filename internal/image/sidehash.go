package image

import (
	"crypto/sha256"
	"encoding/hex"
	"hash"
)

// A sideHash is a SHA-256 of what is written to it, made in a goroutine of its own once it is worth that: hashing takes longer than
// writing to a file that stays in memory. It is for one goroutine, and must be ended with sum or stop.
type sideHash struct {
	h    hash.Hash
	buf  []byte      // what is written and not yet handed over
	todo chan []byte // nil while there is no goroutine
	free chan []byte
	done chan struct{}
}

// What a sideHash takes in memory at most: 1 MiB.
const (
	hashPiece  = 256 << 10
	hashPieces = 4
)

func newSideHash() *sideHash { return &sideHash{h: sha256.New()} }

// Write never fails.
func (s *sideHash) Write(p []byte) (int, error) {
	n := len(p)
	if s.todo == nil && len(s.buf)+n <= hashPiece {
		s.buf = append(s.buf, p...)
		return n, nil
	}
	if s.todo == nil {
		s.start()
	}
	for len(p) > 0 {
		if len(s.buf) == cap(s.buf) {
			s.todo <- s.buf
			s.buf = (<-s.free)[:0]
		}
		k := copy(s.buf[len(s.buf):cap(s.buf)], p)
		s.buf, p = s.buf[:len(s.buf)+k], p[k:]
	}
	return n, nil
}

func (s *sideHash) start() {
	s.todo, s.free, s.done = make(chan []byte, hashPieces), make(chan []byte, hashPieces), make(chan struct{})
	for range hashPieces - 1 {
		s.free <- make([]byte, hashPiece)
	}
	s.buf = append(make([]byte, 0, hashPiece), s.buf...)
	go func() {
		defer close(s.done)
		for b := range s.todo {
			s.h.Write(b)
			s.free <- b
		}
	}()
}

// sum returns the hash, in hexadecimal.
func (s *sideHash) sum() string {
	s.stop()
	s.h.Write(s.buf)
	s.buf = nil
	return hex.EncodeToString(s.h.Sum(nil))
}

// stop ends the goroutine, and waits for it.
func (s *sideHash) stop() {
	if s.todo != nil {
		close(s.todo)
		<-s.done
		s.todo = nil
	}
}
