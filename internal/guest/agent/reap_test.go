package agent

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// As PID 1 the agent reaps what programs leave behind, thousands of zombies else, and steals no status of those that are waited for.
// It is put to that in a process of its own, for it would take the children of the other tests, too.
func TestOrphansAreReaped(t *testing.T) {
	const mark = "HALE_TEST_AS_INIT"
	if os.Getenv(mark) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestOrphansAreReaped$")
		cmd.Env = append(os.Environ(), mark+"=1")
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "PASS") {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	c := newChildren(true)
	go c.reapAll(t.Context())
	for range 50 {
		p, err := c.start("/bin/sh", []string{"sh", "-c", "(sleep 0.01)& (exit 3)& exit 7"}, "/", nil, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		select {
		case <-p.done:
		case <-time.After(limit):
			t.Fatal("the end of a child is told to nobody")
		}
		if code, _ := p.code(); code != 7 {
			t.Errorf("exit code %d", code)
		}
	}
	wait(t, func() bool {
		var info unix.Siginfo
		return unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOWAIT|unix.WNOHANG, nil) == unix.ECHILD // no child is left, dead or alive
	})
}
