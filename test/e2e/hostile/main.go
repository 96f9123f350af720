// Command hostile is put in QEMU's place: what a QEMU that a guest has taken over would be. It answers on the monitor as
// QEMU does, tries everything that it must not be able to do, and writes what came of each to the console.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// targets is set when this is built: JSON, for a program in the sandbox can read no file that tells it.
var targets string

// Targets are what there is to attack.
type Targets struct {
	Files     []string // to read
	Dirs      []string // to list
	Writable  []string // to write to
	Sockets   []string // paths to connect to
	Abstract  string   // socket's name
	TCP       string   // address
	UDP       string
	Processes []int // beside the shim, to signal and to look into
	Segment   int   // of shared memory that everybody may use: its id
	Key       int   // and its key
}

func main() {
	monitor, console := chardev("qmp"), chardev("console")
	fmt.Fprintln(monitor, `{"QMP": {"version": {}, "capabilities": []}}`)
	bufio.NewReader(monitor).ReadString('\n')
	fmt.Fprintln(monitor, `{"return": {}, "id": 1}`)
	var t Targets
	if err := json.Unmarshal([]byte(targets), &t); err != nil {
		fmt.Fprintln(console, "hostile: targets:", err)
	}
	say := func(what string, err error) {
		outcome := "DONE"
		if err != nil {
			outcome = "refused: " + err.Error()
		}
		fmt.Fprintf(console, "hostile: %s: %s\n", what, outcome)
	}
	files(t, say)
	grow(say)
	network(t, say)
	processes(append(t.Processes, os.Getppid()), say)
	privileges(say)
	ipc(t, say)
	fmt.Fprintln(console, "hostile: end")
	io.Copy(io.Discard, monitor)
}

// chardev finds a socket as QEMU does, by the command line.
func chardev(id string) *os.File {
	for _, a := range os.Args {
		var fd uintptr
		if n, _ := fmt.Sscanf(a, "socket,id="+id+",fd=%d", &fd); n == 1 {
			return os.NewFile(fd, id)
		}
	}
	panic("no chardev " + id)
}

func files(t Targets, say func(string, error)) {
	for _, path := range t.Files {
		f, err := os.Open(path)
		if err == nil {
			_, err = io.ReadAll(io.LimitReader(f, 100))
		}
		say("read "+path, err)
	}
	for _, path := range t.Dirs {
		_, err := os.ReadDir(path)
		say("list "+path, err)
	}
	for _, path := range t.Writable {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
		if err == nil {
			f.Close()
		}
		say("write "+path, err)
		say("remove "+path, os.Remove(path))
		say("make "+path+".new", os.WriteFile(path+".new", []byte("x"), 0o600))
		say("link "+path+".new", os.Symlink("/etc/passwd", path+".new"))
		say("link hard "+path+".new", os.Link(path, path+".new"))
	}
	// What it was given it may use, and not open anew for more.
	for fd := range 64 {
		path := fmt.Sprint("/proc/self/fd/", fd)
		to, err := os.Readlink(path)
		if err != nil || !strings.HasPrefix(to, "/") || to == "/dev/null" {
			continue
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err == nil {
			f.Close()
		}
		say("open again for writing "+to, err)
	}
}

// grow tries to fill the disk by the one file that it may write to.
func grow(say func(string, error)) {
	signal.Ignore(unix.SIGXFSZ)
	for fd := range 64 {
		var st unix.Stat_t
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		if err != nil || flags&unix.O_ACCMODE != unix.O_RDWR || unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
			continue
		}
		say("grow the disk", unix.Ftruncate(fd, st.Size+1))
		_, err = unix.Pwrite(fd, []byte("x"), st.Size)
		say("write behind the disk", err)
		say("grow the disk by fallocate", unix.Fallocate(fd, 0, st.Size, 1<<20))
	}
}

func network(t Targets, say func(string, error)) {
	dial := func(network, addr string) {
		conn, err := net.DialTimeout(network, addr, time.Second)
		if err == nil {
			conn.Close()
		}
		say("dial "+network+" "+addr, err)
	}
	dial("tcp", t.TCP)
	dial("udp", t.UDP)
	dial("unix", "@"+t.Abstract)
	for _, path := range t.Sockets {
		dial("unix", path)
	}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6, unix.AF_UNIX, unix.AF_NETLINK, unix.AF_PACKET, unix.AF_VSOCK, unix.AF_ALG} {
		_, err := unix.Socket(family, unix.SOCK_RAW, 0)
		say(fmt.Sprint("socket of family ", family), err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err == nil {
		ln.Close()
	}
	say("listen", err)
	var ring [120]byte
	_, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 4, uintptr(unsafe.Pointer(&ring)), 0)
	say("io_uring", asError(errno))
}

