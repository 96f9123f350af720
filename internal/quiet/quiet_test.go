package quiet

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pair is a connection of ours, and its other end as anybody else has it.
func pair(t *testing.T) (*Conn, *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		conn, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		ends[i] = conn.(*net.UnixConn)
		t.Cleanup(func() { conn.Close() })
	}
	c, err := New(ends[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, ends[1]
}

// What is more than the socket has room for arrives whole, however slowly it is read, and so does what comes the other way meanwhile.
func TestBothWays(t *testing.T) {
	ours, theirs := pair(t)
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	failed := make(chan error, 2)
	go func() {
		_, err := ours.Write(sent)
		failed <- err
	}()
	go func() {
		_, err := theirs.Write(sent)
		failed <- err
	}()
	got := make(chan []byte, 2)
	for _, r := range []io.Reader{ours, theirs} {
		go func() {
			b := make([]byte, len(sent))
			n, err := io.ReadFull(r, b)
			if err != nil {
				t.Error(err)
			}
			got <- b[:n]
		}()
	}
	for range 2 {
		if err := <-failed; err != nil {
			t.Error(err)
		}
		if !bytes.Equal(<-got, sent) {
			t.Error("what arrived is not what was sent")
		}
	}
}

// A read waits for what comes, for its deadline, for the other end's close and for its own.
func TestRead(t *testing.T) {
	ours, theirs := pair(t)
	b := make([]byte, 16)
	go theirs.Write([]byte("now"))
	if n, err := ours.Read(b); err != nil || string(b[:n]) != "now" {
		t.Fatalf("%q, %v", b[:n], err)
	}
	ours.SetReadDeadline(time.Now().Add(time.Millisecond))
	if n, err := ours.Read(b); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%d, %v, not a deadline's error", n, err)
	}
	var timeout net.Error
	if _, err := ours.Read(b); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("%v is no timeout", err)
	}
	ours.SetReadDeadline(time.Time{})
	theirs.Write([]byte("last"))
	theirs.Close()
	if n, err := ours.Read(b); err != nil || string(b[:n]) != "last" {
		t.Fatalf("%q, %v", b[:n], err)
	}
	if n, err := ours.Read(b); n != 0 || err != io.EOF {
		t.Errorf("%d, %v, not the end", n, err)
	}

	ours, _ = pair(t)
	ended := make(chan error, 1)
	go func() {
		_, err := ours.Read(b)
		ended <- err
	}()
	ours.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v, not closed", err)
	}
}

// A write that finds no room waits for its deadline, and says how much of it went; one to an end that is gone fails.
func TestWrite(t *testing.T) {
	ours, theirs := pair(t)
	ours.SetWriteDeadline(time.Now().Add(time.Millisecond))
	b := make([]byte, 4<<20)
	n, err := ours.Write(b)
	if n == 0 || n == len(b) || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("%d of %d, %v", n, len(b), err)
	}
	ours.SetWriteDeadline(time.Time{})
	theirs.CloseWrite()
	if got, err := io.ReadFull(theirs, make([]byte, n)); err != nil {
		t.Errorf("%d of %d arrived: %v", got, n, err)
	}
	theirs.Close()
	if _, err := ours.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("%v, not EPIPE", err)
	}
}

// A write waits for room as long as it is told to, and what is written after it as long as that is told.
func TestWriteWithin(t *testing.T) {
	ours, theirs := pair(t)
	b := make([]byte, 4<<20)
	n, err := ours.WriteWithin(b, time.Millisecond)
	if n == 0 || n == len(b) || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("%d of %d, %v", n, len(b), err)
	}
	read := make(chan error, 1)
	go func() {
		time.Sleep(10 * time.Millisecond) // longer than the first write's patience
		_, err := io.ReadFull(theirs, make([]byte, n+len(b)))
		read <- err
	}()
	if n, err := ours.Write(b); n != len(b) || err != nil {
		t.Errorf("%d of %d, %v", n, len(b), err)
	}
	if err := <-read; err != nil {
		t.Error(err)
	}
}

