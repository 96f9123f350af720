package pid1

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// hostlessPoll is how long a port without a host sleeps at most between two looks.
	hostlessPoll = time.Second
	// firstWait is how long a port that was never there is waited for: the kernel announces ports one after the other
	// while this machine boots.
	firstWait = 3 * time.Second
)

// ports opens the virtio-serial ports by their names.
type ports struct {
	mu   sync.Mutex
	seen map[string]bool
}

func newPorts() *ports { return &ports{seen: map[string]bool{}} }

// open opens a port. Its device file has another number after its driver was unbound and bound again, so it is looked up
// each time.
func (p *ports) open(name string) (io.ReadWriteCloser, error) {
	device := ""
	find := func() bool {
		device = matching("/sys/class/virtio-ports/*/name", name)
		return device != ""
	}
	p.mu.Lock()
	wait := firstWait
	if p.seen[name] {
		wait = 0
	}
	p.mu.Unlock()
	if err := waitFor(wait, find); err != nil {
		return nil, fmt.Errorf("port %s: %w", name, err)
	}
	// Go opens it without blocking and hands it to its poller: the driver supports poll(2), a reader costs no thread, and
	// closing the file ends a read and a write under way. A blocking descriptor would be worse than that: the driver's
	// blocking write spins, with interrupts off, until the host has taken the buffer (virtio_console, __send_to_port).
	f, err := os.OpenFile("/dev/"+device, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	raw, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, err
	}
	p.mu.Lock()
	p.seen[name] = true
	p.mu.Unlock()
	return &port{File: f, raw: raw}, nil
}

// A port is the open device file of one.
type port struct {
	*os.File
	raw syscall.RawConn
}

// Read waits for something to read. While no host is connected the driver says end of file, at once and every time; that
// is no end, and asking again and again would cost a third of a core. It wakes the poller when a host connects or sends, so
// that is what is waited for, with a look from time to time in case a wake-up was missed.
func (p *port) Read(b []byte) (int, error) {
	for {
		var n int
		var err error
		hostless := false
		waitErr := p.raw.Read(func(fd uintptr) bool {
			for {
				n, err = unix.Read(int(fd), b)
				if !errors.Is(err, unix.EINTR) {
					break
				}
			}
			if n == 0 && err == nil {
				if !hostless {
					hostless = true
					p.SetReadDeadline(time.Now().Add(hostlessPoll))
				}
				return false
			}
			return !errors.Is(err, unix.EAGAIN)
		})
		if hostless {
			p.SetReadDeadline(time.Time{})
		}
		switch {
		case errors.Is(waitErr, os.ErrDeadlineExceeded):
			continue
		case waitErr != nil:
			return 0, waitErr
		case err != nil: // ENODEV: the driver was unbound
			return 0, os.NewSyscallError("read", err)
		}
		return n, nil
	}
}
