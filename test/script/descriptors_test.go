package script

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// What whoever started the daemon left open goes to none of its children, and so to no machine.
func TestForgottenDescriptors(t *testing.T) {
	dir := t.TempDir()
	forgotten, other, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer forgotten.Close()
	defer other.Close()
	config := filepath.Join(dir, "hale.yaml")
	if err := os.WriteFile(config, []byte("driver: fake\nlisten: 127.0.0.1:0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(bin, "hale"), "serve")
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "HALE_DATA_DIR=" + filepath.Join(dir, "data"), "HALE_CONFIG=" + config}
	cmd.ExtraFiles = []*os.File{forgotten}
	var log strings.Builder
	cmd.Stderr = &log
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err == nil {
		closedOnExec(t, cmd.Process.Pid, 3)
	}
	cmd.Process.Signal(syscall.SIGTERM)
	if werr := cmd.Wait(); err != nil || werr != nil {
		t.Errorf("the daemon says %q, %v, and ends with %v\n%s", line, err, werr, log.String())
	}
}

// closedOnExec wants the process's descriptor fd to be a pipe that an exec closes.
func closedOnExec(t *testing.T, pid, fd int) {
	t.Helper()
	to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, fd))
	if err != nil || !strings.HasPrefix(to, "pipe:") {
		t.Errorf("descriptor %d is %q, %v", fd, to, err)
	}
	info, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%d", pid, fd))
	_, after, _ := strings.Cut(string(info), "flags:")
	var flags int
	if _, serr := fmt.Sscanf(after, "%o", &flags); err != nil || serr != nil || flags&syscall.O_CLOEXEC == 0 {
		t.Errorf("descriptor %d goes on to children: flags %#o, %v, %v", fd, flags, err, serr)
	}
}
