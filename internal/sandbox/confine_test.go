package sandbox

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func itoa(n int) string { return strconv.Itoa(n) }

// TestMain is the confined program too.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[0] == "prisoner" {
		attempts[os.Args[1]](os.Args[2:])
		unix.Exit(0)
	}
	os.Exit(m.Run())
}

var attempts = map[string]func(args []string){
	"read": func(args []string) {
		for _, path := range args {
			b, err := os.ReadFile(path)
			fmt.Println(string(b), err)
		}
	},
	"write": func(args []string) { fmt.Println(os.WriteFile(args[0], []byte("x"), 0o600)) },
	"status": func([]string) {
		b, err := os.ReadFile("/proc/self/status")
		fmt.Println(string(b), err)
	},
	"descriptors": func([]string) {
		for fd := range 32 {
			if to, err := os.Readlink("/proc/self/fd/" + itoa(fd)); err == nil {
				fmt.Println(fd, to)
			}
		}
	},
	"dial": func(args []string) {
		conn, err := net.Dial(args[0], args[1])
		if err == nil {
			conn.Close()
		}
		fmt.Println(err)
	},
	"kill": func(args []string) { pid, _ := strconv.Atoi(args[0]); fmt.Println(unix.Kill(pid, 0)) },
	// share uses a segment of shared memory, by its key and by its id: it shows what it holds, and writes to it.
	"share": func(args []string) {
		key, _ := strconv.Atoi(args[0])
		id, _ := strconv.Atoi(args[1])
		found, err := unix.SysvShmGet(key, 0, 0)
		fmt.Println("get", found == id, err)
		b, err := unix.SysvShmAttach(id, 0, 0)
		if err != nil {
			fmt.Println("attach", err)
			return
		}
		fmt.Printf("attach %s\n", b[:6])
		copy(b, "broken")
	},
	// haunt has what comes on descriptor 3 signalled to a process.
	"haunt": func(args []string) {
		pid, _ := strconv.Atoi(args[0])
		for _, set := range [][2]int{{unix.F_SETOWN, pid}, {unix.F_SETSIG, int(unix.SIGKILL)}, {unix.F_SETFL, unix.O_ASYNC}} {
			_, err := unix.FcntlInt(3, set[0], set[1])
			fmt.Println(err)
		}
		owner := struct{ kind, pid int32 }{1, int32(pid)} // struct f_owner_ex, F_OWNER_PID
		_, _, err := unix.Syscall(unix.SYS_FCNTL, 3, unix.F_SETOWN_EX, uintptr(unsafe.Pointer(&owner)))
		fmt.Println(err)
		for _, set := range []uint{fiosetown, unix.SIOCSPGRP} {
			fmt.Println(unix.IoctlSetPointerInt(3, set, pid))
		}
	},
	// stamp changes all of a file but what is in it.
	"stamp": func(args []string) {
		now := []unix.Timespec{{Nsec: unix.UTIME_NOW}, {Nsec: unix.UTIME_NOW}}
		fmt.Println(unix.Chmod(args[0], 0o777), unix.Fchmodat(unix.AT_FDCWD, args[0], 0o777, unix.AT_SYMLINK_NOFOLLOW), unix.Fchmod(3, 0o777),
			unix.Lchown(args[0], -1, -1), unix.Fchown(3, -1, -1), unix.UtimesNanoAt(unix.AT_FDCWD, args[0], now, 0),
			unix.Setxattr(args[0], "user.x", []byte("x"), 0), unix.Fsetxattr(3, "user.x", []byte("x"), 0), unix.Removexattr(args[0], "user.x"))
	},
	"watch": func(args []string) {
		fd, err := unix.InotifyInit1(0)
		if err == nil {
			_, err = unix.InotifyAddWatch(fd, args[0], unix.IN_ALL_EVENTS)
		}
		fmt.Println(err)
	},
	"input": func([]string) { n, err := os.Stdin.Read(make([]byte, 1)); fmt.Println(n, err) },
	"sleep": func([]string) { fmt.Println("sleeps"); time.Sleep(time.Hour) },
}

