//go:build e2e

package e2e

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/halevm/hale/api"
	hale "github.com/halevm/hale/sdk/go"
)

func TestHowProgramsEnd(t *testing.T) {
	h := newHost(t, workload)
	for _, c := range []struct {
		name   string
		cmd    []string
		code   int // -1: none
		reason string
		says   string
	}{
		{"exits", []string{"exit", "3"}, 3, "program_exited", "code 3"},
		{"missing", []string{"x"}, 127, "program_failed", "/no/such/program"},
		{"panics", []string{"panic"}, -1, "guest_panic", "Kernel panic"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := *h
			h.t = t
			r := api.CreateInstanceRequest{Name: c.name, Cmd: c.cmd}
			if c.name == "missing" {
				r.Entrypoint = []string{"/no/such/program"}
			}
			h.create(r)
			in := h.await(c.name, api.InstanceStateStopped)
			booted.Add(1)
			code := -1
			if in.ExitCode != nil {
				code = *in.ExitCode
			}
			if code != c.code || in.ExitReason != c.reason || !strings.Contains(text(in.StateError)+in.ExitMessage, c.says) {
				t.Errorf("code %d, %s, %q, %q", code, in.ExitReason, in.ExitMessage, text(in.StateError))
			}
			if c.name == "exits" {
				if out := h.logs(c.name, api.LogSourceApp); !strings.Contains(out, "exiting with 3") {
					t.Errorf("its last words are not in its log: %q", out)
				}
			}
		})
	}
}

func TestWritesSurviveStopAndStart(t *testing.T) {
	h := newHost(t, workload)
	in := h.create(api.CreateInstanceRequest{
		Name: "keep", Cmd: []string{"sleep"}, Env: map[string]string{"GREETING": "hello"}, OverlaySize: "1GB",
		Network: &api.InstanceNetworkRequest{Ports: []api.PortMapping{{GuestPort: 80}}},
	})
	h.await("keep", api.InstanceStateRunning)
	h.run("keep", "/workload", "write", "/data", "kept")
	if st, err := h.StatPath(t.Context(), "keep", "/data", true); err != nil || !st.IsFile || st.Size != 4 {
		t.Errorf("stat: %+v, %v", st, err)
	}
	if _, err := h.StopInstance(t.Context(), "keep"); err != nil {
		t.Fatal(err)
	}
	if _, err := h.StartInstance(t.Context(), "keep", api.StartInstanceRequest{}); err != nil {
		t.Fatal(err)
	}
	again := h.await("keep", api.InstanceStateRunning)
	if out := h.run("keep", "/workload", "read", "/data"); out != "kept" {
		t.Errorf("after stop and start: %q", out)
	}
	if *again.Network.IP != *in.Network.IP || *again.Network.MAC != *in.Network.MAC {
		t.Errorf("its address was %s, and is %s", *in.Network.IP, *again.Network.IP)
	}
	env := h.run("keep", "/workload", "env")
	for _, want := range []string{"GREETING=hello", "HOST_IS=keep", "PWD_IS=/"} {
		if !strings.Contains(env, want) {
			t.Errorf("%s is not in %q", want, env)
		}
	}
	// What it may not reach it does not, and a program that tries is told at once.
	if out, code := h.exec("keep", "/workload", "dial", "10.1.2.3:80"); code == 0 || strings.Contains(out, "timeout") {
		t.Errorf("dialling out: code %d, %q", code, out)
	}
}

