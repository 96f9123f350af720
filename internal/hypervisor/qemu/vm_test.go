package qemu

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/halevm/hale/internal/hypervisor"
	"github.com/halevm/hale/internal/sandbox"
)

// A fake QEMU is this test's binary under the name of what it is to do. It finds its monitor as QEMU does: on its command line.
var fakes = map[string]func(monitor *os.File){
	"refuses": func(*os.File) {
		fmt.Fprintln(os.Stderr, strings.Repeat("x", 2*maxWords)+"\nno such device")
		unix.Exit(1) // os.Exit takes a second where races are looked for
	},
	"mute":    func(*os.File) { time.Sleep(time.Hour) },
	"babbles": func(m *os.File) { fmt.Fprintln(m, "SeaBIOS"); time.Sleep(time.Hour) },
	"runs":    func(m *os.File) { greet(m); time.Sleep(time.Hour) },
	"off":     func(m *os.File) { greet(m); shutDown(m, true, "guest-shutdown") },
	"resets":  func(m *os.File) { greet(m); shutDown(m, true, "guest-reset") },
	"writes to a full disk": func(m *os.File) {
		greet(m)
		for range 40 { // every write under way fails
			fmt.Fprintln(m, `{"event": "BLOCK_IO_ERROR", "data": {"node-name": "upper", "operation": "write", "action": "stop", "nospace": true}, "timestamp": {"seconds": 1, "microseconds": 0}}`)
		}
		fmt.Fprintln(m, `{"event": "BLOCK_IO_ERROR", "data": {"node-name": "lower", "operation": "read", "action": "report", "nospace": false}, "timestamp": {"seconds": 1, "microseconds": 0}}`)
		shutDown(m, true, "guest-shutdown")
	},
	"quits":    func(m *os.File) { greet(m); shutDown(m, false, "host-qmp-quit") },
	"segfault": func(m *os.File) { greet(m); unix.Kill(os.Getpid(), unix.SIGKILL); time.Sleep(time.Hour) },
	"breaks":   func(m *os.File) { greet(m); fmt.Fprintln(os.Stderr, "internal error"); unix.Exit(2) },
	"asked to go": func(m *os.File) {
		greet(m)
		fmt.Fprintln(os.Stderr, "qemu-system-x86_64: terminating on signal 1 from pid 7 (kill)")
		shutDown(m, false, "host-signal")
	},
}

func greet(m *os.File) {
	fmt.Fprintln(m, `{"QMP": {"version": {}, "capabilities": []}}`)
	bufio.NewReader(m).ReadString('\n')
	fmt.Fprintln(m, `{"return": {}, "id": 1}`)
}

func shutDown(m *os.File, guest bool, reason string) {
	fmt.Fprintf(m, `{"event": "SHUTDOWN", "data": {"guest": %v, "reason": %q}, "timestamp": {"seconds": 1, "microseconds": 0}}`+"\n", guest, reason)
	unix.Exit(0)
}

func TestMain(m *testing.M) {
	if fake, ok := fakes[filepath.Base(os.Args[0])]; ok {
		for _, a := range os.Args {
			var fd uintptr
			if n, _ := fmt.Sscanf(a, "socket,id=qmp,fd=%d", &fd); n == 1 {
				fake(os.NewFile(fd, "monitor"))
			}
		}
		os.Exit(9)
	}
	os.Exit(m.Run())
}

