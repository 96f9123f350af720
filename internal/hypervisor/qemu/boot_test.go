//go:build e2e

package qemu

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/halevm/hale/internal/hypervisor"
	"github.com/halevm/hale/internal/kernel"
	"github.com/halevm/hale/internal/sandbox"
)

// These tests boot real machines: go test -tags e2e ./internal/hypervisor/qemu. The kernel is the one that hale setup
// fetched, in HALE_E2E_KERNELS (make e2e says where), or it is fetched below .cache of the tree.

const bootDeadline = 5 * time.Minute

var bootFiles = sync.OnceValues(func() (files struct{ kernel, initrd string }, err error) {
	dir := os.Getenv("HALE_E2E_KERNELS")
	if dir == "" {
		if dir, err = filepath.Abs("../../../.cache/kernels"); err != nil {
			return files, err
		}
	}
	k, err := kernel.Fetch(context.Background(), dir, func(string) {})
	if err != nil {
		return files, err
	}
	if files.kernel, err = k.Image(); err != nil {
		return files, err
	}
	tmp, err := os.MkdirTemp("", "hale-test-init-")
	if err != nil {
		return files, err
	}
	defer os.RemoveAll(tmp)
	build := exec.Command("go", "build", "-o", filepath.Join(tmp, "init"), "./testdata/init")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return files, errors.New(string(out))
	}
	agent, err := os.ReadFile(filepath.Join(tmp, "init"))
	if err != nil {
		return files, err
	}
	files.initrd, err = k.Initrd(agent)
	return files, err
})

// guest is a machine that was started, with our end of everything.
type guest struct {
	vm                                  hypervisor.VM
	net, control, bulk, output, console net.Conn
	upper                               *os.File
	began                               time.Time
	lines                               chan string // of the console
	seen                                []string
}

func boot(t *testing.T, order string) *guest {
	t.Helper()
	g, err := start(t, order, func(*hypervisor.Config, *hypervisor.Files) {})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func start(t *testing.T, order string, change func(*hypervisor.Config, *hypervisor.Files)) (*guest, error) {
	t.Helper()
	files, err := bootFiles()
	if err != nil {
		t.Fatal(err)
	}
	path, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		t.Fatal(err)
	}
	g := &guest{lines: make(chan string, 1024)}
	var f hypervisor.Files
	for _, p := range []struct {
		ours   *net.Conn
		theirs **os.File
	}{{&g.net, &f.Net}, {&g.control, &f.Control}, {&g.bulk, &f.Bulk}, {&g.output, &f.Output}, {&g.console, &f.Console}} {
		if *p.ours, *p.theirs, err = socketPair(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { (*p.ours).Close() })
	}
	f.Lower = newDisk(t, "the lower disk", os.O_RDONLY)
	f.Upper = newDisk(t, "the upper disk", os.O_RDWR)
	if f.Kernel, err = os.Open(files.kernel); err != nil {
		t.Fatal(err)
	}
	if f.Initrd, err = os.Open(files.initrd); err != nil {
		t.Fatal(err)
	}
	g.upper = f.Upper
	c := hypervisor.Config{Name: "test", Accel: hypervisor.TCG, VCPUs: 2, Memory: 256 << 20,
		Cmdline: "hale.test=" + order, MAC: "02:00:0a:4d:00:02", MTU: 9000}
	change(&c, &f)
	g.began = time.Now()
	vm, err := New(path, sandbox.Confinement{Landlock: true, Seccomp: true}, slog.New(slog.DiscardHandler)).Start(t.Context(), c, f)
	f.Upper = nil // closed by the tests, which read it
	f.Close()
	if err != nil {
		return nil, err
	}
	g.vm = vm
	t.Cleanup(func() { vm.Kill() })
	go func() {
		defer close(g.lines)
		for lines := bufio.NewScanner(g.console); lines.Scan(); {
			g.lines <- strings.TrimRight(lines.Text(), "\r")
		}
	}()
	return g, nil
}

