//go:build e2e

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/sandbox"
	"github.com/halevm/hale/internal/shim/protocol"
)

// status is a field of /proc/PID/status.
func status(t *testing.T, pid int, field string) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, field+":"); ok {
			return strings.Join(strings.Fields(v), " ")
		}
	}
	t.Fatalf("/proc/%d/status has no %s", pid, field)
	return ""
}

func namespaceOf(t *testing.T, pid int, kind string) string {
	t.Helper()
	to, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, kind))
	if err != nil {
		t.Fatal(err)
	}
	return to
}

// checkSandbox looks at an instance's shim and hypervisor from outside; uid is who they are to be.
func (h *host) checkSandbox(id string, uid int) {
	t := h.t
	t.Helper()
	shim, qemu, daemon := h.shimOf(id), h.qemuOf(id), h.daemon.Process.Pid
	for name, pid := range map[string]int{"shim": shim, "qemu": qemu} {
		want := map[string]string{
			"Uid": strings.TrimSuffix(strings.Repeat(itoa(uid)+" ", 4), " "), "NoNewPrivs": "1",
			"CapInh": "0000000000000000", "CapPrm": "0000000000000000", "CapEff": "0000000000000000", "CapAmb": "0000000000000000",
		}
		if name == "qemu" {
			want["Seccomp"] = "2"
		}
		if os.Getuid() == 0 && h.uid == 0 {
			want["Gid"] = want["Uid"]
			want["Groups"] = "" // under emulation
		}
		for field, w := range want {
			if got := status(t, pid, field); got != w {
				t.Errorf("%s: %s is %q, not %q", name, field, got, w)
			}
		}
		// Every thread, for most of this belongs to threads.
		tasks, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		for _, task := range tasks {
			tid, _ := strconv.Atoi(task.Name())
			for _, field := range []string{"CapEff", "CapPrm", "NoNewPrivs", "Uid"} {
				if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/status", pid, tid)); err == nil && !regexp.MustCompile(field+`:\s+`+strings.ReplaceAll(want[field], " ", `\s+`)).Match(b) {
					t.Errorf("%s: of thread %d, %s is not %s:\n%s", name, tid, field, want[field], b)
				}
			}
		}
		if namespaceOf(t, pid, "user") == namespaceOf(t, daemon, "user") {
			t.Errorf("%s is in the daemon's user namespace", name)
		}
	}
	if namespaceOf(t, shim, "net") != namespaceOf(t, daemon, "net") {
		t.Error("the shim is not in the host's network")
	}
	for _, kind := range []string{"net", "ipc"} {
		if namespaceOf(t, qemu, kind) == namespaceOf(t, daemon, kind) {
			t.Errorf("QEMU is in the host's %s namespace", kind)
		}
	}
	h.checkNetwork(qemu)
	h.checkDescriptors(id, qemu)
	// The shim is not dumpable: what of it in /proc tells secrets is root's.
	if st, err := os.Stat(fmt.Sprintf("/proc/%d/environ", shim)); err != nil || st.Sys().(*syscall.Stat_t).Uid != 0 {
		t.Errorf("the shim's /proc belongs to %+v, %v", st, err)
	}
}

// checkNetwork wants nothing but a loopback device, without an address.
func (h *host) checkNetwork(pid int) {
	h.t.Helper()
	dev, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", pid))
	if err != nil {
		h.t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(dev)), "\n")
	if len(lines) != 3 || !strings.HasPrefix(strings.TrimSpace(lines[2]), "lo:") || strings.Trim(lines[2], " lo:0") != "" {
		h.t.Errorf("QEMU's network has\n%s", dev)
	}
	for _, name := range []string{"fib_trie", "if_inet6"} {
		if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, name)); err == nil && len(b) > 0 {
			h.t.Errorf("QEMU's network is up, by %s:\n%s", name, b)
		}
	}
}

