package quiet

import (
	"io"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A write waits for room also where no descriptor is left; a connection that cannot be made one of ours for want of them is as it was.
func TestWithoutDescriptors(t *testing.T) {
	ours, theirs := pair(t)
	_, other := pair(t)
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &was)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: was.Max}); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4<<20)
	read := make(chan error, 1)
	go func() {
		time.Sleep(10 * time.Millisecond) // for the write to wait, as a rule
		_, err := io.ReadFull(theirs, make([]byte, len(b)))
		read <- err
	}()
	if n, err := ours.Write(b); err != nil {
		t.Fatalf("%d of %d: %v", n, len(b), err)
	}
	if err := <-read; err != nil {
		t.Error(err)
	}
	if _, err := New(other); err == nil {
		t.Error("it was made without a descriptor")
	}
	if _, err := other.Write([]byte("x")); err != nil {
		t.Error(err)
	}
}