// A machine that holds locks on the image's disk, which it shares with others, keeps none of them from starting.
func TestTheImageIsNotLocked(t *testing.T) {
	g, err := start(t, "hang", func(_ *hypervisor.Config, f *hypervisor.Files) {
		broken, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", f.Lower.Fd()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { broken.Close() })
		// By these bytes QEMU says what it does not share (RAW_LOCK_SHARED_BASE in block/file-posix.c).
		l := unix.Flock_t{Type: unix.F_RDLCK, Whence: io.SeekStart, Start: 200, Len: 8}
		if err := unix.FcntlFlock(broken.Fd(), unix.F_OFD_SETLK, &l); err != nil {
			t.Fatal(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.vm.Kill(); err != nil {
		t.Error(err)
	}
}

func newDisk(t *testing.T, content string, flag int) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 1<<20); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, flag, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// until reads the console up to a line that has want in it and returns that line.
func (g *guest) until(t *testing.T, want string) string {
	t.Helper()
	deadline := time.After(bootDeadline)
	for {
		select {
		case line, ok := <-g.lines:
			if !ok {
				t.Fatalf("the console ended without %q; exit %+v; it said:\n%s", want, g.vm.Wait(), strings.Join(g.seen, "\n"))
			}
			g.seen = append(g.seen, line)
			if strings.Contains(line, want) {
				return line
			}
		case <-deadline:
			t.Fatalf("no %q within %v; the console said:\n%s", want, bootDeadline, strings.Join(g.seen, "\n"))
		}
	}
}

// end waits for the machine's end and returns its last event and its exit.
func (g *guest) end(t *testing.T) (hypervisor.Event, hypervisor.Exit) {
	t.Helper()
	var last hypervisor.Event
	deadline := time.After(bootDeadline)
	for {
		select {
		case e, ok := <-g.vm.Events():
			if !ok {
				exit := g.vm.Wait()
				if err := unix.Kill(g.vm.PID(), 0); !errors.Is(err, unix.ESRCH) {
					t.Errorf("process %d is still there: %v", g.vm.PID(), err)
				}
				return last, exit
			}
			last = e
		case <-deadline:
			t.Fatal("the machine does not end")
		}
	}
}

func TestBootPowersOff(t *testing.T) {
	g := boot(t, "poweroff")
	g.until(t, "test-init: begins")
	t.Logf("exec to init: %v", time.Since(g.began).Round(time.Millisecond))
	t.Log(g.until(t, "modules took"))
	e, exit := g.end(t)
	t.Logf("exec to exit: %v", time.Since(g.began).Round(time.Millisecond))
	if e.Kind != hypervisor.ShutDown || !e.Guest {
		t.Errorf("event %+v, not a shutdown by the guest", e)
	}
	if exit != (hypervisor.Exit{Guest: true}) {
		t.Errorf("exit %+v", exit)
	}
}

func TestBootDevices(t *testing.T) {
	g := boot(t, "devices")
	if _, err := io.WriteString(g.control, "hello"); err != nil {
		t.Fatal(err)
	}
	for name, conn := range map[string]net.Conn{PortControl: g.control, PortBulk: g.bulk, PortOutput: g.output} {
		conn.SetReadDeadline(time.Now().Add(bootDeadline))
		if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || line != name+"\n" {
			t.Errorf("port %s: %q, %v", name, line, err)
		}
	}
	g.until(t, "test-init: ends")
	g.end(t)
	said := strings.Join(g.seen, "\n")
	for _, want := range []string{
		`control says "hello"`,
		`disk lower is written: .*(read-only|not permitted|permission denied)`,
		`disk upper is written: <nil>`,
		`disk lower holds "the lower disk"`,
		`disk upper holds "the upper disk"`,
		`card 02:00:0a:4d:00:02 mtu 9000`,
	} {
		if !regexp.MustCompile(want).MatchString(said) {
			t.Errorf("the console lacks %s:\n%s", want, said)
		}
	}
	buf := make([]byte, 20)
	if _, err := g.upper.ReadAt(buf, 4096); err != nil || string(buf) != "written by the guest" {
		t.Errorf("the upper disk: %q, %v", buf, err)
	}
}

func TestProcessor(t *testing.T) {
	g := boot(t, "version")
	g.until(t, "test-init: ends")
	g.end(t)
	said := strings.Join(g.seen, "\n")
	if strings.Contains(said, "lacks") {
		t.Errorf("not x86-64-v3:\n%s", said)
	}
	_, took, _ := strings.Cut(said, "a system call takes ")
	took, _, _ = strings.Cut(took, "\n")
	t.Log("a system call takes", took)
	// 0.6 µs where the guest's kernel leaves its page tables alone, 12 µs where it does not.
	if d, err := time.ParseDuration(took); err != nil || d > 6*time.Microsecond {
		t.Errorf("a system call takes %s, %v", took, err)
	}
}

func TestUpperDiskIsLocked(t *testing.T) {
	g := boot(t, "hang")
	again, err := os.OpenFile(g.upper.Name(), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	vm, err := start(t, "hang", func(_ *hypervisor.Config, f *hypervisor.Files) { f.Upper = again })
	if err == nil {
		vm.vm.Kill()
		t.Fatal("two machines write to one disk")
	}
	if !strings.Contains(err.Error(), "lock") {
		t.Error(err)
	}
}

// The machine's owner is a process of its own here, and is killed.
func TestDiesWithItsParent(t *testing.T) {
	if os.Getenv("HALE_TEST_OWNER") != "" {
		g := boot(t, "hang")
		g.until(t, "test-init: hangs")
		fmt.Println("machine", g.vm.PID())
		time.Sleep(time.Hour)
	}
	owner := exec.Command("/proc/self/exe", "-test.run", "^TestDiesWithItsParent$")
	owner.Env = append(os.Environ(), "HALE_TEST_OWNER=1", "TMPDIR="+t.TempDir()) // it is killed, and removes nothing
	out, err := owner.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	defer owner.Process.Kill()
	var pid int
	for lines := bufio.NewScanner(out); pid == 0 && lines.Scan(); {
		fmt.Sscanf(lines.Text(), "machine %d", &pid)
	}
	if pid == 0 {
		t.Fatal("the owner started no machine")
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	owner.Process.Kill()
	owner.Wait()
	n, err := -1, error(unix.EINTR)
	for err == unix.EINTR { // by Go's own signals
		n, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 60_000)
	}
	if n != 1 {
		t.Errorf("QEMU %d outlives its parent: %v", pid, err)
		unix.Kill(pid, unix.SIGKILL)
	}
}

func TestBootReboots(t *testing.T) {
	e, exit := boot(t, "reboot").end(t)
	if e.Kind != hypervisor.Reset || !e.Guest || exit != (hypervisor.Exit{Guest: true}) {
		t.Errorf("%+v, %+v", e, exit)
	}
}

func TestBootPanics(t *testing.T) {
	g := boot(t, "panic")
	g.until(t, "Kernel panic - not syncing")
	e, exit := g.end(t)
	if e.Kind != hypervisor.Reset || !e.Guest || exit != (hypervisor.Exit{Guest: true}) {
		t.Errorf("%+v, %+v", e, exit)
	}
}

func TestKillAndPause(t *testing.T) {
	g := boot(t, "hang")
	g.until(t, "test-init: hangs")
	if err := g.vm.Pause(); err != nil {
		t.Error(err)
	}
	if err := g.vm.Resume(); err != nil {
		t.Error(err)
	}
	if err := g.vm.Kill(); err != nil {
		t.Error(err)
	}
	if _, exit := g.end(t); exit.Guest || exit.Signal != "" || exit.Error != "" {
		t.Errorf("killed by us: %+v", exit)
	}
	if err := g.vm.Kill(); err != nil {
		t.Error("killed twice:", err)
	}
}

func TestKilledByOthers(t *testing.T) {
	for _, signal := range []unix.Signal{unix.SIGKILL, unix.SIGTERM, unix.SIGSEGV} {
		t.Run(unix.SignalName(signal), func(t *testing.T) {
			g := boot(t, "hang")
			if err := unix.Kill(g.vm.PID(), signal); err != nil {
				t.Fatal(err)
			}
			if e, exit := g.end(t); exit.Signal != unix.SignalName(signal) || e.Guest {
				t.Errorf("%+v, %+v", e, exit)
			}
		})
	}
}