// checkDescriptors compares what QEMU has open with what it is to have: what it inherited, by number, and beyond that only what
// it makes itself.
func (h *host) checkDescriptors(id string, qemu int) {
	h.t.Helper()
	inherited := map[int]string{
		0: "/dev/null", 1: "/dev/null", 2: "pipe", // what it says goes to its shim
		3: "socket", 4: "socket", 5: "socket", 6: "socket", 7: "socket", 8: "socket", // network, control, bulk, output, console, monitor
		11: "vmlinux r", 12: "initrd r", // and 9 and 10 are the disks, of which it makes copies
	}
	itsOwn := []string{
		"/images/disks/DIGEST.ext4 r", "/instances/ID/vm/rw.ext4 rw", "/dev/urandom r",
		"anon_inode:[eventfd]", "anon_inode:[eventpoll]", "anon_inode:[signalfd]",
		"/dev/kvm rw", "anon_inode:kvm-vm", "anon_inode:kvm-vcpu:0", "anon_inode:kvm-vcpu:1",
	}
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", qemu))
	if err != nil {
		h.t.Fatal(err)
	}
	found := map[int]string{}
	for _, e := range entries {
		n, _ := strconv.Atoi(e.Name())
		if what := h.descriptor(id, qemu, n); what != "" { // else it went meanwhile
			found[n] = what
		}
	}
	for n, want := range inherited {
		if found[n] != want {
			h.t.Errorf("QEMU's descriptor %d is %q, not %q", n, found[n], want)
		}
		delete(found, n)
	}
	for _, disk := range itsOwn[:2] {
		if !slices.Contains(slices.Collect(maps.Values(found)), disk) {
			h.t.Errorf("QEMU has no %s", disk)
		}
	}
	for n, what := range found {
		if !slices.Contains(itsOwn, what) {
			h.t.Errorf("QEMU has a descriptor %d: %s", n, what)
		}
	}
}

// descriptor says what a descriptor leads to, and for a file how it is open.
func (h *host) descriptor(id string, pid, n int) string {
	h.t.Helper()
	to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, n))
	if err != nil {
		return ""
	}
	if inode, ok := strings.CutPrefix(to, "socket:"); ok {
		unixes, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/unix", h.shimOf(id)))
		if err != nil {
			h.t.Fatal(err)
		}
		// A pair has no name behind its inode.
		if !regexp.MustCompile(`(?m) ` + strings.Trim(inode, "[]") + `$`).Match(unixes) {
			return "a socket that is no end of a pair"
		}
		return "socket"
	}
	if strings.HasPrefix(to, "pipe:") {
		return "pipe"
	}
	if !strings.HasPrefix(to, "/") {
		return to
	}
	info, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%d", pid, n))
	if err != nil {
		return ""
	}
	var flags int
	if _, after, ok := strings.Cut(string(info), "flags:"); ok {
		fmt.Sscanf(after, "%o", &flags)
	}
	how := map[int]string{os.O_RDONLY: " r", os.O_WRONLY: " w", os.O_RDWR: " rw"}[flags&syscall.O_ACCMODE]
	switch {
	case to == os.DevNull:
		return to
	case filepath.Base(to) == "vmlinux":
		return "vmlinux" + how
	case strings.HasPrefix(filepath.Base(to), "initrd-"):
		return "initrd" + how
	}
	to = strings.ReplaceAll(strings.TrimPrefix(to, h.dir), id, "ID")
	return regexp.MustCompile(`[0-9a-f]{64}`).ReplaceAllString(to, "DIGEST") + how
}