// Whoever waits is let go when it is closed, and nothing goes through it afterwards.
func TestClose(t *testing.T) {
	ours, _ := pair(t)
	ended := make(chan error, 2)
	go func() {
		_, err := ours.Read(make([]byte, 1))
		ended <- err
	}()
	go func() {
		_, err := ours.Write(make([]byte, 4<<20))
		ended <- err
	}()
	time.Sleep(10 * time.Millisecond) // for both to wait, as a rule: else they find it closed
	if err := ours.Close(); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			t.Errorf("what waited got %v", err)
		}
	}
	for name, do := range map[string]func() error{
		"read":       func() error { _, err := ours.Read(make([]byte, 1)); return err },
		"write":      func() error { _, err := ours.Write([]byte("x")); return err },
		"close":      ours.Close,
		"close read": ours.CloseRead,
	} {
		if err := do(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A deadline that passes lets go whoever waits already; CloseRead has a read find the end.
func TestLetGo(t *testing.T) {
	ours, theirs := pair(t)
	ended := make(chan error, 2)
	go func() {
		_, err := ours.Read(make([]byte, 1))
		ended <- err
	}()
	go func() {
		_, err := ours.Write(make([]byte, 4<<20))
		ended <- err
	}()
	time.Sleep(10 * time.Millisecond)
	ours.SetDeadline(time.Unix(1, 0))
	for range 2 {
		if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("what waited got %v", err)
		}
	}
	ours.SetDeadline(time.Time{})
	go func() {
		_, err := ours.Read(make([]byte, 1))
		ended <- err
	}()
	if err := ours.CloseRead(); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != io.EOF {
		t.Errorf("after CloseRead: %v", err)
	}
	go io.Copy(io.Discard, theirs)
	if _, err := ours.Write([]byte("still there")); err != nil {
		t.Error(err)
	}
}

// What Go's poller looks at is ready once for what comes, and not for the peer's having read what was written: that is what the package is for.
func TestNobodyIsWokenForRoom(t *testing.T) {
	ours, theirs := pair(t)
	poller, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(poller)
	var events [4]unix.EpollEvent
	woken := func() int {
		n, err := unix.EpollWait(poller, events[:], 0)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	err = ours.ready.raw.Control(func(fd uintptr) {
		as := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET} // the poller's way
		if err := unix.EpollCtl(poller, unix.EPOLL_CTL_ADD, int(fd), &as); err != nil {
			t.Error(err)
		}
	})
	if err != nil || woken() != 0 {
		t.Fatalf("%v, or something is there at the beginning", err)
	}
	b := make([]byte, 8)
	for range 10 {
		ours.Write(b)
		io.ReadFull(theirs, b)
		if n := woken(); n != 0 {
			t.Fatalf("%d events, for the peer has read", n)
		}
		theirs.Write(b)
		if n := woken(); n != 1 {
			t.Fatalf("%d events, for something came", n)
		}
		io.ReadFull(ours, b)
		if n := woken(); n != 0 {
			t.Fatalf("%d events, for it was read", n)
		}
	}
}

func TestReadAt(t *testing.T) {
	f, err := os.Open("/proc/self/schedstat")
	if err != nil {
		t.Skip(err)
	}
	defer f.Close()
	b := make([]byte, 64)
	n, err := ReadAt(f.Fd(), b, 0)
	if err != nil || n == 0 || b[n-1] != '\n' {
		t.Errorf("%q, %v", b[:n], err)
	}
	if n, err := ReadAt(f.Fd(), b, 1<<20); n != 0 || err != nil {
		t.Errorf("beyond the end: %d, %v", n, err)
	}
	if _, err := ReadAt(^uintptr(0), b, 0); !errors.Is(err, syscall.EBADF) {
		t.Errorf("%v, not EBADF", err)
	}
}

// BenchmarkWrite is what comes through to a reader that is about as fast, beside an ordinary connection.
func BenchmarkWrite(b *testing.B) {
	for _, name := range []string{"ordinary", "quiet"} {
		b.Run(name, func(b *testing.B) {
			fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				b.Fatal(err)
			}
			theirs := os.NewFile(uintptr(fds[1]), "theirs") // it blocks, on a thread of its own
			defer theirs.Close()
			f := os.NewFile(uintptr(fds[0]), "ours")
			conn, err := net.FileConn(f)
			f.Close()
			if err != nil {
				b.Fatal(err)
			}
			if name == "quiet" {
				if conn, err = New(conn.(*net.UnixConn)); err != nil {
					b.Fatal(err)
				}
			}
			defer conn.Close()
			go io.Copy(io.Discard, theirs)
			block := make([]byte, 256<<10)
			b.SetBytes(int64(len(block)))
			for b.Loop() {
				if _, err := conn.Write(block); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
