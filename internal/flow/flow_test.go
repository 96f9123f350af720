package flow

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"
)

// TestEverythingArrives sends through a window far smaller than what is sent; the sender that keeps to its credit never waits
// to put, and no more than the window is ever held.
func TestEverythingArrives(t *testing.T) {
	const window = 1000
	sent := make([]byte, 100_000)
	for i := range sent {
		sent[i] = byte(i * 7 >> 3)
	}
	credit := NewCredit()
	q := NewQueue(window, credit.Add)
	credit.Add(window)
	var got []byte
	done := make(chan error, 1)
	go func() {
		var err error
		got, err = io.ReadAll(q)
		done <- err
	}()
	for left := sent; len(left) > 0; {
		n, err := credit.Take(min(len(left), 1+rand.IntN(300)))
		if err != nil {
			t.Fatal(err)
		}
		if err := q.Put(t.Context(), left[:n], time.Nanosecond); err != nil {
			t.Fatalf("%d bytes from the end: %v", len(left), err)
		}
		left = left[n:]
	}
	q.End(io.EOF)
	if err := <-done; err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%v, %d bytes came of %d", err, len(got), len(sent))
	}
}

// TestWithoutCredit: a sender that knows none waits for room as long as something is read now and then, and not for ever.
func TestWithoutCredit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const patience = time.Minute
		q := NewQueue(100, nil)
		start := time.Now()
		if err := q.Put(t.Context(), make([]byte, 100), patience); err != nil || time.Since(start) != 0 {
			t.Fatalf("the first: %v after %v", err, time.Since(start))
		}
		go func() {
			for range 5 {
				time.Sleep(50 * time.Second)
				q.Read(make([]byte, 10))
			}
		}()
		if err := q.Put(t.Context(), make([]byte, 50), patience); err != nil || time.Since(start) != 250*time.Second {
			t.Errorf("while something is read: %v after %v", err, time.Since(start))
		}
		if err := q.Put(t.Context(), []byte("x"), patience); !errors.Is(err, ErrStuck) || time.Since(start) != 250*time.Second+patience {
			t.Errorf("when nothing is: %v after %v", err, time.Since(start))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := q.Put(ctx, []byte("x"), patience); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("with a context that ends: %v", err)
		}
	})
}

func TestEnds(t *testing.T) {
	q := NewQueue(10, nil)
	q.Put(t.Context(), []byte("abc"), 0)
	q.End(io.EOF)
	q.End(io.ErrUnexpectedEOF)
	if err := q.Put(t.Context(), make([]byte, 20), 0); err != nil {
		t.Errorf("after the end: %v", err)
	}
	if b, err := io.ReadAll(q); string(b) != "abc" || err != nil {
		t.Errorf("%q, %v: want abc and its end", b, err)
	}
	gone := errors.New("gone")
	q = NewQueue(10, nil)
	q.Put(t.Context(), []byte("abc"), 0)
	q.Drop(gone)
	if n, err := q.Read(make([]byte, 5)); n != 0 || err != gone {
		t.Errorf("dropped: %d, %v", n, err)
	}
	c := NewCredit()
	c.Add(5)
	c.Close(gone)
	c.Close(io.EOF)
	if n, err := c.Take(3); n != 0 || err != gone {
		t.Errorf("closed: %d, %v", n, err)
	}
}
