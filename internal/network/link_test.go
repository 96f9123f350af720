package network

import (
	"io"
	"syscall"
	"testing"
)

// A refusing card takes no frame, and is read until it is closed.
type refusing struct{ closed chan struct{} }

func (r refusing) Write([]byte) (int, error) { return 0, syscall.ENOBUFS }
func (r refusing) Close() error              { close(r.closed); return nil }
func (r refusing) Read([]byte) (int, error)  { <-r.closed; return 0, io.ErrClosedPipe }

// A link whose frames do not go any more ends, rather than to be read for ever.
func TestLinkThatCannotWriteEnds(t *testing.T) {
	l := newLink(refusing{make(chan struct{})}, 1500, stations{})
	go l.writeLoop()
	l.enqueue(1, []byte("x"))
	if _, err := newFrameReader(l.rw).next(); err != io.ErrClosedPipe {
		t.Error(err)
	}
}
