package shim

import (
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func TestIsVCPU(t *testing.T) {
	for name, want := range map[string]bool{
		"CPU 0/KVM\n": true, "CPU 11/TCG\n": true, "ALL CPUs/TCG\n": true,
		"qemu-system-x86\n": false, "IO mon_iothread\n": false, "call_rcu\n": false, "": false,
	} {
		if isVCPU([]byte(name)) != want {
			t.Errorf("%q: %v", name, !want)
		}
	}
}

func TestReadTurn(t *testing.T) {
	for stat, want := range map[string]turn{
		"123 4567 8\n": {123, 4567}, "0 0 0\n": {}, "": {}, "7\n": {}, "1 x 3\n": {}, "x 1 3\n": {},
	} {
		if got := readTurn([]byte(stat)); got != want {
			t.Errorf("%q: %v, want %v", stat, got, want)
		}
	}
}

// Threads of this process that bear the names, on one processor with something that never rests: the kernel says that they wait.
func TestVCPUsThatWait(t *testing.T) {
	var stop atomic.Bool
	done := make(chan struct{})
	ready := make(chan struct{})
	for _, name := range []string{"CPU 0/TCG", "CPU 1/TCG", "another"} {
		go func() {
			defer func() { done <- struct{}{} }()
			runtime.LockOSThread() // and never unlocked: the thread ends with its name
			var one unix.CPUSet
			unix.SchedGetaffinity(0, &one)
			for cpu := range 1024 {
				if one.IsSet(cpu) {
					one.Zero()
					one.Set(cpu)
					break
				}
			}
			unix.SchedSetaffinity(0, &one)
			b, _ := unix.ByteSliceFromString(name)
			unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&b[0])), 0, 0, 0)
			ready <- struct{}{}
			for !stop.Load() {
			}
		}()
	}
	for range 3 {
		<-ready
	}
	v := &vcpus{pid: os.Getpid()}
	before := v.delays(nil)
	if len(before) != 2 {
		t.Fatalf("%d threads of three are processors, want 2", len(before))
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		now := v.delays(nil)
		if len(now) == 2 && now[0] > before[0]+50*time.Millisecond && now[1] > before[1]+50*time.Millisecond {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("their delays went from %v to %v", before, now)
		}
	}
	stop.Store(true)
	for range 3 {
		<-done
	}
	v.close()
	if d := v.delays(nil); len(d) != 0 {
		t.Errorf("after the close: %v", d)
	}
}

func BenchmarkRunDelay(b *testing.B) {
	v := &vcpus{pid: os.Getpid()}
	defer v.close()
	f, err := os.Open("/proc/self/schedstat")
	if err != nil {
		b.Fatal(err)
	}
	v.files = []*os.File{f}
	var room [8]time.Duration
	for b.Loop() {
		v.delays(room[:0])
	}
}