// libraries is what this test's binary needs where it is not static.
var libraries = []Rule{{"/usr", Read | Execute}, {"/lib", Read | Execute}, {"/lib64", Read | Execute}, {"/etc/ld.so.cache", Read}, {"/dev/null", Read}}

func confined(t *testing.T, c Confinement, files []*os.File, args ...string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c.Rules = append(slices.Clone(libraries), c.Rules...)
	cmd := exec.Command(self, args...)
	cmd.Args[0] = "prisoner"
	cmd.ExtraFiles = files
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	release, err := c.Prepare(cmd)
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := release(); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %s", err, out.String())
	}
	return out.String()
}

// needLandlock says when a kernel has none: then there is nothing to see here.
func needLandlock(t *testing.T) {
	t.Helper()
	if _, err := landlockABI(); err != nil {
		t.Skipf("this kernel has no Landlock: %v", err)
	}
}

func TestConfinedFiles(t *testing.T) {
	needLandlock(t)
	dir := t.TempDir()
	for _, name := range []string{"open", "closed", "given"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("content of "+name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	given, err := os.Open(filepath.Join(dir, "given"))
	if err != nil {
		t.Fatal(err)
	}
	defer given.Close()
	c := Confinement{Landlock: true, Rules: []Rule{{filepath.Join(dir, "open"), Read}, {"/no/such/file", Read}}, Reopen: []int{3}}
	out := confined(t, c, []*os.File{given}, "read", filepath.Join(dir, "open"), filepath.Join(dir, "closed"), filepath.Join(dir, "given"), "/proc/self/fd/3")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) != 4 || lines[0] != "content of open <nil>" || !strings.Contains(lines[1], "permission denied") || lines[2] != "content of given <nil>" || lines[3] != "content of given <nil>" {
		t.Errorf("it reads\n%s", out)
	}
	if out := confined(t, Confinement{Landlock: true}, []*os.File{given}, "read", "/proc/self/fd/3"); !strings.Contains(out, "permission denied") {
		t.Errorf("what is not to be opened again: %s", out)
	}
	for _, path := range []string{filepath.Join(dir, "open"), filepath.Join(dir, "new")} {
		if out := confined(t, c, nil, "write", path); !strings.Contains(out, "permission denied") {
			t.Errorf("it writes %s: %s", path, out)
		}
	}
	c.Rules = []Rule{{dir, Read | Write | Manage}}
	if out := confined(t, c, nil, "write", filepath.Join(dir, "new")); strings.TrimSpace(out) != "<nil>" {
		t.Errorf("where it may, it does not write: %s", out)
	}
	if out := confined(t, Confinement{}, nil, "read", filepath.Join(dir, "closed")); !strings.Contains(out, "content of closed") {
		t.Errorf("without Landlock: %s", out)
	}
}

func TestConfinedNetwork(t *testing.T) {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	named, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer named.Close()
	abstract, err := net.Listen("unix", "@hale-test-"+itoa(os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	defer abstract.Close()
	targets := [][]string{{"dial", "tcp", tcp.Addr().String()}, {"dial", "unix", abstract.Addr().String()}, {"dial", "unix", named.Addr().String()}, {"kill", itoa(os.Getpid())}}
	for _, args := range targets {
		if out := confined(t, Confinement{}, nil, args...); strings.TrimSpace(out) != "<nil>" {
			t.Fatalf("unconfined, %v: %s", args, out)
		}
	}
	for _, args := range targets[:3] {
		if out := confined(t, Confinement{Seccomp: true}, nil, args...); !strings.Contains(out, "operation not permitted") {
			t.Errorf("behind the filter, %v: %s", args, out)
		}
	}
	abi, err := landlockABI()
	if err != nil || abi < 6 {
		t.Logf("this kernel's Landlock keeps nobody from signals and abstract sockets: ABI %d, %v", abi, err)
		return
	}
	for i, args := range targets {
		out := confined(t, Confinement{Landlock: true}, nil, args...)
		// A socket with a path is the one thing that Landlock lets through: the filter does not.
		if refused := strings.Contains(out, "permission denied") || strings.Contains(out, "not permitted"); refused != (i != 2) {
			t.Errorf("with Landlock, %v: %s", args, out)
		}
	}
}

// The kernel signals nobody on behalf of a confined program: the filter alone sees to that, for older kinds of Landlock do not.
func TestConfinedHauntsNobody(t *testing.T) {
	for _, confinement := range []Confinement{{}, {Seccomp: true}} {
		victim := exec.Command("sleep", "3600")
		if err := victim.Start(); err != nil {
			t.Fatal(err)
		}
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		given := os.NewFile(uintptr(pair[0]), "given")
		out := confined(t, confinement, []*os.File{given}, "haunt", itoa(victim.Process.Pid))
		if refused := strings.Count(out, "operation not permitted"); confinement.Seccomp && refused != 4 {
			t.Errorf("behind the filter, %d are refused:\n%s", refused, out)
		}
		unix.Write(pair[1], []byte("boo"))
		time.AfterFunc(200*time.Millisecond, func() { victim.Process.Signal(unix.SIGTERM) })
		victim.Wait()
		if got := victim.ProcessState.Sys().(syscall.WaitStatus).Signal(); (got == unix.SIGKILL) == confinement.Seccomp {
			t.Errorf("with %+v the other one ended by %v:\n%s", confinement, got, out)
		}
		given.Close()
		unix.Close(pair[1])
	}
}

// Landlock does not keep anybody from the modes of files, their owners, times and attributes.
func TestConfinedLeavesFilesAsTheyAre(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	given, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer given.Close()
	if out := confined(t, Confinement{}, []*os.File{given}, "stamp", path); !strings.HasPrefix(out, "<nil>") {
		t.Fatalf("unconfined: %s", out)
	}
	if out := confined(t, Confinement{Seccomp: true}, []*os.File{given}, "stamp", path); strings.Count(out, "operation not permitted") != 9 {
		t.Errorf("behind the filter: %s", out)
	}
}

// Nor from what happens in a directory.
func TestConfinedWatchesNothing(t *testing.T) {
	dir := t.TempDir()
	if _, err := landlockABI(); err == nil {
		if out := confined(t, Confinement{Landlock: true}, nil, "watch", dir); out != "<nil>\n" {
			t.Logf("this kernel's Landlock keeps it from watching: %s", out)
		}
	}
	if out := confined(t, Confinement{Seccomp: true}, nil, "watch", dir); out != "operation not permitted\n" {
		t.Errorf("behind the filter: %s", out)
	}
}

// Shared memory of the same uid is out of reach, by the filter alone and by the namespace alone.
func TestConfinedIPC(t *testing.T) {
	key := 0x68000000 | os.Getpid()
	id, err := unix.SysvShmGet(key, 4096, unix.IPC_CREAT|unix.IPC_EXCL|0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.SysvShmCtl(id, unix.IPC_RMID, nil)
	b, err := unix.SysvShmAttach(id, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.SysvShmDetach(b)
	share := func(c Confinement) string {
		copy(b, "secret")
		return confined(t, c, nil, "share", itoa(key), itoa(id))
	}
	if out := share(Confinement{}); out != "get true <nil>\nattach secret\n" || string(b[:6]) != "broken" {
		t.Fatalf("unconfined: %s, and it holds %q", out, b[:6])
	}
	if out := share(Confinement{Seccomp: true}); strings.Count(out, "operation not permitted") != 2 || string(b[:6]) != "secret" {
		t.Errorf("behind the filter: %s, and it holds %q", out, b[:6])
	}
	if os.Geteuid() != 0 {
		return // to make namespaces takes a capability
	}
	if out := share(Confinement{Namespaces: true}); out != "get false no such file or directory\nattach invalid argument\n" || string(b[:6]) != "secret" {
		t.Errorf("in a namespace of its own: %s, and it holds %q", out, b[:6])
	}
}

func TestConfinedHasNoPrivileges(t *testing.T) {
	out := confined(t, Confinement{Seccomp: true}, nil, "status")
	for _, want := range []string{"NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t0000000000000000", "CapPrm:\t0000000000000000", "CapInh:\t0000000000000000", "CapAmb:\t0000000000000000"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if out := confined(t, Confinement{}, nil, "input"); strings.TrimSpace(out) != "0 EOF" {
		t.Errorf("its standard input gives %s", out)
	}
}

// Descriptors that somebody forgot to close on exec stay outside.
func TestConfinedDescriptors(t *testing.T) {
	forgotten, err := unix.Open(os.DevNull, unix.O_RDONLY, 0) // without O_CLOEXEC
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(forgotten)
	far, err := unix.FcntlInt(uintptr(forgotten), unix.F_DUPFD, 20)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(far)
	given, err := os.Open("/usr")
	if err != nil {
		t.Fatal(err)
	}
	defer given.Close()
	out := confined(t, Confinement{Seccomp: true}, []*os.File{given}, "descriptors")
	var numbers []string
	for line := range strings.Lines(out) {
		fd, to, _ := strings.Cut(strings.TrimSpace(line), " ")
		if !strings.HasPrefix(to, "anon_inode:") && !strings.HasPrefix(to, "/sys/fs/cgroup/") { // the Go runtime's own
			numbers = append(numbers, fd)
		}
	}
	if !slices.Equal(numbers, []string{"0", "1", "2", "3"}) || !strings.Contains(out, "3 /usr\n") {
		t.Errorf("it has\n%s", out)
	}
}

// A program that is not there is told at once, and one whose start is given up never begins.
func TestPrepare(t *testing.T) {
	if _, err := (Confinement{}).Prepare(exec.Command("/no/such/program")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a program that is not there: %v", err)
	}
	cmd := exec.Command("/bin/true")
	var out strings.Builder
	cmd.Stderr = &out
	if _, err := (Confinement{}).Prepare(cmd); err != nil {
		t.Fatal(err)
	}
	cmd.Stdin.(*os.File).Close()
	cmd.Stdin = nil
	if err := cmd.Run(); err == nil || !strings.Contains(out.String(), "abandoned") {
		t.Errorf("without an order: %v, %s", err, out.String())
	}
}

// A confined program dies with whoever started it, also through the exec of the confinement.
func TestConfinedDiesWithItsParent(t *testing.T) {
	if os.Getenv("HALE_TEST_PARENT") != "" {
		self, _ := os.Executable()
		cmd := exec.Command(self, "sleep")
		cmd.Args[0] = "prisoner"
		out, _ := cmd.StdoutPipe()
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		release, err := Confinement{Seccomp: true}.Prepare(cmd)
		if err == nil {
			err = errors.Join(cmd.Start(), release())
		}
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		if line, _ := bufio.NewReader(out).ReadString('\n'); line == "sleeps\n" {
			fmt.Println("child", cmd.Process.Pid)
		}
		unix.Kill(os.Getpid(), unix.SIGKILL)
	}
	parent := exec.Command("/proc/self/exe", "-test.run", "^TestConfinedDiesWithItsParent$")
	parent.Env = append(os.Environ(), "HALE_TEST_PARENT=1")
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(out)
	parent.Wait()
	var pid int
	if _, err := fmt.Sscanf(string(b), "child %d", &pid); err != nil {
		t.Fatalf("the parent says %q", b)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	n, err := -1, error(unix.EINTR)
	for err == unix.EINTR { // by Go's own signals
		n, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 60_000)
	}
	if n != 1 {
		t.Errorf("process %d outlives its parent: %v", pid, err)
		unix.Kill(pid, unix.SIGKILL)
	}
}