func startFake(t *testing.T, ctx context.Context, name string) (hypervisor.VM, error) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.Symlink(self, path); err != nil {
		t.Fatal(err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	f := hypervisor.Files{Control: null, Bulk: null, Output: null, Console: null, Lower: null, Upper: null, Kernel: null, Initrd: null}
	return New(path, sandbox.Confinement{}, slog.New(slog.DiscardHandler)).Start(ctx, hypervisor.Config{Name: name, VCPUs: 1, Memory: 1 << 28}, f)
}

func TestExit(t *testing.T) {
	for _, c := range []struct {
		fake   string
		events []hypervisor.EventKind
		exit   hypervisor.Exit
	}{
		{"off", []hypervisor.EventKind{hypervisor.ShutDown}, hypervisor.Exit{Guest: true}},
		{"writes to a full disk", append(slices.Repeat([]hypervisor.EventKind{hypervisor.NoSpace}, 8), hypervisor.ShutDown), hypervisor.Exit{Guest: true}},
		{"resets", []hypervisor.EventKind{hypervisor.Reset}, hypervisor.Exit{Guest: true}},
		{"quits", []hypervisor.EventKind{hypervisor.ShutDown}, hypervisor.Exit{}},
		{"segfault", nil, hypervisor.Exit{Code: -1, Signal: "SIGKILL"}},
		{"breaks", nil, hypervisor.Exit{Code: 2, Error: "exit code 2: internal error"}},
		{"asked to go", []hypervisor.EventKind{hypervisor.ShutDown},
			hypervisor.Exit{Signal: "SIGHUP", Error: "qemu-system-x86_64: terminating on signal 1 from pid 7 (kill)"}},
	} {
		t.Run(c.fake, func(t *testing.T) {
			vm, err := startFake(t, t.Context(), c.fake)
			if err != nil {
				t.Fatal(err)
			}
			<-vm.Done() // the events are there to be read afterwards, too
			var events []hypervisor.EventKind
			for e := range vm.Events() {
				events = append(events, e.Kind)
			}
			if fmt.Sprint(events) != fmt.Sprint(c.events) {
				t.Errorf("events %v, not %v", events, c.events)
			}
			if exit := vm.Wait(); exit != c.exit {
				t.Errorf("exit %+v, not %+v", exit, c.exit)
			}
		})
	}
}

func TestKill(t *testing.T) {
	vm, err := startFake(t, t.Context(), "runs")
	if err != nil {
		t.Fatal(err)
	}
	if err := vm.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(vm.PID(), 0); !errors.Is(err, unix.ESRCH) {
		t.Errorf("process %d is there after Kill: %v", vm.PID(), err)
	}
	if exit := vm.Wait(); exit != (hypervisor.Exit{Code: -1}) {
		t.Errorf("exit %+v", exit)
	}
	if err := vm.Kill(); err != nil {
		t.Errorf("killed twice: %v", err)
	}
	if err := vm.Pause(); !errors.Is(err, errClosed) {
		t.Errorf("pause of one that is gone: %v", err)
	}
}

func TestStartFails(t *testing.T) {
	for _, c := range []struct {
		fake  string
		takes time.Duration // it is given up after this; of the others the start of a process is a part
		want  string
	}{
		{"refuses", time.Minute, "no such device"},
		{"mute", 500 * time.Millisecond, "too slow"},
		{"babbles", time.Minute, "the connection is closed"},
	} {
		t.Run(c.fake, func(t *testing.T) {
			ctx, cancel := context.WithTimeoutCause(t.Context(), c.takes, errors.New("too slow"))
			defer cancel()
			vm, err := startFake(t, ctx, c.fake)
			if err == nil {
				vm.Kill()
				t.Fatal("it started")
			}
			if !strings.Contains(err.Error(), c.want) || len(err.Error()) > maxWords+100 {
				t.Errorf("the error has %d bytes and lacks %q: %v", len(err.Error()), c.want, err)
			}
			noChildren(t)
		})
	}
	if _, err := New("/nonexistent/qemu", sandbox.Confinement{}, slog.New(slog.DiscardHandler)).Start(t.Context(), hypervisor.Config{}, hypervisor.Files{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a binary: %v", err)
	}
}

// noChildren checks that every process that this one started has been waited for.
func noChildren(t *testing.T) {
	t.Helper()
	if err := unix.Waitid(unix.P_ALL, 0, nil, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil); !errors.Is(err, unix.ECHILD) {
		t.Errorf("a child is left: %v", err)
	}
}

// The tests' binary has no hook of its own in main: without the one in init this would run all tests in the child.
func TestDetect(t *testing.T) {
	accel, why := Detect(t.Context())
	if (accel == hypervisor.TCG) != (why != "") {
		t.Errorf("%s, because %q", accel, why)
	}
	t.Log(accel, why)
	noChildren(t)
}

func TestVersion(t *testing.T) {
	path := filepath.Join(t.TempDir(), "qemu")
	for _, c := range []struct{ says, want string }{
		{"QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)", "7.2.22"},
		{"QEMU emulator version 10.0.2", "10.0.2"},
		{"bash 5", ""},
	} {
		if err := os.WriteFile(path, []byte("#!/bin/sh\necho '"+c.says+"'\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		if v, err := Version(t.Context(), path); v != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%q: %q, %v", c.says, v, err)
		}
	}
}
