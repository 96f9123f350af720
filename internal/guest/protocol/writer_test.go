package protocol

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"
)

// A gate is a port that takes a write when it is told to.
type gate struct {
	open   chan error
	writes [][]byte
}

func (g *gate) Write(b []byte) (int, error) {
	if err := <-g.open; err != nil {
		return 0, err
	}
	g.writes = append(g.writes, bytes.Clone(b))
	return len(b), nil
}

func TestFramesThatWaitGoOutTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gate{open: make(chan error)}
		w := NewWriter(g)
		for i := range 3 {
			if err := w.Send(t.Context(), Frame{Type: TypeData, Stream: uint32(i)}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait() // the first is being written when the others come
		}
		g.open <- nil
		g.open <- nil
		synctest.Wait()
		if len(g.writes) != 2 {
			t.Fatalf("%d writes, want the first frame and then the other two", len(g.writes))
		}
		r := NewReader(bytes.NewReader(bytes.Join(g.writes, nil)))
		for i := range 3 {
			if f, err := r.Next(); err != nil || f.Stream != uint32(i) {
				t.Fatalf("frame %d: %+v, %v", i, f, err)
			}
		}
		w.Close()
		<-w.Done()
	})
}

func TestASenderWaitsForRoomAndNoLongerThanItCares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gate{open: make(chan error)}
		w := NewWriter(g)
		big := Frame{Type: TypeData, Payload: bytes.Repeat([]byte{1}, MaxPayload)}
		for range 2 { // one being written, one waiting
			if err := w.Send(t.Context(), big); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		impatient := errors.New("impatient")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, impatient)
		defer cancel()
		began := time.Now()
		if err := w.Send(ctx, big); err != impatient || time.Since(began) != time.Minute {
			t.Fatalf("a send to a full port: %v after %v", err, time.Since(began))
		}
		sent := make(chan error, 1)
		go func() { sent <- w.Send(t.Context(), big) }()
		synctest.Wait()
		g.open <- nil
		if err := <-sent; err != nil {
			t.Fatalf("a send when there is room again: %v", err)
		}
		synctest.Wait()
		go func() { sent <- w.Send(t.Context(), big) }()
		synctest.Wait()
		g.open <- io.ErrUnexpectedEOF
		<-w.Done()
		if err := <-sent; err != io.ErrUnexpectedEOF {
			t.Fatalf("a send that waits for a port that fails: %v", err)
		}
		if err := w.Send(t.Context(), big); err != io.ErrUnexpectedEOF {
			t.Fatalf("a send to a port that failed: %v", err)
		}
	})
}

func TestWhatIsRepeatedDoesNotPileUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gate{open: make(chan error)}
		w := NewWriter(g)
		hello := Frame{Type: TypeHello, Session: 1}
		sent := 0
		for range 100 {
			if w.SendIfIdle(hello) {
				sent++
			}
			synctest.Wait()
		}
		if sent != 1 {
			t.Errorf("%d HELLOs before a port that nobody reads, want 1", sent)
		}
		g.open <- nil
		synctest.Wait()
		if !w.SendIfIdle(hello) {
			t.Error("no HELLO to an idle port")
		}
		synctest.Wait()
		w.Close()
		g.open <- nil
		<-w.Done()
	})
}