// As root, a machine has a uid of its own; its directory belongs to that, and nothing else does.
func TestSandboxAsRoot(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: TestAsAnOrdinaryUser is for the rest")
	}
	h := newHost(t, workload)
	uids := map[string]int{}
	for _, name := range []string{"one", "two"} {
		h.create(api.CreateInstanceRequest{Name: name, HealthCheck: check(`{"http":{"port":80}}`)})
	}
	for _, name := range []string{"one", "two"} {
		h.awaitHealth(name, api.HealthStateHealthy)
		booted.Add(1)
		id := h.find(name).ID
		uid := h.ownerOf(id)
		if !sandbox.DefaultRange.Contains(uint32(uid)) {
			t.Errorf("uid %d is not of %v", uid, sandbox.DefaultRange)
		}
		uids[name] = uid
		h.checkSandbox(id, uid)
		vm := filepath.Join(h.dir, "instances", id, "vm")
		for path, want := range map[string]int{
			vm: 0, vm + "/run": uid, vm + "/log": uid, vm + "/log/app.log": uid, vm + "/run/shim.sock": uid,
			vm + "/rw.ext4": 0, vm + "/..": 0, vm + "/../shim.json": 0, vm + "/../owner.json": 0, vm + "/../instance.json": 0,
		} {
			st, err := os.Lstat(path)
			if err != nil {
				t.Fatal(err)
			}
			mine := st.Sys().(*syscall.Stat_t)
			if path == vm { // the daemon's, for the machine to look into
				if mine.Uid != 0 || int(mine.Gid) != uid || st.Mode().Perm() != 0o750 {
					t.Errorf("%s: uid %d, gid %d, mode %v", path, mine.Uid, mine.Gid, st.Mode())
				}
			} else if got := int(mine.Uid); got != want || st.Mode().Perm()&0o077 != 0 {
				t.Errorf("%s: uid %d, mode %v, not %d and nobody else's", path, got, st.Mode(), want)
			}
		}
	}
	one := h.find("one").ID
	h.checkRefused(one, uids["one"])
	h.checkRefused(one, uids["two"])
	if uids["one"] == uids["two"] {
		t.Errorf("two machines have uid %d", uids["one"])
	}
	// The uid stays the instance's, and its logs readable.
	if _, err := h.StopInstance(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	if _, err := h.StartInstance(t.Context(), "one", api.StartInstanceRequest{}); err != nil {
		t.Fatal(err)
	}
	h.awaitHealth("one", api.HealthStateHealthy)
	booted.Add(1)
	if uid := h.ownerOf(h.find("one").ID); uid != uids["one"] {
		t.Errorf("at its second start it has uid %d, not %d", uid, uids["one"])
	}
	h.checkSandbox(h.find("one").ID, uids["one"])
}

// checkRefused speaks to a shim as uid would, if it could make a socket and reach the shim's, and with the right secret: it is
// not the daemon's uid.
func (h *host) checkRefused(id string, uid int) {
	t := h.t
	t.Helper()
	var record struct{ Secret string }
	b, err := os.ReadFile(filepath.Join(h.dir, "instances", id, "shim.json"))
	if err == nil {
		err = json.Unmarshal(b, &record)
	}
	run, openErr := os.Open(filepath.Join(h.dir, "instances", id, "vm/run"))
	if err := errors.Join(err, openErr); err != nil {
		t.Fatal(err)
	}
	defer run.Close()
	answer := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread that is somebody else ends with this goroutine
		answer <- func() error {
			// Of this thread only. The socket's directory is its machine's alone, so for another's that is where it ends.
			if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); errno != 0 {
				return errno
			}
			fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			f := os.NewFile(uintptr(fd), "socket")
			defer f.Close()
			if err := syscall.Connect(fd, &syscall.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d/shim.sock", run.Fd())}); err != nil {
				return err
			}
			hello := protocol.Hello{MinVersion: protocol.MinVersion, MaxVersion: protocol.MaxVersion, Secret: record.Secret, Role: protocol.RoleControl}
			if err := protocol.WriteJSON(f, protocol.KindHello, hello); err != nil {
				return err
			}
			var w protocol.Welcome
			if err := protocol.Expect(f, protocol.KindWelcome, &w); err != nil {
				return err
			}
			if w.Error == nil {
				return nil
			}
			return w.Error
		}()
	}()
	err = <-answer
	// The kernel closed this process's /proc when one of its threads became somebody else.
	if _, _, errno := syscall.RawSyscall6(syscall.SYS_PRCTL, syscall.PR_SET_DUMPABLE, 1, 0, 0, 0, 0); errno != 0 {
		t.Error(errno)
	}
	want := "is not served"
	if uid != h.ownerOf(id) {
		want = "permission denied"
	}
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("uid %d is answered %v, not that it %s", uid, err, want)
	}
}