func TestExec(t *testing.T) {
	h := newHost(t, workload)
	h.create(api.CreateInstanceRequest{Name: "box", Cmd: []string{"sleep"}})
	h.await("box", api.InstanceStateRunning)

	if out, code := h.exec("box", "/workload", "exit", "7"); code != 7 || out != "exiting with 7" {
		t.Errorf("code %d, %q", code, out)
	}
	if out, code := h.exec("box", "/nothing"); code != 127 {
		t.Errorf("a program that is not there: code %d, %q", code, out)
	}

	e, err := h.Exec(t.Context(), "box", api.ExecRequest{Command: []string{"/workload", "cat"}})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	sent := bytes.Repeat([]byte("0123456789abcdef"), 64<<10) // a megabyte, there and back
	go func() {
		e.Write(sent)
		e.CloseWrite()
	}()
	var got bytes.Buffer
	if exit, err := e.Copy(&got, &got); err != nil || exit.Code != 0 || !bytes.Equal(got.Bytes(), sent) {
		t.Errorf("cat gave back %d of %d bytes, %+v, %v", got.Len(), len(sent), exit, err)
	}

	// A timeout ends the command and everything that it started, sessions of their own included.
	e2, err := h.Exec(t.Context(), "box", api.ExecRequest{Command: []string{"/workload", "linger"}, Timeout: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer e2.Close()
	if exit, err := e2.Copy(&got, &got); err != nil || exit.Code != 124 || !exit.TimedOut {
		t.Errorf("after its timeout: %+v, %v", exit, err)
	}
	tty, err := h.Exec(t.Context(), "box", api.ExecRequest{Command: []string{"/workload", "print", "on a terminal"}, TTY: true, Rows: 24, Cols: 80})
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	got.Reset()
	if exit, err := tty.Copy(&got, &got); err != nil || exit.Code != 0 || got.String() != "on a terminal\r\n" {
		t.Errorf("with a terminal: %q, %+v, %v", got.String(), exit, err)
	}
}

// A command that is asked for right after the create runs as soon as the guest can run one.
func TestExecWaitsForTheBoot(t *testing.T) {
	h := newHost(t, workload)
	h.create(api.CreateInstanceRequest{Name: "soon", Cmd: []string{"sleep"}})
	if out, said, err := h.hale("exec", "--wait", bootPatience.String(), "soon", "/workload", "print", "well"); err != nil || out != "well\n" {
		t.Errorf("%q, %q, %v", out, said, err)
	}
	booted.Add(1)
}

func TestFourMachinesAtOnce(t *testing.T) {
	h := newHost(t, workload)
	names := []string{"one", "two", "three", "four"}
	for _, name := range names {
		h.create(api.CreateInstanceRequest{Name: name, HealthCheck: check(`{"http":{"port":80}}`)})
	}
	var wg sync.WaitGroup
	for _, name := range names {
		wg.Go(func() {
			w, err := h.WaitInstance(t.Context(), name, hale.Wait{Health: api.HealthStateHealthy, Timeout: 2 * bootPatience})
			if err != nil || w.HealthStatus == nil || w.HealthStatus.Status != api.HealthStateHealthy {
				t.Errorf("%s: %+v, %v", name, w, err)
				return
			}
			booted.Add(1)
		})
	}
	wg.Wait()
}

// Killing QEMU or a shim is told within a second, and touches nobody else. Three are let run in turn until it is told, as soon as the host lets them:
// the one that ends, who waits for its end, and who is told.
func TestKilledFromOutside(t *testing.T) {
	h := newHost(t, workload)
	for _, name := range []string{"qemu", "shim", "bystander"} {
		h.create(api.CreateInstanceRequest{Name: name, Cmd: []string{"sleep"}})
	}
	ids := map[string]string{}
	for _, name := range []string{"qemu", "shim", "bystander"} {
		ids[name] = h.await(name, api.InstanceStateRunning).ID
	}
	told := func(name string, victim int, reason string, gone ...int) {
		t.Helper()
		late := lateness()
		killed := time.Now()
		if err := syscall.Kill(victim, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		in := h.await(name, api.InstanceStateStopped)
		_, worst := late()
		if took := in.StoppedAt.Sub(killed); took > time.Second+3*worst {
			t.Errorf("%s: it took %v to be told, and the host keeps a ticker waiting %v", name, took, worst)
		}
		if in.ExitReason != reason || text(in.StateError) == "" {
			t.Errorf("%s: %s, %q", name, in.ExitReason, text(in.StateError))
		}
		for _, pid := range gone {
			eventually(t, name+"'s processes are gone", func() bool { return !alive(pid) })
		}
	}
	q, s := h.qemuOf(ids["qemu"]), h.shimOf(ids["qemu"])
	told("qemu", q, "vmm_killed", q, s)
	q, s = h.qemuOf(ids["shim"]), h.shimOf(ids["shim"])
	told("shim", s, "shim_died", q, s)
	if out := h.run("bystander", "/workload", "print", "well"); out != "well" {
		t.Errorf("the bystander says %q", out)
	}
}

// A program that does not end when it is asked to is killed after its grace.
func TestStopIsBounded(t *testing.T) {
	h := newHost(t, workload)
	h.create(api.CreateInstanceRequest{Name: "deaf", Cmd: []string{"deaf"}})
	h.await("deaf", api.InstanceStateRunning)
	begun := time.Now()
	in, err := h.StopInstance(t.Context(), "deaf")
	if err != nil {
		t.Fatal(err)
	}
	if in.State != api.InstanceStateStopped || time.Since(begun) > 40*time.Second {
		t.Errorf("after %v it is %s", time.Since(begun), in.State)
	}
}

// Twenty boots in a row leave nothing behind.
func TestTwentyBoots(t *testing.T) { newHost(t, workload).boots(20) }

// bootsCrew is by how many more goroutines may wait for the next probe after later boots than after the first: of one instance's loop, its
// probe, the end of that and the writing of its record, one is always there, and all may be at a time.
const bootsCrew = 3

// boots makes a machine, waits for its health and deletes it, so often, and looks for what is left each time.
func (h *host) boots(n int) {
	t := h.t
	var files []string
	var goroutines int
	var took []time.Duration
	for i := range n {
		begun := time.Now()
		in := h.create(api.CreateInstanceRequest{Name: "boot", HealthCheck: check(`{"http":{"port":80}}`)})
		h.awaitHealth("boot", api.HealthStateHealthy)
		booted.Add(1)
		took = append(took, time.Since(begun))
		if err := h.DeleteInstance(t.Context(), in.ID, true); err != nil {
			t.Fatalf("boot %d: %v", i, err)
		}
		if _, err := h.Instance(t.Context(), in.ID); !errors.Is(err, api.NotFound) {
			t.Fatalf("boot %d: after its deletion: %v", i, err)
		}
		if left, _ := os.ReadDir(filepath.Join(h.dir, "instances")); len(left) > 0 {
			t.Fatalf("boot %d: %s is left", i, left[0].Name())
		}
		if p := processesOf(h.dir); len(p) > 0 {
			t.Fatalf("boot %d: left running: %s", i, p)
		}
		if i == 0 {
			files, goroutines = h.descriptors(), h.goroutines()
		}
	}
	slices.Sort(took)
	t.Logf("%d boots to healthy: median %v, at most %v; the daemon has %.1f MB of its own", n, took[n/2].Round(time.Millisecond), took[n-1].Round(time.Millisecond),
		float64(privateMemory(t, h.daemon.Process.Pid))/1e6)
	defer func() {
		if t.Failed() {
			t.Logf("%d goroutines, and %d after the first boot; descriptors\n\t%q\nand after the first boot\n\t%q", h.goroutines(), goroutines, h.descriptors(), files)
		}
	}()
	eventually(t, "as many descriptors as after the first boot", func() bool { return len(h.descriptors()) <= len(files) })
	eventually(t, "as many goroutines as after the first boot", func() bool { return h.goroutines() <= goroutines+bootsCrew })
	h.noLeftovers()
}

// noLeftovers asks hale doctor.
func (h *host) noLeftovers() {
	h.t.Helper()
	if out, err := exec.Command(binary, "doctor", "--leaks", "--data-dir", h.dir).CombinedOutput(); err != nil {
		h.t.Errorf("hale doctor --leaks: %v\n%s", err, out)
	}
}

// An ordinary user, whose home nobody else may enter, needs nothing of root's.
func TestAsAnOrdinaryUser(t *testing.T) {
	h := newOrdinaryHost(t)
	h.load(workload)
	in := h.create(api.CreateInstanceRequest{Name: "mine", HealthCheck: check(`{"http":{"port":80}}`)})
	h.awaitHealth("mine", api.HealthStateHealthy)
	booted.Add(1)
	h.checkSandbox(in.ID, h.uid)
}

const nobody = 65534

// newOrdinaryHost starts a daemon of an ordinary user.
func newOrdinaryHost(t *testing.T, env ...string) *host {
	t.Helper()
	if uid := os.Getuid(); uid != 0 {
		h := newHost(t) // every test here runs as an ordinary user already
		h.uid = uid
		return h
	}
	home, err := os.MkdirTemp("/tmp", "hale-home-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(home) })
	if err := errors.Join(os.Chown(home, nobody, nobody), os.Chmod(home, 0o700)); err != nil {
		t.Fatal(err)
	}
	// What the user's own `hale setup` would have fetched, and a binary that is theirs to run.
	copyTree(t, kernels, filepath.Join(home, "data/kernels"))
	if out, err := exec.Command("cp", binary, filepath.Join(home, "hale")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if out, err := exec.Command("chown", "-R", "65534:65534", home).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	h := &host{t: t, dir: filepath.Join(home, "data"), uid: nobody}
	mine := binary
	binary = filepath.Join(home, "hale")
	t.Cleanup(func() { binary = mine })
	h.start(&syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}, append(env, "HOME="+home)...)
	t.Cleanup(h.end)
	return h
}
