package slack

import (
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Timer rings when it is told to, and is one of the kernel's (timerfd_create(2)), which Go's poller waits for. Each timer of Go's that
// rings wakes Go's monitor too, which then looks around for a while; in a process that wakes to do one small thing that is a tenth of what it does.
//
// It may be as late as Set lets this process's timers be: it rings at multiples of that, together with whatever else is due about then.
type Timer struct {
	began time.Time
	file  *os.File
	raw   syscall.RawConn
	rings sync.WaitGroup // the goroutine that rings

	mu      sync.Mutex
	fd      int // of file, until it is stopped
	stopped bool
}

// NewTimer makes a timer, which is to be started. It fails where no descriptor is left.
func NewTimer() (*Timer, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("timerfd_create", err)
	}
	t := &Timer{began: time.Now(), file: os.NewFile(uintptr(fd), "timer"), fd: fd}
	if t.raw, err = t.file.SyscallConn(); err != nil {
		t.file.Close()
		return nil, err
	}
	return t, nil
}

// Start says whom it is to call when it rings. It is called once, and ring never twice at a time.
func (t *Timer) Start(ring func()) {
	t.rings.Go(func() {
		t.raw.Read(func(fd uintptr) bool {
			for rang(fd) {
				ring()
			}
			return false // it is called again when the timer has rung
		})
	})
}

// rang and setTimer are calls that never wait, of which Go's scheduler need not hear: they would wake the monitor.
func rang(fd uintptr) bool {
	var times uint64
	n, _, _ := unix.RawSyscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(&times)), unsafe.Sizeof(times))
	return n == unsafe.Sizeof(times)
}

func setTimer(fd int, d time.Duration) {
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(d))}
	unix.RawSyscall6(unix.SYS_TIMERFD_SETTIME, uintptr(fd), 0, uintptr(unsafe.Pointer(&spec)), 0, 0, 0)
}

// Reset has it ring once, when d has passed, and not when it would have. After Stop it does nothing.
func (t *Timer) Reset(d time.Duration) {
	mu.Lock()
	late := given
	mu.Unlock()
	d = together(time.Since(t.began), d, late)
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.stopped {
		setTimer(t.fd, d)
	}
}

// together returns in how long a timer rings that may be late, at the next multiple of that. Of the kernel's timers zero is never.
func together(now, d, late time.Duration) time.Duration {
	d = max(d, 1)
	if late > 0 {
		d += (late - (now+d)%late) % late
	}
	return d
}

// Stop ends it for good, and returns when nobody is called any more. The one who is called must not.
func (t *Timer) Stop() {
	t.mu.Lock()
	was := t.stopped
	t.stopped = true
	t.mu.Unlock()
	if !was { // from here on nobody sets it; who is being called may try
		t.file.Close()
	}
	t.rings.Wait()
}