func (h *host) find(name string) api.Instance {
	h.t.Helper()
	in, err := h.Instance(h.t.Context(), name)
	if err != nil {
		h.t.Fatal(err)
	}
	return in
}

func (h *host) ownerOf(id string) int {
	h.t.Helper()
	var o struct{ UID int }
	b, err := os.ReadFile(filepath.Join(h.dir, "instances", id, "owner.json"))
	if err == nil {
		err = json.Unmarshal(b, &o)
	}
	if err != nil {
		h.t.Fatal(err)
	}
	return o.UID
}

// What is put in QEMU's place can do nothing of what it tries, as root's machine and as an ordinary user's.
func TestHostileHypervisor(t *testing.T) {
	t.Run("root", func(t *testing.T) {
		if os.Getuid() != 0 {
			t.Skip("needs root")
		}
		place := t.TempDir()
		h := &host{t: t, dir: filepath.Join(t.TempDir(), "data")}
		if err := errors.Join(os.MkdirAll(h.dir, 0o700), os.Symlink(kernels, filepath.Join(h.dir, "kernels"))); err != nil {
			t.Fatal(err)
		}
		h.start(nil, "PATH="+place+":"+os.Getenv("PATH"))
		t.Cleanup(h.end)
		h.attack(place)
	})
	t.Run("ordinary", func(t *testing.T) {
		place := t.TempDir()
		h := newOrdinaryHost(t, "PATH="+place+":"+os.Getenv("PATH"))
		h.attack(place)
	})
}

// targets are as in hostile/main.go.
type targets struct {
	Files, Dirs, Writable, Sockets []string
	Abstract, TCP, UDP             string
	Processes                      []int
	Segment, Key                   int
}

