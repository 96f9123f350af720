package mux

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/halevm/hale/internal/guest/protocol"
)

// A wire hands what one end sends to the other, in order, and never waits: as a port whose reader never stalls.
type wire struct {
	mu   sync.Mutex
	to   *Mux
	sent int
}

func (w *wire) Send(_ context.Context, f protocol.Frame) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if f.Type == protocol.TypeData {
		w.sent += len(f.Payload)
	}
	f.Payload = bytes.Clone(f.Payload)
	w.to.Deliver(f)
	return nil
}

func pair() (a, b *Mux, fromA *wire) {
	fromA, fromB := &wire{}, &wire{}
	a, b = New(7, fromA), New(7, fromB)
	fromA.to, fromB.to = b, a
	return a, b, fromA
}

func TestAStreamCarriesMoreThanItsWindow(t *testing.T) {
	a, b, _ := pair()
	out, in := a.Open(4), b.Open(4)
	want := bytes.Repeat([]byte("0123456789abcdef"), 5*Window/16)
	go func() {
		out.Write(want)
		out.CloseWrite()
	}()
	got, err := io.ReadAll(in)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("got %d bytes, %v", len(got), err)
	}
}

func TestAStalledStreamStallsNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, w := pair()
		stalled, _ := a.Open(1), b.Open(1)
		other, otherIn := a.Open(2), b.Open(2)
		wrote := make(chan error, 1)
		go func() {
			_, err := stalled.Write(make([]byte, 2*Window))
			wrote <- err
		}()
		synctest.Wait()
		if w.sent != Window {
			t.Fatalf("%d bytes sent to a reader that stalls, want the window, %d", w.sent, Window)
		}
		go func() {
			other.Write(make([]byte, 3*Window))
			other.CloseWrite()
		}()
		if n, err := io.Copy(io.Discard, otherIn); n != 3*Window || err != nil {
			t.Fatalf("the other stream carried %d, %v", n, err)
		}
		over := errors.New("over")
		a.Close(over)
		if err := <-wrote; err != over {
			t.Errorf("a write under way when the session ended: %v", err)
		}
	})
}

func TestWhoOverrunsTheWindowIsCutOff(t *testing.T) {
	_, b, _ := pair()
	in := b.Open(1)
	for range 4 {
		b.Deliver(protocol.Frame{Type: protocol.TypeData, Stream: 1, Session: 7, Payload: make([]byte, Window/2)})
	}
	n, err := io.Copy(io.Discard, in)
	if n != Window || err != ErrOverrun {
		t.Fatalf("read %d, %v", n, err)
	}
}

func TestCreditNeverExceedsTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _, w := pair()
		out := a.Open(1)
		for range 3 {
			a.Deliver(protocol.Frame{Type: protocol.TypeCredit, Stream: 1, Session: 7, Payload: []byte{255, 255, 255, 255}})
		}
		go out.Write(make([]byte, 4*Window))
		synctest.Wait()
		if w.sent != Window {
			t.Errorf("%d bytes sent, want %d", w.sent, Window)
		}
		a.Close(io.ErrClosedPipe)
	})
}

func TestFramesOfAnotherSessionAreDropped(t *testing.T) {
	_, b, _ := pair()
	in := b.Open(1)
	b.Deliver(protocol.Frame{Type: protocol.TypeData, Stream: 1, Session: 8, Payload: []byte("old")})
	b.Deliver(protocol.Frame{Type: protocol.TypeData, Stream: 2, Session: 7, Payload: []byte("nobody's")})
	b.Deliver(protocol.Frame{Type: protocol.TypeData, Stream: 1, Session: 7, Payload: []byte("new")})
	b.Deliver(protocol.Frame{Type: protocol.TypeData, Stream: 1, Session: 7})
	if got, err := io.ReadAll(in); string(got) != "new" || err != nil {
		t.Fatalf("got %q, %v", got, err)
	}
	select {
	case <-in.Ended():
	default:
		t.Error("Ended is open after the end")
	}
}

func TestWhatArrivedOutlivesTheSession(t *testing.T) {
	_, b, _ := pair()
	in := b.Open(1)
	b.Deliver(protocol.Frame{Type: protocol.TypeData, Stream: 1, Session: 7, Payload: []byte("last words")})
	over := errors.New("over")
	b.Close(over)
	if got, err := io.ReadAll(in); string(got) != "last words" || err != over {
		t.Fatalf("got %q, %v", got, err)
	}
	if _, err := b.Open(2).Read(make([]byte, 1)); err != over {
		t.Errorf("a stream of a session that is over: %v", err)
	}
}

// stuck is a port that nobody reads.
type stuck struct{}

func (stuck) Send(ctx context.Context, _ protocol.Frame) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

// A guest that does not read the port holds nobody who has closed a stream.
func TestCloseFreesWhatWaitsForThePort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New(7, stuck{})
		closed := errors.New("closed")
		in, out := m.Open(1), m.Open(2)
		m.Deliver(protocol.Frame{Type: protocol.TypeData, Stream: 2, Session: 7, Payload: make([]byte, Window/2)})
		ended := make(chan error, 2)
		go func() { _, err := in.Write([]byte("x")); ended <- err }()
		go func() { _, err := io.Copy(io.Discard, out); ended <- err }()
		synctest.Wait()
		in.Close(closed)
		out.Close(closed)
		synctest.Wait()
		for range 2 {
			select {
			case err := <-ended:
				if err != closed {
					t.Error(err)
				}
			default:
				t.Error("somebody waits still")
			}
		}
		m.Close(closed)
	})
}