func processes(pids []int, say func(string, error)) {
	for _, pid := range pids {
		say(fmt.Sprint("trace ", pid), unix.PtraceSeize(pid))
		for _, name := range []string{"mem", "environ", "maps", "fd", "cwd/log", "root/etc/shadow"} {
			path := fmt.Sprintf("/proc/%d/%s", pid, name)
			f, err := os.Open(path)
			if err == nil {
				f.Close()
			}
			say("open "+path, err)
		}
		var b [8]byte
		local := []unix.Iovec{{Base: &b[0], Len: 8}}
		_, err := unix.ProcessVMReadv(pid, local, []unix.RemoteIovec{{Base: 0x400000, Len: 8}}, 0)
		say(fmt.Sprint("read memory of ", pid), err)
		fd, err := unix.PidfdOpen(pid, 0)
		if err == nil {
			_, err = unix.PidfdGetfd(fd, 0, 0)
		}
		say(fmt.Sprint("take a descriptor of ", pid), err)
		say(fmt.Sprint("kill ", pid), unix.Kill(pid, unix.SIGKILL))
		say(fmt.Sprint("kill a thread of ", pid), unix.Tgkill(pid, pid, unix.SIGKILL))
		say(fmt.Sprint("limit ", pid), unix.Prlimit(pid, unix.RLIMIT_CPU, &unix.Rlimit{}, nil))
	}
}

func privileges(say func(string, error)) {
	say("setuid", syscall.Setuid(0))
	say("unshare a user", unix.Unshare(unix.CLONE_NEWUSER))
	say("unshare a network", unix.Unshare(unix.CLONE_NEWNET))
	_, _, errno := unix.RawSyscall6(unix.SYS_CLONE, unix.CLONE_NEWUSER|uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno == 0 {
		// The child comes here too, and says so: twice is no less wrong.
		say("clone a user", nil)
	} else {
		say("clone a user", errno)
	}
	say("mount", unix.Mount("none", "/tmp", "tmpfs", 0, ""))
	say("chroot", unix.Chroot("/"))
	say("chown", os.Chown("/tmp", 0, 0))
	_, err := unix.Open("/dev/kmsg", unix.O_RDWR, 0)
	say("kmsg", err)
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{{Effective: 1 << unix.CAP_SYS_ADMIN, Permitted: 1 << unix.CAP_SYS_ADMIN}}
	say("capset", unix.Capset(&header, &data[0]))
}

// ipc reaches for what processes of the same uid share, and makes some of its own.
func ipc(t Targets, say func(string, error)) {
	_, err := unix.SysvShmGet(t.Key, 0, 0)
	say("find shared memory", err)
	_, err = unix.SysvShmAttach(t.Segment, 0, 0)
	say("attach shared memory", err)
	_, err = unix.SysvShmCtl(t.Segment, unix.IPC_RMID, nil)
	say("remove shared memory", err)
	_, err = unix.SysvShmGet(unix.IPC_PRIVATE, 4096, unix.IPC_CREAT|0o600)
	say("make shared memory", err)
	_, _, errno := unix.Syscall(unix.SYS_SEMGET, unix.IPC_PRIVATE, 1, unix.IPC_CREAT|0o600)
	say("make semaphores", asError(errno))
	_, _, errno = unix.Syscall(unix.SYS_MSGGET, unix.IPC_PRIVATE, unix.IPC_CREAT|0o600, 0)
	say("make a message queue", asError(errno))
	name := [...]byte{'h', 0}
	_, _, errno = unix.Syscall6(unix.SYS_MQ_OPEN, uintptr(unsafe.Pointer(&name[0])), unix.O_RDWR|unix.O_CREAT, 0o600, 0, 0, 0)
	say("make a message queue of POSIX", asError(errno))
	_, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	say("make a pair of sockets", err)
}

func asError(errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}