func (h *host) attack(place string) {
	t := h.t
	h.load(workload)
	// Directories of a test are root's alone; a program in QEMU's place is like QEMU, for everybody.
	for dir := place; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	h.create(api.CreateInstanceRequest{Name: "victim", Cmd: []string{"sleep"}})
	victim := h.await("victim", api.InstanceStateRunning)
	other := filepath.Join(h.dir, "instances", victim.ID)

	abstract, err := net.Listen("unix", "@hale-e2e-"+victim.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer abstract.Close()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	public := filepath.Join(os.TempDir(), "hale-e2e-"+victim.ID)
	if err := os.WriteFile(public, []byte("everybody's"), 0o666); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(public)
	if err := os.Chmod(public, 0o666); err != nil {
		t.Fatal(err)
	}
	x := targets{
		Files: []string{
			filepath.Join(h.dir, "token"), filepath.Join(h.dir, "hale.json"), other + "/instance.json", other + "/shim.json", other + "/vm/rw.ext4", other + "/vm/log/app.log",
			"../shim.json", "../instance.json", "log/app.log", "run/shim.stderr", "rw.ext4", "/etc/passwd", "/etc/shadow", "/etc/resolv.conf", "/proc/1/cmdline", "/proc/self/mem", "/proc/cpuinfo", public,
		},
		Dirs:     []string{h.dir, other, "..", ".", "log", "/", "/etc", "/proc", "/sys", "/root", "/home", "/tmp", "/dev"},
		Writable: []string{"log/app.log", "run/shim.sock", "rw.ext4", other + "/vm/log/app.log", public, filepath.Join(h.dir, "token")},
		Sockets:  []string{"run/shim.sock", other + "/vm/run/shim.sock"},
		Abstract: "hale-e2e-" + victim.ID, TCP: tcp.Addr().String(), UDP: "127.0.0.1:53",
		Processes: []int{h.shimOf(victim.ID), h.qemuOf(victim.ID), h.daemon.Process.Pid, os.Getpid()},
	}
	x.Key = 0x68000000 | os.Getpid()
	if x.Segment, err = unix.SysvShmGet(x.Key, 4096, unix.IPC_CREAT|unix.IPC_EXCL|0o666); err != nil {
		t.Fatal(err)
	}
	defer unix.SysvShmCtl(x.Segment, unix.IPC_RMID, nil)
	b, err := json.Marshal(x)
	if err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w -X 'main.targets="+string(b)+"'", "-o", filepath.Join(place, "qemu-system-x86_64"), "./hostile")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	in := h.create(api.CreateInstanceRequest{Name: "hostile"})
	var report string
	eventually(t, "the hostile program has tried everything", func() bool {
		b, err := os.ReadFile(filepath.Join(h.dir, "instances", in.ID, "vm/log/vmm.log"))
		report = string(b)
		return err == nil && strings.Contains(report, "hostile: end")
	})
	tried := 0
	for line := range strings.Lines(report) {
		if !strings.HasPrefix(line, "hostile: ") {
			continue
		}
		tried++
		if !strings.Contains(line, "refused: ") && line != "hostile: end\n" {
			t.Errorf("it can: %s", line)
		}
	}
	t.Logf("%d attempts", tried-1)
	if tried < 100 {
		t.Errorf("only %d attempts:\n%s", tried, report)
	}
	if out := h.run("victim", "/workload", "print", "well"); out != "well" {
		t.Errorf("the victim says %q", out)
	}
	if s := status(t, h.qemuOf(in.ID), "Seccomp"); s != "2" {
		t.Errorf("without QEMU's own filter, Seccomp is %s", s)
	}
}

// What a shim could leave in its directory leads neither the daemon nor the next shim anywhere.
func TestPlantedLinks(t *testing.T) {
	h := newHost(t, workload)
	h.create(api.CreateInstanceRequest{Name: "planted", Cmd: []string{"sleep"}})
	in := h.await("planted", api.InstanceStateRunning)
	vm := filepath.Join(h.dir, "instances", in.ID, "vm")
	secret := filepath.Join(t.TempDir(), "secret")
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	if err := errors.Join(os.WriteFile(secret, []byte("a secret line\n"), 0o600), os.Mkdir(elsewhere, 0o700),
		os.WriteFile(filepath.Join(elsewhere, "app.log"), []byte("a secret line\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	unchanged := func(when string) {
		t.Helper()
		for _, path := range []string{secret, filepath.Join(elsewhere, "app.log")} {
			b, err := os.ReadFile(path)
			st, staterr := os.Stat(path)
			if err != nil || staterr != nil || string(b) != "a secret line\n" || int(st.Sys().(*syscall.Stat_t).Uid) != os.Getuid() {
				t.Errorf("%s: %s holds %q, %v, %v", when, path, b, st, errors.Join(err, staterr))
			}
		}
		if names, err := os.ReadDir(elsewhere); err != nil || len(names) != 1 {
			t.Errorf("%s: %s holds %v, %v", when, elsewhere, names, err)
		}
		if out := h.logs("planted", api.LogSourceApp); strings.Contains(out, "secret") {
			t.Errorf("%s: the daemon followed: %q", when, out)
		}
	}
	for _, c := range []struct {
		name  string
		plant func() error
	}{
		{"logs that lead elsewhere", func() error {
			return errors.Join(os.Symlink(secret, vm+"/log/app.log"), os.Remove(vm+"/log/vmm.log"), os.Link(secret, vm+"/log/vmm.log"))
		}},
		{"a directory that leads elsewhere", func() error {
			return errors.Join(os.RemoveAll(vm+"/log"), os.Symlink(elsewhere, vm+"/log"), os.MkdirAll(vm+"/run/a/b/c", 0o700))
		}},
		{"another, and a fifo", func() error {
			return errors.Join(os.RemoveAll(vm+"/run"), os.Symlink(elsewhere, vm+"/run"), syscall.Mkfifo(vm+"/log/app.log", 0o666))
		}},
	} {
		if _, err := h.StopInstance(t.Context(), "planted"); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(vm + "/log/app.log"); err != nil {
			t.Fatal(err)
		}
		if err := c.plant(); err != nil {
			t.Fatal(err)
		}
		unchanged(c.name + ", while it is stopped")
		if _, err := h.StartInstance(t.Context(), "planted", api.StartInstanceRequest{}); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		h.await("planted", api.InstanceStateRunning)
		unchanged(c.name + ", when it runs again")
	}
	// Another file system in the layer's place.
	if _, err := h.StopInstance(t.Context(), "planted"); err != nil {
		t.Fatal(err)
	}
	layer := vm + "/rw.ext4"
	if err := os.Rename(layer, layer+".was"); err != nil {
		t.Fatal(err)
	}
	mkfs := exec.Command("/usr/sbin/mke2fs", "-q", "-F", "-t", "ext4", "-E", "lazy_itable_init=1,lazy_journal_init=1", layer, "40G")
	if out, err := mkfs.CombinedOutput(); err != nil {
		t.Fatalf("mke2fs: %v: %s", err, out)
	}
	refused := func(why string) {
		t.Helper()
		_, err := h.StartInstance(t.Context(), "planted", api.StartInstanceRequest{})
		if !errors.Is(err, api.Conflict) || !strings.Contains(err.Error(), why) {
			t.Errorf("another layer: %v; want a conflict that says %q", err, why)
		}
	}
	refused("it has been changed from outside")
	if err := os.Rename(layer+".was", layer); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() == 0 {
		const other = 0x7a000001
		if err := os.Chown(layer, other, other); err != nil {
			t.Fatal(err)
		}
		refused("belongs to uid " + itoa(other))
		if err := os.Chown(layer, 0, 0); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := h.StartInstance(t.Context(), "planted", api.StartInstanceRequest{}); err != nil {
		t.Fatalf("its own layer again: %v", err)
	}
	h.await("planted", api.InstanceStateRunning)
	// And while it runs: what the daemon reads then.
	started := time.Now()
	if err := errors.Join(os.Rename(vm+"/log", vm+"/was"), os.Symlink(elsewhere, vm+"/log")); err != nil {
		t.Fatal(err)
	}
	unchanged("the logs' directory, while it runs")
	if took := time.Since(started); took > 30*time.Second { // who opens a fifo, or follows, waits for ever
		t.Errorf("it took %v", took)
	}
}

// A host without user namespaces runs machines in what is left of the sandbox, says so once, and refuses them where all of it
// is required. The namespace of this test is such a host.
func TestWithoutNamespaces(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to begin as another")
	}
	h := newOrdinaryHost(t)
	h.load(workload)
	h.stop()
	// Only ever in a namespace that is not the host's own: there the number holds for everyone.
	h.wrap = []string{"sh", "-c", `grep -q 4294967295 /proc/self/uid_map && exit 9; echo 0 > /proc/sys/user/max_user_namespaces || exit 8; exec "$@"`, "sh"}
	// So that it may say so, the daemon has a capability; its shims must not.
	const capSysResource = 24
	attr := func() *syscall.SysProcAttr {
		ids := []syscall.SysProcIDMap{{ContainerID: nobody, HostID: nobody, Size: 1}}
		return &syscall.SysProcAttr{
			Cloneflags: syscall.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids, AmbientCaps: []uintptr{capSysResource},
			Credential: &syscall.Credential{Uid: nobody, Gid: nobody, NoSetGroups: true},
		}
	}
	home := "HOME=" + filepath.Dir(h.dir)
	h.start(attr(), home)
	in := h.create(api.CreateInstanceRequest{Name: "less", HealthCheck: check(`{"http":{"port":80}}`)})
	h.awaitHealth("less", api.HealthStateHealthy)
	booted.Add(1)
	for name, pid := range map[string]int{"shim": h.shimOf(in.ID), "qemu": h.qemuOf(in.ID)} {
		for field, want := range map[string]string{"CapEff": "0000000000000000", "CapPrm": "0000000000000000", "CapAmb": "0000000000000000", "NoNewPrivs": "1"} {
			if got := status(t, pid, field); got != want {
				t.Errorf("%s: %s is %s, not %s", name, field, got, want)
			}
		}
	}
	if n := strings.Count(h.log.String(), "less than the whole sandbox"); n != 1 || !strings.Contains(h.log.String(), "namespaces: ") {
		t.Errorf("the daemon says %d times what it lacks:\n%s", n, h.log)
	}
	if err := h.DeleteInstance(t.Context(), in.ID, true); err != nil {
		t.Fatal(err)
	}
	h.stop()

	// The limit is lowered while the daemon runs: its next machine runs all the same.
	without := h.wrap
	fifo := filepath.Join(filepath.Dir(h.dir), "lower")
	if err := errors.Join(syscall.Mkfifo(fifo, 0o600), os.Chown(fifo, nobody, nobody)); err != nil {
		t.Fatal(err)
	}
	h.wrap = []string{"sh", "-c", `grep -q 4294967295 /proc/self/uid_map && exit 9
		(read x < ` + fifo + `; echo 0 > /proc/sys/user/max_user_namespaces && echo lowered > ` + fifo + `) > /dev/null 2>&1 &
		exec "$@"`, "sh"}
	h.start(attr(), home)
	if err := os.WriteFile(fifo, []byte("now\n"), 0); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(fifo); err != nil || string(b) != "lowered\n" {
		t.Fatalf("%q, %v", b, err)
	}
	in = h.create(api.CreateInstanceRequest{Name: "later", HealthCheck: check(`{"http":{"port":80}}`)})
	h.awaitHealth("later", api.HealthStateHealthy)
	booted.Add(1)
	if log := h.log.String(); strings.Contains(log, "less than the whole sandbox") || !strings.Contains(log, "no namespaces can be made") {
		t.Errorf("the daemon's log:\n%s", log)
	}
	if err := h.DeleteInstance(t.Context(), in.ID, true); err != nil {
		t.Fatal(err)
	}
	h.stop()

	h.wrap = without
	h.start(attr(), home, "HALE_SANDBOX=require")
	_, err := h.CreateInstance(t.Context(), api.CreateInstanceRequest{Name: "none", Image: workload, Size: "256MB"})
	if !errors.Is(err, api.Unavailable) || !strings.Contains(err.Error(), "namespaces") {
		t.Errorf("where the whole sandbox is required: %v", err)
	}
	if list, err := os.ReadDir(filepath.Join(h.dir, "instances")); err != nil || len(list) != 0 {
		t.Errorf("the refused one left %v, %v", list, err)
	}
}

// Root's machines run as root where no other uid can: here because the binary is root's alone. They have none of its
// capabilities then, and Landlock and the filter hold.
func TestWithoutUIDs(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	mine := binary
	defer func() { binary = mine }()
	private := filepath.Join(t.TempDir(), "hale")
	if out, err := exec.Command("install", "-m", "0700", binary, private).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	binary = private
	t.Run("machine", func(t *testing.T) {
		h := newHost(t, workload)
		in := h.create(api.CreateInstanceRequest{Name: "roots", HealthCheck: check(`{"http":{"port":80}}`)})
		h.awaitHealth("roots", api.HealthStateHealthy)
		booted.Add(1)
		for name, pid := range map[string]int{"shim": h.shimOf(in.ID), "qemu": h.qemuOf(in.ID)} {
			for field, want := range map[string]string{"CapEff": "0000000000000000", "CapPrm": "0000000000000000", "NoNewPrivs": "1", "Uid": "0 0 0 0"} {
				if got := status(t, pid, field); got != want {
					t.Errorf("%s: %s is %s, not %s", name, field, got, want)
				}
			}
		}
		h.checkDescriptors(in.ID, h.qemuOf(in.ID))
		if !strings.Contains(h.log.String(), "a uid for each machine: ") {
			t.Errorf("the daemon does not say what it lacks:\n%s", h.log)
		}
	})
}

// All of the sandbox can be required here, by root and by an ordinary user.
func TestTheWholeSandboxIsThere(t *testing.T) {
	h := newOrdinaryHost(t, "HALE_SANDBOX=require")
	h.load(workload)
	h.create(api.CreateInstanceRequest{Name: "shut-in", Cmd: []string{"sleep"}})
	h.await("shut-in", api.InstanceStateRunning)
	if strings.Contains(h.log.String(), "less than the whole sandbox") {
		t.Error("the daemon's log says that something is lacking")
	}
}
