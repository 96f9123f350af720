//go:build e2e

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/halevm/hale/api"
)

// A system is a Debian of its own, booted by systemd-nspawn, without a network but its loopback.
type system struct {
	t   *testing.T
	pid int // of its init
}

// bootSystemd boots a root file system with hale and its unit in it.
func bootSystemd(t *testing.T) *system {
	t.Helper()
	from := os.Getenv("HALE_E2E_SYSTEMD")
	root := filepath.Join(t.TempDir(), "root")
	must := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
		}
	}
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	must("tar", "-C", root, "-xpf", filepath.Join(from, "root.tar"))
	must("install", "-m", "755", binary, filepath.Join(root, "usr/local/bin/hale"))
	must("install", "-m", "644", "../../examples/systemd/hale.service", filepath.Join(root, "etc/systemd/system/hale.service"))
	must("install", "-d", "-m", "700", filepath.Join(root, "var/lib/hale"))
	copyTree(t, kernels, filepath.Join(root, "var/lib/hale/kernels"))
	must("cp", tars[workload], filepath.Join(root, "root/workload.tar"))

	args := []string{"--quiet", "--directory", root, "--boot", "--private-network", "--register=no", "--link-journal=no", "--console=pipe"}
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		args = append(args, "--keep-unit") // nobody here gives it one
	}
	// Its libraries are there, those that it shares with its systemd among them, whatever is here; and the loader that goes with them.
	lib := filepath.Join(root, "usr/lib/x86_64-linux-gnu")
	loader := []string{"--library-path", filepath.Join(lib, "systemd") + ":" + lib, filepath.Join(from, "tools/usr/bin/systemd-nspawn")}
	nspawn := exec.Command(filepath.Join(lib, "ld-linux-x86-64.so.2"), append(loader, args...)...)
	nspawn.Env = append(os.Environ(), "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1")
	var said bytes.Buffer
	nspawn.Stdout, nspawn.Stderr = &said, &said
	if err := nspawn.Start(); err != nil {
		t.Fatal(err)
	}
	b := &system{t: t}
	ended := make(chan struct{})
	go func() { nspawn.Wait(); close(ended) }()
	t.Cleanup(func() {
		if b.pid != 0 {
			syscall.Kill(b.pid, syscall.Signal(34+4)) // SIGRTMIN+4: power off
		}
		select {
		case <-ended:
		case <-time.After(2 * time.Minute):
			t.Error("it does not power off")
			nspawn.Process.Kill()
			<-ended
		}
		if t.Failed() {
			t.Logf("systemd-nspawn said:\n%s", &said)
		}
	})
	eventually(t, "it runs", func() bool {
		// Its first child is not yet the init, but makes that, and ends.
		if b.pid = childOf(nspawn.Process.Pid); b.pid == 0 {
			return false
		}
		out, _ := b.command("systemctl", "is-system-running").Output() // an error is another state
		return strings.TrimSpace(string(out)) == "running"
	})
	return b
}

func childOf(pid int) int {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	var child int
	fmt.Sscan(string(b), &child)
	return child
}

func (b *system) command(name string, args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"--target", itoa(b.pid), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--", name}, args...)...)
}

// run runs something that must succeed there, and returns what it printed.
func (b *system) run(name string, args ...string) string {
	b.t.Helper()
	var out, errs bytes.Buffer
	cmd := b.command(name, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		b.t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, &errs)
	}
	return strings.TrimSpace(out.String())
}

// health is that of the machine.
func (b *system) health() (h api.InstanceHealth) {
	b.t.Helper()
	if err := json.Unmarshal([]byte(b.run("hale", "health", "web", "--json")), &h); err != nil {
		b.t.Fatal(err)
	}
	return h
}

// With the unit of examples/systemd a restart of the service leaves the machines running and healthy, and so does a crash of the daemon.
func TestUnderSystemd(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	b := bootSystemd(t)
	b.run("systemctl", "enable", "--now", "hale") // and then it answers
	b.run("hale", "import", "/root/workload.tar")
	b.run("hale", "run", "--name", "web", "--memory", "256MB", "--health-http", ":80/", "--health-interval", "500ms", workload)
	b.run("hale", "wait", "web", "--healthy", "--timeout", bootPatience.String())
	booted.Add(1)
	shim := func() string { return b.run("sh", "-c", "cat /var/lib/hale/instances/*/shim.json") }
	machine, before := shim(), b.health()
	for _, how := range [][]string{{"systemctl", "restart", "hale"}, {"systemctl", "kill", "--kill-whom=main", "--signal=KILL", "hale"}} {
		daemon := b.run("systemctl", "show", "--property=MainPID", "hale")
		b.run(how[0], how[1:]...)
		eventually(t, "another daemon is there", func() bool {
			now := b.run("systemctl", "show", "--property=MainPID,SubState", "hale")
			return !strings.Contains(now, daemon+"\n") && strings.Contains(now, "SubState=running")
		})
		if out := b.run("hale", "exec", "web", "--", "/workload", "print", "still here"); out != "still here" {
			t.Errorf("after %q exec says %q", how, out)
		}
		b.run("hale", "wait", "web", "--healthy", "--timeout", "2m")
		after := b.health()
		if now := shim(); now != machine || !after.WindowStartedAt.Equal(*before.WindowStartedAt) || after.Status != api.HealthStateHealthy {
			t.Errorf("after %q: the shim was %s and is %s; health %+v", how, machine, now, after)
		}
		b.run("hale", "doctor", "--leaks")
	}
	b.run("hale", "rm", "-f", "web")
}
